"""`manage.py demo`: a whole call on this machine, shown and judged. No account, no network.

With `--once` it uses a database, a journal and a port of its own, so that runs do not disturb each
other, and its exit code is the verdict. Without, it uses the configured database, and the pages stay up
until Ctrl-C.
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

from calls.demo.artifacts import as_json, write_wavs
from calls.demo.assertions import judge
from calls.demo.case import truths_ms
from calls.demo.console import Screen
from calls.demo.runner import Audience, Stage, Wishes, play, stage
from calls.demo.server import ServerFailed, free_port

DEFAULT_PORT = 8000
LOGIN = "demo"
INTERRUPTED = 130


class Command(BaseCommand):
    help = "Places one simulated call against a real server on this machine and judges what it left behind."
    # Everything that they look at is set here.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="one call, then exit: 0 if everything held")
        parser.add_argument("--json", action="store_true", help="with --once: one JSON object on stdout")
        parser.add_argument("--seed", type=int, default=0, help="same seed, same delays and line noise")
        parser.add_argument("--port", type=int, help=f"of the server: {DEFAULT_PORT}, or any with --once")
        parser.add_argument("--fast", action="store_true", help="a shorter call with quicker answers")
        parser.add_argument("--save", type=Path, help="folder for WAV files and log (default: var/demo)")
        parser.add_argument(
            "--listen",
            choices=("auto", "energy", "speech"),
            default="auto",
            help="whether the stand-in recognises words, or only hears that there are some",
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
                if not os.environ.get("DATABASE_URL", "").strip():
                    environment["DATABASE_URL"] = _use_database_in(folder)
            folder.mkdir(parents=True, exist_ok=True)
            environment["JOURNAL_DIR"] = str(folder.resolve() / "journal")
            log = sys.stderr if options["once"] else stack.enter_context(open(folder / "server.log", "w"))
            socket = bool(settings.VAPI_SOCKET_URL)
            wishes = Wishes(
                seed=options["seed"],
                fast=options["fast"],
                listen=options["listen"],
                asgi=options["asgi"],
                dialect="socket" if socket else "call",
                # The stand-in's socket dialect is the tutorial's, which knows mu-law only.
                audio_format="mulaw" if socket else settings.VAPI_AUDIO_FORMAT,
                environment=environment,
            )
            wavs = options["save"] or (None if options["once"] else folder)
            run = Run(Screen(Console(stderr=options["json"], highlight=False)), wishes, options, log, wavs)
            call_command("migrate", interactive=False, verbosity=0)
            try:
                code = asyncio.run(run.all())
            except ServerFailed as failure:
                raise CommandError(str(failure)) from None
            finally:
                connections.close_all()
        if code:
            sys.exit(code)


class Run:
    """One run of the command."""

    def __init__(
        self, screen: Screen, wishes: Wishes, options: dict[str, Any], log: TextIO, wavs: Path | None
    ) -> None:
        self._screen = screen
        self._wishes = wishes
        self._options = options
        self._once = bool(options["once"])
        self._log = log
        self._wavs = wavs
        self._task: asyncio.Task[Any] | None = None

    async def all(self) -> int:
        """The exit code."""
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, self._stop)
        audience = Audience(self._screen.carrier, self._screen.assistant, self._write_log)
        try:
            async with stage(self._wishes, self._port(), audience) as on:
                held = await self._call(on, audience)
                if not self._once:
                    await self._stay_up(on)
        except asyncio.CancelledError:
            self._screen.close()
            self._screen.say("Stopped.")
            return INTERRUPTED
        return 0 if held else 1

    def _stop(self) -> None:
        """Once: a second Ctrl-C must not disturb the cleaning up."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _write_log(self, line: str) -> None:
        print(line, file=self._log, flush=True)

    def _port(self) -> int:
        wanted = self._options["port"] or (0 if self._once else DEFAULT_PORT)
        port = free_port(wanted)
        if wanted and port != wanted:
            self._screen.say(f"Port {wanted} is taken: using {port}.", "bold yellow")
        format_ = "16 kHz PCM" if self._wishes.audio_format == "pcm_s16le" else "mu-law"
        self._screen.say(f"Starting the server on port {port}, {self._wishes.dialect} dialect, {format_} ...")
        return port

    async def _call(self, on: Stage, audience: Audience) -> bool:
        began = time.monotonic()
        self._screen.open()
        try:
            evidence = await play(on, self._wishes, audience)
        finally:
            self._screen.close()
        checks = judge(evidence)
        wavs = write_wavs(evidence, self._wavs) if self._wavs else []
        self._screen.show(evidence, checks, truths_ms(evidence.record, evidence.call))
        for path, who in zip(wavs, ("caller", "assistant"), strict=False):
            self._screen.say(f"What the {who} heard: {path}")
        if self._options["json"]:
            report = as_json(evidence, checks, self._wishes, wavs, time.monotonic() - began)
            print(json.dumps(report), flush=True)
        elif evidence.rows is not None and not self._once:
            self._screen.say(f"This call: {on.server.url}{evidence.rows.url}")
        return all(check.held for check in checks)

    async def _stay_up(self, on: Stage) -> None:
        password = secrets.token_urlsafe(9)
        await asyncio.to_thread(_make_login, password)
        say = self._screen.say
        say("")
        say(f"Calls:  {on.server.url}/", "bold")
        say(f"Admin:  {on.server.url}/admin/", "bold")
        say(f"Log in as {LOGIN} with {password}", "bold")
        say("Another call, from a second terminal:")
        say(
            f"  PUBLIC_URL={on.server.url} TWILIO_ACCOUNT_SID={on.account_sid}"
            f" TWILIO_AUTH_TOKEN={on.auth_token} TWILIO_BASE_URL={on.carrier_api.base_url}"
            f" {sys.executable} manage.py simulate_call"
        )
        say(f"The server's log: {self._log.name}")
        say("Ctrl-C stops.")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        say("Stopping ...")


def _use_database_in(folder: Path) -> str:
    """Point this process's connections at a SQLite file of its own; returns its URL, for the server."""
    path = folder / "demo.sqlite3"
    settings.DATABASES["default"]["NAME"] = str(path)
    connections["default"].close()
    connections["default"].settings_dict["NAME"] = str(path)
    return f"sqlite:///{path}"


def _make_login(password: str) -> None:
    """The staff user of the demonstration, with this password from now on."""
    try:
        user, _ = get_user_model().objects.get_or_create(username=LOGIN)
        user.is_staff = user.is_superuser = user.is_active = True
        user.set_password(password)
        user.save()
    finally:
        connections.close_all()
