"""Entries become rows on one thread, later: the call never waits for the database.

`SpoolJournal.write` appends a line to this process's spool and wakes the writer; that is all that the
server's loop ever does. The writer gathers for a moment, applies a batch in one transaction, and goes on.
A database that is away, locked or frozen holds up this thread and nothing else: the batch is tried again
until it goes through, in order. What the database refuses for its content is put aside, one line at a
time, and counted. At the start the spools of dead processes are applied first.

The same thread keeps the leases of this process's calls, reaps those that nobody carries any more, and
reads the numbers' routes for the webhook's snapshot.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.db import DatabaseError, DataError, IntegrityError, connection, transaction

from bridge.journal import Entry, Happened, MalformedLine, TurnTaken, from_line, to_line
from calls import rows
from calls.models import PhoneNumber
from calls.spool import NotOurs, Spool, abandoned

log = logging.getLogger(__name__)

BATCH = 500
GATHER_SECONDS = 0.1
TICK_SECONDS = 1.0
CHORES_SECONDS = 5.0
RETRY_SECONDS = (0.2, 2.0)  # first pause, longest pause
PARK_SECONDS = 60.0
MAX_PARKED = 1000
_MINOR = (Happened, TurnTaken)
_CONTENT_ERRORS = (DataError, IntegrityError, UnicodeError, ValueError, TypeError, KeyError, OverflowError)


class SpoolJournal:
    """The journal of one server process. `write` is all that the bridge and the webhooks know."""

    def __init__(self, directory: Path | str, boot_id: str) -> None:
        self.directory = Path(directory)
        # A reader of abandoned spools may take a file between its making and its locking.
        for attempt in range(10):
            try:
                self.spool = Spool(self.directory / f"{boot_id}-{attempt}.log")
                break
            except NotOurs:
                continue
        else:
            raise RuntimeError(f"no journal spool to be had in {self.directory}")
        self.wake = threading.Event()

    def write(self, entry: Entry) -> None:
        """Safe from a SIGKILL once this returns. Never waits for a row, never raises."""
        try:
            self.spool.append(to_line(entry), minor=isinstance(entry, _MINOR))
        except Exception:  # an entry that cannot be written as JSON is our bug, and no caller's
            log.exception("an entry could not be written")
        self.wake.set()


class JournalWriter(threading.Thread):
    """The one thread that makes rows."""

    def __init__(
        self,
        journal: SpoolJournal,
        *,
        live_calls: Callable[[], Sequence[str]] = list,
        on_routes: Callable[[Iterable[Mapping[str, Any]]], None] | None = None,
        on_commit: Callable[[set[str]], None] | None = None,
    ) -> None:
        super().__init__(name="journal-writer", daemon=True)
        self.applied = 0
        self.quarantined = 0
        self.retries = 0
        self.last_error = ""
        self._journal = journal
        self._live_calls = live_calls
        self._on_routes = on_routes
        self._on_commit = on_commit
        self._stopping = threading.Event()
        self._give_up_at = float("inf")  # monotonic; after it, what is left stays in the spool
        self._offset = 0
        self._chores_due = 0.0
        self._parked: deque[tuple[float, Entry]] = deque(maxlen=MAX_PARKED)

    @property
    def backlog_bytes(self) -> int:
        return self._journal.spool.size - self._offset

    def stop(self, seconds: float) -> None:
        """Write what can be written within `seconds`; the rest waits in the spool for the next start."""
        self._give_up_at = time.monotonic() + seconds
        self._stopping.set()
        self._journal.wake.set()
        if self.is_alive():
            self.join(seconds + 1)

    def run(self) -> None:
        for spool in abandoned(self._journal.directory):
            log.info("journal: applying what a dead server left, %d bytes", spool.size)
            offset = self._drain(spool, 0)
            spool.close(delete=offset >= spool.size)
        while True:
            self._chores()
            self._journal.wake.wait(TICK_SECONDS)
            if not self._stopping.is_set():
                self._stopping.wait(GATHER_SECONDS)
            self._journal.wake.clear()
            self._offset = self._drain(self._journal.spool, self._offset)
            if self._stopping.is_set():
                break
        for _, entry in self._parked:
            self._journal.spool.append(to_line(entry))
        connection.close()
        spool = self._journal.spool
        spool.close(delete=self._offset >= spool.size)

    def _drain(self, spool: Spool, offset: int) -> int:
        """Apply all there is; returns the offset reached, which is not the end only when giving up."""
        applied = 0
        while True:
            lines, behind = spool.read(offset, BATCH)
            if not lines:
                break
            if not self._apply(spool, lines):
                return offset
            applied += len(lines)
            offset = spool.applied(behind)
        if applied:
            spool.sync()
        return offset

    def _apply(self, spool: Spool, lines: Sequence[bytes]) -> bool:
        """One batch, tried until it goes through; False when told to stop before that."""
        entries: list[tuple[bytes, Entry]] = []
        for line in lines:
            try:
                entries.append((line, from_line(line)))
            except MalformedLine as damage:
                self._put_aside(spool, line, damage)
        now = time.monotonic()
        while self._parked and now - self._parked[0][0] > PARK_SECONDS:
            _, entry = self._parked.popleft()
            self._put_aside(spool, to_line(entry), "its call never came")
        waiting = [entry for _, entry in self._parked]
        self._parked.clear()
        since = now
        pause, longest = RETRY_SECONDS
        while True:
            try:
                self._commit([*waiting, *(entry for _, entry in entries)], since)
            except _CONTENT_ERRORS:
                self._one_by_one(spool, entries, waiting, since)
            except Exception as error:
                self._away(error)
                if self._stopping.wait(pause) and time.monotonic() >= self._give_up_at:
                    self._parked.extend((since, entry) for entry in waiting)
                    return False
                pause = min(pause * 2, longest)
                continue
            self.last_error = ""
            return True

    def _commit(self, entries: Sequence[Entry], since: float) -> None:
        with transaction.atomic():
            unplaced = rows.apply(entries)
        self._parked.extend((since, entry) for entry in unplaced)
        self.applied += len(entries) - len(unplaced)
        if self._on_commit is not None:
            self._on_commit({entry.call_sid for entry in entries if entry.call_sid})

    def _one_by_one(
        self, spool: Spool, entries: Sequence[tuple[bytes, Entry]], waiting: Sequence[Entry], since: float
    ) -> None:
        """Find the entries that the database refuses for what they hold; all others become rows."""
        for line, entry in [*((to_line(entry), entry) for entry in waiting), *entries]:
            while True:
                try:
                    self._commit([entry], since)
                except _CONTENT_ERRORS as error:
                    self._put_aside(spool, line, error)
                except Exception as error:
                    self._away(error)
                    if self._stopping.wait(RETRY_SECONDS[1]) and time.monotonic() >= self._give_up_at:
                        return
                    continue
                break

    def _put_aside(self, spool: Spool, line: bytes, why: object) -> None:
        self.quarantined += 1
        reason = why if isinstance(why, str | MalformedLine) else type(why).__name__
        log.error("journal: an entry was put aside: %s", reason)
        try:
            spool.quarantine(line)
        except OSError as error:
            log.error("journal: and could not be kept: %s", error.strerror)

    def _away(self, error: Exception) -> None:
        """The database does not take it now. Said once for each kind of trouble."""
        self.retries += 1
        name = type(error).__name__
        if name != self.last_error:
            self.last_error = name
            if isinstance(error, DatabaseError):
                hint = " Has `manage.py migrate` been run?" if "calls_" in str(error) else ""
                log.warning("journal: rows wait, the database does not take them (%s).%s", name, hint)
            else:
                log.exception("journal: rows wait")
        try:
            connection.close()
        except Exception:
            log.debug("closing a dead connection failed", exc_info=True)

    def _chores(self) -> None:
        """Leases, the reaper, routes. A failure is the next round's business."""
        if time.monotonic() < self._chores_due:
            return
        self._chores_due = time.monotonic() + CHORES_SECONDS
        try:
            now = datetime.now(UTC)
            rows.renew_leases(self._live_calls(), now)
            if lost := rows.reap(now):
                log.warning("journal: %d calls had lost their server", lost)
            if self._on_routes is not None:
                self._on_routes(_routes())
        except Exception as error:
            self._away(error)


def _routes() -> list[dict[str, Any]]:
    """Active numbers, as the bridge's routes."""
    return [
        {
            "id": str(number.pk),
            "number": number.number,
            "assistant_id": number.assistant_id,
            "overrides": number.overrides if isinstance(number.overrides, dict) else {},
            "endpointing_ms": number.endpointing_ms,
            "greeting": number.greeting,
            "fallback_number": number.fallback_number,
            "max_call_seconds": number.max_call_seconds,
            "record": number.record_calls or None,
        }
        for number in PhoneNumber.objects.filter(active=True)
    ]
