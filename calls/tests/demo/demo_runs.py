"""Runs `manage.py` commands as users do: in a separate process, checked by their output and exit code."""

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
# A blank variable counts as not set, even if `.env` sets it.
DEFAULTS = {"DATABASE_URL": "", "VAPI_AUDIO_FORMAT": "", "VAPI_SOCKET_URL": ""}


@dataclass(frozen=True, slots=True)
class CommandResult:
    code: int
    report: dict[str, Any]  # empty if stdout is not a JSON object
    stdout: str
    stderr: str

    @property
    def failed(self) -> list[str]:
        return list(self.report["failed"])

    def __str__(self) -> str:
        """For a failing test: the failed checks, then the end of the log."""
        checks = self.report.get("checks", {})
        failures = [f"{name}: {check['detail']}" for name, check in checks.items() if not check["held"]]
        return "\n".join([*failures, *self.stderr.splitlines()[-40:]])


def manage(*arguments: str, **variables: str) -> CommandResult:
    process = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    try:
        report = json.loads(process.stdout)
    except ValueError:
        report = {}
    return CommandResult(
        process.returncode, report if isinstance(report, dict) else {}, process.stdout, process.stderr
    )


async def manage_async(*arguments: str, **variables: str) -> CommandResult:
    """The same, without blocking the event loop, which may run the peer of the command."""
    return await asyncio.to_thread(manage, *arguments, **variables)


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, **DEFAULTS, **variables}
