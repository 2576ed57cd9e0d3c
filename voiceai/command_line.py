"""Runs management commands. Wrong settings and an unusable database are reported in a line each.

`--traceback` shows where an error of the database came from, as with every error of a command.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from django.core.exceptions import ImproperlyConfigured
from django.db.utils import DatabaseError, InterfaceError

from voiceai import environment


def run(arguments: Sequence[str]) -> None:
    """Run the command that the arguments name. Exits with 1 and a line on stderr when it cannot run."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceai.settings")
    if list(arguments[1:2]) == ["doctor"]:
        environment.tolerate_problems()  # it reports them itself, with all else that it finds
    load_settings()
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(list(arguments))
    except (DatabaseError, InterfaceError) as error:
        from calls.management.database import describe_database_error

        problem = describe_database_error(error)
        if "--traceback" in arguments or not problem:
            raise
        sys.exit(problem)


def load_settings() -> None:
    """Read the settings. Exits with 1, and a line on stderr for each wrong one."""
    from django.conf import settings

    try:
        settings.INSTALLED_APPS  # noqa: B018  # settings are read when the first one is used
    except ImproperlyConfigured as error:
        sys.exit(str(error))
