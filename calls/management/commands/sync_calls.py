"""`manage.py sync_calls`: fetches what never came: Twilio's prices and ends, Vapi's reports."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, close_old_connections

from calls import reconcile
from calls.ingest.db import now_utc
from calls.management import progress

log = logging.getLogger(__name__)

BOUNDS = {
    "days": (1, 90),
    "limit": (1, 100_000),
    "seconds": (1, 3600),
    "after": (0, 86_400),
    "every": (0, 86_400),
}


class Command(BaseCommand):
    help = (
        "Asks Twilio and Vapi for what is missing of the last days' calls, the newest first. Twilio names "
        "a price minutes after a call, and only when asked: run this every five minutes. Exit code 1 when "
        "a far end refuses us or is away."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--days", type=int, default=3, help="how far to look back (3)")
        parser.add_argument("--limit", type=int, default=1000, help="calls in one run (1000)")
        parser.add_argument("--seconds", type=int, default=240, help="time for one run (240)")
        parser.add_argument("--after", type=int, default=60, help="seconds that a call has been over (60)")
        parser.add_argument("--every", type=int, default=0, help="stay, and ask again after so many seconds")
        parser.add_argument("--json", action="store_true", help="the counts as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        for name, (least, most) in BOUNDS.items():
            if not least <= options[name] <= most:
                raise CommandError(f"--{name} must be between {least} and {most}, not {options[name]}.")
        if not options["every"]:
            if self._run(options).refused:
                sys.exit(1)
            return
        stop = threading.Event()
        # The first process of a container gets no default handlers from the kernel.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        while not stop.is_set():
            try:
                self._run(options, quiet=True)
            except DatabaseError as error:
                log.warning("sync: the database does not answer: %s", type(error).__name__)
            close_old_connections()
            stop.wait(options["every"])

    def _run(self, options: dict[str, Any], *, quiet: bool = False) -> reconcile.SyncResult:
        began = time.monotonic()
        with progress.shown("asking") as bar:
            tally = reconcile.sync(
                now=now_utc(),
                days=options["days"],
                limit=options["limit"],
                after=timedelta(seconds=options["after"]),
                seconds=options["seconds"],
                on_total=bar.total,
                on_done=bar.advance,
            )
        seconds = round(time.monotonic() - began, 1)
        if options["json"]:
            self.stdout.write(json.dumps(tally.facts() | {"seconds": seconds}))
        elif tally.calls or not quiet:
            self.stdout.write(f"{tally.line()}; {seconds} s")
        self.stdout.flush()
        for far_end, why in tally.refused.items():
            self.stderr.write(f"{far_end} told us nothing more: {why}")
        return tally
