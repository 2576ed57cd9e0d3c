"""The process of the pages, seen from the media process that starts it: supervision, and live updates.

Pages hash passwords, search and export. In the process that carries calls, each of these would delay audio.
So `serve` starts a second process, which serves the pages on a port of its own (`pages.py`). It is started
again if it ends. A socket pair connects the two: through it the pages get what changes during calls, and
learn that the media process has ended. No call depends on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict

from bridge.journal import LiveNote

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 128 << 10
MAX_NOTES_PER_MESSAGE = 50
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 30.0  # before it is started again
STABLE_SECONDS = 60.0  # a process that ran this long is started again after the shortest pause
STOP_TIMEOUT_SECONDS = 5.0


class PagesProcess:
    """Starts the pages' process, and sends it what changes. A destination of `Publisher`."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """`arguments` of `python -m voiceai.server.pages`, without `--socket`."""
        self._arguments = list(arguments)
        self._process: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None
        self._supervisor: asyncio.Task[None] | None = None

    # The media process's event loop

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to do: the socket needs no event loop."""

    def start(self) -> None:
        self._supervisor = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        """End the process: it ends by itself when its socket is closed."""
        if self._supervisor is None:
            return
        self._supervisor.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._supervisor
        if (process := self._process) is None:
            return
        try:
            async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _supervise(self) -> None:
        pause_seconds = MIN_PAUSE_SECONDS
        while True:
            started_at = time.monotonic()
            try:
                problem = f"ended with code {await self._run()}"
            except OSError as error:  # no memory, or no descriptor
                problem = f"cannot be started: {error.strerror}"
            if time.monotonic() - started_at >= STABLE_SECONDS:
                pause_seconds = MIN_PAUSE_SECONDS
            logger.error("the pages' process %s; starting it in %.0f s", problem, pause_seconds)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, MAX_PAUSE_SECONDS)

    async def _run(self) -> int:
        """Run the process until it ends. Returns its exit code."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            ours.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_MESSAGE_BYTES)
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "voiceai.server.pages",
                    *self._arguments, "--socket", str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C reaches the media process only, which drains first
                )  # fmt: skip
            self._socket = ours
            try:
                return await self._process.wait()
            finally:
                self._socket = None

    # The publisher's thread

    def send(self, notes: Collection[LiveNote], call_sids: Collection[str]) -> None:
        """Send live notes, and the calls whose rows have changed (empty: any). Never blocks.

        Raises `OSError` when the process is not running or does not read: the publisher tries again.
        """
        if (connection := self._socket) is None:
            raise BrokenPipeError("the pages' process is not running")
        notes = list(notes)
        for start in range(0, max(1, len(notes)), MAX_NOTES_PER_MESSAGE):
            batch = notes[start : start + MAX_NOTES_PER_MESSAGE]
            message = {"notes": [asdict(note) for note in batch], "calls": sorted(call_sids)}
            connection.send(json.dumps(message, ensure_ascii=False).encode(errors="replace"))
