"""`./manage.py serve`: run the production server, after saying where its pages are and how to log in."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections
from django.db.utils import DatabaseError, InterfaceError

from calls.management.arguments import parse_port, require_free_port
from calls.requirements import refuse_to_start
from voiceai.server.serve import ServeOptions, format_address, serve


class Command(BaseCommand):
    help = (
        "Runs the production server until SIGTERM or Ctrl-C, and prints where its pages are and how to log "
        "in. Running calls then have DRAIN_SECONDS to end; a second signal ends them at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
        parser.add_argument(
            "--port", type=parse_port, default=8000, help="port of Twilio's and Vapi's paths (default: 8000)"
        )
        parser.add_argument(
            "--pages-port",
            type=parse_port,
            help="port of the pages, which a second process serves (default: the next port; the same as "
            "--port: no second process)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = options["host"], options["port"]
        pages_port = port + 1 if options["pages_port"] is None else options["pages_port"]
        if 0 in (port, pages_port):
            raise CommandError("Name the ports: --port 0 and --pages-port 0 would take any.")
        try:
            refuse_to_start()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        for each in dict.fromkeys((port, pages_port)):
            require_free_port(host, each)
        self.stdout.write(f"Pages: {format_address(host, pages_port)}  (Ctrl-C stops)")
        self.stdout.write(_describe_login())
        self.stdout.flush()
        serve(ServeOptions.of_settings(host, port, pages_port))


def _describe_login() -> str:
    """How staff log in. The server also starts without a database, which it then waits for."""
    try:
        has_staff = get_user_model().objects.filter(is_active=True, is_staff=True).exists()
    except (DatabaseError, InterfaceError):
        return "The database does not respond or is not migrated. Run `./manage.py doctor`."
    finally:
        connections.close_all()
    if has_staff:
        return "Log in with a staff user's name and password."
    return "There is no staff user yet. Create one with `./manage.py createsuperuser`, then log in."
