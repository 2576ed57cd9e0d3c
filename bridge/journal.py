"""Journal entries: everything that the bridge reports about a call.

An entry is a small frozen record. The bridge and the webhooks write entries at once; the implementation of
`Journal` turns them into rows later, on another thread. Every entry has the CallSid and, where a call has
many entries of a kind, an index. Writing an entry twice is therefore harmless, and a later entry with the
same index replaces the earlier one.

Newer versions must read the spools of older ones: a class or field keeps its name, or `_KINDS` gets an alias,
and a new field has a default.

Pure: entries to lines and back, no files, no clock, no database. A line is a CRC-32 in hex, a space, JSON and
a newline; `from_line` rejects a torn or damaged line.

Times: `at` is Unix seconds on the wall clock; `*_ms` are milliseconds since the stream's `start`.
"""

from __future__ import annotations

import json
from binascii import crc32
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeAlias


class MalformedLine(ValueError):
    """A spool line that is torn, damaged, or of an unknown kind."""


@dataclass(frozen=True, slots=True)
class CallOffered:
    """Twilio requested TwiML for a call. `refused`: the end reason when no stream was offered, else empty."""

    call_sid: str
    at: float
    from_number: str = ""
    to_number: str = ""
    direction: str = "inbound"
    refused: str = ""
    simulated: bool = False
    caller_name: str = ""
    answered_by: str = ""  # of outbound calls with answering machine detection
    release: str = ""  # of this software


@dataclass(frozen=True, slots=True)
class StreamStarted:
    """The media stream is open and its ticket is valid. Milliseconds count from here."""

    call_sid: str
    at: float
    stream_sid: str
    worker: str = ""
    assistant_id: str = ""  # the one that is dialed; empty with a socket server


@dataclass(frozen=True, slots=True)
class StreamRefused:
    """A stream for this call was refused. This never ends a call whose stream is open."""

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
    """One final utterance. Times are our own measurements, None where they could not be measured."""

    call_sid: str
    index: int
    speaker: str
    text: str
    started_ms: int | None = None
    ended_ms: int | None = None
    interrupted: bool = False
    unheard_ms: int | None = None  # audio of it that was cleared before the caller heard it


@dataclass(frozen=True, slots=True)
class TurnTaken:
    """A turn, answered or not yet. Written again as more of it becomes known."""

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
    """One event on the call's timeline. Each `source` (stream, carrier, vapi) numbers its own events."""

    call_sid: str
    index: int
    kind: str
    at_ms: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    source: str = "stream"


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The stream has ended: who ended it, why, and the counters."""

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
    """A status or stream callback from Twilio. May arrive late, twice, and in any order.

    Also the result of fetching a call from Twilio's REST API (`asked`), which includes the price: text,
    negative, exactly as Twilio sent it, and its currency (empty: dollars).
    """

    call_sid: str
    at: float
    status: str = ""
    sequence: int | None = None
    duration_seconds: int | None = None
    stream_event: str = ""
    detail: str = ""
    answered_by: str = ""  # of outbound calls: human, machine_start, ...
    asked: bool = False
    price: str = ""
    price_unit: str = ""
    # They fill a row whose voice webhook never arrived.
    from_number: str = ""
    to_number: str = ""
    direction: str = ""
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class AssistantReported:
    """A server message from Vapi. If `call_sid` is empty, `vapi_call_id` identifies the call.

    `kept` has further fields of the report, as Vapi sent them; the parser limits their size.
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
    assistant_id: str = ""


@dataclass(frozen=True, slots=True)
class EndRequested:
    """Staff or the assistant requested the end of the call; `withdrawn` when the request was refused.

    It takes precedence over the end reason that the stream reports afterwards.
    """

    call_sid: str
    at: float
    end_reason: str
    ended_by: str
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class LiveNote:
    """The current state of a live call, for pages that show it. It never becomes a row and is not spooled:
    the latest note replaces all before it, and any note may be lost. `floor_since` is wall-clock time;
    `partial` is the partial transcript of `speaker`."""

    call_sid: str
    at_ms: int
    floor: str = ""
    floor_since: float = 0.0
    speaker: str = ""
    partial: str = ""
    latency_ms: int | None = None  # of the latest answered turn


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

# What a spool may contain: everything but live notes.
_KINDS: dict[str, type[Entry]] = {
    kind.__name__: kind
    for kind in (
        CallOffered, StreamStarted, StreamRefused, AssistantAnswered, UtteranceSpoken,
        TurnTaken, TimelineEvent, StreamEnded, CarrierReported, AssistantReported, EndRequested,
    )
}  # fmt: skip
# Names that earlier versions wrote.
_KINDS["Happened"] = TimelineEvent


class Journal(Protocol):
    """Where the bridge and the webhooks write their entries."""

    def write(self, entry: Entry, /) -> None:
        """Record an entry. Never waits, never raises."""


def to_line(entry: Entry) -> bytes:
    """The spool line of an entry. Lone surrogates are escaped in JSON, and sanitized when rows are made."""
    values = {f.name: getattr(entry, f.name) for f in fields(entry)}
    values["kind_"] = type(entry).__name__
    body = json.dumps(values, separators=(",", ":"), default=str).encode("ascii")
    return b"%08x %s\n" % (crc32(body), body)


def from_line(line: bytes) -> Entry:
    """The entry of a spool line; unknown fields, from a later version, are ignored.

    Raises `MalformedLine` for a torn line, a wrong checksum, or an unknown kind.
    """
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % crc32(body):
        raise MalformedLine("torn or damaged line")
    try:
        values = json.loads(body)
        kind = _KINDS[values.pop("kind_")]
        names = {f.name for f in fields(kind)}
        if "turn_latencies" in values:
            values["turn_latencies"] = tuple(values["turn_latencies"])
        return kind(**{name: value for name, value in values.items() if name in names})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalformedLine(f"unreadable entry: {error!r}") from None
