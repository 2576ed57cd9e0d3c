"""How many connections are open, in all and for each address, and which of them can be closed for another.

A connection waits from its start, or from the end of a response, until the headers of its next request are
complete. When a limit is reached, one that waits is closed for the new one: of the same address if that has
too many, otherwise of the address that has most. So one address takes nothing from the others, and a signed
call gets through, however many idle connections somebody holds. Only if none waits, the new one is refused. A
websocket is not counted: it has limits of its own.
"""

from __future__ import annotations

import resource
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

DESCRIPTORS_OF_A_CALL = 4  # Twilio's socket, Vapi's, a request to Vapi, a webhook
OTHER_DESCRIPTORS = 128  # files, the database's pool, Redis, pages
MIN_CONNECTIONS = 16


class Connection(Protocol):
    """What is counted."""

    def drop(self, reason: str) -> None:
        """Close the connection now."""


@dataclass(slots=True)
class _Address:
    """The connections of one address. Those that wait are in the order in which they began to."""

    is_trusted: bool = False
    count: int = 0
    new: OrderedDict[Connection, None] = field(default_factory=OrderedDict)  # before their first request
    idle: OrderedDict[Connection, None] = field(default_factory=OrderedDict)  # after a response

    def find_waiting(self) -> Connection | None:
        """The one to close first: new ones before those that have been of use, the oldest first."""
        return next(iter(self.new), None) or next(iter(self.idle), None)


class ConnectionLimits:
    """The connections of one server process."""

    def __init__(self, max_connections: int, max_per_address: int) -> None:
        self.max_connections = max_connections
        self.max_per_address = max_per_address
        self._addresses: dict[str, _Address] = {}
        self._connections: dict[Connection, str] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: Connection, address: str, *, is_trusted: bool = False) -> bool:
        """Count a new connection, which waits for a request. False if it must be refused.

        The connections of a trusted proxy are those of many people: they count in all only, and are never
        closed for others.
        """
        own = self._addresses.get(address) or _Address(is_trusted)
        is_full = own.count >= self.max_per_address and not is_trusted
        if is_full and not self._close(own.find_waiting(), "too many connections from one address"):
            return False
        if len(self) >= self.max_connections and not self._close(
            self._find_waiting(), "too many connections"
        ):
            return False
        entry = self._addresses.setdefault(address, _Address(is_trusted))
        entry.count += 1
        entry.new[connection] = None
        self._connections[connection] = address
        return True

    def _find_waiting(self) -> Connection | None:
        strangers = [entry for entry in self._addresses.values() if not entry.is_trusted]
        by_waiting = max(strangers, key=lambda entry: (len(entry.new), len(entry.idle)), default=None)
        return by_waiting.find_waiting() if by_waiting is not None else None

    def _close(self, connection: Connection | None, reason: str) -> bool:
        if connection is None:
            return False
        self.remove(connection)
        connection.drop(reason)
        return True

    def set_busy(self, connection: Connection) -> None:
        """The headers of a request are complete."""
        if (address := self._connections.get(connection)) is not None:
            self._addresses[address].new.pop(connection, None)
            self._addresses[address].idle.pop(connection, None)

    def set_waiting(self, connection: Connection) -> None:
        """The response is complete."""
        if (address := self._connections.get(connection)) is not None:
            self._addresses[address].idle[connection] = None

    def remove(self, connection: Connection) -> None:
        """The connection is closed, or has become a websocket. Does nothing the second time."""
        self.set_busy(connection)
        if (address := self._connections.pop(connection, None)) is not None:
            self._addresses[address].count -= 1
            if not self._addresses[address].count:
                del self._addresses[address]


def find_max_connections(wanted: int, max_concurrent_calls: int) -> int:
    """How many connections fit, while enough descriptors stay free for all calls that may run.

    Raises the process's limit of descriptors as far as the system allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserved = OTHER_DESCRIPTORS + DESCRIPTORS_OF_A_CALL * max_concurrent_calls
    needed = wanted + reserved
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(MIN_CONNECTIONS, min(wanted, soft - reserved))
