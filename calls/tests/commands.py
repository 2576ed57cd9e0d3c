"""Management commands as somebody types them: a process of its own, its output and its exit code."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass

from calls.demo.server_process import ROOT
from calls.tests.live_server import COMMAND_SECONDS, LiveServer


@dataclass(frozen=True, slots=True)
class Printed:
    code: int
    out: str
    err: str

    def says(self, words: str) -> bool:
        """Whether these words were printed, wherever and however the lines were broken."""
        return words in " ".join(f"{self.out} {self.err}".split())


async def manage(server: LiveServer, *arguments: str, **variables: str) -> Printed:
    """Run `manage.py` with the server's settings, and others in their place."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT, env={**server.environment, **variables}, timeout=COMMAND_SECONDS,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    return Printed(done.returncode, done.stdout, done.stderr)
