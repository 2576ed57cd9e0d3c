"""Vapi's socket: a `websockets` connection with a short way for whole messages.

`websockets` puts each frame that arrives into a queue and wakes a task to take it out, and wraps each
send in a context that can wait. For a hundred messages a second and call, that is a third of what the
leg costs. Here a whole message that arrives while the reader waits is handed over at once, and one that
finds the connection open and the transport with room is written at once. Everything else (fragments,
what arrived before anybody listened, a slow peer, an ending) goes the library's own way, in order.
"""

from __future__ import annotations

from collections.abc import Callable

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State

ROOM_BYTES = 32 * 1024  # that may wait in the transport before a send waits for the peer

Message = str | bytes


class VapiSocket(ClientConnection):
    """The connection of one call."""

    # Set while `listen` waits with nothing queued: only then is the short way in order.
    _take: Callable[[Message], None] | None = None

    async def listen(self, take: Callable[[Message], None]) -> None:
        """Hand over every message, in order, until the connection is closed."""
        try:
            while True:
                self._take = take
                message = await self.recv()
                take(message)
        except ConnectionClosed:
            return
        finally:
            self._take = None

    def process_event(self, event: Request | Response | Frame) -> None:
        if self._take is None or not isinstance(event, Frame):
            super().process_event(event)
        elif event.fin and event.opcode is Opcode.BINARY:
            self._take(bytes(event.data))
        elif event.fin and event.opcode is Opcode.TEXT and (text := _text(event)) is not None:
            self._take(text)
        else:
            if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._take = None  # from here on queued, until the reader has caught up
            super().process_event(event)

    def write(self, message: Message) -> bool:
        """Send without waiting; False, and nothing sent, when that cannot be now."""
        if self.state is not State.OPEN or self.transport.get_write_buffer_size() > ROOM_BYTES:
            return False
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)
        self.send_data()
        return True


def _text(frame: Frame) -> str | None:
    """None for what is not UTF-8: the library closes the connection over it, as it should."""
    try:
        return bytes(frame.data).decode()
    except UnicodeDecodeError:
        return None
