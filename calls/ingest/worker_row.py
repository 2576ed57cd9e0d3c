"""This process's row in the table of server processes: its state, and whether it is to drain."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from calls.models.worker import KEEP, Worker


class WorkerState(NamedTuple):
    live_calls: int
    max_calls: int
    stopping: bool


class WorkerRow:
    """The row of one process. Every method raises what the database raises."""

    def __init__(
        self, name: str, *, state: Callable[[], WorkerState], on_drain: Callable[[bool], object]
    ) -> None:
        """`on_drain` is called whenever the row says whether to drain; both functions are thread-safe."""
        self.name = name
        self._state = state
        self._on_drain = on_drain
        self._started_at: datetime | None = None

    def report(self, now: datetime) -> None:
        """Write the state, one query. The first report also deletes the rows of processes of long ago."""
        if self._started_at is None:
            self._started_at = now
            Worker.objects.filter(seen_at__lt=now - KEEP).delete()
        state = self._state()._asdict()
        host = socket.gethostname()
        row = Worker(name=self.name, host=host, started_at=self._started_at, seen_at=now, **state)
        Worker.objects.bulk_create(
            [row],
            update_conflicts=True,
            unique_fields=["name"],
            update_fields=["seen_at", *state],  # not `drain_requested`, which others write
        )

    def read_drain(self) -> None:
        """Read whether to drain, one query."""
        requested = Worker.objects.filter(name=self.name).values_list("drain_requested", flat=True).first()
        if requested is not None:
            self._on_drain(requested)

    def delete(self) -> None:
        Worker.objects.filter(name=self.name).delete()
