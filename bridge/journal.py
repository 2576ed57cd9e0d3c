"""What a call reports about itself: the one way out of the bridge.

An entry is a small frozen fact. The bridge and the webhooks write entries as things happen and
forget them; whatever stands behind `Journal.write` makes rows of them, later and elsewhere. Every
entry names its call and, where a call has many of a kind, an index, so that writing it twice is
harmless and a later entry with the same index replaces the earlier one.

Pure: entries to lines and back, no files, no clock, no database. A line is a CRC-32 in hex, a blank,
JSON, a newline; a torn or flipped line is recognised and refused by `from_line`.

Times: `at` is Unix seconds on the wall clock; `*_ms` are milliseconds since the stream's `start`.
"""

from __future__ import annotations

import json
from binascii import crc32
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeAlias


class MalformedLine(ValueError):
    """A spool line that cannot be trusted: torn, flipped, or of an unknown kind."""


@dataclass(frozen=True, slots=True)
class CallOffered:
    """Twilio asked what to do with a call; `refused` says why no stream was offered, else empty."""

    call_sid: str
    at: float
    from_number: str = ""
    to_number: str = ""
    direction: str = "inbound"
    refused: str = ""
    simulated: bool = False
    caller_name: str = ""
    answered_by: str = ""  # on calls that we placed with machine detection


@dataclass(frozen=True, slots=True)
class StreamStarted:
    """The media stream is open and its ticket was good. Milliseconds count from here."""

    call_sid: str
    at: float
    stream_sid: str
    worker: str = ""


@dataclass(frozen=True, slots=True)
class StreamRefused:
    """A stream asked to carry this call and was turned away; never ends a call whose stream is open."""

    call_sid: str
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class AssistantAnswered:
    """The assistant's socket is open."""

    call_sid: str
    at: float
    connect_ms: int
    vapi_call_id: str = ""
    frames_held: int = 0


@dataclass(frozen=True, slots=True)
class UtteranceSpoken:
    """One final piece of speech. Times are our own measure, None where it does not tell."""

    call_sid: str
    index: int
    speaker: str
    text: str
    started_ms: int | None = None
    ended_ms: int | None = None
    interrupted: bool = False
    unheard_ms: int | None = None  # audio of it that was thrown away before it was heard


@dataclass(frozen=True, slots=True)
class TurnTaken:
    """The caller spoke, the assistant answered, or did not yet. Written again as more becomes known."""

    call_sid: str
    number: int
    end_of_speech_ms: int
    endpointed_ms: int | None = None
    first_audio_ms: int | None = None
    sent_ms: int | None = None
    heard_ms: int | None = None
    response_latency_ms: int | None = None
    bridge_overhead_us: int | None = None
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One line of the timeline, as it happened. `source` tells numberings apart: stream, carrier, vapi."""

    call_sid: str
    index: int
    kind: str
    at_ms: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    source: str = "stream"


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The stream is over: who ended it, why, and what crossed the bridge."""

    call_sid: str
    at: float
    at_ms: int
    end_reason: str
    ended_by: str
    vapi_ended_reason: str = ""
    vapi_close_code: int | None = None
    time_to_first_audio_ms: int | None = None
    frames_to_assistant: int = 0
    frames_to_caller: int = 0
    frames_held: int = 0
    frames_dropped: int = 0
    barge_ins: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CarrierReported:
    """A status or stream callback from Twilio. Arrives late, twice, and in any order.

    Also what Twilio says when it is asked about a call (`asked`), which is when it names the price: dollars
    as text, below zero, exactly as sent.
    """

    call_sid: str
    at: float
    status: str = ""
    sequence: int | None = None
    duration_seconds: int | None = None
    stream_event: str = ""
    detail: str = ""
    answered_by: str = ""  # of calls that we placed: human, machine_start, ...
    asked: bool = False
    price: str = ""


@dataclass(frozen=True, slots=True)
class AssistantReported:
    """A server message from Vapi. `call_sid` may be empty: then `vapi_call_id` finds the call.

    `kept` are further parts of the report, as sent and bounded by whoever read them.
    """

    call_sid: str
    at: float
    kind: str
    vapi_call_id: str = ""
    status: str = ""
    ended_reason: str = ""
    cost: float | None = None
    summary: str = ""
    turn_latencies: tuple[Mapping[str, Any], ...] = ()
    kept: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EndRequested:
    """Somebody other than the caller asked for the call's end, just now; `withdrawn` when it was refused.

    What the stream then says of its end is less than what was asked for.
    """

    call_sid: str
    at: float
    end_reason: str
    ended_by: str
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class LiveNote:
    """What is live but no row: for those who watch the call now. The latest wins, any may be lost, and
    none is spooled. `floor_since` is on the wall clock; `partial` are words of the speaker's, not final."""

    call_sid: str
    at_ms: int
    floor: str = ""
    floor_since: float = 0.0
    speaker: str = ""
    partial: str = ""
    latency_ms: int | None = None  # of the turn answered last


Entry: TypeAlias = (
    CallOffered
    | StreamStarted
    | StreamRefused
    | AssistantAnswered
    | UtteranceSpoken
    | TurnTaken
    | TimelineEvent
    | StreamEnded
    | CarrierReported
    | AssistantReported
    | EndRequested
    | LiveNote
)

# What a spool may hold: everything but notes of the moment.
_KINDS: dict[str, type[Entry]] = {
    kind.__name__: kind
    for kind in (
        CallOffered, StreamStarted, StreamRefused, AssistantAnswered, UtteranceSpoken,
        TurnTaken, TimelineEvent, StreamEnded, CarrierReported, AssistantReported, EndRequested,
    )
}  # fmt: skip
# Names that earlier versions wrote: their spools are replayed by this one.
_KINDS["Happened"] = TimelineEvent


class Journal(Protocol):
    def write(self, entry: Entry, /) -> None:
        """Take note of what happened. Never waits, never raises."""


def to_line(entry: Entry) -> bytes:
    """One spool line. Lone surrogates are escaped by JSON and survive the disk; rows clean them later."""
    facts = {f.name: getattr(entry, f.name) for f in fields(entry)}
    facts["kind_"] = type(entry).__name__
    body = json.dumps(facts, separators=(",", ":"), default=str).encode("ascii")
    return b"%08x %s\n" % (crc32(body), body)


def from_line(line: bytes) -> Entry:
    """The entry of one line, unknown fields of a later version left out.

    Raises `MalformedLine` for a torn tail, a wrong checksum, or a kind this version does not know.
    """
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % crc32(body):
        raise MalformedLine("torn or damaged line")
    try:
        facts = json.loads(body)
        kind = _KINDS[facts.pop("kind_")]
        names = {f.name for f in fields(kind)}
        if "turn_latencies" in facts:
            facts["turn_latencies"] = tuple(facts["turn_latencies"])
        return kind(**{name: value for name, value in facts.items() if name in names})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalformedLine(f"unreadable entry: {error!r}") from None
