"""The journal of one server process: appends entries to the spool and wakes the writer thread.

This is all that the event loop does for the database. `writer.py` makes the rows later, on its own thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from bridge.journal import Entry, LiveNote, TimelineEvent, TurnTaken, to_line
from calls.ingest.spool import Spool

logger = logging.getLogger(__name__)

# Dropped first when the spool is nearly full: call state and utterances matter more.
_LOW_PRIORITY = (TimelineEvent, TurnTaken)


class SpoolJournal:
    """The `Journal` that the bridge and the webhooks write to."""

    def __init__(
        self,
        directory: Path | str,
        worker_name: str,
        *,
        on_note: Callable[[LiveNote], object] | None = None,
    ) -> None:
        """Creates the spool. Raises `OSError` if that fails: a server must not start without a spool."""
        self.directory = Path(directory)
        self.spool = Spool(self.directory / f"{worker_name}.log")
        self.wake = threading.Event()
        self.unwritable = 0  # entries that could not be serialized, because of a bug
        self._on_note = on_note

    def write(self, entry: Entry, /) -> None:
        """Append an entry, which then survives a SIGKILL, or count it as dropped. Never blocks, never raises.

        A `LiveNote` has no row: it goes to `on_note` and is not stored.
        """
        try:
            if isinstance(entry, LiveNote):
                if self._on_note is not None:
                    self._on_note(entry)
                return
            self.spool.append(to_line(entry), low_priority=isinstance(entry, _LOW_PRIORITY))
        except Exception:
            self.unwritable += 1
            logger.exception("journal: an entry could not be written")
        if not self.wake.is_set():  # cheaper than setting it again
            self.wake.set()

    def close(self) -> None:
        """Close the spool, and delete it if it is empty. Entries that are written afterwards are lost."""
        self.spool.close(delete=not self.spool.size)
