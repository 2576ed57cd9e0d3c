"""Django's PostgreSQL backend, with a pool that recovers from a restart of PostgreSQL within one request.

The pool tests a connection before it lends it. Left to itself it replaces that one connection alone, and
waits longer after each failure: with several broken connections a request takes seconds, or fails. Here one
broken connection makes it replace all that are idle, because what broke one has broken the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base
from psycopg import Connection, Error
from psycopg_pool import ConnectionPool


class RecoveringPool(ConnectionPool):
    """Replaces all idle connections if one of them is broken."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, check=self._check_or_replace_all)

    def _check_or_replace_all(self, connection: Connection[Any]) -> None:
        try:
            self.check_connection(connection)
        except Error:
            self.drain()
            raise


class DatabaseWrapper(base.DatabaseWrapper):
    # Attributes of Django's class that its type hints leave out.
    _connection_pools: dict[str, ConnectionPool]
    _configure_connection: Callable[[Connection[Any]], bool]

    @property
    def pool(self) -> ConnectionPool | None:
        """The pool that all connections to this database share; None if OPTIONS has no `pool`."""
        options = self.settings_dict["OPTIONS"].get("pool")
        if self.alias == NO_DB_ALIAS or not options:
            return None
        if self.alias not in self._connection_pools:
            pool = RecoveringPool(
                kwargs={**self.get_connection_params(), "autocommit": True},
                open=False,
                configure=self._configure_connection,
                **options,
            )
            # Another thread may have been faster; a pool that is not open has no threads and connections.
            self._connection_pools.setdefault(self.alias, pool)
        return self._connection_pools[self.alias]
