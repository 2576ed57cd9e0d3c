"""`./manage.py serve`: run the server, after saying where its pages are and how to log in."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections
from django.db.utils import DatabaseError, InterfaceError

from calls.management.arguments import parse_port, require_free_port
from calls.requirements import refuse_to_start

# Twilio's messages are small. Daphne's own limit is one megabyte.
MAX_MESSAGE_BYTES = 131_072


class Command(BaseCommand):
    help = "Runs the server with Daphne until Ctrl-C, and prints where its pages are and how to log in."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
        parser.add_argument("--port", type=parse_port, default=8000, help="port to listen on (default: 8000)")

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = options["host"], options["port"]
        try:
            refuse_to_start()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        require_free_port(host, port)
        shown_host = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        self.stdout.write(f"Pages: http://{shown_host}:{port}/  (Ctrl-C stops)")
        self.stdout.write(_describe_login())
        self.stdout.flush()
        command = [sys.executable, "-m", "daphne", "-b", host, "-p", str(port)]
        command += ["--websocket-max-message-size", str(MAX_MESSAGE_BYTES), "voiceai.asgi:application"]
        os.execv(sys.executable, command)


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
