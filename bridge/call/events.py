"""What a call session hears (events: nouns, or past) and what it wants done (actions: imperative).

Messages of the two wires are events as they are; here is the rest. All frozen; times come beside them.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from bridge.journal import Entry
from bridge.wire import twilio, vapi

Leg: TypeAlias = Literal["caller", "assistant"]


# Events


@dataclass(frozen=True, slots=True)
class StreamAccepted:
    """Twilio's `start` came and its ticket is good. `at` is the wall clock, for rows."""

    start: twilio.Start
    at: float
    max_call_seconds: int


@dataclass(frozen=True, slots=True)
class TicketRefused:
    """Twilio's `start` came with a ticket that proves nothing; `why` is one word for the log."""

    start: twilio.Start
    at: float
    why: str


@dataclass(frozen=True, slots=True)
class CallerLegClosed:
    """Twilio's socket is gone; 1006 when it broke."""

    code: int


@dataclass(frozen=True, slots=True)
class AssistantConnected:
    """Vapi's socket is open; `ulaw` audio may flow. The journal calls this the assistant's answer."""

    vapi_call_id: str = ""


@dataclass(frozen=True, slots=True)
class AssistantUnreachable:
    """Dialling failed. `detail` is free of secrets; `status` is Vapi's HTTP status, if it gave one."""

    detail: str
    status: int | None = None
    vapi_call_id: str = ""


@dataclass(frozen=True, slots=True)
class AssistantAudio:
    """Assistant audio as mu-law at 8 kHz, any length; `audible` when it is more than silence."""

    ulaw: bytes
    audible: bool


@dataclass(frozen=True, slots=True)
class AssistantLegClosed:
    """Vapi's socket closed: 1005 a close frame without a code, 1006 no close frame at all."""

    code: int


@dataclass(frozen=True, slots=True)
class AudioSent:
    """The first audible audio of an answer was handed to Twilio's socket."""

    turn: int | None


@dataclass(frozen=True, slots=True)
class BadMessage:
    """A peer sent something that is no message of its protocol; `kind` is one of a few words."""

    leg: Leg
    kind: str


@dataclass(frozen=True, slots=True)
class OversizeMessage:
    """A message over 64 KiB from the caller leg."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A leg could not keep up, and the oldest audio on its way there was lost."""

    frames: int
    leg: Leg = "assistant"


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The time the session asked for has come; it may have moved on since."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """The server is going down under the call, or our own code failed."""


Event: TypeAlias = (
    twilio.Message
    | vapi.Event
    | StreamAccepted
    | TicketRefused
    | CallerLegClosed
    | AssistantConnected
    | AssistantUnreachable
    | AssistantAudio
    | AssistantLegClosed
    | AudioSent
    | BadMessage
    | OversizeMessage
    | Dropped
    | DeadlinePassed
    | Aborted
)


# Actions


@dataclass(frozen=True, slots=True)
class DialAssistant:
    """Reach the assistant, in a task of its own."""


@dataclass(frozen=True, slots=True)
class SendToAssistant:
    """One caller frame, mu-law."""

    ulaw: bytes


@dataclass(frozen=True, slots=True)
class TellAssistant:
    """A control message."""

    message: vapi.Control


@dataclass(frozen=True, slots=True)
class SendToCaller:
    """Assistant audio, mu-law. With `report`, answer with `AudioSent(turn)` once it is handed over."""

    ulaw: bytes
    report: bool = False
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class PlaceMark:
    """Ask Twilio to tell us when everything before this was played."""

    name: str


@dataclass(frozen=True, slots=True)
class ClearPlayout:
    """Drop what the caller has not heard: ours that waits, and Twilio's buffer. Overtakes queued audio."""


@dataclass(frozen=True, slots=True)
class WriteEntry:
    entry: Entry


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close Twilio's socket. Daphne lets an app close only with 1000 or 3000 to 4999."""

    code: int = 1000


@dataclass(frozen=True, slots=True)
class HangUpAssistant:
    """Leave Vapi: `end-call` while it is alive, `close` when it is done, `control` when its socket broke."""

    how: Literal["end-call", "close", "control"] = "end-call"


Action: TypeAlias = (
    DialAssistant
    | SendToAssistant
    | TellAssistant
    | SendToCaller
    | PlaceMark
    | ClearPlayout
    | WriteEntry
    | HangUp
    | HangUpAssistant
)
