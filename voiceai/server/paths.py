"""Which process of `serve` serves a path.

The media process serves the webhooks, the media stream, the health probes and `/doctor/echo`; the other
process serves the pages.
"""

from __future__ import annotations

from calls.middleware import WEBHOOK_PATHS
from voiceai.server.body_limit import ASGIApp, Receive, Scope, Send

MEDIA_PATHS = (*WEBHOOK_PATHS, "/media-stream")


def is_media_path(path: str) -> bool:
    """Whether the media process serves this path, with or without a slash at its end."""
    return path.startswith(MEDIA_PATHS)


class PathFilter:
    """Passes on the paths of one process, and answers 404 to those of the other."""

    def __init__(self, app: ASGIApp, *, serves_media: bool, hint: str) -> None:
        self._app = app
        self._serves_media = serves_media
        self._hint = hint  # where the other paths are served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or is_media_path(scope["path"]) == self._serves_media:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        else:
            # The rest of a body is not read.
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 404, "headers": headers})
            await send({"type": "http.response.body", "body": f"{self._hint}\n".encode()})
