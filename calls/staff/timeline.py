"""The timeline of a call's page: the utterances in order, and between them the events that explain the call.

Events with a description in `DESCRIPTIONS` are shown; those in `HIDDEN_KINDS` appear in the list of raw
events only. An event kind that this version does not know is shown under its own name, not hidden.

Pure: rows in, lines out. An event's data comes from outside and can be any JSON.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calls import end_reasons
from calls.models import CALLER, CallEvent, Utterance
from calls.staff.waterfall import Waterfall
from calls.templatetags.call_format import humanize, key_values, seconds

KEY_GROUP_MS = 3_000  # keys pressed within this time of each other share a line
MAX_TEXT_CHARS = 300
# Kinds whose description is a sentence of ours about the caller. Other descriptions may quote somebody.
CALLER_KINDS = {"assistant-answered", "assistant-ended", "barge-in", "dtmf", "stream-ended"}


@dataclass(frozen=True, slots=True)
class SpokenLine:
    """One utterance, with the waterfalls of the turns that began when it ended: usually one or none."""

    utterance: Utterance
    waterfalls: list[Waterfall]
    heard: str
    unheard: str  # cut off by a barge-in, estimated from the share of its audio that was played
    is_by_staff: bool = False  # staff had the assistant say it

    @property
    def at_ms(self) -> int | None:
        return self.utterance.started_ms


@dataclass(frozen=True, slots=True)
class EventLine:
    """An event as one sentence. `is_alarm` marks what staff should look into."""

    id: str
    at_ms: int | None
    text: str
    is_alarm: bool = False


Line = SpokenLine | EventLine
Description = tuple[str, bool]  # text, is_alarm


def build_timeline(
    spoken: Sequence[SpokenLine], events: Iterable[CallEvent], *, party: str = CALLER, end_reason: str = ""
) -> list[Line]:
    """Utterances keep their order; each event comes before the first utterance that started after it.

    Events without a time come last. `party` is what the person at the other end is called. `end_reason` is
    the call's own: the stream sees only that the caller is gone when staff or a tool ended the call.
    """
    # Interruptions are marked next to the utterance; without such a mark they get a line of their own.
    show_barge_ins = not any(line.utterance.interrupted for line in spoken)
    pending = deque(_event_lines(list(events), show_barge_ins, party, end_reason))
    lines: list[Line] = []
    for line in spoken:
        while pending and line.at_ms is not None and _sort_ms(pending[0]) <= line.at_ms:
            lines.append(pending.popleft())
        lines.append(line)
    return [*lines, *pending]


def _event_lines(
    events: list[CallEvent], show_barge_ins: bool, party: str, end_reason: str
) -> list[EventLine]:
    results = _tool_results(events)
    hidden = {*HIDDEN_KINDS, *TOOL_RESULT_KINDS, *(() if show_barge_ins else ("barge-in",))}
    if any(event.kind in ASSISTANT_END_KINDS for event in events):
        hidden.add("stream-ended")  # it would repeat the same end
    lines: list[EventLine] = []
    keys: list[CallEvent] = []  # the current group of pressed keys
    for event in sorted(events, key=lambda event: (_sort_ms(event), event.source, event.index)):
        if event.kind in hidden:
            continue
        if event.kind != "dtmf":
            keys = []
        elif keys and _sort_ms(event) - _sort_ms(keys[-1]) <= KEY_GROUP_MS:
            keys.append(event)
            lines[-1] = _event_line(keys[0], _describe_keys(keys), party)
            continue
        else:
            keys = [event]
        lines.append(_event_line(event, _describe(event, keys, results, end_reason), party))
    # Results of tools whose call was never reported.
    return lines + [
        _event_line(result, _describe_tool_result(name, result))
        for name, remaining in results.items()
        for result in remaining
    ]


def _describe(
    event: CallEvent, keys: Sequence[CallEvent], results: Mapping[str, deque[CallEvent]], end_reason: str
) -> Description:
    match event.kind:
        case "dtmf":
            return _describe_keys(keys)
        case "tool-called":
            return _describe_tool_call(event, results)
        case "assistant-ended":  # hides `stream-ended`, so it has the alarm of the call's end
            text, _ = _describe_assistant_end(_get_data(event))
            return text, bool(end_reason) and end_reasons.explain(end_reason).is_failure
        case "stream-ended" if end_reason:
            return _describe_stream_end({"reason": end_reason})
        case kind if kind in DESCRIPTIONS:
            return DESCRIPTIONS[kind](_get_data(event))
        case kind:
            return f"{humanize(kind)} {key_values(event.data)}".strip(), False


def _event_line(event: CallEvent, description: Description, party: str = CALLER) -> EventLine:
    text, is_alarm = description
    if event.kind in CALLER_KINDS:
        text = end_reasons.name_party(text, party)
    return EventLine(f"{event.source}-{event.index}", event.at_ms, text[:MAX_TEXT_CHARS], is_alarm)


def _sort_ms(event: CallEvent | EventLine) -> float:
    return float("inf") if event.at_ms is None else event.at_ms


def _get_data(event: CallEvent) -> Mapping[str, Any]:
    return event.data if isinstance(event.data, dict) else {}


def _get_text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _get_int(data: Mapping[str, Any], name: str) -> int | None:
    value = data.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# Descriptions, by kind


def _describe_keys(keys: Sequence[CallEvent]) -> Description:
    return "Caller pressed " + " ".join(_get_text(_get_data(key), "digit") or "?" for key in keys), False


def _describe_answered(data: Mapping[str, Any]) -> Description:
    connect_ms, held = _get_int(data, "connect_ms"), _get_int(data, "frames_held")
    text = "Assistant connected" + (f" in {seconds(connect_ms)}" if connect_ms is not None else "")
    return text + (f", {held} frames of caller audio held until then" if held else ""), False


def _describe_unreachable(data: Mapping[str, Any]) -> Description:
    return f"Assistant unreachable. {_get_text(data, 'detail')}".strip(), True


def _describe_barge_in(data: Mapping[str, Any]) -> Description:
    unplayed = _get_int(data, "unplayed_ms")
    return "Caller interrupted" + (f", {seconds(unplayed)} of audio not played" if unplayed else ""), False


def _describe_assistant_end(data: Mapping[str, Any]) -> Description:
    reason = _get_text(data, "reason")
    explained = end_reasons.explain_vapi_reason(reason)
    text = f"{explained.sentence} ({reason})" if explained else "The assistant ended the call."
    return text, False


def _describe_stream_end(data: Mapping[str, Any]) -> Description:
    name = _get_text(data, "reason")
    reason = end_reasons.END_REASONS.get(name)
    if reason is None:
        return f"Call ended: {name or 'no reason recorded'}.", False
    return reason.sentence, reason.is_failure


def _describe_fallback_failed(data: Mapping[str, Any]) -> Description:
    return f"Fallback number not reached ({_get_text(data, 'status') or 'no status'})", True


def _describe_fallback_answered(data: Mapping[str, Any]) -> Description:
    talk_seconds = _get_int(data, "seconds")
    return "Fallback number answered" + (f", talked for {talk_seconds} s" if talk_seconds else ""), False


def _fixed(text: str, *, is_alarm: bool = False) -> Callable[[Mapping[str, Any]], Description]:
    return lambda data: (text, is_alarm)


DESCRIPTIONS: dict[str, Callable[[Mapping[str, Any]], Description]] = {
    "assistant-answered": _describe_answered,
    "assistant-unreachable": _describe_unreachable,
    "assistant-lost": lambda data: (
        f"Connection to the assistant lost (code {_get_text(data, 'code')})",
        True,
    ),
    "assistant-ended": _describe_assistant_end,
    "barge-in": _describe_barge_in,
    "hang": _fixed("Vapi reported a delay of the assistant", is_alarm=True),
    "keys-played": lambda data: ("Assistant pressed " + " ".join(_get_text(data, "keys")), False),
    "bad-message": lambda data: (f"Malformed message from the {_get_text(data, 'leg')} leg", True),
    "stream-ended": _describe_stream_end,
    "stream-error": lambda data: (f"Twilio media stream error. {_get_text(data, 'detail')}".strip(), True),
    "end-unconfirmed": lambda data: (
        f"The call may still be running at {_get_text(data, 'vendor')}: its end is not confirmed "
        f"({_get_text(data, 'problem')})",
        True,
    ),
    "person-answered": _describe_fallback_answered,
    "person-not-reached": _describe_fallback_failed,
}

ASSISTANT_END_KINDS = ("assistant-ended", "assistant-unreachable", "assistant-lost")
TOOL_RESULT_KINDS = ("tool-done", "tool-failed")
# Kinds that explain nothing to a reader: start and end of speech, statuses, Twilio's bookkeeping.
HIDDEN_KINDS = frozenset({
    "stream-started", "stream-stopped", "first-audio",
    "assistant-status", "status-update", "end-of-call-report",
    "caller-started", "caller-stopped", "assistant-started", "assistant-stopped",
    *(f"call-{status}" for status in end_reasons.STATUS_SENTENCES), "call-looked-up",
})  # fmt: skip


def _tool_results(events: Iterable[CallEvent]) -> dict[str, deque[CallEvent]]:
    """The results by tool, in order. They carry no stream time, because a webhook runs the tools."""
    results: dict[str, deque[CallEvent]] = defaultdict(deque)
    for event in events:
        if event.kind in TOOL_RESULT_KINDS:
            results[_get_text(_get_data(event), "tool")].append(event)
    return results


def _describe_tool_call(event: CallEvent, results: Mapping[str, deque[CallEvent]]) -> Description:
    """A call together with its result, which is taken from `results`."""
    name = _get_text(_get_data(event), "tool")
    remaining = results.get(name)
    if remaining:
        return _describe_tool_result(name, remaining.popleft())
    return f"Tool call: {name or 'unnamed'}", False


def _describe_tool_result(name: str, result: CallEvent) -> Description:
    is_failure = result.kind == "tool-failed"
    outcome = _get_text(_get_data(result), "error" if is_failure else "result")
    return f"Tool call: {name or 'unnamed'} → {outcome}", is_failure
