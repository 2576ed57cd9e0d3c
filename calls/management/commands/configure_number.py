"""`./manage.py configure_number`: point a Twilio number at this server, or restore what it was."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from rich.console import Console
from rich.table import Table

from calls.management.database import DatabaseCommand
from calls.models import PhoneNumber
from calls.phone_numbers import parse_e164
from calls.twilio import client as twilio_client
from calls.twilio.number_config import FieldChange, SavedConfig, build_config, find_changes, read_config
from calls.vendor_errors import VendorError

WIDTH = 110


class Command(DatabaseCommand):
    help = (
        "Configures a number of your Twilio account to send its calls to PUBLIC_URL: voice URL and status "
        "callback, by POST. Prints each field before and after; --undo restores the configuration before "
        "the first run."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "number",
            nargs="?",
            help="such as +15551234567 (default: TWILIO_PHONE_NUMBER)",
        )
        parser.add_argument(
            "--fallback-url", default="", help="URL of a TwiML Bin that answers when this server is down"
        )
        parser.add_argument("--dry-run", action="store_true", help="print the changes without making them")
        parser.add_argument(
            "--undo", action="store_true", help="restore the configuration from before the first run"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            number = parse_e164(options["number"] or settings.TWILIO_PHONE_NUMBER)
        except ValidationError as error:
            not_given = "No number given. Name one, or set TWILIO_PHONE_NUMBER."
            raise CommandError(" ".join(error.messages) if options["number"] else not_given) from None
        if options["fallback_url"] and urlsplit(options["fallback_url"]).scheme != "https":
            raise CommandError("--fallback-url must be an https address, such as that of a TwiML Bin.")
        uses_real_twilio = settings.TWILIO_BASE_URL == twilio_client.TWILIO_API
        if not options["undo"] and uses_real_twilio and urlsplit(settings.PUBLIC_URL).scheme != "https":
            raise CommandError(
                f"Twilio cannot reach {settings.PUBLIC_URL}. Set PUBLIC_URL to the https address of this "
                "server or of your tunnel."
            )
        try:
            self._configure(number, options)
        except VendorError as error:
            raise CommandError(str(error)) from None

    def _configure(self, number: str, options: dict[str, Any]) -> None:
        twilio_number = async_to_sync(twilio_client.find_number)(number)
        if twilio_number is None:
            raise CommandError(f"The account has no number {number}. See Twilio's console for its numbers.")
        if twilio_number.trunk_sid:
            raise CommandError(
                "The number is assigned to a SIP trunk, which receives its calls. Remove it from the trunk."
            )
        before = read_config(twilio_number)
        saved = SavedConfig(settings.JOURNAL_DIR.parent / "numbers", number)
        after = _load(saved) if options["undo"] else _build_config(options)
        to_change = find_changes(before, after)
        self._print_changes(number, to_change, dry_run=options["dry_run"])
        if options["dry_run"]:
            return
        if to_change:
            if not options["undo"]:
                saved.save_once(before)
            self._update(str(twilio_number.sid), to_change, after)
        if options["undo"]:
            saved.delete()
            return
        self._add_row(number, str(twilio_number.friendly_name or ""))
        if to_change:
            self.stdout.write("To undo: ./manage.py configure_number --undo")

    def _update(self, number_sid: str, to_change: list[FieldChange], after: dict[str, str]) -> None:
        updated = async_to_sync(twilio_client.update_number)(
            number_sid, **{change.field: change.after for change in to_change}
        )
        if unchanged := find_changes(read_config(updated), after):
            labels = ", ".join(change.label for change in unchanged)
            raise CommandError(f"Twilio accepted the request but did not change: {labels}.")

    def _add_row(self, number: str, friendly_name: str) -> None:
        label = "" if friendly_name == number else friendly_name[:128]
        row, is_new = PhoneNumber.objects.get_or_create(number=number, defaults={"label": label})
        name = row.label or number
        self.stdout.write(f"Added {name} to Numbers." if is_new else f"{name} is already in Numbers.")

    def _print_changes(self, number: str, to_change: list[FieldChange], *, dry_run: bool) -> None:
        if not to_change:
            self.stdout.write(f"{number} is already configured; nothing to change.")
            return
        title = f"{number}{' (dry run, nothing changed)' if dry_run else ''}"
        table = Table(title=title, title_justify="left")
        for column in ("", "before", "after"):
            table.add_column(column, overflow="fold")
        for change in to_change:
            table.add_row(change.label, change.before or "-", change.after or "-")
        console = Console(width=WIDTH)
        with console.capture() as output:
            console.print(table)
        self.stdout.write(output.get())


def _build_config(options: dict[str, Any]) -> dict[str, str]:
    return build_config(settings.PUBLIC_URL, options["fallback_url"])


def _load(saved: SavedConfig) -> dict[str, str]:
    config = saved.load()
    if config is None:
        raise CommandError(
            "No configuration from before a first run was saved for this number: nothing to undo."
        )
    return config
