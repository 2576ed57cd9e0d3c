"""The configuration of a Vapi assistant for telephone calls: what it should be, and what differs.

Vapi replaces an object as a whole when one field of it is sent. So each object is sent as it is at Vapi, with
our values put in. What was chosen on Vapi's own pages (a voice, a prompt) stays unless an option names
it. Calls that come through this server bring their time limit and message lists along; the assistant
has them, too, for calls that begin at Vapi.

Pure: options, settings and the current configuration in, fields out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.config import CLIENT_MESSAGES, SERVER_MESSAGES

# Below the minimum callers are cut off in mid-sentence; above the maximum they wait for every answer.
MIN_ENDPOINTING_MS, MAX_ENDPOINTING_MS = 300, 400
DEFAULT_ENDPOINTING_MS = 300
DEFAULT_NAME = "voiceai"
DEFAULT_MODEL, DEFAULT_VOICE, DEFAULT_LANGUAGE = "openai/gpt-4o-mini", "vapi/Elliot", "en"
DEFAULT_FIRST_MESSAGE = "Hello, how can I help you?"
DEFAULT_PROMPT = (
    "You answer the telephone. Speak in short sentences, ask one question at a time, and never invent facts. "
    "Use your tools to hand the caller over to a person or to end the call."
)
MIN_DURATION_SECONDS, MAX_DURATION_SECONDS = 10, 43_200  # what Vapi accepts as maxDurationSeconds
SECRET_FIELDS = ("headers", "secret")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command. None keeps the current value, or takes the default for a new assistant."""

    name: str | None = None
    first_message: str | None = None
    prompt: str | None = None
    model: str | None = None  # provider/model
    voice: str | None = None  # provider/voice
    language: str | None = None
    endpointing_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerDefaults:
    """The values that this server's settings give to every assistant."""

    server_url: str
    secret: str
    max_call_seconds: int
    record: bool
    tools: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One value of the assistant, by its path. Of a secret, it says only whether it is set or changes."""

    path: str
    before: str
    after: str


def desired_config(current: Mapping[str, Any], options: Options, defaults: ServerDefaults) -> dict[str, Any]:
    """The fields as they should be; `current` is empty for a new assistant.

    Raises `ValueError`, with a sentence for the user, for an invalid option.
    """
    transcriber = _object(current, "transcriber")
    fields: dict[str, Any] = {
        "name": options.name or current.get("name") or DEFAULT_NAME,
        "firstMessage": options.first_message or current.get("firstMessage") or DEFAULT_FIRST_MESSAGE,
        "firstMessageMode": "assistant-speaks-first",
        "model": _model(current, options, defaults),
        "voice": _voice(current, options),
        "transcriber": {
            **(transcriber if transcriber.get("provider") == "deepgram" else {}),
            "provider": "deepgram",
            "model": "nova-3",
            "language": options.language or transcriber.get("language") or DEFAULT_LANGUAGE,
            "endpointing": _endpointing_ms(transcriber, options),
        },
        # Without an endpointing plan Vapi waits a second and a half when it hears no full stop.
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
        "maxDurationSeconds": min(max(defaults.max_call_seconds, MIN_DURATION_SECONDS), MAX_DURATION_SECONDS),
        "clientMessages": list(CLIENT_MESSAGES),
        "serverMessages": list(SERVER_MESSAGES),
        "artifactPlan": {**_object(current, "artifactPlan"), "recordingEnabled": defaults.record},
    }  # fmt: skip
    if defaults.secret:
        server = _object(current, "server")
        fields["server"] = {
            **server,
            "url": defaults.server_url,
            "timeoutSeconds": 10,
            "headers": {**_object(server, "headers"), "X-Vapi-Secret": defaults.secret},
            "backoffPlan": {"type": "exponential", "maxRetries": 3, "baseDelaySeconds": 1},
        }
    return fields


def _endpointing_ms(transcriber: dict[str, Any], options: Options) -> int:
    if options.endpointing_ms is not None:
        if not _is_good_endpointing(options.endpointing_ms):
            raise ValueError(
                f"--endpointing must be {MIN_ENDPOINTING_MS} to {MAX_ENDPOINTING_MS} ms. Below that, callers "
                "are cut off while they think; above it, every answer comes later."
            )
        return options.endpointing_ms
    current = transcriber.get("endpointing")
    if isinstance(current, int) and _is_good_endpointing(current):
        return current
    return DEFAULT_ENDPOINTING_MS


def _is_good_endpointing(ms: int) -> bool:
    return MIN_ENDPOINTING_MS <= ms <= MAX_ENDPOINTING_MS


def _model(current: Mapping[str, Any], options: Options, defaults: ServerDefaults) -> dict[str, Any]:
    is_new = not current
    model = _object(current, "model")
    if options.model or not model.get("provider"):
        provider, name = _split_provider(options.model or DEFAULT_MODEL, "--model")
        model = {**model, "provider": provider, "model": name}
    if options.prompt or is_new:
        model = {**model, "messages": [{"role": "system", "content": options.prompt or DEFAULT_PROMPT}]}
    our_tools = {tool["function"]["name"] for tool in defaults.tools}
    other_tools = [tool for tool in model.get("tools") or () if _function_name(tool) not in our_tools]
    return {**model, "tools": [*other_tools, *defaults.tools]}


def _voice(current: Mapping[str, Any], options: Options) -> dict[str, Any]:
    voice = _object(current, "voice")
    if not options.voice and voice.get("provider"):
        return voice
    provider, name = _split_provider(options.voice or DEFAULT_VOICE, "--voice")
    return {"provider": provider, "voiceId": name}


def _split_provider(text: str, option: str) -> tuple[str, str]:
    provider, slash, name = text.partition("/")
    if not (provider and slash and name):
        raise ValueError(f"{option} must be provider/name, such as {DEFAULT_MODEL} or {DEFAULT_VOICE}.")
    return provider, name


def _function_name(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    return str(function.get("name", "")) if isinstance(function, dict) else ""


def _object(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = facts.get(name)
    return dict(value) if isinstance(value, dict) else {}


# Comparing with what is at Vapi


def changed_fields(current: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields to send: those that differ, as a whole."""
    return {name: value for name, value in fields.items() if current.get(name) != value}


def changes(current: Mapping[str, Any], fields: Mapping[str, Any]) -> list[Change]:
    """The single values that differ, to be printed."""
    result = []
    for path, after in _leaves(fields):
        before = _value_at(current, path)
        if before == after:
            continue
        if any(name in SECRET_FIELDS for name in path):
            texts = ("-", "(set)") if before is None else ("(set)", "(changed)")
        else:
            texts = (_as_text(before), _as_text(after))
        result.append(Change(".".join(path), *texts))
    return result


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    else:
        yield path, value


def _value_at(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _as_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        names = [_item_name(item) for item in value]
        return ", ".join(filter(None, names)) or f"{len(value)} items"
    return str(value)


def _item_name(item: Any) -> str:
    """A tool by its name, a message by its text, anything else as it is."""
    if isinstance(item, Mapping):
        return _function_name(item) or str(item.get("content") or item.get("role") or "")
    return str(item)
