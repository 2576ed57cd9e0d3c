"""Record of one call of the Vapi simulator: all audio, events and messages, with their times.

Tests compare the product's own measurements with it. All times are `time.monotonic()`. Every list is
bounded; items beyond the limit are counted.
"""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_DIGITS = re.compile(r"pressed:?\s+([0-9*#A-D][0-9*#A-D ]*)")


class BoundedList(list[T], Generic[T]):
    """A list that keeps the first `limit` items and counts the rest in `dropped`."""

    def __init__(self, limit: int = 10_000) -> None:
        super().__init__()
        self.limit = limit
        self.dropped = 0

    def append(self, item: T) -> None:
        if len(self) < self.limit:
            super().append(item)
        else:
            self.dropped += 1

    def extend(self, items: Iterable[T]) -> None:
        for item in items:
            self.append(item)


@dataclass(slots=True, eq=False)
class Reply:
    """One reply of the assistant: the greeting, an answer, or the text of a `say` message."""

    clip: str
    text: str
    # Random delay from the end of the caller's speech to the first audible byte; None: not an answer.
    delay_ms: int | None = None
    caller_ended_at: float | None = None  # arrival of the last loud chunk of the caller
    first_sent_at: float | None = None
    first_audible_sent_at: float | None = None
    last_sent_at: float | None = None
    done_at: float | None = None  # spoken to the end, or cut off
    cut_at: float | None = None
    chunks: list[tuple[float, bytes]] = field(default_factory=list, repr=False)

    @property
    def sent(self) -> bytes:
        return b"".join(chunk for _, chunk in self.chunks)

    @property
    def response_latency_ms(self) -> float | None:
        """The delay that was measured at the socket."""
        if self.caller_ended_at is None or self.first_audible_sent_at is None:
            return None
        return (self.first_audible_sent_at - self.caller_ended_at) * 1000


@dataclass(slots=True, eq=False, repr=False)
class VapiCallRecord:
    """One call. Lists are in order; `ended_at` is set when Vapi ends the call and its billing."""

    id: str
    dialect: str  # "call" or "socket"
    body: dict[str, Any]  # of POST /call, or the `assistant-request` message
    created_at: float
    call_sid: str = ""
    number: int = 0  # how many calls the simulator had before
    tools: frozenset[str] = frozenset()  # names of the tools that the assistant may call
    first_message: str = ""  # of a stored assistant
    tool_calls: BoundedList[dict[str, Any]] = field(default_factory=BoundedList)
    tool_results: BoundedList[Any] = field(default_factory=BoundedList)  # responses of the server
    url_token: str = ""  # secret part of the call's URLs
    connected: bool = False
    status: str = "queued"
    opened_at: float | None = None
    received: BoundedList[tuple[float, bytes]] = field(default_factory=lambda: BoundedList(200_000))
    received_bytes: int = 0  # including audio that was not kept
    max_audio_bytes: int = 10_000_000
    replies: BoundedList[Reply] = field(default_factory=BoundedList)
    transcripts: BoundedList[tuple[float, str, str]] = field(default_factory=BoundedList)  # final, sent
    all_transcripts: BoundedList[tuple[float, str, str]] = field(default_factory=BoundedList)  # also unsent
    # Of the caller: start, end, recognized text.
    utterances: BoundedList[tuple[float, float, str]] = field(default_factory=BoundedList)
    events_sent: BoundedList[tuple[float, dict[str, Any]]] = field(default_factory=BoundedList)
    messages_received: BoundedList[tuple[float, Any]] = field(default_factory=BoundedList)
    digits_received: BoundedList[str] = field(default_factory=BoundedList)
    interrupted_at: BoundedList[float] = field(default_factory=BoundedList)
    cancelled_at: BoundedList[float] = field(default_factory=BoundedList)  # `cancel`, socket dialect
    # Time, type, HTTP status (0: no response).
    webhooks_posted: BoundedList[tuple[float, str, int]] = field(default_factory=BoundedList)
    pings: int = 0
    end_call_at: float | None = None
    ended_at: float | None = None
    ended_reason: str = ""
    closed_at: float | None = None
    close_code: int | None = None  # sent or received; 1006: no close frame
    on_event: Callable[["VapiCallRecord", str], None] | None = None

    def __repr__(self) -> str:  # short, and without the request, which may contain a webhook secret
        return f"<VapiCallRecord {self.id[:8]} {self.status} {self.ended_reason}>".replace(" >", ">")

    @property
    def received_audio(self) -> bytes:
        return b"".join(payload for _, payload in self.received)

    @property
    def sent_audio(self) -> bytes:
        return b"".join(reply.sent for reply in self.replies)

    @property
    def is_active(self) -> bool:
        """Opened and not ended: Vapi would bill it."""
        return self.opened_at is not None and self.ended_at is None

    @property
    def is_orphaned(self) -> bool:
        """The socket is closed, but the call was never ended."""
        return self.is_active and self.closed_at is not None

    @property
    def answers(self) -> list[Reply]:
        return [reply for reply in self.replies if reply.caller_ended_at is not None]

    def emit(self, event: str) -> None:
        """Notify observers. An event contains no secrets."""
        if self.on_event is not None:
            self.on_event(self, event)

    def record_audio(self, payload: bytes, at: float) -> None:
        first = self.received_bytes == 0
        self.received_bytes += len(payload)
        if self.received_bytes <= self.max_audio_bytes:
            self.received.append((at, payload))
        else:
            self.received.dropped += 1
        if first:
            self.emit("< audio")

    def record_message(self, message: Any) -> None:
        self.messages_received.append((time.monotonic(), message))
        if isinstance(message, dict) and message.get("type") == "add-message":
            added = message.get("message")
            content = str(added.get("content", "")) if isinstance(added, dict) else ""
            self.digits_received.extend(digits.replace(" ", "") for digits in _DIGITS.findall(content))
