"""The body limit for Daphne, which reads a whole body before it calls the application.

Daphne has no setting for it, so its request class is extended. It also removes the header `Daphne-Root-Path`,
with which anyone could move the paths of this application.
"""

from __future__ import annotations

from daphne import http_protocol

from voiceai.server.body_limit import find_max_body_bytes, too_large
from voiceai.server.refusals import refusals


class LimitedRequest(http_protocol.WebRequest):  # type: ignore[misc]
    """A request whose body is refused as soon as it is known to be too large."""

    def gotLength(self, length: int | None) -> None:
        """Called when the headers are complete; `length` is None for a chunked body."""
        self.requestHeaders.removeHeader(b"daphne-root-path")
        self._received = 0
        self._max_bytes = find_max_body_bytes(self.channel._path.decode("latin-1"))
        # A small buffer in memory: twisted would make a file for a length that is refused.
        super().gotLength(min(length, self._max_bytes) if length is not None else None)
        if length is not None and length > self._max_bytes:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self._max_bytes:
            self._refuse()
        else:
            super().handleContentChunk(data)

    def _refuse(self) -> None:
        if self.channel is None or self.channel.transport is None:
            return
        error = too_large(self._max_bytes)
        refusals.count(str(error))
        body = f"{error}\n".encode()
        self.channel.transport.write(
            b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.channel.transport.loseConnection()


def limit_daphne() -> None:
    """Make Daphne use it for every request from now on."""
    http_protocol.WebRequest = LimitedRequest  # its factory looks the class up for each connection
