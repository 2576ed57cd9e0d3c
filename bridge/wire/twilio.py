"""Twilio Media Streams: the messages that arrive on `/media-stream`, and the three that we send.

All messages are JSON in text frames. Twilio sends numbers as strings, except inside `mediaFormat`, so both
forms are accepted. Every message but `connected` has the `streamSid`. What we send has exactly the documented
fields: for an unknown field Twilio warns once per stream (31951), and then plays nothing.

Pure: no sockets, no clock.
"""

from __future__ import annotations

import json
import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from bridge.wire import MalformedMessage


@dataclass(frozen=True, slots=True)
class Connected:
    """The first message, with the protocol's version. There is no stream yet."""

    protocol: str
    version: str


@dataclass(frozen=True, slots=True)
class Start:
    """The stream starts. `custom_parameters` are the `<Parameter>`s of our TwiML, always strings."""

    stream_sid: str
    call_sid: str
    account_sid: str
    tracks: tuple[str, ...] = ("inbound",)
    custom_parameters: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "audio/x-mulaw"
    sample_rate: int = 8000
    channels: int = 1
    sequence: int | None = None


@dataclass(frozen=True, slots=True)
class Media:
    """One frame of caller audio: mu-law, 8 kHz, mono, usually 160 bytes; any length is allowed."""

    stream_sid: str
    ulaw: bytes
    chunk: int | None = None
    timestamp_ms: int | None = None
    sequence: int | None = None
    track: str = "inbound"


