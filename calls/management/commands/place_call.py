"""`manage.py place_call`: the assistant calls somebody, through Twilio."""

from __future__ import annotations

import sys
import time
from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from calls.models import Call
from calls.twilio import outbound
from calls.twilio.outbound import MACHINES, RING_SECONDS
from calls.vendor_errors import VendorError

LOOK_SECONDS = 0.5


class Command(BaseCommand):
    help = (
        "Calls an allowed number (OUTBOUND_ALLOWED) from one of yours; whoever answers talks to the "
        "assistant. With --wait the exit code is 0 when somebody was reached."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("number", help="whom to call, such as +15551234567")
        parser.add_argument("--from", dest="ours", default="", help="one of yours (TWILIO_PHONE_NUMBER)")
        parser.add_argument(
            "--machines", choices=tuple(MACHINES), default="off", help="what to do about answering machines"
        )
        parser.add_argument("--wait", action="store_true", help="follow the call until it is over")
        parser.add_argument("--seconds", type=int, default=600, help="with --wait: no longer than this (600)")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            callee, ours = outbound.numbers_for(options["number"], options["ours"])
            call_sid = async_to_sync(outbound.place)(callee, ours, options["machines"])
        except VendorError as failure:
            raise CommandError(str(failure)) from None
        call = outbound.note(call_sid, callee, ours)
        self.stdout.write(f"Calling {callee} from {ours}: {call_sid}")
        if options["wait"]:
            self._follow(call, max(options["seconds"], RING_SECONDS))

    def _follow(self, call: Call, seconds: int) -> None:
        give_up_at = time.monotonic() + seconds
        console = Console(stderr=True)
        told = ""
        with console.status("waiting") as status:
            while not call.is_over and time.monotonic() < give_up_at:
                if call.ended_in_words() != told:
                    told = call.ended_in_words()
                    status.update(told)
                    self.stdout.write(told)
                time.sleep(LOOK_SECONDS)
                call.refresh_from_db()
        if not call.is_over:
            raise CommandError(f"The call is still going on after {seconds} s; its page tells the rest.")
        length = call.length()
        self.stdout.write(
            f"{call.ended_in_words()} {length.total_seconds():.0f} s" if length else call.ended_in_words()
        )
        if call.answered_at is None:
            sys.exit(1)
