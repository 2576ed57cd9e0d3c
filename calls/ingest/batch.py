"""Spool lines to rows, one transaction for all; what cannot become a row is found and given back.

Two kinds of failure, and only one of them is the line's own. What the database refuses for its content is
set apart, line by line; everything else (away, locked, not migrated) is raised, and then the caller tries
all of the lines again, which is harmless.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from django.db import DataError, IntegrityError

from bridge.journal import Entry, MalformedLine, StreamStarted, from_line, to_line
from calls.ingest import upsert
from calls.ingest.db import bounded_transaction, now_utc

log = logging.getLogger(__name__)

# Whatever else is raised passes with time, or with a repair: the entries wait for it.
_CONTENT_ERRORS = (
    DataError, IntegrityError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
    RecursionError,
)  # fmt: skip


class RowWriter:
    """Makes rows of lines and tells whoever listens whose they were."""

    def __init__(
        self, live_calls: Callable[[], Sequence[str]], on_commit: Callable[[set[str]], object] | None
    ) -> None:
        self.applied = 0  # entries that are rows
        self._live_calls = live_calls
        self._on_commit = on_commit

    def place(self, lines: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Make rows. Returns the lines whose call is unknown, and those that cannot become rows.

        Raises whatever is not the lines' fault; then all of them are to be tried again.
        """
        unplaced: list[bytes] = []
        bad: list[bytes] = []
        entries: list[Entry] = []
        for line in lines:
            try:
                entries.append(from_line(line))
            except MalformedLine:
                bad.append(line)
        try:
            unplaced += self._commit(entries)
        except _CONTENT_ERRORS:
            for entry in entries:
                try:
                    unplaced += self._commit([entry])
                except _CONTENT_ERRORS as error:
                    what, why = type(entry).__name__, type(error).__name__
                    log.error("journal: a %s cannot become a row (%s)", what, why)
                    bad.append(to_line(entry))
        return unplaced, bad

    def _commit(self, entries: Sequence[Entry]) -> list[bytes]:
        if not entries:
            return []
        started = {entry.call_sid for entry in entries if isinstance(entry, StreamStarted)}
        with bounded_transaction():
            unplaced = upsert.apply(entries)
            # A start that had to wait for the database comes with a lease that is over already.
            upsert.renew_leases(sorted(started.intersection(self._live_calls())), now_utc())
        self.applied += len(entries) - len(unplaced)
        self.tell({entry.call_sid for entry in entries if entry.call_sid})
        return [to_line(entry) for entry in unplaced]

    def tell(self, call_sids: set[str]) -> None:
        if self._on_commit is not None and call_sids:
            try:
                self._on_commit(call_sids)
            except Exception:  # the rows stand; whoever looks at them can wait
                log.exception("journal: a listener failed")