@dataclass(frozen=True, slots=True)
class Dtmf:
    """The caller pressed one key: `0-9 * #`, rarely `A-D`."""

    stream_sid: str
    digit: str
    sequence: int | None = None
    track: str = "inbound_track"


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark is returned: everything before it was played or cleared."""

    stream_sid: str
    name: str
    sequence: int | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """The stream or the call ended. A socket can also close without this message."""

    stream_sid: str
    call_sid: str = ""
    account_sid: str = ""
    sequence: int | None = None


Message: TypeAlias = Connected | Start | Media | Dtmf | Mark | Stop

_DIGITS = frozenset("0123456789*#ABCD")
_MAX_PARAMETERS = 100


# Fast path for media messages, of which each call has fifty a second. A message that is written differently
# (another order, other spaces, an escape, a repeated key) does not match, and is parsed as JSON below.
_PLAIN_MEDIA = re.compile(
    r'\{"event": ?"media", ?"sequenceNumber": ?"([0-9]{1,18})", ?"streamSid": ?"(\w{1,255})", ?'
    r'"media": ?\{"track": ?"inbound", ?"chunk": ?"([0-9]{1,18})", ?"timestamp": ?"([0-9]{1,18})", ?'
    r'"payload": ?"([A-Za-z0-9+/]+={0,2})"\}\}',
    re.ASCII,
)


def parse(text: str) -> Message:
    """Parse one message from Twilio. Raises `MalformedMessage`."""
    if plain := _PLAIN_MEDIA.fullmatch(text):
        sequence, stream_sid, chunk, timestamp, payload = plain.groups()
        return Media(stream_sid, _audio(payload), int(chunk), int(timestamp), int(sequence))
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedMessage("bad-json") from None
    if not isinstance(message, dict):
        raise MalformedMessage("not-an-object")
    match message.get("event"):
        case "media":
            return _media(message)
        case "connected":
            return Connected(str(message.get("protocol", "")), str(message.get("version", "")))
        case "start":
            return _start(message)
        case "dtmf":
            return _dtmf(message)
        case "mark":
            name = _string(_object(message, "mark"), "name")
            return Mark(_string(message, "streamSid"), name, _number(message, "sequenceNumber"))
        case "stop":
            stop = _object(message, "stop")
            return Stop(
                _string(message, "streamSid"),
                str(stop.get("callSid", "")),
                str(stop.get("accountSid", "")),
                _number(message, "sequenceNumber"),
            )
        case str():
            raise MalformedMessage("unknown-event")
        case _:
            raise MalformedMessage("no-event")


def _media(message: dict[str, Any]) -> Media:
    media = _object(message, "media")
    payload = media.get("payload")
    if not isinstance(payload, str):
        raise MalformedMessage("bad-payload")
    ulaw = _audio(payload)
    track = media.get("track", "inbound")
    if track not in ("inbound", "inbound_track"):
        raise MalformedMessage("wrong-track")
    return Media(
        _string(message, "streamSid"),
        ulaw,
        _number(media, "chunk"),
        _number(media, "timestamp"),
        _number(message, "sequenceNumber"),
        track,
    )


def _audio(payload: str) -> bytes:
    try:
        ulaw = a2b_base64(payload, strict_mode=True)
    except (Base64Error, ValueError):
        raise MalformedMessage("bad-base64") from None
    if not ulaw:
        raise MalformedMessage("empty-payload")
    return ulaw


def _start(message: dict[str, Any]) -> Start:
    start = _object(message, "start")
    parameters = start.get("customParameters") or {}
    media_format = start.get("mediaFormat") or {}
    tracks = start.get("tracks") or ["inbound"]
    if not isinstance(parameters, dict) or len(parameters) > _MAX_PARAMETERS:
        raise MalformedMessage("bad-parameters")
    if not isinstance(media_format, dict) or not isinstance(tracks, list):
        raise MalformedMessage("bad-start")
    return Start(
        stream_sid=_string(start if "streamSid" in start else message, "streamSid"),
        call_sid=_string(start, "callSid"),
        account_sid=str(start.get("accountSid", "")),
        tracks=tuple(map(str, tracks)),
        custom_parameters={str(name): str(value) for name, value in parameters.items()},
        encoding=str(media_format.get("encoding", "audio/x-mulaw")),
        sample_rate=_number(media_format, "sampleRate") or 8000,
        channels=_number(media_format, "channels") or 1,
        sequence=_number(message, "sequenceNumber"),
    )


def _dtmf(message: dict[str, Any]) -> Dtmf:
    dtmf = _object(message, "dtmf")
    digit = _string(dtmf, "digit")
    if digit not in _DIGITS:
        raise MalformedMessage("bad-digit")
    return Dtmf(
        _string(message, "streamSid"),
        digit,
        _number(message, "sequenceNumber"),
        str(dtmf.get("track", "inbound_track")),
    )


def _object(message: dict[str, Any], name: str) -> dict[str, Any]:
    value = message.get(name)
    if not isinstance(value, dict):
        raise MalformedMessage(f"no-{name}")
    return value


def _string(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not value or len(value) > 255:
        raise MalformedMessage(f"bad-{name}")
    return value


def _number(message: dict[str, Any], name: str) -> int | None:
    """A number, also as a string. None when it is missing; raises `MalformedMessage` when it is invalid."""
    value = message.get(name)
    if value is None:
        return None
    if isinstance(value, int | str) and not isinstance(value, bool) and len(digits := str(value)) <= 18:
        try:
            return int(digits)
        except ValueError:
            pass
    raise MalformedMessage(f"bad-{name}")


class Writer:
    """Formats the three messages that we send to a stream. `media`, sent 50 times a second, is a template."""

    def __init__(self, stream_sid: str) -> None:
        quoted = json.dumps(stream_sid)
        self._media_head = f'{{"event":"media","streamSid":{quoted},"media":{{"payload":"'
        self._clear = f'{{"event":"clear","streamSid":{quoted}}}'
        self._mark_head = f'{{"event":"mark","streamSid":{quoted},"mark":{{"name":'

    def media(self, ulaw: bytes) -> str:
        return f'{self._media_head}{b2a_base64(ulaw, newline=False).decode("ascii")}"}}}}'

    def mark(self, name: str) -> str:
        return f"{self._mark_head}{json.dumps(name)}}}}}"

    def clear(self) -> str:
        return self._clear
