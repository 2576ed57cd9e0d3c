"""Vapi's websocket messages in both dialects, and the request and response of `POST /call`.

**call** dialect (documented by Vapi): binary frames are raw audio, text frames are flat JSON events.
**socket** dialect: everything is JSON, audio is base64 in `{"type": "audio", "data": ...}`. In both, an event
may be wrapped in `message`, as in webhooks. Documented events that change nothing for a call, and unknown
events, become `IgnoredEvent` and are counted by name. Vapi's `user` is our `caller`.

Pure: no sockets, no clock.
"""

from __future__ import annotations

import json
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, assert_never

from bridge.config import CLIENT_MESSAGES, SERVER_MESSAGES
from bridge.tool_calls import ToolCall, tool_calls
from bridge.wire import MalformedMessage

MAX_TRANSCRIPT = 16_000  # characters: far more than one utterance

Speaker: TypeAlias = Literal["caller", "assistant"]


@dataclass(frozen=True, slots=True)
class Audio:
    """Assistant audio in the socket dialect: mu-law or PCM as configured, of any length."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """The call's status. `ended` may never arrive: sometimes Vapi only closes the socket."""

    status: str
    ended_reason: str = ""


@dataclass(frozen=True, slots=True)
class SpeechUpdate:
    """A speaker started or stopped, as Vapi detects it: late, and in no reliable order."""

    speaker: Speaker
    started: bool
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """Words of one speaker. Several finals in one turn are normal."""

    speaker: Speaker
    final: bool
    text: str


@dataclass(frozen=True, slots=True)
class UserInterrupted:
    """The caller interrupted the assistant. Vapi has stopped sending; what it sent before still plays."""

    turn_id: str = ""


@dataclass(frozen=True, slots=True)
class Hang:
    """The assistant is delayed by a slow model, voice or tool. This is not a hang-up."""


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """The model called tools. Results are returned in the response to Vapi's webhook, not here."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class IgnoredEvent:
    """An event that changes nothing for the call; it is counted by its type."""

    type: str
    known: bool = True


TextEvent: TypeAlias = (
    StatusUpdate | SpeechUpdate | Transcript | UserInterrupted | Hang | ToolCalls | IgnoredEvent
)
Event: TypeAlias = Audio | TextEvent

# Documented events that change nothing for a call; speech arrives as transcripts.
_IGNORED = frozenset({
    "conversation-update", "model-output", "voice-input", "tool-calls-result",
    "tool.completed", "function-call", "function-call-result", "transfer-update", "assistant.started",
    "assistant.speechStarted", "metadata", "language-changed", "language-change-detected",
    "workflow.node.started", "session.created", "session.updated", "session.deleted",
})  # fmt: skip

_SPEAKERS: dict[str, Speaker] = {
    "user": "caller",
    "customer": "caller",
    "assistant": "assistant",
    "bot": "assistant",
}


def parse(text: str) -> Event:
    """Parse one text frame from Vapi. Raises `MalformedMessage`."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedMessage("bad-json") from None
    if not isinstance(message, dict):
        raise MalformedMessage("not-an-object")
    wrapped = message.get("message")
    if "type" not in message and isinstance(wrapped, dict):
        message = wrapped
    kind = message.get("type")
    if not isinstance(kind, str) or not kind:
        raise MalformedMessage("no-type")
    match kind:
        case "audio":
            return Audio(_base64(message.get("data")))
        case "status-update":
            return StatusUpdate(_text(message, "status"), str(message.get("endedReason") or "")[:255])
        case "speech-update":
            return SpeechUpdate(_speaker(message), _text(message, "status") == "started", _turn(message))
        case "transcript" | 'transcript[transcriptType="final"]' | "transcript[transcriptType='final']":
            final = kind != "transcript" or message.get("transcriptType") == "final"
            words = _text(message, "transcript", empty=True)[:MAX_TRANSCRIPT]
            return Transcript(_speaker(message), final, words)
        case "user-interrupted":
            return UserInterrupted(str(message.get("turnId") or ""))
        case "hang":
            return Hang()
        case "tool-calls":
            return ToolCalls(tool_calls(message))
        case _:
            return IgnoredEvent(kind[:64], known=kind in _IGNORED)


