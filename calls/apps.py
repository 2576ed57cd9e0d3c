"""The application, and what it checks before a server may take calls.

Settings that do not fit together are warnings, so that `migrate` runs anywhere. What a server must have
before it may face the world is an error of `check --deploy`; `voiceai/asgi.py` refuses to start without it.
"""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connections


class CallsConfig(AppConfig):
    name = "calls"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        register(check_settings, Tags.compatibility)
        register(check_deployment, Tags.security, deploy=True)
        atexit.register(close_pools)  # early, so that it runs behind what still writes rows


def close_pools() -> None:
    """End the threads of connection pools while they can still end: left to the interpreter's own end,
    Python 3.13 waits five seconds for each, after every command."""
    for connection in connections.all():
        if connection.alias in getattr(connection, "_connection_pools", ()):
            connection.close_pool()  # type: ignore[attr-defined]


def deployment_errors() -> list[Error]:
    """What must be set before a server may run with debug off."""
    errors: list[Error] = []
    if settings.DEBUG:
        return errors
    if not settings.SECRET_KEY_IS_SET:
        errors.append(
            Error(
                "DJANGO_SECRET_KEY is not set.",
                hint="Set it to a long random string, the same for all workers: tickets and log-ins need it.",
                id="voiceai.E001",
            )
        )
    if not settings.TWILIO_AUTH_TOKENS:
        errors.append(
            Error(
                "TWILIO_AUTH_TOKEN is not set.",
                hint="Without it nobody can tell Twilio's requests from a stranger's. It is on the console's "
                "first page. DJANGO_DEBUG=on allows unsigned requests on your own machine.",
                id="voiceai.E002",
            )
        )
    return errors


def check_deployment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    return [*deployment_errors()]


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Settings that are legal one by one and do not work together."""
    found: list[CheckMessage] = []
    if settings.VAPI_SOCKET_URL and settings.VAPI_AUDIO_FORMAT == "pcm_s16le":
        found.append(
            Warning(
                "VAPI_SOCKET_URL is set and VAPI_AUDIO_FORMAT is pcm_s16le.",
                hint="Servers of that dialect usually speak mulaw: unset VAPI_AUDIO_FORMAT if yours does.",
                id="voiceai.W001",
            )
        )
    if settings.VAPI_API_KEY and not settings.VAPI_ASSISTANT_ID and not settings.VAPI_SOCKET_URL:
        found.append(
            Warning(
                "VAPI_API_KEY is set and VAPI_ASSISTANT_ID is not.",
                hint="Set VAPI_ASSISTANT_ID, or give every phone number an assistant of its own.",
                id="voiceai.W002",
            )
        )
    if settings.TWILIO_ACCOUNT_SID and not settings.TWILIO_ACCOUNT_SID.startswith("AC"):
        found.append(
            Warning(
                "TWILIO_ACCOUNT_SID does not begin with AC.",
                hint="An API key (SK...) does not sign webhooks; the account's own sid is needed here.",
                id="voiceai.W003",
            )
        )
    if settings.VAPI_ENDPOINTING_MS < 300:
        found.append(
            Warning(
                "VAPI_ENDPOINTING_MS is under 300.",
                hint="The assistant will talk into the caller's pauses; 300 to 400 is a good range.",
                id="voiceai.W004",
            )
        )
    return found
