"""The journal's file: entries that are not rows yet.

One append-only file for each server process, owned through a lock for the life of the process. An entry
is safe once `append` has returned: one `write` to the operating system, no fsync, a few microseconds, and
it outlives a SIGKILL of the process. (A power cut may cost what was not synced: the reader syncs.) The
one writer thread reads from behind; when all is applied and the file has grown, it is cut to nothing.
Files whose owner is dead can be locked by others, which is how their entries are found.

Nothing here raises at the one who appends. A full disk or a file at its cap drops entries, the small
ones first, counted and said once.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

CAP_BYTES = 500 * 1024 * 1024
MINOR_SHARE = 0.9  # beyond this share of the cap only call state and words are taken
CUT_ABOVE_BYTES = 1024 * 1024
READ_BYTES = 1024 * 1024
QUARANTINE_CAP_BYTES = 10 * 1024 * 1024


class NotOurs(Exception):
    """Another process holds the file."""


class Spool:
    """One file of lines, locked."""

    def __init__(self, path: Path, *, cap_bytes: int = CAP_BYTES) -> None:
        """Opens or creates, and locks. Raises `NotOurs` when another process holds it."""
        self.path = path
        self.dropped = 0
        self._cap = cap_bytes
        self._lock = threading.Lock()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(self._fd).st_nlink:
                raise NotOurs  # its reader deleted it between our open and our lock
        except (BlockingIOError, NotOurs):
            os.close(self._fd)
            raise NotOurs from None
        self._size = os.fstat(self._fd).st_size
        # A torn tail of an earlier life must not swallow the next line.
        self._torn = self._size > 0 and os.pread(self._fd, 1, self._size - 1) != b"\n"
        self._failing = False

    def append(self, line: bytes, *, minor: bool = False) -> bool:
        """Take a line; False when it was dropped, which is counted. Never raises."""
        with self._lock:
            if self._torn:
                line = b"\n" + line
            if self._size + len(line) > self._cap * (MINOR_SHARE if minor else 1.0):
                return self._drop("it has reached its cap")
            try:
                written = os.write(self._fd, line)
            except OSError as error:
                return self._drop(error.strerror or type(error).__name__)
            self._size += written
            self._torn = written < len(line)
            if self._torn:
                return self._drop("the disk took half a line")
            if self._failing:
                self._failing = False
                log.warning("journal spool takes entries again; %d were dropped", self.dropped)
            return True

    def _drop(self, why: str) -> bool:
        self.dropped += 1
        if not self._failing:
            self._failing = True
            log.error("journal spool drops entries: %s", why)
        return False

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, most: int) -> tuple[list[bytes], int]:
        """At most `most` whole lines from `offset`, and the offset behind them."""
        chunk = os.pread(self._fd, READ_BYTES, offset)
        lines = chunk.splitlines(keepends=True)[:most]
        if lines and not lines[-1].endswith(b"\n"):
            torn = lines.pop()
            if not lines and (len(torn) >= READ_BYTES or (self._torn and offset + len(torn) >= self._size)):
                # Too long for a line of ours, or a tail that will never be completed: damage.
                lines = [torn]
        return lines, offset + sum(map(len, lines))

    def applied(self, offset: int) -> int:
        """All before `offset` is in rows. Returns the offset to go on from."""
        with self._lock:
            if offset >= self._size and self._size > CUT_ABOVE_BYTES:
                os.ftruncate(self._fd, 0)
                self._size, self._torn, offset = 0, False, 0
        return offset

    def sync(self) -> None:
        """To the disk. Slow: for the writer's thread only."""
        os.fdatasync(self._fd)

    def quarantine(self, line: bytes) -> None:
        """Keep a line that cannot become a row, for a person to look at."""
        path = self.path.with_suffix(".quarantine")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size < QUARANTINE_CAP_BYTES:
                os.write(fd, line if line.endswith(b"\n") else line + b"\n")
        finally:
            os.close(fd)

    def close(self, *, delete: bool) -> None:
        """Give up the file, and with `delete` remove it: all of it is in rows."""
        with self._lock:
            if delete:
                self.path.unlink(missing_ok=True)
            self._cap = 0
            os.close(self._fd)


def abandoned(directory: Path) -> Iterator[Spool]:
    """The spools of dead processes, oldest first, each locked by us from now on."""
    found = [(path.stat().st_mtime, path) for path in directory.glob("*.log")]
    for _, path in sorted(found):
        try:
            yield Spool(path)
        except NotOurs:
            continue
