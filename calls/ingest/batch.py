"""Applies a batch of spool lines in one transaction, and returns the lines that cannot become rows.

There are two kinds of failure. When the content of a line is to blame, the lines are applied one by one and
the bad ones are returned. Any other error (the database is down, locked, or not migrated) is raised: the
caller retries all lines, and applying a line twice does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from django.db import DataError, IntegrityError

from bridge.journal import Entry, MalformedLine, StreamStarted, from_line, to_line
from calls.ingest import upsert
from calls.ingest.db import bounded_transaction, now_utc

logger = logging.getLogger(__name__)

# The content is to blame. Any other error passes with time or with a repair: until then the entries wait.
_CONTENT_ERRORS = (
    DataError, IntegrityError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
    RecursionError,
)  # fmt: skip


class RowWriter:
    """Turns spool lines into rows, and notifies a listener of the calls that changed."""

    def __init__(
        self, live_calls: Callable[[], Sequence[str]], on_commit: Callable[[set[str]], object] | None
    ) -> None:
        self.applied = 0  # entries that have become rows
        self._live_calls = live_calls
        self._on_commit = on_commit

    def apply_lines(self, lines: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Turn lines into rows. Returns the lines whose call is unknown, and those that cannot become rows.

        Raises every error that the content did not cause; then all lines must be retried.
        """
        unmatched: list[bytes] = []
        bad: list[bytes] = []
        entries: list[Entry] = []
        for line in lines:
            try:
                entries.append(from_line(line))
            except MalformedLine:
                bad.append(line)
        try:
            unmatched += self._apply(entries)
        except _CONTENT_ERRORS:
            for entry in entries:
                try:
                    unmatched += self._apply([entry])
                except _CONTENT_ERRORS as error:
                    kind, reason = type(entry).__name__, type(error).__name__
                    logger.error("journal: %s entry cannot become rows (%s)", kind, reason)
                    bad.append(to_line(entry))
        return unmatched, bad

    def _apply(self, entries: Sequence[Entry]) -> list[bytes]:
        if not entries:
            return []
        started = {entry.call_sid for entry in entries if isinstance(entry, StreamStarted)}
        with bounded_transaction():
            unmatched = upsert.apply_entries(entries)
            # A start that had to wait for the database sets a lease that has run out already.
            upsert.renew_leases(sorted(started.intersection(self._live_calls())), now_utc())
        self.applied += len(entries) - len(unmatched)
        self.notify_changed({entry.call_sid for entry in entries if entry.call_sid})
        return [to_line(entry) for entry in unmatched]

    def notify_changed(self, call_sids: set[str]) -> None:
        if self._on_commit is not None and call_sids:
            try:
                self._on_commit(call_sids)
            except Exception:  # the rows are committed: only a live page is late
                logger.exception("journal: the commit listener failed")
