"""uvicorn's websocket protocol, which tells a connection that broke from one that was closed."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

NO_CLOSE_FRAME = 1006


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One websocket.

    uvicorn reports a lost connection as 1005, a close frame without a code: a phone line that broke would
    count as a caller who hung up. After a close frame the application has its code already, and reads no
    second one.
    """

    def connection_lost(self, exc: Exception | None) -> None:
        if self.handshake_complete:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": NO_CLOSE_FRAME})
        super().connection_lost(exc)
