"""Publishes what changes during live calls to the pages that show them.

Live notes go to the cache, where every server process finds them. Changes to rows need only a notification,
which goes to the pages' group in the channel layer. Where processes share no cache, both go to the process of
the pages (`voiceai/server/pages_process.py`), which puts them into its own. Any of these can be slow, frozen
or down, so this runs on a thread of its own: neither rows nor audio ever wait for it.

It publishes at most five times a second, and only the latest state. After a failure it pauses, then
publishes what has accumulated. Pages also refresh by themselves every few seconds, so a lost notification
only delays them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from typing import Protocol

from channels.layers import get_channel_layer
from django.core.cache import cache

from bridge.journal import LiveNote
from calls.ingest.sanitize import clean_text

logger = logging.getLogger(__name__)

GROUP = "live"
INTERVAL_SECONDS = 0.2
RETRY_SECONDS = 5.0  # pause after a failure
SEND_TIMEOUT_SECONDS = 0.2
# A note is valid until the next one. Long, because a call that is silent for minutes sends no new note.
NOTE_TTL_SECONDS = 600
MAX_PENDING = 1000  # calls with unpublished changes
MAX_NAMED_CALLS = 100  # per message; with more changed calls the list is empty, which means any call

_cache_retry_at = 0.0  # monotonic


def _key(call_sid: str) -> str:
    return f"live:{call_sid}"


def get_notes(call_sids: Sequence[str]) -> dict[str, LiveNote]:
    """The latest note of each call that has one.

    Empty if the cache fails. The cache is then not read for `RETRY_SECONDS`, so that not every page waits
    for its timeout.
    """
    global _cache_retry_at
    if not call_sids or time.monotonic() < _cache_retry_at:
        return {}
    try:
        cached = cache.get_many([_key(sid) for sid in call_sids])
    except Exception as error:  # clients of different caches raise different errors
        _cache_retry_at = time.monotonic() + RETRY_SECONDS
        logger.warning("live: cache read failed: %s", type(error).__name__)
        return {}
    notes = {}
    for fields in cached.values():
        with contextlib.suppress(TypeError):  # written by a server of another version
            note = LiveNote(**fields)
            notes[note.call_sid] = note
    return notes


class Destination(Protocol):
    """Where live notes and notifications go."""

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called once, with the server's event loop, before anything is sent."""

    def send(self, notes: Collection[LiveNote], call_sids: Collection[str]) -> None:
        """Send the notes, and that rows of these calls have changed (empty: of any). Raises if it fails."""


class SharedDestination:
    """The cache and the channel layer of this process, which Redis shares with others."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the server's event loop, which the channel layer is bound to."""
        self._loop = loop

    def send(self, notes: Collection[LiveNote], call_sids: Collection[str]) -> None:
        if notes:
            cached = {_key(note.call_sid): _to_cache(note) for note in notes}
            cache.set_many(cached, NOTE_TTL_SECONDS)
        loop = self._loop
        if loop is None or loop.is_closed():
            return  # the server has had no request yet, so there are no pages and no calls
        sending = asyncio.run_coroutine_threadsafe(_notify_pages(sorted(call_sids)), loop)
        try:
            sending.result(2 * SEND_TIMEOUT_SECONDS)  # twice: a busy loop may start it late
        except BaseException:
            sending.cancel()
            raise


class Publisher(threading.Thread):
    """One per server process."""

    def __init__(self, destination: Destination) -> None:
        super().__init__(name="publisher", daemon=True)
        self.failures = 0  # failed attempts
        self.dropped = 0  # changes beyond `MAX_PENDING`
        self._destination = destination
        self._failing = False
        self._lock = threading.Lock()  # held for a few assignments only, never during I/O
        self._notes: dict[str, LiveNote] = {}
        self._changed: set[str] = set()
        self._wake = threading.Event()
        self._stopping = threading.Event()

    def put_note(self, note: LiveNote) -> None:
        """Queue a note. It replaces an unpublished one of the same call. Never blocks."""
        with self._lock:
            if note.call_sid in self._notes or len(self._notes) < MAX_PENDING:
                self._notes[note.call_sid] = note
            else:
                self.dropped += 1
        if not self._wake.is_set():
            self._wake.set()

    def notify_changed(self, call_sids: Iterable[str]) -> None:
        """Queue a notification that rows of these calls have changed. Never blocks."""
        with self._lock:
            self._changed.update(call_sids)
            while len(self._changed) > MAX_PENDING:
                self._changed.pop()
                self.dropped += 1
        self._wake.set()

    @property
    def pending(self) -> int:
        """Number of unpublished notes and changes."""
        return len(self._notes) + len(self._changed)

    def stop(self, timeout_seconds: float) -> None:
        self._stopping.set()
        self._wake.set()
        if self.is_alive():
            self.join(timeout_seconds)

    def run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            self._stopping.wait(INTERVAL_SECONDS if self.publish() else RETRY_SECONDS)

    def publish(self) -> bool:
        """Publish everything that is queued. On failure queue it again and return False."""
        with self._lock:
            notes, self._notes = self._notes, {}
            changed, self._changed = self._changed, set()
        if not notes and not changed:
            return True
        try:
            call_sids = changed | notes.keys()
            self._destination.send(notes.values(), call_sids if len(call_sids) <= MAX_NAMED_CALLS else ())
        except Exception as error:  # clients of different backends raise different errors
            self.failures += 1
            if not self._failing:  # log the start of an outage only
                logger.warning("live: publishing failed: %s", type(error).__name__)
            self._failing = True
            with self._lock:
                self._notes = notes | self._notes
            self.notify_changed(changed)
            return False
        if self._failing:
            logger.info("live: publishing recovered")
        self._failing = False
        return True


async def _notify_pages(call_sids: list[str]) -> None:
    """An empty list means any call."""
    layer = get_channel_layer()
    async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
        await layer.group_send(GROUP, {"type": "calls.changed", "calls": call_sids})


def _to_cache(note: LiveNote) -> dict[str, object]:
    return asdict(note) | {"partial": clean_text(note.partial)}
