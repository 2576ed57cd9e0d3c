"""One line after the other: what was said in a call, and between the lines what happened.

Of the events a reader sees those that explain the conversation (`WORDS`); the rest stay in the list of what
happened underneath. A kind that this version does not know is shown as it is spelled rather than kept back.

Pure: rows in, lines out. An event's data comes from outside and may be anything.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calls import end_reasons as words
from calls.models import CallEvent, Utterance
from calls.staff.waterfall import Waterfall
from calls.templatetags.call_words import facts, seconds, spelled

KEYS_TOGETHER_MS = 3_000  # keys pressed no further apart are one line
MAX_WORDS = 300


@dataclass(frozen=True, slots=True)
class Said:
    """One utterance, with the turn that it ended, if it did."""

    utterance: Utterance
    waterfall: Waterfall | None
    heard: str
    unheard: str  # said, and by the share of audio that was played never heard

    @property
    def at_ms(self) -> int | None:
        return self.utterance.started_ms


@dataclass(frozen=True, slots=True)
class Happening:
    """What happened between two utterances, in words; `is_alarm` when somebody should look at it."""

    id: str
    at_ms: int | None
    words: str
    is_alarm: bool = False


Line = Said | Happening
Told = tuple[str, bool]  # words, and whether they are an alarm


def timeline(said: Sequence[Said], events: Iterable[CallEvent]) -> list[Line]:
    """Utterances in their own order, and each event before what was begun to be said after it.

    Events whose moment nobody knows come last.
    """
    tells_cuts = not any(each.utterance.interrupted for each in said)  # else they stand beside the words
    waiting = deque(_happenings(list(events), tells_cuts=tells_cuts))
    lines: list[Line] = []
    for each in said:
        while waiting and each.at_ms is not None and _at(waiting[0]) <= each.at_ms:
            lines.append(waiting.popleft())
        lines.append(each)
    return [*lines, *waiting]


def _happenings(events: list[CallEvent], *, tells_cuts: bool) -> list[Happening]:
    results = _results_of_tools(events)
    untold = {*UNTOLD, *TOOL_RESULTS, *(() if tells_cuts else ("barge-in",))}
    if any(event.kind in ASSISTANT_LEFT for event in events):
        untold.add("stream-ended")  # which says the same once more
    found: list[Happening] = []
    keys: list[CallEvent] = []  # pressed in a row, up to now
    for event in sorted(events, key=lambda event: (_at(event), event.source, event.index)):
        if event.kind in untold:
            continue
        if event.kind != "dtmf":
            keys = []
        elif keys and _at(event) - _at(keys[-1]) <= KEYS_TOGETHER_MS:
            keys.append(event)
            found[-1] = _happening(keys[0], _keypad(keys))
            continue
        else:
            keys = [event]
        found.append(_happening(event, _told(event, keys, results)))
    # A tool has run although nobody told us of its call.
    return found + [_happening(event, _ran(name, event)) for name, left in results.items() for event in left]


def _told(event: CallEvent, keys: Sequence[CallEvent], results: Mapping[str, deque[CallEvent]]) -> Told:
    match event.kind:
        case "dtmf":
            return _keypad(keys)
        case "tool-called":
            return _tool(event, results)
        case kind if kind in WORDS:
            return WORDS[kind](_data(event))
        case kind:
            return f"{spelled(kind)} {facts(event.data)}".strip(), False


def _happening(event: CallEvent, told: Told) -> Happening:
    text, is_alarm = told
    return Happening(f"{event.source}-{event.index}", event.at_ms, text[:MAX_WORDS], is_alarm)


def _at(event: CallEvent | Happening) -> float:
    return float("inf") if event.at_ms is None else event.at_ms


def _data(event: CallEvent) -> Mapping[str, Any]:
    return event.data if isinstance(event.data, dict) else {}


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _number(data: Mapping[str, Any], name: str) -> int | None:
    value = data.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# In words


def _keypad(keys: Sequence[CallEvent]) -> Told:
    return "The caller pressed " + " ".join(_text(_data(key), "digit") or "?" for key in keys), False


def _answered(data: Mapping[str, Any]) -> Told:
    took, held = _number(data, "connect_ms"), _number(data, "frames_held")
    text = "The assistant was reached" + (f" in {seconds(took)}" if took is not None else "")
    return text + (f"; {held} frames of the caller's had been held for it" if held else ""), False


def _unreachable(data: Mapping[str, Any]) -> Told:
    return f"The assistant could not be reached. {_text(data, 'detail')}".strip(), True


def _cut_in(data: Mapping[str, Any]) -> Told:
    unplayed = _number(data, "unplayed_ms")
    return "The caller cut in" + (f"; {seconds(unplayed)} were never heard" if unplayed else ""), False


def _ended(data: Mapping[str, Any]) -> Told:
    reason = _text(data, "reason")
    known = words.vendor_reason(reason)
    return (known.sentence if known else f"The assistant ended the call. {reason}").strip(), False


def _stream_ended(data: Mapping[str, Any]) -> Told:
    reason = _text(data, "reason")
    ending = words.ENDINGS.get(reason)
    return (
        (ending.sentence, ending.failed) if ending else (f"It ended: {reason or 'nobody noted why'}.", False)
    )


def _not_reached(data: Mapping[str, Any]) -> Told:
    return f"The person did not take the call ({_text(data, 'status') or 'no word why'})", True


def _took_it(data: Mapping[str, Any]) -> Told:
    spoke = _number(data, "seconds")
    return "A person took the call" + (f" and talked for {spoke} s" if spoke else ""), False


def _always(text: str, *, is_alarm: bool = False) -> Callable[[Mapping[str, Any]], Told]:
    return lambda data: (text, is_alarm)


WORDS: dict[str, Callable[[Mapping[str, Any]], Told]] = {
    "assistant-answered": _answered,
    "assistant-unreachable": _unreachable,
    "assistant-lost": lambda data: (f"The line to the assistant broke (code {_text(data, 'code')})", True),
    "assistant-ended": _ended,
    "barge-in": _cut_in,
    "hang": _always("The assistant was slow to go on, by its own word", is_alarm=True),
    "keys-played": lambda data: ("The assistant pressed " + " ".join(_text(data, "keys")), False),
    "bad-message": lambda data: (f"A broken message came from the {_text(data, 'leg')}'s side", True),
    "stream-ended": _stream_ended,
    "stream-error": lambda data: (f"Twilio lost the stream. {_text(data, 'detail')}".strip(), True),
    "person-answered": _took_it,
    "person-not-reached": _not_reached,
}

ASSISTANT_LEFT = ("assistant-ended", "assistant-unreachable", "assistant-lost")
TOOL_RESULTS = ("tool-done", "tool-failed")
# What explains nothing to a reader: beginnings and ends of speech, statuses, the carrier's own bookkeeping.
UNTOLD = frozenset({
    "stream-started", "stream-stopped", "first-audio",
    "assistant-status", "status-update", "end-of-call-report",
    "caller-started", "caller-stopped", "assistant-started", "assistant-stopped",
    *(f"call-{status}" for status in words.STATUS_SENTENCES), "call-looked-up",
})  # fmt: skip


def _results_of_tools(events: Iterable[CallEvent]) -> dict[str, deque[CallEvent]]:
    """What came of the tools, by name. Who ran them does not know the time in the stream."""
    results: dict[str, deque[CallEvent]] = defaultdict(deque)
    for event in events:
        if event.kind in TOOL_RESULTS:
            results[_text(_data(event), "tool")].append(event)
    return results


def _tool(event: CallEvent, results: Mapping[str, deque[CallEvent]]) -> Told:
    name = _text(_data(event), "tool")
    left = results.get(name)
    return _ran(name, left.popleft()) if left else (f"The assistant used {name or 'a tool'}", False)


def _ran(name: str, result: CallEvent) -> Told:
    data, failed = _data(result), result.kind == "tool-failed"
    said = _text(data, "error" if failed else "result")
    return f"The assistant used {name or 'a tool'}: {said}", failed
