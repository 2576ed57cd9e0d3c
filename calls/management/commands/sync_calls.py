"""`./manage.py sync_calls`: fetch missing prices, ends and reports from Twilio and Vapi."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import close_old_connections

from calls import reconcile
from calls.ingest.db import DATABASE_ERRORS, now_utc
from calls.management import progress
from calls.management.database import DatabaseCommand

logger = logging.getLogger(__name__)

# Option -> minimum and maximum.
BOUNDS = {
    "days": (1, 90),
    "limit": (1, 100_000),
    "seconds": (1, 3600),
    "after": (0, 86_400),
    "every": (0, 86_400),
}


class Command(DatabaseCommand):
    help = (
        "Fetches from Twilio and Vapi what the calls of the last days are missing, newest calls first. "
        "Twilio has a price only minutes after a call, and only on request, so run this every five minutes. "
        "The exit code is 1 when a vendor rejects the credentials or cannot be reached."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--days", type=int, default=3, help="how many days to look back (default: 3)")
        parser.add_argument(
            "--limit", type=int, default=1000, help="maximum number of calls in one run (default: 1000)"
        )
        parser.add_argument("--seconds", type=int, default=240, help="time limit of one run (default: 240)")
        parser.add_argument(
            "--after", type=int, default=60, help="seconds to wait after the end of a call (default: 60)"
        )
        parser.add_argument(
            "--every",
            type=int,
            default=0,
            metavar="SECONDS",
            help="keep running; pause between runs",
        )
        parser.add_argument("--json", action="store_true", help="print the counts as one JSON object")

    def waits_for_database(self, options: dict[str, Any]) -> bool:
        return bool(options["every"])

    def handle(self, *args: Any, **options: Any) -> None:
        for name, (minimum, maximum) in BOUNDS.items():
            if not minimum <= options[name] <= maximum:
                raise CommandError(f"--{name} must be between {minimum} and {maximum}, not {options[name]}.")
        if not options["every"]:
            if self._run(options).unavailable:
                sys.exit(1)
            return
        stop = threading.Event()
        # The first process of a container has no default signal handlers, so SIGTERM would be ignored.
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, lambda *_: stop.set())
        while not stop.is_set():
            try:
                self._run(options, quiet=True)
            except DATABASE_ERRORS as error:
                logger.warning("sync: the database does not respond: %s", type(error).__name__)
            close_old_connections()
            stop.wait(options["every"])

    def _run(self, options: dict[str, Any], *, quiet: bool = False) -> reconcile.SyncResult:
        started_at = time.monotonic()
        with progress.progress_bar("Syncing calls") as bar:
            result = reconcile.sync(
                now=now_utc(),
                days=options["days"],
                limit=options["limit"],
                grace=timedelta(seconds=options["after"]),
                timeout_seconds=options["seconds"],
                on_total=bar.set_total,
                on_progress=bar.advance,
            )
        seconds = round(time.monotonic() - started_at, 1)
        if options["json"]:
            self.stdout.write(json.dumps(result.as_json() | {"seconds": seconds}))
        elif result.calls or not quiet:
            self.stdout.write(f"{result.summary()}; {seconds} s")
        self.stdout.flush()
        for vendor, reason in result.unavailable.items():
            self.stderr.write(f"Gave up on {vendor}: {reason}")
        return result
