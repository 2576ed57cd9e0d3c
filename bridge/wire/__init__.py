"""The two protocols: text and bytes to dataclasses and back. Pure, and strangers to each other."""

from __future__ import annotations

MAX_MESSAGE_BYTES = 64 * 1024


class MalformedMessage(ValueError):
    """The peer's fault: log it, count it, go on. A call does not die of a strange message.

    `kind` is one of a few fixed words, safe to count and to log; the peer's own text is not in it.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind
