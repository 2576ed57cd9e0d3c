"""Tells those who watch that there is something new: notes of live calls, and "look again".

Notes go into the cache, where every server process finds them; what is in rows needs no more than the
word that it changed, which goes to the pages' group in the channel layer. Both may be slow, frozen or
gone, so all of this has a thread of its own: whatever becomes of it, rows and audio do not wait for it.

It speaks at most five times a second, of whatever is newest by then. After a failure it pauses, and what
came meanwhile is told afterwards; pages look by themselves every few seconds, so nobody depends on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from channels.layers import get_channel_layer
from django.core.cache import cache

from bridge.journal import LiveNote
from calls.ingest.sanitize import clean_text

log = logging.getLogger(__name__)

GROUP = "live"
PACE_SECONDS = 0.2
PAUSE_SECONDS = 5.0  # after a failure
TELL_SECONDS = 0.2
# A note stands until the next one, and a silence of minutes is what a note is needed for most.
NOTE_SECONDS = 600
MAX_WAITING = 1000  # calls with news not told yet
MAX_NAMED = 100  # calls named in one message; more than that are "any"

_asked_in_vain_until = 0.0


def _key(call_sid: str) -> str:
    return f"live:{call_sid}"


def notes_of(call_sids: Sequence[str]) -> dict[str, LiveNote]:
    """The newest note of each call that has one. None at all where the cache does not answer, which then
    is left alone for a while: a page that waits for it every time would be no page."""
    global _asked_in_vain_until
    if not call_sids or time.monotonic() < _asked_in_vain_until:
        return {}
    try:
        found = cache.get_many([_key(sid) for sid in call_sids])
    except Exception as error:  # whatever the cache's client raises: the rows are shown without
        _asked_in_vain_until = time.monotonic() + PAUSE_SECONDS
        log.warning("live: the cache does not answer: %s", type(error).__name__)
        return {}
    notes = {}
    for facts in found.values():
        with contextlib.suppress(TypeError):  # written by a server of another version
            note = LiveNote(**facts)
            notes[note.call_sid] = note
    return notes


class Publisher(threading.Thread):
    """The one of a server process."""

    def __init__(self) -> None:
        super().__init__(name="publisher", daemon=True)
        self.failures = 0  # attempts that cache or channel layer did not take
        self.dropped = 0  # news of calls beyond the bound
        self._failing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()  # held for a few assignments, never while anything waits
        self._notes: dict[str, LiveNote] = {}
        self._changed: set[str] = set()
        self._wake = threading.Event()
        self._stopping = threading.Event()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """The server's loop, where the channel layer lives."""
        self._loop = loop

    def note(self, note: LiveNote) -> None:
        """Never waits; the newest of a call replaces the one that was not told yet."""
        with self._lock:
            if note.call_sid in self._notes or len(self._notes) < MAX_WAITING:
                self._notes[note.call_sid] = note
            else:
                self.dropped += 1
        if not self._wake.is_set():
            self._wake.set()

    def notify_changed(self, call_sids: Iterable[str]) -> None:
        """Rows of these calls have changed. Never waits."""
        with self._lock:
            self._changed.update(call_sids)
            while len(self._changed) > MAX_WAITING:
                self._changed.pop()
                self.dropped += 1
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Notes and calls that pages have not been told of."""
        return len(self._notes) + len(self._changed)

    def stop(self, deadline_s: float) -> None:
        self._stopping.set()
        self._wake.set()
        if self.is_alive():
            self.join(deadline_s)

    def run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            self._stopping.wait(PACE_SECONDS if self.publish() else PAUSE_SECONDS)

    def publish(self) -> bool:
        """Whatever is waiting. False when it could not be told, and waits again."""
        with self._lock:
            notes, self._notes = self._notes, {}
            changed, self._changed = self._changed, set()
        if not notes and not changed:
            return True
        try:
            if notes:
                cache.set_many({_key(sid): _facts(note) for sid, note in notes.items()}, NOTE_SECONDS)
            self._tell(changed | notes.keys())
        except Exception as error:  # whatever the clients raise
            self.failures += 1
            if not self._failing:  # said once for as long as it lasts
                log.warning("live: pages cannot be told: %s", type(error).__name__)
            self._failing = True
            with self._lock:
                self._notes = notes | self._notes
            self.notify_changed(changed)
            return False
        if self._failing:
            log.info("live: pages are told again")
        self._failing = False
        return True

    def _tell(self, call_sids: set[str]) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return  # the server has had no request yet: nobody watches, and no call is ours
        named = sorted(call_sids) if len(call_sids) <= MAX_NAMED else []
        told = asyncio.run_coroutine_threadsafe(_send(named), loop)
        try:
            told.result(2 * TELL_SECONDS)  # a loop that is busy is not the layer's fault
        except BaseException:
            told.cancel()
            raise


async def _send(call_sids: list[str]) -> None:
    """No names mean any call."""
    layer = get_channel_layer()
    async with asyncio.timeout(TELL_SECONDS):
        await layer.group_send(GROUP, {"type": "look.again", "calls": call_sids})


def _facts(note: LiveNote) -> dict[str, object]:
    return asdict(note) | {"partial": clean_text(note.partial)}
