"""A client for the `/live` socket of a real server, and a Redis proxy that can be frozen."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from calls.demo.server_process import HOST
from calls.tests.live_server import LiveServer

LOG_IN = """
import sys
import django
django.setup()
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.backends.db import SessionStore
name, *permissions = sys.argv[1:]
user = User.objects.create_user(name, password="a password", is_staff=True)
user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
session = SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
print(session.session_key)
"""
WAIT_SECONDS = 15.0


def log_in(server: LiveServer, name: str, *permissions: str) -> str:
    """Create a staff user with these permissions. Returns the session key."""
    return server.run("-c", LOG_IN, name, *permissions).strip()


@dataclass(frozen=True, slots=True)
class Update:
    """One update of a page."""

    html: str
    at: float  # monotonic


class LiveSocket:
    """An open `/live` socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def until(self, matches: Callable[[str], object], timeout_seconds: float = WAIT_SECONDS) -> Update:
        """The first update whose HTML matches. Raises `TimeoutError` if there is none in time."""
        async with asyncio.timeout(timeout_seconds):
            while True:
                html = await self._socket.recv()
                assert isinstance(html, str)
                if matches(html):
                    return Update(html, time.monotonic())

    async def wait_for_close(self, timeout_seconds: float = WAIT_SECONDS) -> int | None:
        """Wait until the server closes the socket; returns the close code."""
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(timeout_seconds):
                while True:
                    await self._socket.recv()
        return self._socket.close_code


@asynccontextmanager
async def open_socket(
    server: LiveServer, session_key: str, path: str = "/live", origin: str = ""
) -> AsyncIterator[LiveSocket]:
    headers = {"Origin": origin or server.pages_url, "Cookie": f"sessionid={session_key}"}
    url = server.pages_url.replace("http", "ws", 1) + path
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        yield LiveSocket(socket)


class FreezableProxy:
    """A proxy between a server and its Redis that can stop forwarding."""

    def __init__(self, redis_url: str) -> None:
        parts = urlsplit(redis_url)
        self._target = parts.hostname or HOST, parts.port or 6379
        self._path = parts.path
        self._forwarding = asyncio.Event()
        self._forwarding.set()
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://{HOST}:{self._server.sockets[0].getsockname()[1]}{self._path}"

    def freeze(self) -> None:
        """Stop forwarding. Connections are still accepted and stay open."""
        self._forwarding.clear()

    def thaw(self) -> None:
        self._forwarding.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._on_connect, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._pumps:
            task.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def _on_connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: asyncio logs an error when a connection callback is cancelled.
        task = asyncio.create_task(self._forward(reader, writer))
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, upstream_writer))
                both.create_task(self._pump(upstream_reader, writer))
        finally:
            for each in (writer, upstream_writer):
                with contextlib.suppress(OSError):
                    each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._forwarding.wait()
                writer.write(data)
                await writer.drain()
            writer.write_eof()
