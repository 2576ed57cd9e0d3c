"""What commands need of the database: that it responds, and that its tables are up to date.

A command that changes something elsewhere, such as a number at Twilio, must not find out afterwards that it
cannot store the result.
"""

from __future__ import annotations

import re
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import DatabaseError, InterfaceError, OperationalError, ProgrammingError

# How SQLite and PostgreSQL report a missing table or column.
MISSING_IN_SCHEMA = re.compile("no such (table|column)|has no column|(relation|column) .* does not exist")
MIGRATE = "Run `./manage.py migrate`."


class DatabaseCommand(BaseCommand):
    """A command that reads or writes rows. It fails before it starts if the database cannot be used."""

    def waits_for_database(self, options: dict[str, Any]) -> bool:
        """Whether the command keeps running until the database can be used."""
        return False

    def execute(self, *args: Any, **options: Any) -> str | None:
        if not self.waits_for_database(options):
            require_database()
        return super().execute(*args, **options)


def require_database() -> None:
    """Raise `CommandError` unless the database responds and its tables are up to date."""
    try:
        count = count_unapplied_migrations()
    except (DatabaseError, InterfaceError) as error:
        raise CommandError(describe_database_error(error) or str(error)) from error
    if count:
        raise CommandError(f"The database's tables are not up to date ({count} migrations). {MIGRATE}")


def count_unapplied_migrations() -> int:
    """Raises what the database raises when it does not respond."""
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def describe_database_error(error: Exception) -> str:
    """What is wrong with the database, and how to fix it, in one line; empty if the error shows neither."""
    reason = _in_one_line(error)
    if isinstance(error, OperationalError | ProgrammingError) and MISSING_IN_SCHEMA.search(reason):
        return f"The database's tables are not up to date. {MIGRATE}"
    if isinstance(error, OperationalError | InterfaceError) or type(error) is DatabaseError:
        reason = _connection_problem() or reason
        return f"The database cannot be used: {reason}. Check that it is running, and check DATABASE_URL."
    return ""


def _connection_problem() -> str:
    """Why no connection can be made. The pool's own error only tells how long it waited."""
    options = connection.settings_dict.get("OPTIONS", {})
    if "pool" not in options:
        return ""
    options = {name: value for name, value in options.items() if name != "pool"}
    unpooled = connection.copy()
    unpooled.settings_dict = {**connection.settings_dict, "OPTIONS": options}
    try:
        with unpooled.wrap_database_errors:
            unpooled.connect()
    except (DatabaseError, InterfaceError) as error:
        return _in_one_line(error)
    unpooled.close()
    return ""


def _in_one_line(error: Exception) -> str:
    first_line, *_ = str(error).splitlines() or [type(error).__name__]
    return first_line.strip().rstrip(".")
