"""`./manage.py place_call`: have the assistant call a number."""

from __future__ import annotations

import sys
import time
from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import CommandError, CommandParser
from rich.console import Console

from calls.management.database import DatabaseCommand
from calls.models import Call
from calls.twilio import outbound
from calls.twilio.outbound import MACHINE_DETECTION, RING_TIMEOUT_SECONDS
from calls.vendor_errors import VendorError

POLL_SECONDS = 0.5


class Command(DatabaseCommand):
    help = (
        "Places a call from one of your numbers to a number that OUTBOUND_ALLOWED names, and connects the "
        "person who answers to the assistant. With --wait, the exit code is 0 when the assistant was "
        "connected."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("number", help="number to call, such as +15551234567")
        parser.add_argument(
            "--from", dest="our_number", default="", help="your number (default: TWILIO_PHONE_NUMBER)"
        )
        parser.add_argument(
            "--machines",
            choices=tuple(MACHINE_DETECTION),
            default="off",
            help="what to do when an answering machine answers (default: off)",
        )
        parser.add_argument("--wait", action="store_true", help="follow the call until it is over")
        parser.add_argument(
            "--seconds",
            type=int,
            default=600,
            help=f"time limit of --wait in seconds, at least {RING_TIMEOUT_SECONDS} (default: 600)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            callee, our_number = outbound.resolve_numbers(options["number"], options["our_number"])
            call_sid = async_to_sync(outbound.place_call)(callee, our_number, options["machines"])
        except VendorError as error:
            raise CommandError(str(error)) from None
        call = outbound.create_row(call_sid, callee, our_number)
        self.stdout.write(f"Calling {callee} from {our_number}: {call_sid}")
        if options["wait"]:
            self._follow(call, max(options["seconds"], RING_TIMEOUT_SECONDS))

    def _follow(self, call: Call, seconds: int) -> None:
        """Print each change of the status until the call is over.

        Exits with 1 if the assistant was not connected.
        """
        give_up_at = time.monotonic() + seconds
        printed = ""
        with Console(stderr=True).status("waiting") as spinner:
            while not call.is_over and time.monotonic() < give_up_at:
                if (sentence := call.status_sentence()) != printed:
                    printed = sentence
                    spinner.update(sentence)
                    self.stdout.write(sentence)
                time.sleep(POLL_SECONDS)
                call.refresh_from_db()
        if not call.is_over:
            raise CommandError(f"The call is still in progress after {seconds} s. Follow it on its page.")
        duration = call.duration()
        self.stdout.write(
            f"{call.status_sentence()} {duration.total_seconds():.0f} s"
            if duration
            else call.status_sentence()
        )
        if call.answered_at is None:
            sys.exit(1)
