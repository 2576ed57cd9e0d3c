"""The writer thread's use of the database: its own connection, and transactions with short timeouts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from django.db import DatabaseError, InterfaceError, connection, transaction

LOCK_TIMEOUT, STATEMENT_TIMEOUT = "1s", "2s"
DATABASE_ERRORS = (DatabaseError, InterfaceError)  # Django's second is no subclass of its first


def now_utc() -> datetime:
    return datetime.now(UTC)


def use_own_connection() -> None:
    """Give this thread a connection outside the pool, so that it never waits for one that pages use."""
    settings = connection.settings_dict
    options = {name: value for name, value in settings.get("OPTIONS", {}).items() if name != "pool"}
    connection.settings_dict = {**settings, "OPTIONS": options}


@contextmanager
def bounded_transaction() -> Iterator[None]:
    """A transaction with lock and statement timeouts. (SQLite has its busy timeout instead.)"""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:  # the argument `true`: for this transaction only
                cursor.execute(
                    "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
                    [LOCK_TIMEOUT, STATEMENT_TIMEOUT],
                )
        yield
