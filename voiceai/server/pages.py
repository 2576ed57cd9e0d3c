"""The pages, in a process of their own: `python -m voiceai.server.pages`. `serve` starts it.

It serves all that the media process does not (`paths.py`), and ends when that process closes the socket that
connects them. Signals do not end it, so that staff can watch the calls that are left during a drain. Its
priority is low, its threads are few, and PostgreSQL ends a query that takes too long.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import uvicorn

from voiceai.command_line import load_settings
from voiceai.server.body_limit import ASGIApp, BodyLimit, Receive, Scope, Send
from voiceai.server.pages_process import MAX_MESSAGE_BYTES
from voiceai.server.paths import PathFilter
from voiceai.server.refusals import refuse_socket

logger = logging.getLogger(__name__)

NICENESS = 10  # a processor goes to audio first
MAX_REQUESTS_AT_ONCE = 12  # each takes a thread once its body has arrived
MAX_KEPT_BYTES = 64 << 10  # of a body, before it has its turn
STATEMENT_TIMEOUT_SECONDS = 20


class LimitRequests:
    """Passes a few HTTP requests at once to the application; the others wait for their turn.

    A request asks for its turn when its body is here, or too long to keep: a slow sender keeps nobody
    waiting.
    """

    def __init__(self, app: ASGIApp, limit: int = MAX_REQUESTS_AT_ONCE) -> None:
        self._app = app
        self._turns = asyncio.Semaphore(limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        messages: list[Mapping[str, Any]] = []
        size = 0
        while size <= MAX_KEPT_BYTES:
            messages.append(message := await receive())
            size += len(message.get("body") or b"")
            if message["type"] != "http.request" or not message.get("more_body"):
                break
        messages.reverse()

        async def receive_kept() -> Mapping[str, Any]:
            return messages.pop() if messages else await receive()

        async with self._turns:
            await self._app(scope, receive_kept, send)


class PagesServer(uvicorn.Server):
    """uvicorn's server, which ends with the media process instead of by a signal."""

    def __init__(self, config: uvicorn.Config, connection: socket.socket) -> None:
        super().__init__(config)
        self._connection = connection

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        thread = threading.Thread(
            target=self._receive_updates, args=(asyncio.get_running_loop(),), name="live-updates", daemon=True
        )
        thread.start()

    def _receive_updates(self, loop: asyncio.AbstractEventLoop) -> None:
        from bridge.journal import LiveNote
        from calls.staff.live.publisher import SharedDestination

        destination = SharedDestination()
        destination.attach(loop)
        while message := self._connection.recv(MAX_MESSAGE_BYTES):
            try:
                update: Mapping[str, Any] = json.loads(message)
                destination.send([LiveNote(**note) for note in update["notes"]], update["calls"])
            except Exception:  # the next message may be good, and without the thread no page is updated
                logger.exception("live: an update could not be shown")
        self.should_exit = True


def build_app(media_server: tuple[str, int]) -> ASGIApp:
    """The pages and their websocket. `media_server` is where the media process listens."""
    from channels.routing import ProtocolTypeRouter, URLRouter
    from channels.sessions import CookieMiddleware
    from django.core.asgi import get_asgi_application
    from django.urls import path, re_path

    django_app = get_asgi_application()

    from calls.staff.live.consumer import LiveConsumer

    sockets = URLRouter(
        [
            path("live", CookieMiddleware(LiveConsumer.as_asgi())),
            re_path(r"", refuse_socket),  # type: ignore[arg-type]
        ]
    )
    protocols = ProtocolTypeRouter({"http": BodyLimit(LimitRequests(django_app)), "websocket": sockets})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await protocols({**scope, "media_server": media_server}, receive, send)

    return PathFilter(app, serves_media=False, hint="Twilio's and Vapi's paths are served on another port.")


def limit_statements() -> None:
    """Have PostgreSQL end a query that takes too long. Call it before the first connection."""
    from django.conf import settings

    database = settings.DATABASES["default"]
    if "postgresql" in database["ENGINE"]:
        options = database.setdefault("OPTIONS", {})
        timeout = f"-c statement_timeout={STATEMENT_TIMEOUT_SECONDS * 1000}"
        options["options"] = f"{options.get('options', '')} {timeout}".strip()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m voiceai.server.pages", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--media-port", type=int, required=True)
    parser.add_argument("--socket", type=int, required=True, help="descriptor of the socket to `serve`")
    arguments = parser.parse_args()
    os.nice(NICENESS)
    for number in (signal.SIGTERM, signal.SIGINT):  # a service manager may signal all processes
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which a test call's process would inherit
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceai.settings")
    load_settings()
    limit_statements()
    from voiceai.server.serve import ServeOptions, build_config

    options = ServeOptions.of_settings(arguments.host, arguments.port)
    with socket.socket(fileno=arguments.socket) as connection:
        app = build_app((arguments.host, arguments.media_port))
        server = PagesServer(build_config(app, options, lifespan="off"), connection)
        server.run()


if __name__ == "__main__":
    main()
