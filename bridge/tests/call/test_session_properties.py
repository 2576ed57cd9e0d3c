"""Any call at all: whatever the peers send, in whatever order, the session keeps its promises.

The wires may send anything at any time. The runner keeps its own contract: one answer to each dialling,
nothing from the assistant before it answered.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import end_reasons
from bridge.call.events import (
    Aborted,
    AssistantConnected,
    AssistantLegClosed,
    AssistantUnreachable,
    BadMessage,
    CallerLegClosed,
    Dropped,
    HangUp,
    HangUpAssistant,
    OversizeMessage,
    PlaceMark,
    SendToAssistant,
    TicketRefused,
)
from bridge.call.playout import MAX_PENDING_MARKS
from bridge.call.report import MAX_COUNTERS, MAX_EVENTS
from bridge.call.states import State
from bridge.journal import StreamEnded, TimelineEvent, UtteranceSpoken
from bridge.tests.call.stories import LOUD, SILENCE, START, STREAM, WALL, Story
from bridge.wire import twilio, vapi

HOLD_MS = 100
CODES = st.sampled_from([1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000])
SPEAKERS = st.sampled_from(["caller", "assistant"])
SIDS = st.sampled_from([STREAM, STREAM, STREAM, "MZ2"])

FROM_TWILIO = st.one_of(
    st.just(twilio.Connected("Call", "1.0.0")),
    st.just(START),
    st.builds(twilio.Dtmf, SIDS, st.sampled_from("019#*A")),
    st.builds(twilio.Mark, SIDS, st.sampled_from(["g0-1", "g1-2", "strange"])),
    st.builds(twilio.Stop, SIDS),
    st.builds(CallerLegClosed, CODES),
    st.builds(BadMessage, SPEAKERS, st.sampled_from(["bad-json", "no-event"])),
    st.just(OversizeMessage()),
)
FROM_VAPI = st.one_of(
    st.builds(
        vapi.StatusUpdate, st.sampled_from(["in-progress", "ended"]), st.sampled_from(["", "x-error", "bye"])
    ),
    st.builds(vapi.SpeechUpdate, SPEAKERS, st.booleans()),
    st.builds(vapi.Transcript, SPEAKERS, st.booleans(), st.sampled_from(["", " ", "Hello", "\x00\ud800"])),
    st.just(vapi.UserInterrupted()),
    st.just(vapi.Hang()),
    st.builds(vapi.IgnoredEvent, st.sampled_from(["model-output", "weather"]), st.booleans()),
)
TALK = st.one_of(
    st.tuples(st.just("frames"), st.tuples(st.integers(1, 40), st.booleans(), SIDS)),
    st.tuples(st.just("frames"), st.tuples(st.integers(1, 40), st.booleans(), st.just(STREAM))),
    st.tuples(st.just("audio"), st.tuples(st.integers(1, 20_000), st.booleans())),
    st.tuples(st.just("vapi"), FROM_VAPI),
    st.tuples(st.just("time"), st.floats(0, 1)),
    st.tuples(st.just("echo"), st.integers(0, 5)),
)
STEPS = st.one_of(
    TALK,
    TALK,
    st.tuples(st.just("wire"), FROM_TWILIO),
    st.tuples(st.just("vapi-closed"), CODES),
    st.tuples(st.just("connect"), st.sampled_from(["accept", "answer", "answer", "unreachable", "refuse"])),
    st.tuples(st.just("time"), st.floats(0, 20)),
    st.tuples(st.just("ours"), st.sampled_from([Dropped(1), Dropped(1, "caller"), Aborted()])),
)


class Model(Story):
    """A call that keeps the runner's contract and remembers what the caller said."""

    def __init__(self, *, local_barge_in: bool) -> None:
        super().__init__(hold_buffer_ms=HOLD_MS, local_barge_in=local_barge_in)
        self.said: list[bytes] = []
        self.accepted_once = False
        self.answered = False
        self._serial = 0

    def step(self, kind: str, what: object) -> None:
        state = self.session.state
        match kind, what:
            case "wire" | "ours", event:
                self.tell(event)  # type: ignore[arg-type]
            case "vapi", event if self.answered:
                self.tell(event)  # type: ignore[arg-type]
            case "vapi-closed", int(code) if self.answered:
                self.tell(AssistantLegClosed(code))
            case "connect", "refuse" if state is State.WAITING:
                self.tell(TicketRefused(START, WALL, "forged"))
            case "connect", _ if state is State.WAITING:
                self.accepted(max_call_seconds=60)
                self.accepted_once = True
            case "connect", "unreachable" if state is State.CONNECTING:
                self.tell(AssistantUnreachable("Vapi answered 503", 503))
            case "connect", _ if state is State.CONNECTING:
                self.tell(AssistantConnected("vapi-1"))
                self.answered = True
            case "frames", (int(count), bool(loud), str(sid)):
                for _ in range(count):
                    self._say(loud, sid)
            case "audio", (int(ms), bool(audible)) if self.answered:
                self.assistant_speaks(ms, audible=audible)
            case "time", float(seconds):
                self.later(seconds)
            case "echo", int(back):
                marks = self.done(PlaceMark)[-1 - back :][:1]
                for mark in marks:
                    self.tell(twilio.Mark(STREAM, mark.name))

    def _say(self, loud: bool, sid: str) -> None:
        """A frame that can be told from every other one."""
        self.later(0.02)
        self._serial += 1
        ulaw = (LOUD if loud else SILENCE)[:150] + b"%010d" % self._serial
        held = self.session.state in (State.CONNECTING, State.LIVE) and sid == STREAM
        self.tell(twilio.Media(sid, ulaw, self._serial))
        if held:
            self.said.append(ulaw)

    def check_bounds(self) -> None:
        session = self.session
        assert session._hold.held_ms <= HOLD_MS
        assert len(session._turn_taking.playout._pending) <= MAX_PENDING_MARKS
        assert len(session.counters) <= MAX_COUNTERS + 40
        assert session.is_over or session.deadline < float("inf")

    def check_promises(self) -> None:
        sent = [action.ulaw for action in self.done(SendToAssistant)]
        first = self.said.index(sent[0]) if sent else 0
        assert sent == self.said[first : first + len(sent)], "in order, none missing but the oldest held"
        ends = self.written(StreamEnded)
        assert len(self.done(HangUp)) == 1
        assert len(ends) == len(self.done(HangUpAssistant)) == (1 if self.accepted_once else 0)
        assert all(end.end_reason in end_reasons.ENDED_BY for end in ends)
        happened = self.written(TimelineEvent)
        assert [entry.index for entry in happened] == list(range(len(happened)))
        assert len(happened) <= MAX_EVENTS
        assert [entry.index for entry in self.written(UtteranceSpoken)] == list(
            range(len(self.written(UtteranceSpoken)))
        )
        numbers = [turn.number for turn in self.turns()]
        assert numbers == list(range(1, len(numbers) + 1))
        for turn in self.turns():
            assert turn.response_latency_ms is None or turn.response_latency_ms >= 0
            assert turn.endpointed_ms is None or turn.end_of_speech_ms <= turn.endpointed_ms


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.lists(TALK, min_size=4, max_size=12), st.lists(STEPS, max_size=30))
def test_every_call_keeps_its_promises_and_ends_once(
    local: bool, talk: list[tuple[str, object]], steps: list[tuple[str, object]]
) -> None:
    call = Model(local_barge_in=local)
    # Most calls get as far as a conversation.
    before, after = steps[:2], steps[2:]
    for kind, what in [*before, ("connect", "accept"), *talk[:2], ("connect", "answer"), *talk[2:], *after]:
        call.step(kind, what)
        call.check_bounds()
    call.later(100)  # whatever happened, nobody waits for ever
    assert call.session.is_over
    call.check_promises()
    done = len(call.did)
    for kind, what in steps:
        call.step(kind, what)
    assert call.did[done:] == []
