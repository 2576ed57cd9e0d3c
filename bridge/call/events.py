"""Events that a call session handles, and actions that it returns.

The parsed messages of the two wire protocols are events, too. All are frozen and carry no monotonic time: it
is passed to `CallSession.handle` beside the event. Pure.
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
    """Twilio's `start` arrived with a valid ticket. `at` is wall-clock time, for rows."""

    start: twilio.Start
    at: float
    max_call_seconds: int
    assistant_id: str = ""


@dataclass(frozen=True, slots=True)
class TicketRefused:
    """Twilio's `start` arrived with an invalid ticket; `why` is one word for the log."""

    start: twilio.Start
    at: float
    why: str


@dataclass(frozen=True, slots=True)
class CallerLegClosed:
    """Twilio's socket closed; the code is 1006 when the connection broke."""

    code: int


@dataclass(frozen=True, slots=True)
class AssistantConnected:
    """Vapi's socket is open. In the journal this is `AssistantAnswered`."""

    vapi_call_id: str = ""


@dataclass(frozen=True, slots=True)
class AssistantUnreachable:
    """Dialing failed. `detail` contains no secrets; `status` is Vapi's HTTP status, if it answered."""

    detail: str
    status: int | None = None
    vapi_call_id: str = ""


@dataclass(frozen=True, slots=True)
class AssistantAudio:
    """Assistant audio as mu-law at 8 kHz, of any length; `audible` when it is more than silence."""

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
    """A peer sent a malformed message; `kind` is one of a few fixed words."""

    leg: Leg
    kind: str


@dataclass(frozen=True, slots=True)
class OversizeMessage:
    """The caller leg sent a message over 64 KiB."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A leg could not keep up, and the oldest queued audio was dropped."""

    frames: int
    leg: Leg = "assistant"


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The session's deadline has passed; it may have been moved since."""


@dataclass(frozen=True, slots=True)
class ServerStopping:
    """The server stops, and the call had no time left to end by itself."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """The process is ending, or our own code failed."""


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
    | ServerStopping
    | Aborted
)


# Actions


@dataclass(frozen=True, slots=True)
class DialAssistant:
    """Connect to the assistant."""


@dataclass(frozen=True, slots=True)
class SendToAssistant:
    """Send one caller frame, mu-law."""

    ulaw: bytes


@dataclass(frozen=True, slots=True)
class SendControl:
    """Send a control message to the assistant."""

    message: vapi.Control


@dataclass(frozen=True, slots=True)
class SendToCaller:
    """Send assistant audio, mu-law. With `report`, feed `AudioSent(turn)` once it is handed to the socket."""

    ulaw: bytes
    report: bool = False
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class PlaceMark:
    """Send a mark: Twilio returns it when everything before it was played."""

    name: str


@dataclass(frozen=True, slots=True)
class ClearPlayout:
    """Drop all audio that the caller has not heard, in our outbox and in Twilio's buffer."""


@dataclass(frozen=True, slots=True)
class WriteEntry:
    """Write a journal entry."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close Twilio's socket. Daphne lets an app close only with 1000 or 3000 to 4999."""

    code: int = 1000


@dataclass(frozen=True, slots=True)
class HangUpAssistant:
    """End the call at Vapi: `end-call` normally, `close` if it has ended, `control` if its socket broke."""

    how: Literal["end-call", "close", "control"] = "end-call"


Action: TypeAlias = (
    DialAssistant
    | SendToAssistant
    | SendControl
    | SendToCaller
    | PlaceMark
    | ClearPlayout
    | WriteEntry
    | HangUp
    | HangUpAssistant
)
