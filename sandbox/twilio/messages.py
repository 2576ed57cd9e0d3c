"""Media stream messages, from Twilio's side: what Twilio sends, and strict validation of what it receives.

Numbers are sent as strings, except in `mediaFormat`. The server may send `media`, `mark` and `clear`, each
with exactly its documented fields; everything else is rejected with the error code that Twilio would log.

Pure: text in, text out.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


class InvalidMessage(Exception):
    """The server sent an invalid message; `code` is Twilio's error code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class PlayAudio:
    ulaw: bytes


@dataclass(frozen=True, slots=True)
class PlaceMark:
    name: str


@dataclass(frozen=True, slots=True)
class Clear:
    pass


ServerMessage: TypeAlias = PlayAudio | PlaceMark | Clear

FIELDS = {
    "media": {"event", "streamSid", "media"},
    "mark": {"event", "streamSid", "mark"},
    "clear": {"event", "streamSid"},
}


def connected() -> str:
    return _text({"event": "connected", "protocol": "Call", "version": "1.0.0"})


def start(seq: int, stream_sid: str, account_sid: str, call_sid: str, params: Mapping[str, str]) -> str:
    return _text(
        {
            "event": "start",
            "sequenceNumber": str(seq),
            "start": {
                "accountSid": account_sid,
                "streamSid": stream_sid,
                "callSid": call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": dict(params),
            },
            "streamSid": stream_sid,
        }
    )


def media(seq: int, stream_sid: str, chunk: int, timestamp_ms: int, ulaw: bytes) -> str:
    payload = base64.b64encode(ulaw).decode("ascii")
    body = {"track": "inbound", "chunk": str(chunk), "timestamp": str(timestamp_ms), "payload": payload}
    return _text({"event": "media", "sequenceNumber": str(seq), "media": body, "streamSid": stream_sid})


def dtmf(seq: int, stream_sid: str, digit: str) -> str:
    body = {"track": "inbound_track", "digit": digit}
    return _text({"event": "dtmf", "streamSid": stream_sid, "sequenceNumber": str(seq), "dtmf": body})


def mark(seq: int, stream_sid: str, name: str) -> str:
    return _text(
        {"event": "mark", "sequenceNumber": str(seq), "streamSid": stream_sid, "mark": {"name": name}}
    )


def stop(seq: int, stream_sid: str, account_sid: str, call_sid: str) -> str:
    body = {"accountSid": account_sid, "callSid": call_sid}
    return _text({"event": "stop", "sequenceNumber": str(seq), "streamSid": stream_sid, "stop": body})


def read(raw: str | bytes, stream_sid: str) -> ServerMessage:
    """Parse a message of the server. Raises `InvalidMessage` unless it is `media`, `mark` or `clear`."""
    if isinstance(raw, bytes):
        raise InvalidMessage(31950, f"a binary frame of {len(raw)} bytes")
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(31951, f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise InvalidMessage(31951, "not a JSON object")
    event = message.get("event")
    if not isinstance(event, str) or event not in FIELDS:
        raise InvalidMessage(31951, f"unknown event {event!r}")
    _require_fields(message, FIELDS[event], event)
    if message["streamSid"] != stream_sid:
        raise InvalidMessage(31951, f"{event} for another stream")
    match event:
        case "media":
            payload = _only_string_field(message["media"], "payload", event)
            try:
                return PlayAudio(base64.b64decode(payload, validate=True))
            except (binascii.Error, ValueError) as error:
                raise InvalidMessage(31951, f"the payload is not base64: {error}") from error
        case "mark":
            return PlaceMark(_only_string_field(message["mark"], "name", event))
        case _:
            return Clear()


def _only_string_field(body: Any, key: str, event: str) -> str:
    if not isinstance(body, dict):
        raise InvalidMessage(31951, f"{event}: the body is not an object")
    _require_fields(body, {key}, event)
    value = body[key]
    if not isinstance(value, str) or not value:
        raise InvalidMessage(31951, f"{event}: {key} is not a string, or is empty")
    return value


def _require_fields(body: Mapping[str, Any], fields: set[str], event: str) -> None:
    if missing := fields - body.keys():
        raise InvalidMessage(31951, f"{event}: missing {', '.join(sorted(missing))}")
    if extra := body.keys() - fields:
        raise InvalidMessage(31951, f"{event}: unknown {', '.join(sorted(map(repr, extra)))}")


def _text(message: Mapping[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
