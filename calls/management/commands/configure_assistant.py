"""`./manage.py configure_assistant`: create a Vapi assistant for telephone calls, or update one."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.table import Table

from calls.vapi import assistant_config, tools
from calls.vapi import client as vapi_client
from calls.vapi.assistant_config import Options, ServerDefaults
from calls.vendor_errors import VendorError

WIDTH = 130


class Command(BaseCommand):
    help = (
        "Updates the assistant of VAPI_ASSISTANT_ID for fast answers on the telephone, with the tools and "
        "the webhook URL of this server, and prints why each value changes. Without an assistant id, creates "
        "a new assistant. What was chosen at Vapi stays, except for what the table shows."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--id", help="assistant to update (default: VAPI_ASSISTANT_ID)")
        parser.add_argument(
            "--new", action="store_true", help="create a new assistant even if VAPI_ASSISTANT_ID is set"
        )
        parser.add_argument("--name", help="name on Vapi's pages, at most 40 characters")
        parser.add_argument("--first-message", help="what the assistant says when it answers")
        parser.add_argument("--prompt", help="system message: who the assistant is and what it does")
        parser.add_argument("--model", help="provider/model, such as openai/gpt-4o-mini")
        parser.add_argument("--voice", help="provider/voice, such as vapi/Elliot")
        parser.add_argument("--language", help="language of the transcriber, such as en or de")
        parser.add_argument(
            "--endpointing",
            type=int,
            metavar="MS",
            help="milliseconds of silence that end a turn: 300 to 400",
        )
        parser.add_argument("--dry-run", action="store_true", help="print the changes without making them")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.VAPI_SOCKET_URL:
            raise CommandError(
                "VAPI_SOCKET_URL is set, so calls go to a socket server of your own: there is no assistant "
                "to configure."
            )
        if not settings.VAPI_API_KEY:
            raise CommandError("VAPI_API_KEY is not set. Set it to the private key from Vapi's dashboard.")
        names = ("name", "first_message", "prompt", "model", "voice", "language")
        chosen = Options(**{name: options[name] for name in names}, endpointing_ms=options["endpointing"])
        defaults = ServerDefaults(
            server_url=f"{settings.PUBLIC_URL}/vapi/events",
            secret=settings.VAPI_WEBHOOK_SECRET,
            max_call_seconds=settings.MAX_CALL_SECONDS,
            record=settings.RECORD_CALLS,
            tools=tools.build_declarations(),
        )
        assistant_id = "" if options["new"] else options["id"] or settings.VAPI_ASSISTANT_ID
        try:
            self._configure(assistant_id, chosen, defaults, dry_run=options["dry_run"])
        except (VendorError, ValueError) as error:
            raise CommandError(str(error)) from None

    def _configure(
        self, assistant_id: str, options: Options, defaults: ServerDefaults, *, dry_run: bool
    ) -> None:
        current = async_to_sync(vapi_client.fetch_assistant)(assistant_id) if assistant_id else {}
        fields = assistant_config.build_config(current, options, defaults)
        self._print_changes(
            assistant_id, assistant_config.find_changes(current, fields, options), dry_run=dry_run
        )
        if not defaults.secret:
            self.stdout.write(
                "VAPI_WEBHOOK_SECRET is not set, so the assistant gets no webhook URL: its reports and tool "
                "calls do not reach this server."
            )
        changed_fields = assistant_config.find_changed_fields(current, fields)
        if dry_run or not changed_fields:
            return
        if assistant_id:
            async_to_sync(vapi_client.update_assistant)(assistant_id, changed_fields)
            return
        assistant = async_to_sync(vapi_client.create_assistant)(changed_fields)
        self.stdout.write(f"Add this to .env:\n\n    VAPI_ASSISTANT_ID={assistant.get('id', '')}\n")

    def _print_changes(
        self, assistant_id: str, changes: list[assistant_config.ValueChange], *, dry_run: bool
    ) -> None:
        title = f"Assistant {assistant_id}" if assistant_id else "New assistant"
        if not changes:
            self.stdout.write(f"{title} is already configured; nothing to change.")
            return
        title += " (dry run, nothing changed)" if dry_run else ""
        table = Table()
        table.add_column("", no_wrap=True)
        for column in ("before", "after", "why") if assistant_id else ("value",):
            table.add_column(column, overflow="fold")
        for change in changes:
            values = (change.before, change.after, change.reason) if assistant_id else (change.after,)
            table.add_row(change.path, *values)
        console = Console(width=WIDTH)
        with console.capture() as output:
            console.print(title, soft_wrap=True, highlight=False, markup=False)
            console.print(table)
        self.stdout.write(output.get())
