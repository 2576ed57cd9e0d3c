"""The `calls` app and its system checks, which report `calls/requirements.py`.

Settings that do not work together are warnings, so that `migrate` runs anywhere. What a public server must
have is an error of `check --deploy`; `voiceai/asgi.py` refuses to start without it.
"""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.apps import apps as django_apps
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connections

from calls import requirements


class CallsConfig(AppConfig):
    name = "calls"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        django_apps.get_app_config("auth").verbose_name = "Staff"  # as the menu calls it
        register(check_settings, Tags.compatibility)
        register(check_deployment, Tags.security, deploy=True)
        # Handlers run last in, first out: registered here, it runs after those that still write rows.
        atexit.register(close_pools)


def close_pools() -> None:
    """Close the connection pools, and with them their threads.

    Left to the interpreter's shutdown, Python 3.13 waits five seconds for each thread, after every command.
    """
    for connection in connections.all():
        if connection.alias in getattr(connection, "_connection_pools", ()):
            connection.close_pool()  # type: ignore[attr-defined]


def check_deployment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """What must be set before a server may run with debug off (`check --deploy`)."""
    return [
        Error(requirement.problem, hint=requirement.fix, id=requirement.check_id)
        for requirement in requirements.find_start_blockers()
    ]


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Settings that are valid, and probably wrong."""
    return [
        Warning(requirement.problem, hint=requirement.fix, id=requirement.check_id)
        for requirement in requirements.find_unmet()
        if requirement.check_id and not requirement.blocks_start and requirement.check_applies()
    ]
