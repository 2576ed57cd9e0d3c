"""How recent calls ended, for whoever is asked what comes next.

When we close the media socket Twilio asks `/twilio/after`, and any worker may be asked. It looks in its
own memory first, then in the cache that all workers share, when one is configured. A spent ticket is
remembered in the same place, so that no second worker honours it.

The shared cache is a hint with a deadline of its own: slow or gone, the call goes on without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Any, Protocol

from bridge import end_reasons

log = logging.getLogger(__name__)

SHARED_SECONDS = 0.2
KEEP_SECONDS = 900
MAX_REMEMBERED = 10_000


class SharedCache(Protocol):
    """The two commands of Redis that are used, as `redis.asyncio.Redis` has them; both are awaited."""

    def get(self, name: str) -> Any: ...

    def set(self, name: str, value: str, *, ex: int, nx: bool = False) -> Any: ...


class KnownEnds:
    """End reasons by CallSid, and tickets that were spent."""

    def __init__(self, shared: SharedCache | None = None) -> None:
        self._mine: OrderedDict[str, str] = OrderedDict()
        self._shared = shared

    def note(self, call_sid: str, reason: str) -> None:
        """Remember in this process, at once. The first word stands, but a stream that was turned away
        says nothing about the call: another may carry it, and its end is the call's."""
        if self._mine.get(call_sid, end_reasons.TICKET_REFUSED) == end_reasons.TICKET_REFUSED:
            self._mine[call_sid] = reason
        while len(self._mine) > MAX_REMEMBERED:
            self._mine.popitem(last=False)

    async def publish(self, call_sid: str, reason: str) -> None:
        """Tell the other workers, before the socket is closed and Twilio asks."""
        if self._shared is not None:
            await self._ask(self._shared.set(f"voiceai:end:{call_sid}", reason, ex=KEEP_SECONDS, nx=True))

    async def find(self, call_sid: str) -> str | None:
        """The end reason of a recent call, None when neither place knows it."""
        mine = self._mine.get(call_sid)
        if self._shared is None or mine not in (None, end_reasons.TICKET_REFUSED):
            return mine
        found = await self._ask(self._shared.get(f"voiceai:end:{call_sid}"))
        return (found.decode() if isinstance(found, bytes) else found) or mine

    async def spend(self, ticket_id: str, seconds: int) -> bool:
        """Whether this worker is the first to see the ticket. A cache that does not answer says yes:
        the ticket is still bound to its call, short-lived, and spent once in each process."""
        if self._shared is None:
            return True
        key = f"voiceai:ticket:{ticket_id}"
        return await self._ask(self._shared.set(key, "1", ex=seconds, nx=True), absent=True) is not None

    async def _ask(self, command: Any, absent: Any = None) -> Any:
        try:
            async with asyncio.timeout(SHARED_SECONDS):
                return await command
        except Exception as error:  # whatever the client raises: a hint is not worth a call
            log.warning("shared cache did not answer: %s", type(error).__name__)
            return absent
