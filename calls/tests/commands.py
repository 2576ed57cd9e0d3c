"""Run management commands in a separate process, or in the process of the tests, which is much faster."""

from __future__ import annotations

import asyncio
import io
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
from calls.tests.live_server import COMMAND_SECONDS, LiveServer

SETTINGS = ROOT / "voiceai" / "settings.py"


@dataclass(frozen=True, slots=True)
class Printed:
    code: int
    out: str
    err: str

    def says(self, words: str) -> bool:
        """Whether this text was printed, to either stream and however its lines were wrapped."""
        return words in " ".join(f"{self.out} {self.err}".split())


async def manage(server: LiveServer, *arguments: str, **variables: str) -> Printed:
    """Run `manage.py` with the server's environment, changed by `variables`."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT, env={**server.environment, **variables}, timeout=COMMAND_SECONDS,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    return Printed(done.returncode, done.stdout, done.stderr)


def settings_of(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that a process with this environment reads."""
    with mock.patch.dict(os.environ, environment, clear=True):
        return {name: value for name, value in runpy.run_path(str(SETTINGS)).items() if name.isupper()}


class Shell:
    """Runs commands in this process, with the settings that a separate process would have.

    Network and database are used as usual. Logs are not captured.
    """

    def __init__(self, blocker: DjangoDbBlocker) -> None:
        self._blocker = blocker

    async def manage(self, server: LiveServer, *arguments: str, **variables: str) -> Printed:
        return await self.run({**server.environment, **variables}, *arguments)

    async def run(self, environment: Mapping[str, str], *arguments: str) -> Printed:
        # On a thread with its own connections, so that the simulators in the event loop keep running.
        with ThreadPoolExecutor(max_workers=1) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, self._run, environment, arguments)

    def _run(self, environment: Mapping[str, str], arguments: tuple[str, ...]) -> Printed:
        out, err, code = io.StringIO(), io.StringIO(), 0
        with self._set_up_as(environment), redirect_stdout(out), redirect_stderr(err):
            try:
                app = str(get_commands()[arguments[0]])
                load_command_class(app, arguments[0]).run_from_argv(["manage.py", *arguments])
            except SystemExit as end:
                code = int(end.code or 0)
        return Printed(code, out.getvalue(), err.getvalue())

    @contextmanager
    def _set_up_as(self, environment: Mapping[str, str]) -> Iterator[None]:
        found = settings_of(environment)
        database = connections.configure_settings(found.pop("DATABASES"))["default"]
        database["OPTIONS"].pop("pool", None)  # pools are by alias, and that of the tests may be open
        changed = {name: value for name, value in found.items() if getattr(settings, name) != value}
        changed.pop("UNFOLD", None)  # holds functions, which are never equal
        with (
            mock.patch.dict(os.environ, environment, clear=True),
            mock.patch.dict(settings.DATABASES, default=database),
            override_settings(**changed),
            self._blocker.unblock(),
        ):
            try:
                yield
            finally:
                _forget_connections()
                # `sync_to_async` uses this thread when no thread waits for the event loop.
                SyncToAsync.single_thread_executor.submit(_forget_connections).result()


def _forget_connections() -> None:
    """Close this thread's connections, so that the next ones use the current settings."""
    for connection in connections.all(initialized_only=True):
        connection.close()
        del connections[connection.alias]
