"""Command-line arguments that several commands have: the port of a server."""

from __future__ import annotations

import socket
from argparse import ArgumentTypeError

from django.core.management.base import CommandError

MAX_PORT = 65_535


def parse_port(text: str) -> int:
    """A TCP port; 0 asks for any that is free. Raises `ArgumentTypeError`, which the parser prints."""
    if not (text.isascii() and text.isdecimal() and int(text) <= MAX_PORT):
        raise ArgumentTypeError(f"a port is a number from 0 to {MAX_PORT}, not {text!r}")
    return int(text)


def require_free_port(host: str, port: int) -> None:
    """Raise `CommandError` if a server could not listen there."""
    if port > MAX_PORT:
        raise CommandError(f"A port is a number from 0 to {MAX_PORT}, not {port}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"Cannot listen on {host}:{port}: {error.strerror}. Choose another (make run PORT=8002), "
                "and the same in PUBLIC_URL."
            ) from None
