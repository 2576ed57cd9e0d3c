"""One piece of speech while it is spoken: a plan's chunks sent on time, written down, cut off when told.

Times are `time.monotonic()`, the clock of the event loop.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

from sandbox.vapi.record import Reply
from sandbox.vapi.speech_output import Plan


class Voice:
    def __init__(self, reply: Reply, plan: Plan, *, interruptible: bool, start: float) -> None:
        self.reply = reply
        self.plan = plan
        self.turn_id = str(uuid.uuid4())
        self.interruptible = interruptible
        self.start = start  # when the first chunk is due
        self.interrupted = False  # cut off by the caller, as opposed to by a command
        self._cut = asyncio.Event()

    def cut(self, at: float) -> bool:
        """Be silent from now on; False when it already is."""
        if self._cut.is_set():
            return False
        self.reply.cut_at = at
        self._cut.set()
        return True

    async def perform(self, send: Callable[[bytes], Awaitable[None]], audible: Callable[[], None]) -> None:
        """Send chunk by chunk, then wait until the last sample has been played in real time, or cut off."""
        reply = self.reply
        try:
            for index, chunk in enumerate(self.plan.chunks):
                if await self._cut_before(self.start + chunk.due_s):
                    return
                now = time.monotonic()
                reply.first_sent_at = now if reply.first_sent_at is None else reply.first_sent_at
                reply.last_sent_at = now
                reply.chunks.append((now, chunk.audio))
                if index == self.plan.audible:
                    reply.first_audible_sent_at = now
                    audible()
                await send(chunk.audio)
            await self._cut_before(self.start + self.plan.duration_s)
        finally:
            reply.done_at = time.monotonic()
            if len(reply.chunks) < len(self.plan.chunks) and reply.cut_at is None:
                reply.cut_at = reply.done_at  # the call ended in mid-speech

    def words_said(self) -> str:
        """All of the text, or as much of it as was heard before the cut."""
        reply = self.reply
        if reply.cut_at is None:
            return reply.text
        if not reply.chunks or reply.first_sent_at is None:
            return ""
        sent_s = self.plan.chunks[len(reply.chunks) - 1].ends_s
        return self.plan.words_until(reply.text, min(sent_s, reply.cut_at - reply.first_sent_at))

    async def _cut_before(self, at: float) -> bool:
        """Wait until then, or until cut off; True when cut off."""
        wait_s = at - time.monotonic()
        if wait_s > 0 and not self._cut.is_set():
            try:
                async with asyncio.timeout(wait_s):
                    await self._cut.wait()
            except TimeoutError:
                pass
        return self._cut.is_set()
