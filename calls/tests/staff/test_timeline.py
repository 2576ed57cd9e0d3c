"""The timeline: every utterance in order, with the events that explain the call."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls.models import CallEvent, Utterance
from calls.staff.timeline import DESCRIPTIONS, HIDDEN_KINDS, EventLine, SpokenLine, build_timeline

TIMES = st.none() | st.integers(-10, 60_000)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
KINDS = st.sampled_from(
    [*DESCRIPTIONS, *HIDDEN_KINDS, "dtmf", "tool-called", "tool-done", "tool-failed", "unknown"]
)


def make_line(at_ms: int | None, text: str = "Hello.", **changes: Any) -> SpokenLine:
    return SpokenLine(
        Utterance(index=0, speaker="caller", text=text, started_ms=at_ms, **changes), [], text, ""
    )


def make_event(
    kind: str, at_ms: int | None = None, source: str = "stream", index: int = 0, **data: Any
) -> CallEvent:
    return CallEvent(kind=kind, at_ms=at_ms, source=source, index=index, data=data)


def render(*events: CallEvent, speech: tuple[SpokenLine, ...] = ()) -> list[str]:
    """The text of each line of the timeline."""
    return [
        line.text if isinstance(line, EventLine) else line.utterance.text
        for line in build_timeline(speech, events)
    ]


def test_events_come_between_utterances() -> None:
    speech = (make_line(900, "Hi."), make_line(None, "Without a time."), make_line(5200, "Move it."))
    lines = render(
        make_event("stream-ended", 9000, reason="caller-hung-up"),
        make_event("assistant-answered", 410, connect_ms=410, frames_held=21),
        make_event("hang", 3000),
        speech=speech,
    )
    assert lines == [
        "Assistant connected in 0.41 s, 21 frames of caller audio held until then",
        "Hi.",
        "Without a time.",
        "Vapi reported a delay of the assistant",
        "Move it.",
        "The caller hung up.",
    ]


def test_keys_pressed_close_together_share_a_line() -> None:
    keys = [
        make_event("dtmf", at, index=at, digit=key)
        for at, key in ((100, "4"), (1500, "2"), (3000, "#"), (9000, "0"))
    ]
    hidden = make_event("caller-started", 1600, index=7)
    assert render(*keys, hidden) == ["Caller pressed 4 2 #", "Caller pressed 0"]
    lines = render(keys[0], make_event("hang", 1000, index=9), keys[1])
    assert lines[0] == "Caller pressed 4" and lines[-1] == "Caller pressed 2"


def test_a_barge_in_has_its_own_line_unless_the_utterance_is_marked() -> None:
    cut = make_event("barge-in", 2000, unplayed_ms=640)
    assert render(cut) == ["Caller interrupted, 0.64 s of audio not played"]
    assert render(cut, speech=(make_line(100, "Let me", interrupted=True),)) == ["Let me"]


def test_a_tool_result_is_shown_at_its_call() -> None:
    lines = render(
        make_event("tool-failed", source="vapi", index=3, tool="transfer_call", error="No fallback number."),
        make_event("tool-done", source="vapi", index=4, tool="transfer_call", result="Connecting."),
        make_event("tool-done", source="vapi", index=5, tool="book", result="Booked."),
        make_event("tool-called", 1000, index=1, tool="transfer_call"),
        make_event("tool-called", 2000, index=2, tool="transfer_call"),
        make_event("tool-called", 3000, index=3, tool="weather"),
    )
    assert lines == [
        "Tool call: transfer_call → No fallback number.",
        "Tool call: transfer_call → Connecting.",
        "Tool call: weather",
        "Tool call: book → Booked.",
    ]


@pytest.mark.parametrize(
    ("end_reason", "is_alarm"),
    [("assistant-failed", True), ("assistant-ended", False), ("caller-hung-up", False), ("", False)],
)
def test_the_end_of_the_assistant_is_an_alarm_if_the_call_failed(end_reason: str, is_alarm: bool) -> None:
    event = make_event("assistant-ended", 5, reason="pipeline-error-openai-llm-failed")
    (line,) = build_timeline([], [event], end_reason=end_reason)
    assert isinstance(line, EventLine) and line.is_alarm == is_alarm


@pytest.mark.parametrize(
    ("call_event", "text", "is_alarm"),
    [
        (make_event("assistant-unreachable", 5, detail="Vapi answered 401"), "Vapi answered 401", True),
        (make_event("assistant-lost", 5, code=1006), "(code 1006)", True),
        (make_event("assistant-ended", 5, reason="customer-ended-call"), "The caller ended the call.", False),
        (make_event("assistant-ended", 5, reason="unknown"), "unknown", False),
        (make_event("assistant-ended", 5), "The assistant ended the call.", False),
        (make_event("stream-ended", 5, reason="assistant-stalled"), "stopped answering", True),
        (make_event("stream-ended", 5, reason="unknown"), "unknown", False),
        (make_event("stream-ended", 5), "no reason recorded", False),
        (make_event("keys-played", 5, keys="42#"), "pressed 4 2 #", False),
        (make_event("bad-message", 5, leg="caller", problem="bad-json"), "caller leg", True),
        (make_event("person-answered", None, seconds=61), "talked for 61 s", False),
        (make_event("person-not-reached", None, status="no-answer"), "(no-answer)", True),
        (make_event("stream-error", None, detail="31903"), "31903", True),
        (make_event("unknown", 5, odd=1), "unknown odd 1", False),
    ],
)  # fmt: skip
def test_each_kind_has_a_description(call_event: CallEvent, text: str, is_alarm: bool) -> None:
    (line,) = build_timeline([], [call_event])
    assert isinstance(line, EventLine)
    assert text in line.text and line.is_alarm is is_alarm


def test_an_end_by_the_assistant_is_shown_once() -> None:
    ended = make_event("stream-ended", 9000, reason="assistant-ended")
    assert render(make_event("assistant-ended", 8000, reason="assistant-ended-call"), ended) == [
        "The assistant ended the call, as it was told to. (assistant-ended-call)"
    ]
    assert render(ended) == ["The assistant said goodbye and ended the call."]


@pytest.mark.parametrize("kind", sorted(HIDDEN_KINDS))
def test_hidden_kinds_are_not_shown(kind: str) -> None:
    assert render(make_event(kind, 5)) == []


@given(
    st.lists(TIMES, max_size=6),
    st.lists(st.tuples(KINDS, TIMES, st.sampled_from(("stream", "carrier", "vapi")), JSON), max_size=12),
)
def test_utterances_keep_their_order_whatever_the_events_contain(times: Any, facts: Any) -> None:
    speech = [make_line(at, str(number)) for number, at in enumerate(times)]
    events = [
        CallEvent(kind=kind, at_ms=at, source=source, index=number, data=data)
        for number, (kind, at, source, data) in enumerate(facts)
    ]
    lines = build_timeline(speech, events)
    assert [line for line in lines if isinstance(line, SpokenLine)] == speech
    ids = [line.id for line in lines if isinstance(line, EventLine)]
    assert len(ids) == len(set(ids))
    assert all(len(line.text) <= 300 for line in lines if isinstance(line, EventLine))
