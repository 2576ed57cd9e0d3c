"""Somebody of the staff at a live server, and a Redis that can be frozen under it."""

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
    """A fresh member of staff with these permissions; returns the key of their session."""
    return server.run("-c", LOG_IN, name, *permissions).strip()


@dataclass(frozen=True, slots=True)
class Seen:
    """One update of a page."""

    html: str
    at: float  # monotonic


class Watcher:
    """An open `/live` socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def until(self, wanted: Callable[[str], object], seconds: float = WAIT_SECONDS) -> Seen:
        """The first update that is as wanted. TimeoutError when none is."""
        async with asyncio.timeout(seconds):
            while True:
                html = await self._socket.recv()
                assert isinstance(html, str)
                if wanted(html):
                    return Seen(html, time.monotonic())

    async def sent_away(self, seconds: float = WAIT_SECONDS) -> int | None:
        """The code with which the server closes the socket."""
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(seconds):
                while True:
                    await self._socket.recv()
        return self._socket.close_code


@asynccontextmanager
async def watching(
    server: LiveServer, session_key: str, path: str = "/live", origin: str = ""
) -> AsyncIterator[Watcher]:
    headers = {"Origin": origin or server.url, "Cookie": f"sessionid={session_key}"}
    url = f"ws://{HOST}:{server.port}{path}"
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        yield Watcher(socket)


class Tap:
    """Stands between a server and its Redis, and can stop to pass anything on."""

    def __init__(self, redis_url: str) -> None:
        parts = urlsplit(redis_url)
        self._target = parts.hostname or HOST, parts.port or 6379
        self._path = parts.path
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://{HOST}:{self._server.sockets[0].getsockname()[1]}{self._path}"

    def freeze(self) -> None:
        """Connections are accepted and stay open; nothing comes through."""
        self._open.clear()

    def thaw(self) -> None:
        self._open.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._pumps:
            task.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: asyncio complains of one that is cancelled.
        task = asyncio.create_task(self._pass_on(reader, writer))
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, back))
                both.create_task(self._pump(there, writer))
        finally:
            for end in (writer, back):
                with contextlib.suppress(OSError):
                    end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
            writer.write_eof()
