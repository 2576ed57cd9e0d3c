"""The assistant leg of one call, created when its link opens: the link and its outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bridge.io.outbox import Outbox
from bridge.io.vapi_link import LinkEvent, VapiLink
from bridge.wire import vapi

MAX_QUEUED_BYTES = 8000 * 10  # ten seconds of speech; beyond it the oldest audio is dropped
SETTLE_SECONDS = 1.0  # for sending what is queued, before a leg is closed


class AssistantLeg:
    """The link and the outbox of one call. Messages are queued, so that the runner never waits for Vapi."""

    def __init__(self, link: VapiLink) -> None:
        self.link = link
        self._outbox: Outbox[bytes | vapi.Control] = Outbox(
            self._send, _audio_bytes, MAX_QUEUED_BYTES, lambda: link.is_open
        )
        self._sender: asyncio.Task[None] | None = None

    def start(self, create_task: Callable[[], asyncio.Task[None]]) -> None:
        """Start the sending task; `create_task` creates it from `run_outbox`."""
        self._sender = create_task()

    def put(self, message: bytes | vapi.Control) -> int:
        """Queue audio (mu-law) or a control message. Returns how many older frames were dropped for it."""
        return self._outbox.put(message)

    async def run_outbox(self) -> None:
        """Send until the leg is closed and nothing is queued. Raises `OutboxStuck` or the socket's error."""
        await self._outbox.run()

    async def listen(self, on_event: Callable[[LinkEvent], None]) -> None:
        """Call `on_event` for everything that the assistant sends, until its socket closes."""
        await self.link.listen(on_event)

    def close_outbox(self) -> None:
        """Accept no more messages; what is queued is still sent."""
        self._outbox.close()

    async def hang_up(self, how: str) -> None:
        """Send what is queued, then end the call at Vapi (see `VapiLink.hang_up`)."""
        if self._sender is not None:
            await asyncio.wait({self._sender}, timeout=SETTLE_SECONDS)
        await self.link.hang_up(how)

    async def _send(self, message: bytes | vapi.Control) -> None:
        if isinstance(message, bytes):
            await self.link.send_audio(message)
        else:
            await self.link.send_control(message)


def _audio_bytes(message: bytes | vapi.Control) -> int:
    return len(message) if isinstance(message, bytes) else 0
