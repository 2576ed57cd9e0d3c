"""The journal's file: entries that are not rows yet.

One append-only file for each server process, owned through a lock for the life of the process. An entry
is safe once `append` has returned: one `write` to the operating system, no fsync, a few microseconds, and
it outlives a SIGKILL of the process. (A power cut may cost what was not synced: the reader syncs.) The
one writer thread reads from behind; when all is applied, the file may be cut to nothing. Files whose
owner is dead can be locked by others, which is how their entries are found.

Nothing here raises at the one who appends. A full disk or a file at its cap drops entries, the small
ones first, counted and said once. Names say whose file it was and nothing about a call.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

log = logging.getLogger(__name__)

CAP_BYTES = 500 * 1024 * 1024
MINOR_SHARE = 0.9  # beyond this share of the cap only call state and words are taken
READ_BYTES = 1024 * 1024
QUARANTINE_CAP_BYTES = 10 * 1024 * 1024  # of all such files of a directory together
LOCK_SECONDS = 0.5


class NotOurs(Exception):
    """Another process holds the file."""


class Spool:
    """One file of lines, locked."""

    def __init__(self, path: Path, *, cap_bytes: int = CAP_BYTES, create: bool = True) -> None:
        """Opens, and with `create` makes, and locks. Raises `NotOurs` when somebody else holds it."""
        self.path = path
        self.appended = 0  # lines taken from this process
        self.dropped = 0  # lines that had to be refused
        self._cap = cap_bytes
        self._lock = threading.Lock()
        if create:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = _open_locked(path, create=create)
        self._size = os.fstat(self._fd).st_size
        # A torn tail of an earlier life must not swallow the next line.
        self._torn = self._size > 0 and os.pread(self._fd, 1, self._size - 1) != b"\n"
        self._failing = False

    @property
    def size(self) -> int:
        return self._size

    def append(self, line: bytes, *, minor: bool = False) -> bool:
        """Take a line; False when it was dropped, which is counted. Never raises."""
        with self._lock:
            taken = self._write(line, self._cap * MINOR_SHARE if minor else self._cap)
            self.appended += taken
            return taken

    def _write(self, line: bytes, cap: float) -> bool:
        if self._torn:
            line = b"\n" + line
        if self._size + len(line) > cap:
            return self._drop("it has reached its cap")
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            return self._drop(error.strerror or type(error).__name__)
        self._size += written
        if written < len(line):
            self._torn = self._torn or written > 0
            return self._drop("the disk took half a line")
        self._torn = False
        if self._failing:
            self._failing = False
            log.warning("journal: the spool takes entries again; %d were dropped", self.dropped)
        return True

    def _drop(self, why: str) -> bool:
        self.dropped += 1
        if not self._failing:
            self._failing = True
            log.error("journal: the spool drops entries: %s", why)
        return False

    def read(self, offset: int, most: int) -> tuple[list[bytes], int]:
        """At most `most` whole lines from `offset`, and the offset behind them.

        A piece without a line's end is handed out only when it will never get one.
        """
        chunk = os.pread(self._fd, READ_BYTES, offset)
        *whole, rest = chunk.split(b"\n")
        lines = [line + b"\n" for line in whole[:most]]
        if rest and not lines:
            with self._lock:
                is_torn_tail = self._torn and offset + len(rest) == self._size
            if is_torn_tail or len(rest) >= READ_BYTES:
                lines = [rest]
        return lines, offset + sum(map(len, lines))

    def cut(self, offset: int, keep: Iterable[bytes] = ()) -> int:
        """If all before `offset` is all there is, forget it but for `keep`. Returns where to read on."""
        with self._lock:
            if offset < self._size:
                return offset
            try:
                os.ftruncate(self._fd, 0)
            except OSError as error:
                log.error("journal: the spool cannot be cut: %s", error.strerror)
                return offset
            self._size, self._torn = 0, False
            for line in keep:
                self._write(line, self._cap)
            return self._size

    def sync(self) -> None:
        """To the disk. Slow: for the writer's thread only."""
        os.fdatasync(self._fd)

    def quarantine(self, line: bytes) -> bool:
        """Keep a line that cannot become a row, for a person to look at; False when there is no room."""
        folder = self.path.parent
        taken = sum(path.stat().st_size for path in folder.glob("*.quarantine"))
        if taken + len(line) >= QUARANTINE_CAP_BYTES:
            return False
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path.with_suffix(".quarantine"), flags, 0o600)
        try:
            os.write(fd, line if line.endswith(b"\n") else line + b"\n")
        finally:
            os.close(fd)
        return True

    def close(self, *, delete: bool) -> None:
        """Give up the file, and with `delete` remove it: all of it is in rows. Later lines are dropped."""
        with self._lock:
            if self._fd < 0:
                return
            if delete:
                self.path.unlink(missing_ok=True)  # still locked: whoever waits for it sees it is gone
            self._cap = 0
            os.close(self._fd)
            self._fd = -1


def _open_locked(path: Path, *, create: bool) -> int:
    """A descriptor that holds the lock of the file which is at `path` now.

    Between our making the file and our locking it, one who looks for abandoned files may take it for a
    moment and remove it, empty as it is. So a maker tries again for a while.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return fd
        except BlockingIOError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        if not create or time.monotonic() >= give_up:
            raise NotOurs
        time.sleep(0.005)


def abandoned(directory: Path) -> Iterator[Spool]:
    """The spools of dead processes, oldest first, each locked by us from now on."""
    found = []
    for path in directory.glob("*.log"):
        try:
            found.append((path.stat().st_mtime_ns, path))
        except FileNotFoundError:  # another reader was faster
            continue
    for _, path in sorted(found):
        try:
            yield Spool(path, create=False)
        except (NotOurs, FileNotFoundError):
            continue
