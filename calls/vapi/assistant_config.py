"""The configuration of a Vapi assistant for telephone calls: what it should be, and what differs.

What was chosen on Vapi's own pages stays, unless an option names it: a transcriber of any provider with its
fallback plan, a voice, a model, a prompt, who speaks first. A value that is missing there is filled in. Only
`REASONS` names what is changed without an option, each with the reason that the command prints.

Vapi replaces an object as a whole when one field of it is sent. So each object is sent as it is at Vapi, with
our values put in. Time limit and message lists are sent with each call that comes through this server; the
assistant gets them as well, for calls that begin at Vapi.

Pure: options, settings and the current configuration in, fields out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.config import CLIENT_MESSAGES, SERVER_MESSAGES

# Below the minimum callers are cut off mid-sentence; above the maximum they wait for every answer.
MIN_ENDPOINTING_MS, MAX_ENDPOINTING_MS = 300, 400
DEFAULT_ENDPOINTING_MS = 300
DEFAULT_NAME = "voiceai"
DEFAULT_MODEL, DEFAULT_VOICE, DEFAULT_TRANSCRIBER_LANGUAGE = "openai/gpt-4o-mini", "vapi/Elliot", "en"
DEEPGRAM, DEFAULT_TRANSCRIBER = "deepgram", "nova-3"
DEFAULT_FIRST_MESSAGE = "Hello, how can I help you?"
DEFAULT_PROMPT = (
    "You answer the telephone. Speak in short sentences, ask one question at a time, and never invent facts. "
    "Use your tools to transfer the caller to a person or to end the call."
)
TRANSCRIPTION_ENDPOINTING_PLAN = {
    "onPunctuationSeconds": 0.1, "onNoPunctuationSeconds": 1.0, "onNumberSeconds": 0.5,
}  # fmt: skip
# With one of these Vapi does not use the transcription endpointing plan.
ENDPOINTING_BY_MODEL = ("smartEndpointingPlan", "smartEndpointingEnabled", "customEndpointingRules")
STOP_SPEAKING_PLAN = {"numWords": 0, "voiceSeconds": 0.2, "backoffSeconds": 1}
MIN_DURATION_SECONDS, MAX_DURATION_SECONDS = 10, 43_200  # what Vapi accepts as maxDurationSeconds
SECRET_FIELDS = ("headers", "secret")
# Path of a value -> why it is changed although no option names it.
REASONS = {
    ("name",): "not set",
    ("model", "tools"): "the tools of this server",
    ("model",): "not set",
    ("voice",): "not set",
    ("transcriber", "endpointing"): f"under {MIN_ENDPOINTING_MS} ms callers are cut off when they pause",
    ("transcriber",): "not set",
    ("startSpeakingPlan",): "not set: Vapi would wait up to 1.5 s",
    ("stopSpeakingPlan",): "not set: callers can interrupt at once",
    ("backgroundSound",): "not set: Vapi would add noise",
    ("maxDurationSeconds",): "MAX_CALL_SECONDS",
    ("clientMessages",): "the messages that this server reads",
    ("serverMessages",): "the messages that this server reads",
    ("artifactPlan", "recordingEnabled"): "RECORD_CALLS",
    ("server", "url"): "reports and tool calls come to this server",
    ("server", "headers"): "VAPI_WEBHOOK_SECRET",
    ("server",): "not set",
}


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
class ValueChange:
    """One value of the assistant, by its path. Of a secret, it says only whether it is set or changes."""

    path: str
    before: str
    after: str
    reason: str


def build_config(current: Mapping[str, Any], options: Options, defaults: ServerDefaults) -> dict[str, Any]:
    """The fields as they should be; `current` is empty for a new assistant.

    Raises `ValueError`, with a sentence for the user, for an invalid option.
    """
    fields: dict[str, Any] = {
        "name": options.name or current.get("name") or DEFAULT_NAME,
        "model": _model(current, options, defaults),
        "voice": _voice(current, options),
        "transcriber": _transcriber(current, options),
        "startSpeakingPlan": _start_speaking_plan(current),
        "stopSpeakingPlan": {**STOP_SPEAKING_PLAN, **_object(current, "stopSpeakingPlan")},
        "backgroundSound": current.get("backgroundSound") or "off",
        "maxDurationSeconds": min(max(defaults.max_call_seconds, MIN_DURATION_SECONDS), MAX_DURATION_SECONDS),
        "clientMessages": _with_all(current.get("clientMessages"), CLIENT_MESSAGES),
        "serverMessages": _with_all(current.get("serverMessages"), SERVER_MESSAGES),
        "artifactPlan": {**_object(current, "artifactPlan"), "recordingEnabled": defaults.record},
    }
    if not current:
        fields["firstMessageMode"] = "assistant-speaks-first"
    if options.first_message or not current:
        fields["firstMessage"] = options.first_message or DEFAULT_FIRST_MESSAGE
    if defaults.secret:
        server = _object(current, "server")
        fields["server"] = {
            "timeoutSeconds": 10,
            "backoffPlan": {"type": "exponential", "maxRetries": 3, "baseDelaySeconds": 1},
            **server,
            "url": defaults.server_url,
            "headers": {**_object(server, "headers"), "X-Vapi-Secret": defaults.secret},
        }
    return fields


def _transcriber(current: Mapping[str, Any], options: Options) -> dict[str, Any]:
    transcriber = _object(current, "transcriber")
    if not transcriber.get("provider"):
        transcriber = {
            "provider": DEEPGRAM,
            "model": DEFAULT_TRANSCRIBER,
            "language": DEFAULT_TRANSCRIBER_LANGUAGE,
        }
    if options.language:
        transcriber["language"] = options.language
    is_tunable = transcriber["provider"] == DEEPGRAM and not _detects_end_of_turn(transcriber)
    if is_tunable:
        transcriber["endpointing"] = _endpointing_ms(transcriber, options)
    elif options.endpointing_ms is not None:
        raise ValueError(
            "--endpointing is for Deepgram transcribers without turn detection; this assistant uses "
            f"{transcriber['provider']} {transcriber.get('model', '')}".rstrip()
            + ". Set its endpointing on the assistant's page at Vapi."
        )
    return transcriber


def _detects_end_of_turn(transcriber: Mapping[str, Any]) -> bool:
    """Deepgram's flux models have no endpointing by silence."""
    return str(transcriber.get("model", "")).startswith("flux")


