"""The spool: an append-only file of journal entries that are not in the database yet.

Each server process has one file and holds a lock on it as long as it lives. `append` is one `write` to the
operating system, without fsync, and takes a few microseconds. A line that it has accepted survives a SIGKILL
of the process. (A power cut may lose what was not synced; the reader syncs.) The writer thread reads
the file, and truncates it when all lines are applied. When a process dies, its lock is released, so another
process can claim its spool (`claim_abandoned`).

`append` never raises. When the disk is full or the file is at its cap, lines are dropped and counted,
low-priority ones first; that is logged once. File names identify the process and contain nothing about calls.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

CAP_BYTES = 500 * 1024 * 1024
LOW_PRIORITY_SHARE = 0.9  # beyond this share of the cap, low-priority lines are dropped
READ_BYTES = 1024 * 1024
QUARANTINE_CAP_BYTES = 10 * 1024 * 1024  # of all quarantine files in the directory together
LOCK_TIMEOUT_SECONDS = 0.5


class SpoolLocked(Exception):
    """Another process owns the file."""


class Spool:
    """One file of lines, locked."""

    def __init__(self, path: Path, *, cap_bytes: int = CAP_BYTES, create: bool = True) -> None:
        """Opens and locks the file, with `create` also creates it. Raises `SpoolLocked`, `OSError`."""
        self.path = path
        self.appended = 0  # lines that this process has appended
        self.dropped = 0  # lines that could not be appended
        self._cap = cap_bytes
        self._lock = threading.Lock()
        if create:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = _open_locked(path, create=create)
        self._size = os.fstat(self._fd).st_size
        # The file may end in a torn line. The next line must not become part of it.
        self._torn = self._size > 0 and os.pread(self._fd, 1, self._size - 1) != b"\n"
        self._is_dropping = False

    @property
    def size(self) -> int:
        return self._size

    def append(self, line: bytes, *, low_priority: bool = False) -> bool:
        """Append a line. False if it was dropped, which is counted. Never raises."""
        with self._lock:
            is_written = self._write(line, self._cap * LOW_PRIORITY_SHARE if low_priority else self._cap)
            self.appended += is_written
            return is_written

    def _write(self, line: bytes, cap: float) -> bool:
        if self._fd < 0:
            return self._drop("it is closed")
        if self._torn:
            line = b"\n" + line
        if self._size + len(line) > cap:
            return self._drop("it is at its cap")
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            return self._drop(error.strerror or type(error).__name__)
        self._size += written
        if written < len(line):
            self._torn = self._torn or written > 0
            return self._drop("a line was written only in part")
        self._torn = False
        if self._is_dropping:
            self._is_dropping = False
            logger.warning("journal: the spool accepts entries again (%d were dropped)", self.dropped)
        return True

    def _drop(self, reason: str) -> bool:
        self.dropped += 1
        if not self._is_dropping:
            self._is_dropping = True
            logger.error("journal: the spool drops entries: %s", reason)
        return False

    def read(self, offset: int, max_lines: int) -> tuple[list[bytes], int]:
        """At most `max_lines` complete lines from `offset`, and the offset after them.

        An incomplete line is returned only if it will never be complete: a torn tail, or too long a line.
        """
        chunk = os.pread(self._fd, READ_BYTES, offset)
        *complete, rest = chunk.split(b"\n")
        lines = [line + b"\n" for line in complete[:max_lines]]
        if rest and not lines:
            with self._lock:
                is_torn_tail = self._torn and offset + len(rest) == self._size
            if is_torn_tail or len(rest) >= READ_BYTES:
                lines = [rest]
        return lines, offset + sum(map(len, lines))

    def truncate(self, offset: int, keep: Iterable[bytes] = ()) -> int:
        """Empty the file if `offset` is its end, but keep these lines. Returns the offset to read on from."""
        with self._lock:
            if offset < self._size:
                return offset
            try:
                os.ftruncate(self._fd, 0)
            except OSError as error:
                logger.error("journal: the spool cannot be truncated: %s", error.strerror)
                return offset
            self._size, self._torn = 0, False
            for line in keep:
                self._write(line, self._cap)
            return self._size

    def sync(self) -> None:
        """Flush to the disk. Slow: for the writer thread only."""
        os.fdatasync(self._fd)

    def quarantine(self, line: bytes) -> bool:
        """Save a line that cannot become a row, for a developer. False if the quarantine is at its cap."""
        used = sum(path.stat().st_size for path in self.path.parent.glob("*.quarantine"))
        if used + len(line) >= QUARANTINE_CAP_BYTES:
            return False
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path.with_suffix(".quarantine"), flags, 0o600)
        try:
            os.write(fd, line if line.endswith(b"\n") else line + b"\n")
        finally:
            os.close(fd)
        return True

    def close(self, *, delete: bool) -> None:
        """Close the file, and delete it if all of it is in the database. Later lines are dropped."""
        with self._lock:
            if self._fd < 0:
                return
            if delete:
                # Still locked: a process that waits for the lock then finds the file gone.
                self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def _open_locked(path: Path, *, create: bool) -> int:
    """A descriptor of the file at `path`, locked.

    Between creating and locking the file, another process that looks for abandoned spools may lock it and
    remove it, because it is empty. So with `create` this retries for a while.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
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
        if not create or time.monotonic() >= deadline:
            raise SpoolLocked
        time.sleep(0.005)


_unclaimable: set[Path] = set()  # files whose error has been logged


def claim_abandoned(directory: Path) -> Iterator[Spool]:
    """The spools of dead processes, oldest first. Each is locked by this process from now on."""
    candidates = []
    for path in directory.glob("*.log"):
        try:
            candidates.append((path.stat().st_mtime_ns, path))
        except FileNotFoundError:  # another process claimed it first
            continue
    for _, path in sorted(candidates):
        try:
            yield Spool(path, create=False)
        except (SpoolLocked, FileNotFoundError):
            continue
        except OSError as error:  # such as the file of a server that another user ran
            if path not in _unclaimable:
                _unclaimable.add(path)
                logger.error("journal: %s cannot be claimed: %s", path.name, error.strerror)
