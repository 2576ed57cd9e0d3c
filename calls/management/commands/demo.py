"""`manage.py demo`: a whole simulated call on this machine, shown and checked. No account, no network.

It uses DATABASE_URL if that is set, otherwise a database of its own: in `var/demo`, with `--once` a temporary
one. With `--once` the journal and the port are its own, too, so that runs do not affect each other, and its
exit code is the result of the checks. Without it, the pages are served until Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections
from rich.console import Console

from calls.demo.assertions import run_checks
from calls.demo.console import CallConsole
from calls.demo.report import to_json, write_wavs
from calls.demo.runner import Observers, Testbed, run_call, start_testbed
from calls.demo.scenario import Scenario
from calls.demo.server_process import ServerFailed, reserve_port
from calls.management.arguments import parse_port

DEFAULT_PORT = 8000
LOGIN = "demo"
INTERRUPTED = 130


class Command(BaseCommand):
    help = "Runs one simulated call against a real server on this machine and checks the results."
    # This command sets everything that the checks would examine.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="one call, then exit: 0 if all checks passed")
        parser.add_argument(
            "--json", action="store_true", help="with --once: print one JSON object on stdout"
        )
        parser.add_argument(
            "--seed", type=int, default=0, help="the same seed gives the same delays and line noise"
        )
        parser.add_argument(
            "--port",
            type=parse_port,
            help=f"port of the server (default: {DEFAULT_PORT}; with --once any free port)",
        )
        parser.add_argument("--fast", action="store_true", help="a shorter call with faster answers")
        parser.add_argument("--save", type=Path, help="folder for WAV files and log (default: var/demo)")
        parser.add_argument(
            "--listen",
            choices=("auto", "energy", "speech"),
            default="auto",
            help="speech: recognize words; energy: only detect speech; auto: speech if it is installed",
        )
        parser.add_argument("--asgi", default="voiceai.asgi:application", help=argparse.SUPPRESS)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["json"] and not options["once"]:
            raise CommandError("--json needs --once.")
        with contextlib.ExitStack() as stack:
            environment = {}
            folder = options["save"] or settings.VAR_DIR / "demo"
            if options["once"]:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="voiceai-demo-")))
            folder.mkdir(parents=True, exist_ok=True)
            if not os.environ.get("DATABASE_URL", "").strip():  # not the database of `make run`
                environment["DATABASE_URL"] = _use_database_in(folder)
            environment["JOURNAL_DIR"] = str(folder.resolve() / "journal")
            log = sys.stderr if options["once"] else stack.enter_context(open(folder / "server.log", "w"))
            uses_socket = bool(settings.VAPI_SOCKET_URL)
            scenario = Scenario(
                seed=options["seed"],
                fast=options["fast"],
                listen=options["listen"],
                asgi=options["asgi"],
                dialect="socket" if uses_socket else "call",
                # The socket dialect, from Vapi's tutorial, supports mu-law only.
                audio_format="mulaw" if uses_socket else settings.VAPI_AUDIO_FORMAT,
                environment=environment,
            )
            wav_folder = options["save"] or (None if options["once"] else folder)
            console = CallConsole(Console(stderr=options["json"], highlight=False))
            run = DemoRun(console, scenario, options, log, wav_folder)
            call_command("migrate", interactive=False, verbosity=0)
            try:
                code = asyncio.run(run.run())
            except ServerFailed as failure:
                raise CommandError(str(failure)) from None
            finally:
                connections.close_all()
        if code:
            sys.exit(code)


class DemoRun:
    """One run of the command."""

    def __init__(
        self,
        console: CallConsole,
        scenario: Scenario,
        options: dict[str, Any],
        log: TextIO,
        wav_folder: Path | None,
    ) -> None:
        self._console = console
        self._scenario = scenario
        self._options = options
        self._once = bool(options["once"])
        self._log = log
        self._wav_folder = wav_folder
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> int:
        """Returns the exit code."""
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, self._stop)
        observers = Observers(self._console.on_twilio_event, self._console.on_vapi_event, self._write_log)
        try:
            async with start_testbed(self._scenario, self._choose_port(), observers) as testbed:
                all_passed = await self._run_call(testbed, observers)
                if not self._once:
                    await self._serve_until_stopped(testbed)
        except asyncio.CancelledError:
            self._console.stop_panel()
            self._console.print("Stopped.")
            return INTERRUPTED
        return 0 if all_passed else 1

    def _stop(self) -> None:
        """Cancel only once: a second Ctrl-C must not interrupt the shutdown."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _write_log(self, line: str) -> None:
        print(line, file=self._log, flush=True)

    def _choose_port(self) -> int:
        preferred = self._options["port"] or (0 if self._once else DEFAULT_PORT)
        reserved = reserve_port(preferred)
        if preferred and reserved != preferred:
            self._console.print(f"Port {preferred} is in use, using {reserved} instead.", "bold yellow")
        audio_format = "16 kHz PCM" if self._scenario.audio_format == "pcm_s16le" else "mu-law"
        self._console.print(
            f"Starting the server on port {reserved}, {self._scenario.dialect} dialect, {audio_format} ..."
        )
        return reserved

    async def _run_call(self, testbed: Testbed, observers: Observers) -> bool:
        started_at = time.monotonic()
        self._console.start_panel()
        try:
            artifacts = await run_call(testbed, self._scenario, observers)
        finally:
            self._console.stop_panel()
        checks = run_checks(artifacts)
        wavs = write_wavs(artifacts, self._wav_folder) if self._wav_folder else []
        self._console.print_summary(artifacts, checks)
        for path, speaker in zip(wavs, ("caller", "assistant"), strict=False):
            self._console.print(f"What the {speaker} heard: {path}")
        if self._options["json"]:
            report = to_json(artifacts, checks, self._scenario, wavs, time.monotonic() - started_at)
            print(json.dumps(report), flush=True)
        elif artifacts.rows is not None and not self._once:
            self._console.print(f"This call: {testbed.server.url}{artifacts.rows.url}")
        return all(check.passed for check in checks)

    async def _serve_until_stopped(self, testbed: Testbed) -> None:
        password = secrets.token_urlsafe(9)
        await asyncio.to_thread(_create_login, password)
        output = self._console.print
        output("")
        output(f"Calls:  {testbed.server.url}/", "bold")
        output(f"Admin:  {testbed.server.url}/admin/", "bold")
        output(f"Log in as {LOGIN} with {password}", "bold")
        output("To place another call, run in a second terminal:")
        output(
            f"  PUBLIC_URL={testbed.server.url} TWILIO_ACCOUNT_SID={testbed.account_sid}"
            f" TWILIO_AUTH_TOKEN={testbed.auth_token} TWILIO_BASE_URL={testbed.twilio_rest.base_url}"
            " ./manage.py simulate_call"
        )
        output(f"Server log: {self._log.name}")
        output("Ctrl-C stops.")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        output("Stopping ...")


def _use_database_in(folder: Path) -> str:
    """Point this process's connections at a SQLite file in the folder; returns its URL, for the server."""
    path = folder.resolve() / "demo.sqlite3"
    settings.DATABASES["default"]["NAME"] = str(path)
    connections["default"].close()
    connections["default"].settings_dict["NAME"] = str(path)
    return f"sqlite:///{path}"


def _create_login(password: str) -> None:
    """Create the demo's staff user, or set its password."""
    try:
        user, _ = get_user_model().objects.get_or_create(username=LOGIN)
        user.is_staff = user.is_superuser = user.is_active = True
        user.set_password(password)
        user.save()
    finally:
        connections.close_all()
