"""Run management commands in a separate process, or in the process of the tests, which is much faster."""

from __future__ import annotations

import asyncio
import io
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest import mock

from asgiref.sync import SyncToAsync
from django.conf import settings
from django.core.management import get_commands, load_command_class
from django.db import connections
from django.test import override_settings
from pytest_django import DjangoDbBlocker

from calls.demo.server_process import ROOT
from calls.tests.live_server import COMMAND_TIMEOUT_SECONDS

SETTINGS = ROOT / "voiceai" / "settings.py"
# A blank variable counts as not set, even if `.env` sets it.
BLANK_VARIABLES = {"DATABASE_URL": "", "VAPI_AUDIO_FORMAT": "", "VAPI_SOCKET_URL": ""}


@dataclass(frozen=True, slots=True)
class CommandResult:
    code: int
    stdout: str
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        """The JSON object on stdout; empty if there is none."""
        try:
            report = json.loads(self.stdout)
        except ValueError:
            return {}
        return report if isinstance(report, dict) else {}

    def contains(self, text: str) -> bool:
        """Whether this text was printed, to either stream and however its lines were wrapped."""
        return text in " ".join(f"{self.stdout} {self.stderr}".split())

    def __str__(self) -> str:
        """For a failing test: exit code and the end of both streams."""
        return f"exit code {self.code}\n{self.stdout[-4000:]}\n{self.stderr[-4000:]}"


def command_environment(**variables: str) -> dict[str, str]:
    """The environment of the tests, with the demo's defaults, changed by `variables`."""
    return {**os.environ, **BLANK_VARIABLES, **variables}


def run_command(environment: Mapping[str, str], *arguments: str, **variables: str) -> CommandResult:
    """Run `manage.py` in a separate process with this environment, changed by `variables`."""
    process = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT, env={**environment, **variables}, timeout=COMMAND_TIMEOUT_SECONDS,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return CommandResult(process.returncode, process.stdout, process.stderr)


async def run_command_async(
    environment: Mapping[str, str], *arguments: str, **variables: str
) -> CommandResult:
    """The same, without blocking the event loop, which may run the peer of the command."""
    return await asyncio.to_thread(run_command, environment, *arguments, **variables)


def read_settings(environment: Mapping[str, str], *, tolerates_problems: bool = False) -> dict[str, Any]:
    """The settings that a process with this environment reads."""
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch("voiceai.environment._is_tolerant", tolerates_problems),
    ):
        return {name: value for name, value in runpy.run_path(str(SETTINGS)).items() if name.isupper()}


class InProcessCommands:
    """Runs commands in this process, with the settings that a separate process would have.

    Network and database are used as usual. Logs are not captured.
    """

    def __init__(self, blocker: DjangoDbBlocker) -> None:
        self._blocker = blocker

    async def run(self, environment: Mapping[str, str], *arguments: str, **variables: str) -> CommandResult:
        """The same as `run_command_async`, but in this process."""
        # On a thread with its own connections, so that the simulators in the event loop keep running.
        with ThreadPoolExecutor(max_workers=1) as pool:
            return await asyncio.get_running_loop().run_in_executor(
                pool, self._run, {**environment, **variables}, arguments
            )

    def _run(self, environment: Mapping[str, str], arguments: tuple[str, ...]) -> CommandResult:
        stdout, stderr, code = io.StringIO(), io.StringIO(), 0
        is_doctor = arguments[0] == "doctor"
        with (
            self._apply_environment(environment, is_doctor),
            redirect_stdout(stdout),
            redirect_stderr(stderr),
        ):
            try:
                app = str(get_commands()[arguments[0]])
                load_command_class(app, arguments[0]).run_from_argv(["manage.py", *arguments])
            except SystemExit as end:
                code = int(end.code or 0)
        return CommandResult(code, stdout.getvalue(), stderr.getvalue())

    @contextmanager
    def _apply_environment(self, environment: Mapping[str, str], is_doctor: bool) -> Iterator[None]:
        values = read_settings(environment, tolerates_problems=is_doctor)
        database = connections.configure_settings(values.pop("DATABASES"))["default"]
        database["OPTIONS"].pop("pool", None)  # pools are by alias, and that of the tests may be open
        changes = {name: value for name, value in values.items() if getattr(settings, name) != value}
        changes.pop("UNFOLD", None)  # holds functions, which are never equal
        with (
            mock.patch.dict(os.environ, environment, clear=True),
            mock.patch.dict(settings.DATABASES, default=database),
            override_settings(**changes),
            self._blocker.unblock(),
        ):
            try:
                yield
            finally:
                _close_connections()
                # `sync_to_async` uses this thread when no thread waits for the event loop.
                SyncToAsync.single_thread_executor.submit(_close_connections).result()


def _close_connections() -> None:
    """Close this thread's connections, so that the next ones use the current settings."""
    for connection in connections.all(initialized_only=True):
        connection.close()
        del connections[connection.alias]
