"""`./manage.py drain`: have servers finish their calls and take no new ones, before they are stopped."""

from __future__ import annotations

import time
from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from calls.drain import get_status, request_drain
from calls.management.database import DatabaseCommand

POLL_SECONDS = 2.0


def parse_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise ArgumentTypeError(f"seconds are a number from 0 to 86400, not {text!r}")
    return seconds


class Command(DatabaseCommand):
    help = (
        "Has all running server processes take no new calls: those are put through to the fallback number or "
        "hear the busy notice, and running calls go on. Prints when the servers can be stopped."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--off", action="store_true", help="take calls again")
        parser.add_argument("--status", action="store_true", help="change nothing, print the status only")
        parser.add_argument(
            "--worker", default="", metavar="NAME", help="drain, wait for and report this server process only"
        )
        parser.add_argument(
            "--wait",
            type=parse_seconds,
            metavar="SECONDS",
            help="wait until there are no calls, at most so long; exits with 1 if there are calls left",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["status"]:
            workers = request_drain(drain=not options["off"], name=options["worker"])
            if not workers:
                which = (
                    f"has the name {options['worker']}" if options["worker"] else "reports to this database"
                )
                raise CommandError(f"No running server process {which}.")
        deadline = time.monotonic() + (options["wait"] or 0.0)
        name = options["worker"]
        while (status := get_status(timezone.now(), name)).live_calls and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        for worker in status.workers:
            state = "takes no new calls" if worker.is_draining else "accepts calls"
            self.stdout.write(f"{worker}: {state}; {worker.live_calls} of {worker.max_calls} lines in use")
        self.stdout.write(f"In all: {status.summary}.")
        if options["wait"] is not None and status.live_calls:
            raise CommandError("There are calls left.")
