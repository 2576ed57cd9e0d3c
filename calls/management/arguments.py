"""Types of command-line arguments. Each raises `ArgumentTypeError`, which the parser prints in a line."""

from __future__ import annotations

from argparse import ArgumentTypeError

MAX_PORT = 65_535


def parse_port(text: str) -> int:
    """A TCP port; 0 asks for any that is free."""
    if not (text.isascii() and text.isdecimal() and int(text) <= MAX_PORT):
        raise ArgumentTypeError(f"a port is a number from 0 to {MAX_PORT}, not {text!r}")
    return int(text)
