"""Entries become rows on one thread, later: the call never waits for the database.

`SpoolJournal.write` appends a line to this process's spool and wakes the writer; that is all that the
server's loop ever does. The writer gathers for a moment, applies a batch in one transaction, and goes on.
A database that is away, locked or frozen holds up this thread and nothing else: the batch is tried again
until it goes through, in order. What the database refuses for its content is put aside, one line at a
time, and counted. A report whose call is not known yet is parked for a minute. Spools of dead processes
are looked for at the start and ever after, and applied beside our own, the oldest first.

Between batches the same thread does its rounds (`calls/ingest/housekeeping.py`).
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError, connection, reset_queries

from calls.ingest.batch import RowWriter
from calls.ingest.db import now_utc, use_own_connection
from calls.ingest.housekeeping import ROUNDS_SECONDS, ROUTES_SECONDS, Housekeeping
from calls.ingest.journal import SpoolJournal
from calls.ingest.spool import Spool, abandoned

log = logging.getLogger(__name__)

BATCH = 500
GATHER_SECONDS = 0.05
TICK_SECONDS = 1.0
RETRY_SECONDS = (0.2, 2.0)  # first pause, longest pause
SYNC_SECONDS = 0.2  # what a power cut may cost
PARK_SECONDS = 60.0
MAX_PARKED = 1000
CUT_ABOVE_BYTES = 1024 * 1024
CUT_AFTER_SECONDS = 30.0  # of quiet, however small the file: words spoken should not lie about

_NO_TABLE = re.compile(r"no such (table|column)|has no column|calls_\w+\W+does not exist", re.ASCII)


@dataclass(slots=True)
class Source:
    """A spool and how far it is in rows."""

    spool: Spool
    offset: int = 0
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """How the writer is doing."""

    backlog: int  # lines of this process that are not rows yet
    backlog_bytes: int  # the same in bytes, dead processes' spools included
    applied: int
    parked: int
    quarantined: int
    dropped: int
    retries: int
    last_error: str  # the class of what the database raised, empty once it takes rows again


class JournalWriter(threading.Thread):
    """The one thread that makes rows."""

    def __init__(
        self,
        journal: SpoolJournal,
        *,
        live_calls: Callable[[], Sequence[str]] = list,
        on_routes: Callable[[Iterable[Mapping[str, Any]]], object] | None = None,
        on_commit: Callable[[set[str]], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="journal-writer", daemon=True)
        self._journal = journal
        self._own = Source(journal.spool)
        self._dead: list[Source] = []  # spools of dead processes, oldest first
        self._placer = RowWriter(live_calls, on_commit)
        self._clock = clock
        self._rounds = Housekeeping(live_calls, on_routes, started_at=clock())
        self._parked: dict[bytes, float] = {}  # lines without a call, and until when they may wait for it
        self._quarantined = self._retries = 0
        self._last_error = ""
        self._batch = BATCH  # smaller while the database has trouble
        self._pause = RETRY_SECONDS[0]
        self._stopping = threading.Event()
        self._give_up_at = float("inf")  # monotonic; after it, what is left stays in the spool
        self._routes_due = self._rounds_due = self._tick_due = 0.0  # monotonic, as are those below
        self._synced_at = self._read_at = self._clock()
        self._synced_size = 0

    def figures(self) -> Figures:
        """A snapshot; may be asked from any thread."""
        spool = self._journal.spool
        return Figures(
            backlog=max(0, spool.appended - self._own.lines),
            backlog_bytes=sum(max(0, each.spool.size - each.offset) for each in (self._own, *self._dead)),
            applied=self._placer.applied,
            parked=len(self._parked),
            quarantined=self._quarantined,
            dropped=spool.dropped + self._journal.unwritable,
            retries=self._retries,
            last_error=self._last_error,
        )

    def stop(self, deadline_s: float) -> None:
        """Write what can be written in this time; the rest waits in the spool for the next start."""
        self._give_up_at = self._clock() + deadline_s
        self._stopping.set()
        self._journal.wake.set()
        if self.is_alive():
            self.join(deadline_s)

    # The thread

    def run(self) -> None:
        use_own_connection()
        more = True
        while True:
            if not more:
                self._wait()
            stopping = self._stopping.is_set()  # asked first, so that a last look follows the last entry
            try:
                more = self.step()
            except Exception:  # a bug must not end the one thread that makes rows
                log.exception("journal: the writer stumbled and goes on")
                self._rest(RETRY_SECONDS[1])
                more = True
            if stopping and (not more or self._clock() >= self._give_up_at):
                break
        if not self._parked:
            self._own.offset = self._own.spool.cut(self._own.offset)
        for source in self._dead:
            source.spool.close(delete=False)
        connection.close()

    def _wait(self) -> None:
        if self._journal.wake.wait(TICK_SECONDS):
            self._stopping.wait(GATHER_SECONDS)
        self._journal.wake.clear()  # before reading, so that whatever comes later wakes us again

    def step(self) -> bool:
        """One batch of each spool, and what is due. Whether there is more to do at once."""
        reset_queries()  # with debug on Django remembers every query of a thread that serves no requests
        now = self._clock()
        if now >= self._routes_due:
            self._routes_due = now + ROUTES_SECONDS
            self._rounds.refresh_routes()
        if now >= self._rounds_due:
            self._rounds_due = now + ROUNDS_SECONDS
            self._do_rounds()
        if now >= self._tick_due:
            self._tick_due = now + TICK_SECONDS
            self._try_parked(now)
        self._sync(now)
        oldest = self._dead[:1]
        more = [self._advance(source) for source in (*oldest, self._own)]
        self._cut(now)
        return any(more)

    def _advance(self, source: Source) -> bool:
        """One batch; False when there was none."""
        lines, behind = source.spool.read(source.offset, self._batch)
        if not lines:
            if source is not self._own:
                log.info("journal: %s is applied and removed", source.spool.path.name)
                source.spool.close(delete=True)
                self._dead.remove(source)
                return bool(self._dead)
            return False
        try:
            unplaced, bad = self._placer.place([line for line in lines if line != b"\n"])
        except Exception as error:
            self._trouble(error)
            self._rest(self._pause)
            self._pause = min(self._pause * 2, RETRY_SECONDS[1])
            self._batch = max(1, self._batch // 2)
            return True
        self._well()
        for line in unplaced:
            self._park(line, source)
        self._put_aside(source.spool, bad)
        source.offset = behind
        source.lines += len(lines)
        self._read_at = self._clock()
        return True

    def _do_rounds(self) -> None:
        for spool in abandoned(self._journal.directory):
            log.info("journal: found %s of a dead server, %d bytes", spool.path.name, spool.size)
            self._dead.append(Source(spool))
        try:
            lost = self._rounds.go(self._clock(), now_utc())
        except Exception as error:
            self._trouble(error)
        else:
            if not self.figures().backlog_bytes:  # otherwise the next batch tells
                self._well()
            self._placer.tell(set(lost))

    # Lines that are no rows

    def _park(self, line: bytes, source: Source) -> None:
        """Let it wait for its call. It stays on disk, in our own spool, for as long."""
        if source is not self._own:
            if not self._own.spool.append(line):
                self._put_aside(source.spool, [line])
        elif len(self._parked) < MAX_PARKED:
            self._parked.setdefault(line, self._clock() + PARK_SECONDS)
        else:
            self._put_aside(source.spool, [line])

    def _try_parked(self, now: float) -> None:
        lines = list(self._parked)
        if not lines:
            return
        try:
            unplaced, bad = self._placer.place(lines)
        except Exception as error:
            self._trouble(error)
            return
        late = [line for line in unplaced if self._parked[line] <= now]
        self._put_aside(self._own.spool, [*bad, *late])
        self._parked = {line: self._parked[line] for line in unplaced if line not in late}

    def _put_aside(self, spool: Spool, lines: Sequence[bytes]) -> None:
        self._quarantined += len(lines)
        for line in lines:
            try:
                if not spool.quarantine(line):
                    log.error("journal: the quarantine is full; a line was thrown away")
            except OSError as error:
                log.error("journal: a line could not be put aside: %s", error.strerror)

    # The disk and the database

    def _sync(self, now: float) -> None:
        spool = self._own.spool
        if spool.size != self._synced_size and now - self._synced_at >= SYNC_SECONDS:
            self._synced_at, self._synced_size = now, spool.size
            try:
                spool.sync()
            except OSError as error:
                log.error("journal: the spool cannot be synced: %s", error.strerror)

    def _cut(self, now: float) -> None:
        own = self._own
        quiet = now - self._read_at >= CUT_AFTER_SECONDS
        kept = sum(map(len, self._parked))
        if own.spool.size > kept and (quiet or own.spool.size - kept > CUT_ABOVE_BYTES):
            own.offset = own.spool.cut(own.offset, self._parked)

    def _trouble(self, error: Exception) -> None:
        """The database does not take it now. Said once for each kind of trouble."""
        self._retries += 1
        name = type(error).__name__
        if name != self._last_error:
            self._last_error = name
            if isinstance(error, DatabaseError):
                hint = " Its tables are not of this version: run `manage.py migrate`."
                hint = hint if _NO_TABLE.search(str(error)) else ""
                log.warning("journal: rows wait, the database does not take them (%s).%s", name, hint)
            else:
                log.error("journal: rows wait", exc_info=error)
        with suppress(Exception):  # a dead connection may not even close
            connection.close()

    def _well(self) -> None:
        if self._last_error:
            log.info("journal: the database takes rows again after %s", self._last_error)
        self._last_error = ""
        self._pause = RETRY_SECONDS[0]
        self._batch = min(BATCH, self._batch * 2)

    def _rest(self, seconds: float) -> None:
        """Pause, though not beyond the time that is left to us."""
        if self._stopping.is_set():
            time.sleep(max(0.0, min(seconds, self._give_up_at - self._clock())))
        else:
            self._stopping.wait(seconds)
