"""What the writer's thread does every few seconds: the numbers' routes, leases, the reaper, hourly sums.

Routes are read most often: what staff change has to count for the next call within five seconds, in every
process. Webhooks are answered from what was read last, however long ago that was.

A call's lease says until when we believe its process. Each process renews those of its own calls; whoever
finds one that ran out ends the call. Nobody is declared dead on thin evidence: after a time in which we
could not renew (the database was away, or this very process stood still) the others could not either, and
after a step of the wall clock every lease looks old; then the reaper waits for two leases.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.db import DatabaseError, connection

from calls.ingest import upsert as rows
from calls.ingest.db import bounded_transaction
from calls.ingest.merge import LEASE
from calls.routes import active_routes
from calls.stats import call_summary
from calls.stats.hourly import SETTLED, sum_up_oldest

log = logging.getLogger(__name__)

ROUNDS_SECONDS = 5.0
ROUTES_SECONDS = 2.0  # and up to one more until the writer looks, and what its batch takes
SUMS_SECONDS = 60.0  # between two looks at what takes time to become true
HOURS_AT_ONCE = 24
CLOCK_STEP_SECONDS = 5.0


class Housekeeping:
    """The rounds of one process. Whatever the database raises is raised; the next round makes it good."""

    def __init__(
        self,
        live_calls: Callable[[], Sequence[str]],
        on_routes: Callable[[Iterable[Mapping[str, Any]]], object] | None,
        *,
        started_at: float,
    ) -> None:
        self._live_calls = live_calls
        self._on_routes = on_routes
        self._routes_error = ""  # the class of what kept us from reading routes, until they were read
        self._renewed_at = started_at
        self._sums_due = started_at + ROUNDS_SECONDS
        self._wall_lead: float | None = None  # the wall clock's lead over the monotonic one
        self._reap_from = self._renewed_at + ROUNDS_SECONDS  # others may just be coming back as we are

    def go(self, mono: float, now: datetime) -> list[str]:
        """One round; returns the sids of the calls that it ended."""
        with bounded_transaction():
            rows.renew_leases(self._live_calls(), now)
        if self._in_doubt(mono, now):
            self._reap_from = mono + 2 * LEASE.total_seconds()
        self._renewed_at = mono
        if mono >= self._sums_due:
            self._sums_due = mono + SUMS_SECONDS
            self._sum_up(now)
        if mono < self._reap_from:
            return []
        with bounded_transaction():
            lost = rows.reap(now)
        if lost:
            log.warning("journal: ended %d calls that no server carries any more", len(lost))
        return lost

    def _sum_up(self, now: datetime) -> None:
        with bounded_transaction():
            call_summary.flag_missing_reports(now)
        for _ in range(HOURS_AT_ONCE):
            with bounded_transaction():
                if not sum_up_oldest(now - SETTLED):
                    return

    def _in_doubt(self, mono: float, now: datetime) -> bool:
        """Whether a lease that looks old may be the fault of the clock, or of what kept us from renewing."""
        lead = now.timestamp() - mono
        step = 0.0 if self._wall_lead is None else abs(lead - self._wall_lead)
        self._wall_lead = lead
        return step > CLOCK_STEP_SECONDS or mono - self._renewed_at > 2 * ROUNDS_SECONDS

    def refresh_routes(self) -> None:
        """Read the numbers, one query, and hand them over. Where that fails the old routes stand, and
        the log says so once."""
        if self._on_routes is None:
            return
        try:
            with bounded_transaction():
                found = active_routes()
            self._on_routes(found)
        except Exception as error:
            expected = isinstance(error, DatabaseError)
            if type(error).__name__ != self._routes_error:
                self._routes_error = type(error).__name__
                log.log(
                    logging.WARNING if expected else logging.ERROR,
                    "routes: not read, those of before stand (%s)", self._routes_error,
                    exc_info=None if expected else error,
                )  # fmt: skip
            if expected:
                with suppress(Exception):  # a dead connection may not even close
                    connection.close()
            return
        if self._routes_error:
            log.info("routes: read again after %s", self._routes_error)
            self._routes_error = ""
