"""The writer thread: turns the spool's lines into rows, so that no call ever waits for the database.

`SpoolJournal.write` appends a line to this process's spool and wakes the writer. The writer waits a moment
for more lines, applies a batch in one transaction, and repeats.

- A database that is down, locked or frozen blocks only this thread. The batch is retried, in order, until it
  is applied.
- A line that the database rejects for its content is quarantined and counted.
- A report whose call is not known yet is deferred for up to a minute.
- Spools of dead processes are claimed and applied as well, the oldest first.

Between batches the same thread does the housekeeping (`housekeeping.py`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.db import connection, reset_queries

from calls.ingest.batch import RowWriter
from calls.ingest.db import DATABASE_ERRORS, now_utc, use_own_connection
from calls.ingest.housekeeping import HOUSEKEEPING_INTERVAL_SECONDS, ROUTES_INTERVAL_SECONDS, Housekeeping
from calls.ingest.journal import SpoolJournal
from calls.ingest.spool import Spool, claim_abandoned
from calls.ingest.worker_row import WorkerRow
from calls.management.database import MISSING_IN_SCHEMA

logger = logging.getLogger(__name__)

MAX_BATCH = 500  # lines
GATHER_SECONDS = 0.05  # from the first line until its batch is read
TICK_SECONDS = 1.0
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.2, 2.0
SYNC_INTERVAL_SECONDS = 0.2  # a power cut may lose this much
DEFER_SECONDS = 60.0
MAX_DEFERRED = 1000  # lines
TRUNCATE_ABOVE_BYTES = 1024 * 1024
TRUNCATE_IDLE_SECONDS = 30.0  # below that size: transcripts should not stay in the file


@dataclass(slots=True)
class SpoolCursor:
    """A spool, and how much of it is in the database."""

    spool: Spool
    offset: int = 0
    lines: int = 0


@dataclass(frozen=True, slots=True)
class WriterStats:
    """The writer's counters."""

    backlog: int  # lines of this process that are not rows yet
    backlog_bytes: int  # the same in bytes, including the spools of dead processes
    applied: int
    deferred: int
    quarantined: int
    dropped: int
    retries: int
    last_error: str  # class name of the database's error; empty once it accepts rows again


class JournalWriter(threading.Thread):
    """The thread that makes rows. All times are monotonic seconds."""

    def __init__(
        self,
        journal: SpoolJournal,
        *,
        live_calls: Callable[[], Sequence[str]] = list,
        on_routes: Callable[[Iterable[Mapping[str, Any]]], object] | None = None,
        on_commit: Callable[[set[str]], object] | None = None,
        worker: WorkerRow | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="journal-writer", daemon=True)
        self._journal = journal
        self._own = SpoolCursor(journal.spool)
        self._abandoned: list[SpoolCursor] = []  # spools of dead processes, oldest first
        self._rows = RowWriter(live_calls, on_commit)
        self._housekeeping = Housekeeping(live_calls, on_routes, started_at=clock(), worker=worker)
        self._clock = clock
        self._deferred: dict[bytes, float] = {}  # lines whose call is unknown, and when to give up on them
        self._quarantined = self._retries = 0
        self._last_error = ""
        self._batch_size = MAX_BATCH  # smaller after an error
        self._backoff_seconds = MIN_BACKOFF_SECONDS  # longer after an error
        self._stopping = threading.Event()
        self._stop_deadline = float("inf")  # lines that are left then stay in the spool
        self._routes_due = self._housekeeping_due = self._retry_due = 0.0
        self._synced_at = self._read_at = self._clock()
        self._synced_size = 0

    def stats(self) -> WriterStats:
        """A snapshot. Thread-safe."""
        spool = self._journal.spool
        cursors = (self._own, *self._abandoned)
        return WriterStats(
            backlog=max(0, spool.appended - self._own.lines),
            backlog_bytes=sum(max(0, cursor.spool.size - cursor.offset) for cursor in cursors),
            applied=self._rows.applied,
            deferred=len(self._deferred),
            quarantined=self._quarantined,
            dropped=spool.dropped + self._journal.unwritable,
            retries=self._retries,
            last_error=self._last_error,
        )

    def stop(self, timeout_seconds: float) -> None:
        """Write what can be written in this time. The rest stays in the spool for the next start."""
        self._stop_deadline = self._clock() + timeout_seconds
        self._stopping.set()
        self._journal.wake.set()
        if self.is_alive():
            self.join(timeout_seconds)

    # The thread

    def run(self) -> None:
        use_own_connection()
        has_more = True
        while True:
            if not has_more:
                self._wait()
            is_stopping = self._stopping.is_set()  # read before the step: the last step sees the last entry
            try:
                has_more = self.step()
            except Exception:  # a bug must not end the only thread that makes rows
                logger.exception("journal: the writer's step failed")
                self._backoff(MAX_BACKOFF_SECONDS)
                has_more = True
            if is_stopping and (not has_more or self._clock() >= self._stop_deadline):
                break
        if not self._deferred:
            self._own.offset = self._own.spool.truncate(self._own.offset)
        for cursor in self._abandoned:
            cursor.spool.close(delete=False)
        with suppress(Exception):  # whatever the database raises
            self._housekeeping.stop()
        connection.close()

    def _wait(self) -> None:
        if self._journal.wake.wait(TICK_SECONDS):
            self._stopping.wait(GATHER_SECONDS)
        self._journal.wake.clear()  # before reading, so that a later entry wakes the thread again

    def step(self) -> bool:
        """One batch of each spool, and the work that is due. Whether there is more to do at once."""
        reset_queries()  # with DEBUG on, Django keeps every query of a thread that serves no requests
        now = self._clock()
        if now >= self._routes_due:
            self._routes_due = now + ROUTES_INTERVAL_SECONDS
            self._housekeeping.refresh()
        if now >= self._housekeeping_due:
            self._housekeeping_due = now + HOUSEKEEPING_INTERVAL_SECONDS
            self._run_housekeeping()
        if now >= self._retry_due:
            self._retry_due = now + TICK_SECONDS
            self._retry_deferred(now)
        self._sync_spool(now)
        cursors = (*self._abandoned[:1], self._own)
        has_more = [self._apply_batch(cursor) for cursor in cursors]
        self._truncate_spool(now)
        return any(has_more)

    def _apply_batch(self, cursor: SpoolCursor) -> bool:
        """Apply one batch. False if there was none."""
        lines, end = cursor.spool.read(cursor.offset, self._batch_size)
        if not lines:
            if cursor is self._own:
                return False
            logger.info("journal: applied all of %s, deleting it", cursor.spool.path.name)
            cursor.spool.close(delete=True)
            self._abandoned.remove(cursor)
            return bool(self._abandoned)
        try:
            unmatched, bad = self._rows.apply_lines([line for line in lines if line != b"\n"])
        except Exception as error:
            self._on_db_error(error)
            self._backoff(self._backoff_seconds)
            self._backoff_seconds = min(self._backoff_seconds * 2, MAX_BACKOFF_SECONDS)
            self._batch_size = max(1, self._batch_size // 2)
            return True
        self._on_db_ok()
        for line in unmatched:
            self._defer(line, cursor)
        self._quarantine(cursor.spool, bad)
        cursor.offset = end
        cursor.lines += len(lines)
        self._read_at = self._clock()
        return True

    def _run_housekeeping(self) -> None:
        for spool in claim_abandoned(self._journal.directory):
            logger.info("journal: claimed %s of a dead server (%d bytes)", spool.path.name, spool.size)
            self._abandoned.append(SpoolCursor(spool))
        try:
            reaped = self._housekeeping.run_once(self._clock(), now_utc())
        except Exception as error:
            self._on_db_error(error)
        else:
            if not self.stats().backlog_bytes:  # otherwise the next batch shows whether rows are accepted
                self._on_db_ok()
            self._rows.notify_changed(set(reaped))

    # Lines that are not rows

    def _defer(self, line: bytes, cursor: SpoolCursor) -> None:
        """Keep a line until its call is known. It stays on disk, in this process's own spool."""
        if cursor is not self._own:
            if not self._own.spool.append(line):
                self._quarantine(cursor.spool, [line])
        elif len(self._deferred) < MAX_DEFERRED:
            self._deferred.setdefault(line, self._clock() + DEFER_SECONDS)
        else:
            self._quarantine(cursor.spool, [line])

    def _retry_deferred(self, now: float) -> None:
        lines = list(self._deferred)
        if not lines:
            return
        try:
            unmatched, bad = self._rows.apply_lines(lines)
        except Exception as error:
            self._on_db_error(error)
            return
        expired = [line for line in unmatched if self._deferred[line] <= now]
        self._quarantine(self._own.spool, [*bad, *expired])
        self._deferred = {line: self._deferred[line] for line in unmatched if line not in expired}

    def _quarantine(self, spool: Spool, lines: Sequence[bytes]) -> None:
        self._quarantined += len(lines)
        for line in lines:
            try:
                if not spool.quarantine(line):
                    logger.error("journal: the quarantine is full, a line was discarded")
            except OSError as error:
                logger.error("journal: a line could not be quarantined: %s", error.strerror)

    # The disk and the database

    def _sync_spool(self, now: float) -> None:
        spool = self._own.spool
        if spool.size != self._synced_size and now - self._synced_at >= SYNC_INTERVAL_SECONDS:
            self._synced_at, self._synced_size = now, spool.size
            try:
                spool.sync()
            except OSError as error:
                logger.error("journal: the spool cannot be synced: %s", error.strerror)

    def _truncate_spool(self, now: float) -> None:
        own = self._own
        is_idle = now - self._read_at >= TRUNCATE_IDLE_SECONDS
        applied_bytes = own.spool.size - sum(map(len, self._deferred))
        if applied_bytes > TRUNCATE_ABOVE_BYTES or (is_idle and applied_bytes > 0):
            own.offset = own.spool.truncate(own.offset, self._deferred)

    def _on_db_error(self, error: Exception) -> None:
        """The database accepts no rows now. Logged once for each class of error."""
        self._retries += 1
        name = type(error).__name__
        if name != self._last_error:
            self._last_error = name
            if isinstance(error, DATABASE_ERRORS):
                is_unmigrated = MISSING_IN_SCHEMA.search(str(error))
                hint = (
                    ". The tables are not of this version: run `./manage.py migrate`" if is_unmigrated else ""
                )
                logger.warning("journal: the database does not accept rows, retrying (%s)%s", name, hint)
            else:
                logger.error("journal: rows could not be written, retrying", exc_info=error)
        with suppress(Exception):  # closing a dead connection may fail, too
            connection.close()

    def _on_db_ok(self) -> None:
        if self._last_error:
            logger.info("journal: the database accepts rows again after %s", self._last_error)
        self._last_error = ""
        self._backoff_seconds = MIN_BACKOFF_SECONDS
        self._batch_size = min(MAX_BATCH, self._batch_size * 2)

    def _backoff(self, seconds: float) -> None:
        """Sleep, but not beyond the deadline of a stop."""
        if self._stopping.is_set():
            time.sleep(max(0.0, min(seconds, self._stop_deadline - self._clock())))
        else:
            self._stopping.wait(seconds)
