"""What the stand-in for Vapi knows of one call: every byte and word that crossed, with the time it did.

This is the truth that tests compare the product's own measurements with. All times are `time.monotonic()`.
Everything is bounded; what did not fit is counted.
"""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_PRESSED = re.compile(r"pressed:?\s+([0-9*#A-D][0-9*#A-D ]*)")


class Kept(list[T], Generic[T]):
    """A list that keeps the first `limit` items and counts the rest in `missed`."""

    def __init__(self, limit: int = 10_000) -> None:
        super().__init__()
        self.limit = limit
        self.missed = 0

    def append(self, item: T) -> None:
        if len(self) < self.limit:
            super().append(item)
        else:
            self.missed += 1

    def extend(self, items: Iterable[T]) -> None:
        for item in items:
            self.append(item)


@dataclass(slots=True, eq=False)
class Reply:
    """One thing the assistant said: the greeting, an answer, or what it was told to say."""

    clip: str
    text: str
    delay_ms: int | None = (
        None  # drawn: end of the caller's speech -> first audible byte; None: not an answer
    )
    caller_ended_at: float | None = None  # arrival of the last loud chunk of the caller
    first_sent_at: float | None = None
    first_audible_sent_at: float | None = None
    last_sent_at: float | None = None
    done_at: float | None = None  # spoken to the end, or cut
    cut_at: float | None = None
    chunks: list[tuple[float, bytes]] = field(default_factory=list, repr=False)

    @property
    def sent(self) -> bytes:
        return b"".join(chunk for _, chunk in self.chunks)

    @property
    def response_latency_ms(self) -> float | None:
        """The delay as it really was on the wire."""
        if self.caller_ended_at is None or self.first_audible_sent_at is None:
            return None
        return (self.first_audible_sent_at - self.caller_ended_at) * 1000


@dataclass(slots=True, eq=False, repr=False)
class AssistantCall:
    """One call. Lists are in order; `ended_at` is set when the assistant's side is over and billed."""

    id: str
    dialect: str  # "call" or "socket"
    body: dict[str, Any]  # of POST /call, or the assistant-request
    created_at: float
    call_sid: str = ""
    number: int = 0  # how many calls the stand-in had before
    tools: frozenset[str] = frozenset()  # that the assistant may call
    first_message: str = ""  # of a stored assistant
    tool_calls: Kept[dict[str, Any]] = field(default_factory=Kept)
    tool_results: Kept[Any] = field(default_factory=Kept)  # what the server answered
    token: str = ""  # makes its URLs unguessable
    connected: bool = False
    status: str = "queued"
    opened_at: float | None = None
    received: Kept[tuple[float, bytes]] = field(default_factory=lambda: Kept(200_000))
    received_bytes: int = 0  # all of it, kept or not
    received_kept_limit: int = 10_000_000
    replies: Kept[Reply] = field(default_factory=Kept)
    transcripts: Kept[tuple[float, str, str]] = field(default_factory=Kept)  # finals sent
    said: Kept[tuple[float, str, str]] = field(default_factory=Kept)  # finals, subscribed to or not
    utterances: Kept[tuple[float, float, str]] = field(default_factory=Kept)  # began, ended, understood
    events_sent: Kept[tuple[float, dict[str, Any]]] = field(default_factory=Kept)
    texts_received: Kept[tuple[float, Any]] = field(default_factory=Kept)
    digits_told: Kept[str] = field(default_factory=Kept)
    interrupted_at: Kept[float] = field(default_factory=Kept)
    cancelled_at: Kept[float] = field(default_factory=Kept)  # `cancel`, socket dialect
    webhooks_posted: Kept[tuple[float, str, int]] = field(
        default_factory=Kept
    )  # time, type, HTTP status or 0
    pings: int = 0
    end_call_at: float | None = None
    ended_at: float | None = None
    ended_reason: str = ""
    closed_at: float | None = None
    close_code: int | None = None  # that the peer saw or sent; 1006 without a close frame
    on_change: Callable[["AssistantCall", str], None] | None = None

    def __repr__(self) -> str:  # short, and without the request: it may hold a webhook's secret
        return f"<AssistantCall {self.id[:8]} {self.status} {self.ended_reason}>".replace(" >", ">")

    @property
    def received_audio(self) -> bytes:
        return b"".join(payload for _, payload in self.received)

    @property
    def sent_audio(self) -> bytes:
        return b"".join(reply.sent for reply in self.replies)

    @property
    def alive(self) -> bool:
        """Costs money: opened, and nobody has ended it."""
        return self.opened_at is not None and self.ended_at is None

    @property
    def alive_after_close(self) -> bool:
        """An orphan: its socket is gone and it was never ended."""
        return self.alive and self.closed_at is not None

    @property
    def answers(self) -> list[Reply]:
        return [reply for reply in self.replies if reply.caller_ended_at is not None]

    def note(self, what: str) -> None:
        """Something changed; whoever waits for it looks again. Never says anything secret."""
        if self.on_change is not None:
            self.on_change(self, what)

    def keep_received(self, payload: bytes, at: float) -> None:
        first = self.received_bytes == 0
        self.received_bytes += len(payload)
        if self.received_bytes <= self.received_kept_limit:
            self.received.append((at, payload))
        else:
            self.received.missed += 1
        if first:
            self.note("< audio")

    def keep_text(self, message: Any) -> None:
        self.texts_received.append((time.monotonic(), message))
        if isinstance(message, dict) and message.get("type") == "add-message":
            told = message.get("message")
            content = str(told.get("content", "")) if isinstance(told, dict) else ""
            self.digits_told.extend(digits.replace(" ", "") for digits in _PRESSED.findall(content))
