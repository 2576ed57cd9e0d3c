"""Which calls have had their stream, and how recent ones ended: in this process, and in the shared cache.

When we close the media socket, Twilio requests `/twilio/after`, and any worker may receive that request. The
worker reads its own memory first, then the cache that all workers share (Redis), if one is configured. The
same cache knows which calls have had their stream, so that no second worker accepts another.

The shared cache has a deadline of 200 ms: when it is slow or down, the call continues without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Any, Protocol

from bridge.end_reasons import TICKET_REFUSED

logger = logging.getLogger(__name__)

SHARED_SECONDS = 0.2
KEEP_SECONDS = 900
MAX_STORED = 10_000


class SharedCache(Protocol):
    """The two Redis commands that are used, as in `redis.asyncio.Redis`; both are awaited."""

    def get(self, name: str) -> Any: ...

    def set(self, name: str, value: str, *, ex: int, nx: bool = False) -> Any: ...


class CallCache:
    """End reasons and streams by CallSid."""

    def __init__(self, shared: SharedCache | None = None) -> None:
        self._local: OrderedDict[str, str] = OrderedDict()
        self._shared = shared

    def store(self, call_sid: str, reason: str) -> None:
        """Store in this process, without waiting. The first reason of a call is kept.

        Only `ticket-refused` is replaced by a later reason: another stream may carry the call, and the end of
        that stream is the end of the call.
        """
        if self._local.get(call_sid, TICKET_REFUSED) == TICKET_REFUSED:
            self._local[call_sid] = reason
        while len(self._local) > MAX_STORED:
            self._local.popitem(last=False)

    async def publish(self, call_sid: str, reason: str) -> None:
        """Store for all workers, before the socket is closed: Twilio then requests the reason at once."""
        if self._shared is not None:
            await self._call(self._shared.set(f"voiceai:end:{call_sid}", reason, ex=KEEP_SECONDS, nx=True))

    async def find(self, call_sid: str) -> str | None:
        """The end reason of a recent call; None when neither this process nor the shared cache has it."""
        local = self._local.get(call_sid)
        if self._shared is None or local not in (None, TICKET_REFUSED):
            return local
        shared = await self._call(self._shared.get(f"voiceai:end:{call_sid}"))
        return (shared.decode() if isinstance(shared, bytes) else shared) or local

    async def claim_stream(self, call_sid: str, seconds: int) -> bool | None:
        """Mark the call's stream as begun, for all workers. Returns False when another worker has had it.

        None: the shared cache did not answer, so nobody knows.
        """
        if self._shared is None:
            return True
        key, no_answer = f"voiceai:stream:{call_sid}", object()
        claimed = await self._call(self._shared.set(key, "1", ex=seconds, nx=True), default=no_answer)
        return None if claimed is no_answer else claimed is not None

    async def _call(self, command: Any, default: Any = None) -> Any:
        try:
            async with asyncio.timeout(SHARED_SECONDS):
                return await command
        except Exception as error:  # of any kind: the call must continue
            logger.warning("shared cache did not answer: %s", type(error).__name__)
            return default
