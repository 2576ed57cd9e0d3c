"""A Vapi assistant that answers fast on a telephone: what it must say, and what of it is not so yet.

Vapi replaces an object whole when one field of it is sent, so each is sent as it is with ours put in; what
somebody chose in Vapi's own pages (a voice, a prompt) stays unless it is asked for here. A call of ours
brings its limit and its lists of messages along; the assistant has them too, for calls begun at Vapi.

Pure: settings and wishes in, objects out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.config import CLIENT_MESSAGES, SERVER_MESSAGES

ENDPOINTING = (300, 400)  # ms: below, callers are cut off in mid-sentence; above, they wait
DEFAULT_ENDPOINTING = 300
DEFAULT_NAME = "voiceai"
DEFAULT_MODEL, DEFAULT_VOICE, DEFAULT_LANGUAGE = "openai/gpt-4o-mini", "vapi/Elliot", "en"
DEFAULT_FIRST_MESSAGE = "Hello, how can I help you?"
DEFAULT_PROMPT = (
    "You answer the telephone. Speak in short sentences, ask one question at a time, and never invent facts. "
    "Use your tools to hand the caller over to a person or to end the call."
)
VAPI_SECONDS = (10, 43_200)
SECRET_FIELDS = ("headers", "secret")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for; None leaves what is there, or the default of a new assistant."""

    name: str | None = None
    first_message: str | None = None
    prompt: str | None = None
    model: str | None = None  # provider/model
    voice: str | None = None  # provider/voice
    language: str | None = None
    endpointing: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerDefaults:
    """What the server's settings say of every assistant."""

    server_url: str
    secret: str
    max_call_seconds: int
    record: bool
    tools: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One value of the assistant, by its path; secrets are told by whether they are there."""

    path: str
    before: str
    after: str


def wanted(current: Mapping[str, Any], wishes: Options, house: ServerDefaults) -> dict[str, Any]:
    """The fields as they should be. Raises `ValueError`, with a sentence, for a wish that cannot be."""
    asked = wishes.endpointing
    if asked is not None and not ENDPOINTING[0] <= asked <= ENDPOINTING[1]:
        raise ValueError(
            f"Endpointing is {ENDPOINTING[0]} to {ENDPOINTING[1]} ms: with less, callers are cut off while "
            "they think; with more, every answer comes later."
        )
    is_new = not current
    transcriber = _object(current, "transcriber")
    endpointing = asked or _within(transcriber.get("endpointing"), ENDPOINTING) or DEFAULT_ENDPOINTING
    fields: dict[str, Any] = {
        "name": wishes.name or current.get("name") or DEFAULT_NAME,
        "firstMessage": wishes.first_message or current.get("firstMessage") or DEFAULT_FIRST_MESSAGE,
        "firstMessageMode": "assistant-speaks-first",
        "model": _model(current, wishes, house, is_new=is_new),
        "voice": _voice(current, wishes),
        "transcriber": {
            **(transcriber if transcriber.get("provider") == "deepgram" else {}),
            "provider": "deepgram",
            "model": "nova-3",
            "language": wishes.language or transcriber.get("language") or DEFAULT_LANGUAGE,
            "endpointing": endpointing,
        },
        # Without a plan for the end of speech Vapi waits for a second and a half where no full stop is heard.
        "startSpeakingPlan": {
            **_object(current, "startSpeakingPlan"),
            "waitSeconds": 0.4,
            "transcriptionEndpointingPlan": {
                "onPunctuationSeconds": 0.1,
                "onNoPunctuationSeconds": 1.0,
                "onNumberSeconds": 0.5,
            },
        },
        "stopSpeakingPlan": {
            "numWords": 0, "voiceSeconds": 0.2, "backoffSeconds": 1, **_object(current, "stopSpeakingPlan"),
        },
        "backgroundSound": "off",
        "maxDurationSeconds": min(max(house.max_call_seconds, VAPI_SECONDS[0]), VAPI_SECONDS[1]),
        "clientMessages": list(CLIENT_MESSAGES),
        "serverMessages": list(SERVER_MESSAGES),
        "artifactPlan": {**_object(current, "artifactPlan"), "recordingEnabled": house.record},
    }  # fmt: skip
    if house.secret:
        server = _object(current, "server")
        fields["server"] = {
            **server,
            "url": house.server_url,
            "timeoutSeconds": 10,
            "headers": {**_object(server, "headers"), "X-Vapi-Secret": house.secret},
            "backoffPlan": {"type": "exponential", "maxRetries": 3, "baseDelaySeconds": 1},
        }
    return fields


def _model(
    current: Mapping[str, Any], wishes: Options, house: ServerDefaults, *, is_new: bool
) -> dict[str, Any]:
    model = _object(current, "model")
    if wishes.model or not model.get("provider"):
        provider, name = _pair(wishes.model or DEFAULT_MODEL, "--model")
        model = {**model, "provider": provider, "model": name}
    if wishes.prompt or is_new:
        model = {**model, "messages": [{"role": "system", "content": wishes.prompt or DEFAULT_PROMPT}]}
    ours = {tool["function"]["name"] for tool in house.tools}
    theirs = [each for each in model.get("tools") or () if _name(each) not in ours]
    return {**model, "tools": [*theirs, *house.tools]}


def _voice(current: Mapping[str, Any], wishes: Options) -> dict[str, Any]:
    voice = _object(current, "voice")
    if not wishes.voice and voice.get("provider"):
        return voice
    provider, name = _pair(wishes.voice or DEFAULT_VOICE, "--voice")
    return {"provider": provider, "voiceId": name}


def _pair(text: str, option: str) -> tuple[str, str]:
    provider, slash, name = text.partition("/")
    if not (provider and slash and name):
        raise ValueError(f"{option} is provider/name, such as {DEFAULT_MODEL} or {DEFAULT_VOICE}.")
    return provider, name


def _name(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    return str(function.get("name", "")) if isinstance(function, dict) else ""


def _object(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = facts.get(name)
    return dict(value) if isinstance(value, dict) else {}


def _within(value: Any, bounds: tuple[int, int]) -> int | None:
    return value if isinstance(value, int) and bounds[0] <= value <= bounds[1] else None


def _content(message: Mapping[str, Any]) -> str:
    return str(message.get("content") or message.get("role") or "")


# What is not so yet


def to_send(current: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that differ, whole."""
    return {name: value for name, value in fields.items() if current.get(name) != value}


def changes(current: Mapping[str, Any], fields: Mapping[str, Any]) -> list[Change]:
    """Value by value, in order."""
    found = []
    for path, after in _values(fields):
        before = _value_at(current, path)
        if before == after:
            continue
        if any(name in SECRET_FIELDS for name in path):
            shown = ("-", "(set)") if before is None else ("(set)", "(changed)")
        else:
            shown = (_shown(before), _shown(after))
        found.append(Change(".".join(path), *shown))
    return found


def _values(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _values(inner, (*path, name))
    else:
        yield path, value


def _value_at(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        names = [_name(each) or _content(each) if isinstance(each, Mapping) else str(each) for each in value]
        return ", ".join(filter(None, names)) or f"{len(value)} items"
    return str(value)
