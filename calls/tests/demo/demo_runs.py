"""`manage.py demo` as its users run it: in a process of its own, judged by what it prints and returns."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
RUN_SECONDS = 150
# A blank variable counts as not set, also when there is a `.env`.
PLAIN = {"DATABASE_URL": "", "VAPI_AUDIO_FORMAT": "", "VAPI_SOCKET_URL": ""}


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    report: dict[str, Any]  # empty when stdout was no JSON object
    stdout: str
    stderr: str

    @property
    def failed(self) -> list[str]:
        return list(self.report["failed"])

    def __str__(self) -> str:
        """For a failing test: what was found, then the end of the log."""
        checks = self.report.get("checks", {})
        found = [f"{name}: {check['detail']}" for name, check in checks.items() if not check["held"]]
        return "\n".join([*found, *self.stderr.splitlines()[-40:]])


def manage(*arguments: str, **variables: str) -> Ran:
    ran = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    try:
        report = json.loads(ran.stdout)
    except ValueError:
        report = {}
    return Ran(ran.returncode, report if isinstance(report, dict) else {}, ran.stdout, ran.stderr)


async def manage_async(*arguments: str, **variables: str) -> Ran:
    """The same, while the event loop goes on: it may be the far end that the command talks to."""
    return await asyncio.to_thread(manage, *arguments, **variables)


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, **PLAIN, **variables}
