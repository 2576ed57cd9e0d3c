"""The two wire protocols: messages to dataclasses and back. Pure; neither module imports the other."""

from __future__ import annotations

MAX_MESSAGE_BYTES = 64 * 1024


class MalformedMessage(ValueError):
    """A peer sent a message that its protocol does not allow. Count it and go on: it does not end the call.

    `kind` is one of a few fixed words, safe to count and to log; it never contains the peer's text.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind
