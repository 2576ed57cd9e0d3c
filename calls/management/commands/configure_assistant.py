"""`manage.py configure_assistant`: makes a Vapi assistant, or puts the settings of one right."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.table import Table

from calls.vapi import assistant_config as assistant_config
from calls.vapi import client as vapi_client
from calls.vapi import tools
from calls.vapi.assistant_config import Options, ServerDefaults
from calls.vendor_errors import VendorError

WIDTH = 110


class Command(BaseCommand):
    help = (
        "Makes a Vapi assistant that answers fast on the telephone, with our tools and our address for its "
        "reports; or changes the one of VAPI_ASSISTANT_ID. What you do not name stays as it is."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--id", help="which one to change (VAPI_ASSISTANT_ID; without one, a new one)")
        parser.add_argument("--new", action="store_true", help="make a new one all the same")
        parser.add_argument("--name", help="as Vapi's pages show it")
        parser.add_argument("--first-message", help="what it says when it answers")
        parser.add_argument("--prompt", help="who it is and what it does: the system message")
        parser.add_argument("--model", help="provider/model, such as openai/gpt-4o-mini")
        parser.add_argument("--voice", help="provider/voice, such as vapi/Elliot")
        parser.add_argument("--language", help="of the transcriber, such as en or de")
        parser.add_argument(
            "--endpointing", type=int, help="milliseconds of silence that end a sentence: 300 to 400"
        )
        parser.add_argument("--dry-run", action="store_true", help="show what would change, no more")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.VAPI_SOCKET_URL:
            raise CommandError(
                "VAPI_SOCKET_URL leads to a server of your own: there is no assistant to set up."
            )
        if not settings.VAPI_API_KEY:
            raise CommandError("VAPI_API_KEY is not set: the private key, from Vapi's dashboard.")
        names = ("name", "first_message", "prompt", "model", "voice", "language", "endpointing")
        wishes = Options(**{name: options[name] for name in names})
        house = ServerDefaults(
            server_url=f"{settings.PUBLIC_URL}/vapi/events",
            secret=settings.VAPI_WEBHOOK_SECRET,
            max_call_seconds=settings.MAX_CALL_SECONDS,
            record=settings.RECORD_CALLS,
            tools=tools.declarations(),
        )
        assistant_id = "" if options["new"] else options["id"] or settings.VAPI_ASSISTANT_ID
        try:
            self._configure(assistant_id, wishes, house, dry_run=options["dry_run"])
        except (VendorError, ValueError) as failure:
            raise CommandError(str(failure)) from None

    def _configure(self, assistant_id: str, wishes: Options, house: ServerDefaults, *, dry_run: bool) -> None:
        current = async_to_sync(vapi_client.fetch_assistant)(assistant_id) if assistant_id else {}
        fields = assistant_config.wanted(current, wishes, house)
        self._show(assistant_id, assistant_config.changes(current, fields), dry_run=dry_run)
        if not house.secret:
            self.stdout.write("Without VAPI_WEBHOOK_SECRET it gets no address of ours: no reports, no tools.")
        to_send = assistant_config.to_send(current, fields)
        if dry_run or not to_send:
            return
        if assistant_id:
            async_to_sync(vapi_client.update_assistant)(assistant_id, to_send)
        else:
            made = async_to_sync(vapi_client.create_assistant)(to_send)
            assistant_id = str(made.get("id", ""))
            self.stdout.write(f"Put this into .env:\n\n    VAPI_ASSISTANT_ID={assistant_id}\n")

    def _show(self, assistant_id: str, to_do: list[assistant_config.Change], *, dry_run: bool) -> None:
        title = f"assistant {assistant_id}" if assistant_id else "a new assistant"
        if not to_do:
            self.stdout.write(f"{title} is set up already; nothing to change.")
            return
        title += ", not changed (--dry-run)" if dry_run else ""
        table = Table()
        for column in ("", "before", "after") if assistant_id else ("", "set to"):
            table.add_column(column, overflow="fold")
        for change in to_do:
            table.add_row(change.path, *((change.before,) if assistant_id else ()), change.after)
        console = Console(width=WIDTH)
        with console.capture() as printed:
            console.print(title, soft_wrap=True, highlight=False, markup=False)
            console.print(table)
        self.stdout.write(printed.get())
