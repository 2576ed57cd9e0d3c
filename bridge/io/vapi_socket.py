"""Vapi's websocket: a `websockets` connection with a fast path for whole messages.

`websockets` puts each incoming frame into a queue and wakes a task to read it, and wraps each send in a
context that may wait. At a hundred messages a second and call, that is a third of the leg's CPU time. Here a
complete message that arrives while the reader waits is passed on at once, and a message is written at once
when the connection is open and the transport's buffer has space. Everything else (fragments, messages that
arrive before `listen`, a slow peer, the close) takes the library's own path, in order.
"""

from __future__ import annotations

from collections.abc import Callable

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State

MAX_BUFFERED_BYTES = 32 * 1024  # in the transport; above it a send waits for the peer

Message = str | bytes


class VapiSocket(ClientConnection):
    """The connection of one call."""

    # Set while `listen` waits and nothing is queued: only then does the fast path keep the order.
    _on_message: Callable[[Message], None] | None = None

    async def listen(self, on_message: Callable[[Message], None]) -> None:
        """Call `on_message` for every message, in order, until the connection is closed."""
        try:
            while True:
                self._on_message = on_message
                message = await self.recv()
                on_message(message)
        except ConnectionClosed:
            return
        finally:
            self._on_message = None

    def process_event(self, event: Request | Response | Frame) -> None:
        if self._on_message is None or not isinstance(event, Frame):
            super().process_event(event)
        elif event.fin and event.opcode is Opcode.BINARY:
            self._on_message(bytes(event.data))
        elif event.fin and event.opcode is Opcode.TEXT and (text := _text(event)) is not None:
            self._on_message(text)
        else:
            if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._on_message = None  # use the queue from here on, until the reader has emptied it
            super().process_event(event)

    def write(self, message: Message) -> bool:
        """Send without waiting. Returns False, and sends nothing, when that is not possible now."""
        if self.state is not State.OPEN or self.transport.get_write_buffer_size() > MAX_BUFFERED_BYTES:
            return False
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)
        self.send_data()
        return True


def _text(frame: Frame) -> str | None:
    """The frame's text. None when it is not UTF-8: the library then closes with 1007 (RFC 6455, 8.1)."""
    try:
        return bytes(frame.data).decode()
    except UnicodeDecodeError:
        return None
