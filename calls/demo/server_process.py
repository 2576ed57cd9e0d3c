"""Runs the product as its users do: Daphne in a separate process, with its log line by line.

The server process has a session of its own, so that Ctrl-C in the terminal only reaches this process, which
then stops the server. At its end, the `async with` block waits for the end of the server process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
READY_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 10.0
POLL_INTERVAL_SECONDS = 0.1
MAX_LINES = 5_000


class ServerFailed(Exception):
    """The server did not start; the message contains the end of its log."""


def reserve_port(preferred: int = 0) -> int:
    """The preferred port or the next free one; 0: any free port. Raises `ServerFailed`.

    The port stays reserved while this process runs: a socket that is bound to it and does not listen keeps
    it from the other processes that ask for any port, but not from the server, which names it.
    """
    for port in range(preferred, min(preferred + 100, 65_536)) if preferred else [0]:
        with socket.socket() as probe:
            # The server sets it, too: a port with connections in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                reserved = int(probe.getsockname()[1])
                probe.detach()  # stays open, which reserves the port
                return reserved
    raise ServerFailed(f"no free port from {preferred} to {preferred + 99}")


class ServerProcess:
    """`python -m daphne` with the current environment and the given changes."""

    ready_timeout_seconds = READY_TIMEOUT_SECONDS

    def __init__(
        self, port: int, environment: Mapping[str, str], *, asgi: str, on_line: Callable[[str], None]
    ) -> None:
        self.port = port
        self.lines: deque[str] = deque(maxlen=MAX_LINES)
        self._environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
        self._asgi = asgi
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    def build_arguments(self) -> list[str]:
        """Python's arguments."""
        arguments = ["-m", "daphne", "-b", HOST, "-p", str(self.port), "-v", "0"]
        return [*arguments, "--websocket-max-message-size", "131072", self._asgi]

    async def start(self) -> None:
        """Start the process, and wait until it accepts calls. Raises `ServerFailed`."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self.build_arguments(),
            cwd=ROOT,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read(self._process))
        try:
            await self._wait_until_ready(self._process)
        except BaseException:
            await self.stop()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                raw = await process.stdout.readline()
            except ValueError:
                continue  # a line longer than the buffer: the rest of it follows
            if not raw:
                return
            line = raw.decode("utf-8", "replace").rstrip("\n")
            self.lines.append(line)
            self._on_line(line)

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with (
                asyncio.timeout(self.ready_timeout_seconds),
                aiohttp.ClientSession(trust_env=False) as http,
            ):
                while process.returncode is None:
                    with contextlib.suppress(aiohttp.ClientError):
                        async with http.get(f"{self.url}/readyz") as response:
                            if response.status == 200:
                                return
                    await asyncio.sleep(POLL_INTERVAL_SECONDS)
            problem = f"it exited with code {process.returncode}"
        except TimeoutError:
            problem = f"it was not ready within {self.ready_timeout_seconds:.0f} s"
        await self.stop()
        raise ServerFailed("\n".join([f"The server did not start: {problem}.", *list(self.lines)[-15:]]))
