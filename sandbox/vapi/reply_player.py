"""Plays one reply: sends the chunks of a speech plan on time, records them, and stops when cut off.

Times are `time.monotonic()`, the clock of the event loop.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

from sandbox.vapi.record import Reply
from sandbox.vapi.speech_output import SpeechPlan


class ReplyPlayer:
    def __init__(self, reply: Reply, plan: SpeechPlan, *, interruptible: bool, start_at: float) -> None:
        self.reply = reply
        self.plan = plan
        self.turn_id = str(uuid.uuid4())
        self.interruptible = interruptible
        self.start_at = start_at  # when the first chunk is due
        self.interrupted = False  # cut off by a barge-in, not by a command
        self._cut = asyncio.Event()

    def cut(self, at: float) -> bool:
        """Stop speaking; False if it was already cut off."""
        if self._cut.is_set():
            return False
        self.reply.cut_at = at
        self._cut.set()
        return True

    async def play(self, send: Callable[[bytes], Awaitable[None]], on_audible: Callable[[], None]) -> None:
        """Send chunk by chunk, then wait until the last sample was played in real time, or was cut off."""
        reply = self.reply
        try:
            for index, chunk in enumerate(self.plan.chunks):
                if await self._wait_for_cut_until(self.start_at + chunk.due_seconds):
                    return
                now = time.monotonic()
                reply.first_sent_at = now if reply.first_sent_at is None else reply.first_sent_at
                reply.last_sent_at = now
                reply.chunks.append((now, chunk.audio))
                if index == self.plan.audible:
                    reply.first_audible_sent_at = now
                    on_audible()
                await send(chunk.audio)
            await self._wait_for_cut_until(self.start_at + self.plan.duration_seconds)
        finally:
            reply.done_at = time.monotonic()
            if len(reply.chunks) < len(self.plan.chunks) and reply.cut_at is None:
                reply.cut_at = reply.done_at  # the call ended during the reply

    def spoken_words(self) -> str:
        """The text, up to the point where it was cut off."""
        reply = self.reply
        if reply.cut_at is None:
            return reply.text
        if not reply.chunks or reply.first_sent_at is None:
            return ""
        sent_seconds = self.plan.chunks[len(reply.chunks) - 1].end_seconds
        return self.plan.words_until(reply.text, min(sent_seconds, reply.cut_at - reply.first_sent_at))

    async def _wait_for_cut_until(self, at: float) -> bool:
        """Wait until this time or the cut; True if it was cut off."""
        wait_seconds = at - time.monotonic()
        if wait_seconds > 0 and not self._cut.is_set():
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._cut.wait()
            except TimeoutError:
                pass
        return self._cut.is_set()
