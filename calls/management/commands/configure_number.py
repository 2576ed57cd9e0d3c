"""`manage.py configure_number`: tells Twilio to send a number's calls here, and how to undo that."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.table import Table

from calls.models import PhoneNumber
from calls.phone_numbers import e164
from calls.twilio import client as twilio_client
from calls.twilio.client import TWILIO
from calls.twilio.number_config import Change, SavedConfig, changes, settings_of, wanted
from calls.vendor_errors import VendorError

WIDTH = 110


class Command(BaseCommand):
    help = (
        "Sets up a number of your Twilio account so that its calls come to PUBLIC_URL: voice URL and status "
        "callback, by POST. Shows what was there before and what is there now; --undo puts it back."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("number", nargs="?", help="such as +15551234567 (default: TWILIO_PHONE_NUMBER)")
        parser.add_argument("--fallback-url", default="", help="a TwiML bin for when this server is gone")
        parser.add_argument("--dry-run", action="store_true", help="show what would change, no more")
        parser.add_argument("--undo", action="store_true", help="put back what was there before")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            number = e164(options["number"] or settings.TWILIO_PHONE_NUMBER)
        except ValidationError as error:
            missing = "Name the number, or set TWILIO_PHONE_NUMBER."
            raise CommandError(" ".join(error.messages) if options["number"] else missing) from None
        if options["fallback_url"] and urlsplit(options["fallback_url"]).scheme != "https":
            raise CommandError("--fallback-url must be an https address, such as that of a TwiML bin.")
        if not options["undo"] and settings.TWILIO_BASE_URL == TWILIO and not _is_public():
            raise CommandError(
                f"Twilio cannot reach {settings.PUBLIC_URL}: set PUBLIC_URL to the https address of this "
                "server or of your tunnel."
            )
        try:
            self._configure(number, options)
        except VendorError as failure:
            raise CommandError(str(failure)) from None

    def _configure(self, number: str, options: dict[str, Any]) -> None:
        found = async_to_sync(twilio_client.find_number)(number)
        if found is None:
            raise CommandError(f"The account has no number {number}. Its numbers are in Twilio's console.")
        if found.trunk_sid:
            raise CommandError(
                "The number belongs to a SIP trunk, which takes its calls. Remove it from there."
            )
        before, kept = settings_of(found), SavedConfig(settings.JOURNAL_DIR.parent / "numbers", number)
        after = self._after(kept, options)
        to_do = changes(before, after)
        self._show(number, to_do, dry_run=options["dry_run"])
        if to_do and not options["dry_run"]:
            if not options["undo"]:
                kept.keep(before)
            changed = async_to_sync(twilio_client.change_number)(
                str(found.sid), **{change.field: change.after for change in to_do}
            )
            if left := changes(settings_of(changed), after):
                raise CommandError(f"Twilio took it, but kept: {', '.join(each.title for each in left)}.")
        if options["dry_run"]:
            return
        if options["undo"]:
            kept.forget()
        else:
            name = str(found.friendly_name or "")
            label = "" if name == number else name[:128]
            row, is_new = PhoneNumber.objects.get_or_create(number=number, defaults={"label": label})
            self.stdout.write(f"{'Added to' if is_new else 'Is among'} Numbers: {row.label or number}.")
            if to_do:
                self.stdout.write("Undo with: manage.py configure_number --undo")

    def _after(self, kept: SavedConfig, options: dict[str, Any]) -> dict[str, str]:
        if not options["undo"]:
            return wanted(settings.PUBLIC_URL, options["fallback_url"])
        found = kept.read()
        if found is None:
            raise CommandError("Nothing was kept of this number: there is nothing to undo.")
        return found

    def _show(self, number: str, to_do: list[Change], *, dry_run: bool) -> None:
        if not to_do:
            self.stdout.write(f"{number} is set up already; nothing to change.")
            return
        table = Table(
            title=f"{number}{', not changed yet (--dry-run)' if dry_run else ''}", title_justify="left"
        )
        for column in ("", "before", "after"):
            table.add_column(column, overflow="fold")
        for change in to_do:
            table.add_row(change.title, change.before or "-", change.after or "-")
        console = Console(width=WIDTH)
        with console.capture() as printed:
            console.print(table)
        self.stdout.write(printed.get())


def _is_public() -> bool:
    return urlsplit(settings.PUBLIC_URL).scheme == "https"
