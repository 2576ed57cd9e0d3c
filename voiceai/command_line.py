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

# The doctor reports wrong settings itself, with all else that it finds.
NEEDS_NO_SETTINGS = frozenset({"doctor", "help", "--help", "-h", "--version", "version"})


def run(arguments: Sequence[str]) -> None:
    """Run the command that the arguments name. Exits with 1 and a line on stderr when it cannot run."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceai.settings")
    if NEEDS_NO_SETTINGS.intersection(arguments[1:]) or len(arguments) < 2:
        environment.tolerate_problems()
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