def _text(message: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise MalformedMessage(f"bad-{name}")
    return value


def _speaker(message: Mapping[str, Any]) -> Speaker:
    role = message.get("role")
    if not isinstance(role, str) or role not in _SPEAKERS:
        raise MalformedMessage("bad-role")
    return _SPEAKERS[role]


def _turn(message: Mapping[str, Any]) -> int | None:
    turn = message.get("turn")
    return turn if isinstance(turn, int) and not isinstance(turn, bool) else None


def _base64(data: object) -> bytes:
    if not isinstance(data, str):
        raise MalformedMessage("bad-data")
    try:
        return a2b_base64(data, strict_mode=True)
    except (Base64Error, ValueError):
        raise MalformedMessage("bad-base64") from None


def is_failure(ended_reason: str) -> bool:
    """Whether Vapi's `endedReason` is a failure, after which the caller hears an apology or reaches a person.

    Vapi has hundreds of reasons and adds new ones. Those that somebody intended are listed. Any other is
    a failure: nobody must be hung up on for a reason that is not known. An end without a reason is normal.
    """
    return bool(ended_reason) and ended_reason not in INTENDED_ENDINGS


INTENDED_ENDINGS = frozenset({
    "assistant-ended-call", "assistant-ended-call-after-message-spoken",
    "assistant-ended-call-with-hangup-task", "assistant-forwarded-call", "assistant-said-end-call-phrase",
    "assistant-said-message-with-end-call-enabled", "call.ending.hook-executed-say",
    "call.ending.hook-executed-transfer", "call.in-progress.sip-completed-call",
    "call.in-progress.twilio-completed-call", "call.ringing.hook-executed-say",
    "call.ringing.hook-executed-transfer", "customer-ended-call",
    "customer-ended-call-after-warm-transfer-attempt", "customer-ended-call-before-warm-transfer",
    "customer-ended-call-during-transfer", "exceeded-max-duration", "manually-canceled", "silence-timed-out",
    "voicemail", "vonage-completed",
})  # fmt: skip


# Messages that we send. `end-call` and `add-message` are the same in both dialects; a server of the socket
# dialect that does not support them ignores them.


@dataclass(frozen=True, slots=True)
class AddMessage:
    """Adds a system message to the conversation, to which the assistant responds."""

    content: str


@dataclass(frozen=True, slots=True)
class EndCall:
    """Ends the call. Without it Vapi may keep an abandoned call open, billed, in a concurrency slot."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Socket dialect only: stop speaking, because the caller interrupts. Vapi detects this by itself."""


Control: TypeAlias = AddMessage | EndCall | Cancel


def control_text(message: Control) -> str:
    match message:
        case AddMessage(content):
            added = {"role": "system", "content": content}
            return json.dumps({"type": "add-message", "message": added, "triggerResponseEnabled": True})
        case EndCall():
            return '{"type": "end-call"}'
        case Cancel():
            return '{"type": "cancel"}'
        case _:
            assert_never(message)


def audio_text(payload: bytes) -> str:
    """Caller audio in the socket dialect."""
    return f'{{"type":"audio","data":"{b2a_base64(payload, newline=False).decode("ascii")}"}}'


def assistant_request_text(assistant_id: str, call_sid: str) -> str:
    """The first message in the socket dialect: it selects the assistant and names the call."""
    message = {"type": "assistant-request", "assistantId": assistant_id, "metadata": {"callSid": call_sid}}
    return json.dumps(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequest:
    """The request `POST /call`. Only documented fields are sent: Vapi may reject others."""

    assistant_id: str
    call_sid: str
    caller: str
    route_id: str
    audio_format: str
    max_call_seconds: int
    endpointing_ms: int
    record: bool
    server_url: str
    server_secret: str
    overrides: Mapping[str, Any]

    def body(self) -> dict[str, Any]:
        """The JSON body. A number's own overrides replace ours field by field, but never
        `clientMessages` and `metadata`. `variableValues` and the two plans are merged: an additional variable
        must not remove the caller's number.
        """
        rate = 8000 if self.audio_format == "mulaw" else 16000
        ours: dict[str, Any] = {
            "variableValues": {"caller": self.caller, "twilioCallSid": self.call_sid},
            "metadata": {"callSid": self.call_sid, "route": self.route_id},
            # Vapi adds office noise to phone calls by default: the line would never be silent.
            "backgroundSound": "off",
            "clientMessages": list(CLIENT_MESSAGES),
            "serverMessages": list(SERVER_MESSAGES),
            # The same limit on both sides. Vapi's default is 600 s, its range 10 to 43200.
            "maxDurationSeconds": min(max(self.max_call_seconds, 10), 43200),
            "startSpeakingPlan": {"waitSeconds": min(max(self.endpointing_ms, 0), 5000) / 1000},
            "artifactPlan": {"recordingEnabled": self.record},
        }
        if self.server_url and self.server_secret:
            ours["server"] = {
                "url": self.server_url,
                "timeoutSeconds": 10,
                "headers": {"X-Vapi-Secret": self.server_secret},
                # Vapi does not retry by default.
                "backoffPlan": {"type": "exponential", "maxRetries": 3, "baseDelaySeconds": 1},
            }
        protected = {name: ours[name] for name in ("clientMessages", "metadata")}
        merged = {
            name: {**ours[name], **theirs}
            for name in ("variableValues", "startSpeakingPlan", "artifactPlan")
            if isinstance(theirs := self.overrides.get(name), Mapping)
        }
        return {
            "name": f"twilio-{self.call_sid}"[:40],
            "assistantId": self.assistant_id,
            "assistantOverrides": {**ours, **self.overrides, **merged, **protected},
            "transport": {
                "provider": "vapi.websocket",
                "audioFormat": {"format": self.audio_format, "container": "raw", "sampleRate": rate},
            },
        }


@dataclass(frozen=True, slots=True)
class CallCreated:
    """Vapi's response to `POST /call`. Both URLs are secrets: they give control over the call."""

    call_id: str
    socket_url: str
    control_url: str = ""
    audio_format: str = ""

    def __repr__(self) -> str:
        return f"CallCreated({self.call_id!r})"


def parse_call_created(body: bytes) -> CallCreated:
    """Parse the response to `POST /call`. Raises `CallRefused` when it has no socket URL or Vapi has no free
    slot, `MalformedMessage` when it is not a JSON object."""
    try:
        response = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedMessage("bad-json") from None
    if not isinstance(response, dict):
        raise MalformedMessage("not-an-object")
    limits, transport, monitor = (
        value if isinstance(value := response.get(name), dict) else {}
        for name in ("subscriptionLimits", "transport", "monitor")
    )
    url, control = transport.get("websocketCallUrl"), monitor.get("controlUrl")
    confirmed = transport.get("audioFormat")
    created = CallCreated(
        call_id=str(response.get("id") or "")[:64],
        socket_url=url if isinstance(url, str) else "",
        control_url=control if isinstance(control, str) else "",
        audio_format=str(confirmed.get("format") or "") if isinstance(confirmed, dict) else "",
    )
    if limits.get("concurrencyBlocked") is True:
        raise CallRefused("concurrency-blocked", created)
    if not created.socket_url:
        raise CallRefused("no-websocketCallUrl", created)
    return created


class CallRefused(MalformedMessage):
    """Vapi created a call that cannot be used; `created` may have the URL to end it."""

    def __init__(self, kind: str, created: CallCreated) -> None:
        super().__init__(kind)
        self.created = created


def error_message(body: bytes) -> str:
    """The reason in an error response: its `message`, a string or a list of strings, else the whole text."""
    try:
        response = json.loads(body)
        message = response.get("message") if isinstance(response, dict) else None
    except (ValueError, RecursionError):
        message = None
    if isinstance(message, list):
        message = "; ".join(map(str, message))
    return (message if isinstance(message, str) else body.decode("utf-8", "replace"))[:300]
