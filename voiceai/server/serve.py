"""Runs the application with uvicorn, and lets calls end before it stops.

The first SIGTERM or SIGINT starts the drain: `/readyz` answers 503, new calls reach the fallback number or
hear the busy notice, and running calls go on for at most DRAIN_SECONDS. Those that are left then end as
`server-stopped`, and Twilio asks `/twilio/after` what their callers hear, so the server answers for another
moment. A second signal skips the wait. The exit code is 0.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal, Self

import uvicorn
from django.conf import settings

from bridge.admission import Admission
from voiceai.environment import bracketed
from voiceai.server.connections import ConnectionLimits, find_max_connections
from voiceai.server.http_protocol import KEEP_ALIVE_SECONDS, make_protocol
from voiceai.server.pages_process import PagesProcess
from voiceai.server.paths import PathFilter
from voiceai.server.refusals import refusals
from voiceai.server.websocket_protocol import WebSocketProtocol

logger = logging.getLogger(__name__)

# The bridge rejects messages over 64 KiB itself, with a close code of its own.
MAX_MESSAGE_BYTES = 131_072
PING_INTERVAL_SECONDS = 20.0
FOLLOW_UP_SECONDS = 3.0  # after the last call, for Twilio's `/twilio/after` and its status callback
END_CALLS_TIMEOUT_SECONDS = 8.0
STOP_TIMEOUT_SECONDS = 5  # for what is still open after the drain: pages, responses
TICK_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What a server process needs to know."""

    host: str
    port: int
    pages_port: int  # the same port: this process serves the pages, too
    drain_seconds: float
    max_connections: int
    max_connections_per_address: int
    max_concurrent_calls: int
    trusted_proxies: Sequence[str] = ()

    @classmethod
    def of_settings(cls, host: str, port: int, pages_port: int | None = None) -> Self:
        return cls(
            host=host,
            port=port,
            pages_port=port if pages_port is None else pages_port,
            drain_seconds=settings.DRAIN_SECONDS,
            max_connections=settings.MAX_CONNECTIONS,
            max_connections_per_address=settings.MAX_CONNECTIONS_PER_ADDRESS,
            max_concurrent_calls=settings.MAX_CONCURRENT_CALLS,
            trusted_proxies=settings.TRUSTED_PROXIES,
        )


class CallServer(uvicorn.Server):
    """uvicorn's server, which waits for its calls. One event loop, one process."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        admission: Callable[[], Admission],
        end_calls: Callable[[], object],
        drain_seconds: float,
        pages: PagesProcess | None = None,
    ) -> None:
        super().__init__(config)
        self._admission = admission
        self._end_calls = end_calls
        self._drain_seconds = drain_seconds
        self._pages = pages
        self._signals = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._pages is not None:
            self._pages.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self._pages is not None:
            await self._pages.stop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for each SIGTERM and SIGINT."""
        self._signals += 1

    async def main_loop(self) -> None:
        counter = 0
        while not self._signals:
            await self._tick(counter)
            counter += 1
        self._admission().stopping = True
        logger.info(
            "stopping: %d calls are live, and have %.0f s to end",
            self._admission().live_calls, self._drain_seconds,
        )  # fmt: skip
        await self._wait_for_calls(self._drain_seconds, is_over=lambda: self._signals > 1)
        if left := self._admission().live_calls:
            logger.warning("stopping: ending %d calls", left)
            self._end_calls()
            await self._wait_for_calls(END_CALLS_TIMEOUT_SECONDS, is_over=lambda: self._signals > 2)

    async def _wait_for_calls(self, seconds: float, *, is_over: Callable[[], bool]) -> None:
        """Until no call is live or about to start, at most so long."""
        admission = self._admission()
        had_calls = admission.taken_places > 0
        await self._pause(seconds, is_over=lambda: is_over() or not admission.taken_places)
        if had_calls and not admission.taken_places:
            await self._pause(FOLLOW_UP_SECONDS, is_over=is_over)

    async def _pause(self, seconds: float, *, is_over: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        counter = 0
        while time.monotonic() < deadline and not is_over():
            await self._tick(counter)
            counter += 1

    async def _tick(self, counter: int) -> None:
        await self.on_tick(counter % 864_000)
        await asyncio.sleep(TICK_SECONDS)


def build_config(app: Any, options: ServeOptions, *, lifespan: Literal["on", "off"] = "on") -> uvicorn.Config:
    """uvicorn's configuration, with our limits."""
    networks = [ipaddress.ip_network(text) for text in options.trusted_proxies]
    max_connections = find_max_connections(options.max_connections, options.max_concurrent_calls)
    limits = ConnectionLimits(max_connections, options.max_connections_per_address)
    return uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        loop="uvloop",
        http=make_protocol(limits, networks),
        ws=WebSocketProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_ping_interval=PING_INTERVAL_SECONDS,
        ws_per_message_deflate=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(networks),
        forwarded_allow_ips=list(options.trusted_proxies),
        timeout_graceful_shutdown=STOP_TIMEOUT_SECONDS,
    )


def serve(options: ServeOptions) -> None:
    """Serve until a signal and the drain after it. Exits with 3, as uvicorn does, if it cannot start."""
    from voiceai.asgi import application  # builds Django's application, which a command already has

    app: Any = application
    pages = None
    if options.pages_port != options.port:
        ports = ["--port", str(options.pages_port), "--media-port", str(options.port)]
        pages = PagesProcess(["--host", options.host, *ports])
        hint = f"The pages are served on port {options.pages_port}."
        app = PathFilter(application, serves_media=True, hint=hint)
        if not settings.REDIS_URL:
            application.destination = pages
    server = CallServer(
        build_config(app, options),
        admission=lambda: application.start().context.admission,
        end_calls=lambda: [end_call() for end_call in list(application.start().context.end_calls)],
        drain_seconds=options.drain_seconds,
        pages=pages,
    )
    server.run()
    refusals.log()
    # What runs at the exit writes the last entries and has deadlines of its own: it is not interrupted.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def format_address(host: str, port: int) -> str:
    """The address of the pages, for a person to open."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    return f"http://{bracketed(shown)}:{port}/"
