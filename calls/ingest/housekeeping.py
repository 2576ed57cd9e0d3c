"""Periodic work of the writer thread: read the routes, renew leases, reap lost calls, roll up hours.

Routes, and whether to drain, are read most often: a change by staff must take effect within five seconds, in
every process. Webhooks use the routes that were read last, however long ago that was.

A call's lease says until when its process counts as alive. Each process renews the leases of its own calls.
Whoever finds an expired lease ends the call (reaps it). The reaper pauses for two leases when leases may look
expired although their processes are alive:

- after a time without renewal, because the database was down or this process was suspended: the other
  processes could not renew either;
- after a step of the wall clock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.db import connection

from calls.ingest import upsert
from calls.ingest.db import DATABASE_ERRORS, bounded_transaction
from calls.ingest.merge import LEASE
from calls.ingest.worker_row import WorkerRow
from calls.routes import read_routes
from calls.stats import call_summary
from calls.stats.hourly import ROLLUP_DELAY, roll_up_oldest

logger = logging.getLogger(__name__)

HOUSEKEEPING_INTERVAL_SECONDS = 5.0
ROUTES_INTERVAL_SECONDS = 2.0  # plus up to one second until the writer's next step, and the time of its batch
ROLLUP_INTERVAL_SECONDS = 60.0
MAX_ROLLUPS = 24  # hours, at one time
CLOCK_STEP_SECONDS = 5.0


class Housekeeping:
    """The housekeeping of one process. Database errors are raised; the next run catches up."""

    def __init__(
        self,
        live_calls: Callable[[], Sequence[str]],
        on_routes: Callable[[Iterable[Mapping[str, Any]]], object] | None,
        *,
        started_at: float,
        worker: WorkerRow | None = None,
    ) -> None:
        # Times are monotonic seconds.
        self._live_calls = live_calls
        self._on_routes = on_routes
        self._worker = worker
        self._routes_error = ""  # class name of the error that keeps routes from being read
        self._renewed_at = started_at
        self._rollup_due = started_at + HOUSEKEEPING_INTERVAL_SECONDS
        self._wall_offset: float | None = None  # wall clock minus monotonic clock
        # Not at once: other processes may have been down together with this one, and are about to renew.
        self._reap_after = started_at + HOUSEKEEPING_INTERVAL_SECONDS

    def run_once(self, mono: float, now: datetime) -> list[str]:
        """Renew, roll up and reap. Returns the CallSids of the calls that were reaped."""
        with bounded_transaction():
            upsert.renew_leases(self._live_calls(), now)
            if self._worker is not None:
                self._worker.report(now)
        if self._detect_time_gap(mono, now):
            self._reap_after = mono + 2 * LEASE.total_seconds()
        self._renewed_at = mono
        if mono >= self._rollup_due:
            self._rollup_due = mono + ROLLUP_INTERVAL_SECONDS
            self._roll_up(now)
        if mono < self._reap_after:
            return []
        with bounded_transaction():
            reaped = upsert.reap(now)
        if reaped:
            logger.warning(
                "journal: closed %d calls: their server stopped, or their last status never arrived",
                len(reaped),
            )
        return reaped

    def _roll_up(self, now: datetime) -> None:
        with bounded_transaction():
            call_summary.flag_missing_reports(now)
        for _ in range(MAX_ROLLUPS):
            with bounded_transaction():
                if not roll_up_oldest(now - ROLLUP_DELAY):
                    return

    def _detect_time_gap(self, mono: float, now: datetime) -> bool:
        """Whether leases may look expired: since the last run the clock stepped, or nobody could renew."""
        offset = now.timestamp() - mono
        step = 0.0 if self._wall_offset is None else abs(offset - self._wall_offset)
        self._wall_offset = offset
        return step > CLOCK_STEP_SECONDS or mono - self._renewed_at > 2 * HOUSEKEEPING_INTERVAL_SECONDS

    def refresh(self) -> None:
        """Read the phone numbers and hand them over, and whether to drain. One query each.

        After an error the previous routes stay; it is logged once, not each time.
        """
        if self._on_routes is None:
            return
        try:
            with bounded_transaction():
                routes = read_routes()
                if self._worker is not None:
                    self._worker.read_drain()
            self._on_routes(routes)
        except Exception as error:
            self._on_routes_error(error)
            return
        if self._routes_error:
            logger.info("routes: read again after %s", self._routes_error)
            self._routes_error = ""

    def stop(self) -> None:
        """Delete the row of this process, which stops."""
        if self._worker is not None:
            with bounded_transaction():
                self._worker.delete()

    def _on_routes_error(self, error: Exception) -> None:
        is_database_error = isinstance(error, DATABASE_ERRORS)
        name = type(error).__name__
        if name != self._routes_error:
            self._routes_error = name
            logger.log(
                logging.WARNING if is_database_error else logging.ERROR,
                "routes: could not be read, keeping the previous ones (%s)", name,
                exc_info=None if is_database_error else error,
            )  # fmt: skip
        if is_database_error:
            with suppress(Exception):  # closing a dead connection may fail, too
                connection.close()