def _endpointing_ms(transcriber: Mapping[str, Any], options: Options) -> int:
    if options.endpointing_ms is not None:
        if not MIN_ENDPOINTING_MS <= options.endpointing_ms <= MAX_ENDPOINTING_MS:
            raise ValueError(
                f"--endpointing must be {MIN_ENDPOINTING_MS} to {MAX_ENDPOINTING_MS} ms. Below that, callers "
                "are cut off while they think; above it, every answer comes later."
            )
        return options.endpointing_ms
    current = transcriber.get("endpointing")
    if isinstance(current, bool) or not isinstance(current, int):
        return DEFAULT_ENDPOINTING_MS
    return max(current, MIN_ENDPOINTING_MS)


def _start_speaking_plan(current: Mapping[str, Any]) -> dict[str, Any]:
    """Without an endpointing plan Vapi waits a second and a half when it hears no full stop."""
    plan = {"waitSeconds": 0.4, **_object(current, "startSpeakingPlan")}
    if not any(plan.get(name) for name in ENDPOINTING_BY_MODEL):
        plan["transcriptionEndpointingPlan"] = {
            **TRANSCRIPTION_ENDPOINTING_PLAN, **_object(plan, "transcriptionEndpointingPlan"),
        }  # fmt: skip
    return plan


def _with_all(current: Any, needed: Sequence[str]) -> list[str]:
    """The messages that were chosen, and those that this server reads."""
    chosen = [name for name in current if isinstance(name, str)] if isinstance(current, list) else []
    return [*chosen, *(name for name in needed if name not in chosen)]


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


def find_changed_fields(current: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields to send: those that differ, as a whole."""
    return {name: value for name, value in fields.items() if current.get(name) != value}


def find_changes(
    current: Mapping[str, Any], fields: Mapping[str, Any], options: Options
) -> list[ValueChange]:
    """The single values that differ, to be printed, each with the option or the reason that changes it."""
    result = []
    for path, after in _leaves(fields):
        before = _value_at(current, path)
        if before == after:
            continue
        if any(name in SECRET_FIELDS for name in path):
            texts = ("-", "(set)") if before is None else ("(set)", "(changed)")
        else:
            texts = (_as_text(before), _as_text(after))
        result.append(ValueChange(".".join(path), *texts, _reason(path, options)))
    return result


def _reason(path: tuple[str, ...], options: Options) -> str:
    named = {
        "--name": (options.name, ("name",)),
        "--first-message": (options.first_message, ("firstMessage",)),
        "--prompt": (options.prompt, ("model", "messages")),
        "--language": (options.language, ("transcriber", "language")),
        "--endpointing": (options.endpointing_ms, ("transcriber", "endpointing")),
        "--voice": (options.voice, ("voice",)),
    }
    for option, (value, prefix) in named.items():
        if value is not None and path[: len(prefix)] == prefix:
            return option
    if options.model is not None and path in (("model", "provider"), ("model", "model")):
        return "--model"
    return next((reason for prefix, reason in REASONS.items() if path[: len(prefix)] == prefix), "")


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
