"""The journal of one server process: an entry is appended to the spool, and the writer's thread is woken.

This is all that the event loop ever does for rows; `writer.py` makes the rows later, on its own thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from bridge.journal import Entry, LiveNote, TimelineEvent, TurnTaken, to_line
from calls.ingest.spool import Spool

log = logging.getLogger(__name__)

_MINOR = (TimelineEvent, TurnTaken)


class SpoolJournal:
    """The journal of one server process. `write` is all that the bridge and the webhooks know."""

    def __init__(
        self,
        directory: Path | str,
        boot_id: str,
        *,
        on_note: Callable[[LiveNote], object] | None = None,
    ) -> None:
        """Makes the spool. Raises `OSError` where it cannot: a server without it should not start."""
        self.directory = Path(directory)
        self.spool = Spool(self.directory / f"{boot_id}.log")
        self.wake = threading.Event()
        self.unwritable = 0  # entries that no line could be made of: bugs of ours
        self._on_note = on_note

    def write(self, entry: Entry, /) -> None:
        """Safe from a SIGKILL once this returns. Never waits for a row, never raises.

        A note of the moment is no row: it is passed on, and not kept."""
        try:
            if isinstance(entry, LiveNote):
                if self._on_note is not None:
                    self._on_note(entry)
                return
            self.spool.append(to_line(entry), minor=isinstance(entry, _MINOR))
        except Exception:
            self.unwritable += 1
            log.exception("journal: an entry could not be written")
        if not self.wake.is_set():  # cheaper than setting it again
            self.wake.set()

    def close(self) -> None:
        """Give the file up, and remove it if nothing is in it. Whatever is written later is lost."""
        self.spool.close(delete=not self.spool.size)
