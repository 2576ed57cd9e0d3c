"""Property tests of the call session: its invariants hold for every sequence of events.

Both peers may send anything at any time. Only the runner keeps a contract: each dialing has one result, and
nothing arrives from the assistant before it answered.
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
from bridge.call.hold_buffer import BYTES_PER_MS
from bridge.call.playout import MAX_PENDING_MARKS
from bridge.call.report import MAX_COUNTERS, MAX_EVENTS
from bridge.call.states import State
from bridge.journal import StreamEnded, TimelineEvent, UtteranceSpoken
from bridge.tests.call.scenario import LOUD, SILENCE, START, STARTED_AT, STREAM, CallScenario
from bridge.wire import twilio, vapi

HOLD_MS = 100
CODES = st.sampled_from([1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000])
SPEAKERS = st.sampled_from(["caller", "assistant"])
SIDS = st.sampled_from([STREAM, STREAM, STREAM, "MZ2"])

TWILIO_EVENTS = st.one_of(
    st.just(twilio.Connected("Call", "1.0.0")),
    st.just(START),
    st.builds(twilio.Dtmf, SIDS, st.sampled_from("019#*A")),
    st.builds(twilio.Mark, SIDS, st.sampled_from(["g0-1", "g1-2", "strange"])),
    st.builds(twilio.Stop, SIDS),
    st.builds(CallerLegClosed, CODES),
    st.builds(BadMessage, SPEAKERS, st.sampled_from(["bad-json", "no-event"])),
    st.just(OversizeMessage()),
)
VAPI_EVENTS = st.one_of(
    st.builds(
        vapi.StatusUpdate, st.sampled_from(["in-progress", "ended"]), st.sampled_from(["", "x-error", "bye"])
    ),
    st.builds(vapi.SpeechUpdate, SPEAKERS, st.booleans()),
    st.builds(vapi.Transcript, SPEAKERS, st.booleans(), st.sampled_from(["", " ", "Hello", "\x00\ud800"])),
    st.just(vapi.UserInterrupted()),
    st.just(vapi.Hang()),
    st.builds(vapi.IgnoredEvent, st.sampled_from(["model-output", "weather"]), st.booleans()),
)
LIVE_STEPS = st.one_of(
    st.tuples(st.just("frames"), st.tuples(st.integers(1, 40), st.booleans(), SIDS)),
    st.tuples(st.just("frames"), st.tuples(st.integers(1, 40), st.booleans(), st.just(STREAM))),
    st.tuples(st.just("audio"), st.tuples(st.integers(1, 20_000), st.booleans())),
    st.tuples(st.just("vapi"), VAPI_EVENTS),
    st.tuples(st.just("time"), st.floats(0, 1)),
    st.tuples(st.just("return-mark"), st.integers(0, 5)),
)
ANY_STEPS = st.one_of(
    LIVE_STEPS,
    LIVE_STEPS,
    st.tuples(st.just("wire"), TWILIO_EVENTS),
    st.tuples(st.just("vapi-closed"), CODES),
    st.tuples(st.just("connect"), st.sampled_from(["accept", "answer", "answer", "unreachable", "refuse"])),
    st.tuples(st.just("time"), st.floats(0, 20)),
    st.tuples(st.just("ours"), st.sampled_from([Dropped(1), Dropped(1, "caller"), Aborted()])),
)


class CallModel(CallScenario):
    """A call whose steps keep the runner's contract. It records the caller frames to be forwarded."""

    def __init__(self, *, local_barge_in: bool) -> None:
        super().__init__(hold_buffer_ms=HOLD_MS, local_barge_in=local_barge_in)
        self.forwarded: list[bytes] = []
        self.is_accepted = False
        self.is_answered = False
        self._serial = 0

    def step(self, kind: str, argument: object) -> None:
        state = self.session.state
        match kind, argument:
            case "wire" | "ours", event:
                self.handle(event)  # type: ignore[arg-type]
            case "vapi", event if self.is_answered:
                self.handle(event)  # type: ignore[arg-type]
            case "vapi-closed", int(code) if self.is_answered:
                self.handle(AssistantLegClosed(code))
            case "connect", "refuse" if state is State.WAITING:
                self.handle(TicketRefused(START, STARTED_AT, "forged"))
            case "connect", _ if state is State.WAITING:
                self.accept(max_call_seconds=60)
                self.is_accepted = True
            case "connect", "unreachable" if state is State.CONNECTING:
                self.handle(AssistantUnreachable("Vapi answered 503", 503))
            case "connect", _ if state is State.CONNECTING:
                self.handle(AssistantConnected("vapi-1"))
                self.is_answered = True
            case "frames", (int(count), bool(loud), str(sid)):
                for _ in range(count):
                    self._send_unique_frame(loud, sid)
            case "audio", (int(ms), bool(audible)) if self.is_answered:
                self.assistant_speaks(ms, audible=audible)
            case "time", float(seconds):
                self.advance(seconds)
            case "return-mark", int(offset):
                marks = self.actions_of(PlaceMark)[-1 - offset :][:1]
                for mark in marks:
                    self.handle(twilio.Mark(STREAM, mark.name))

    def _send_unique_frame(self, loud: bool, sid: str) -> None:
        """Send a frame whose bytes are unique in the call."""
        self.advance(0.02)
        self._serial += 1
        ulaw = (LOUD if loud else SILENCE)[:150] + b"%010d" % self._serial
        is_forwarded = self.session.state in (State.CONNECTING, State.LIVE) and sid == STREAM
        self.handle(twilio.Media(sid, ulaw, self._serial))
        if is_forwarded:
            self.forwarded.append(ulaw)

    def check_bounds(self) -> None:
        session = self.session
        assert session._hold._held_bytes <= HOLD_MS * BYTES_PER_MS
        assert len(session._turn_taking.playout._pending) <= MAX_PENDING_MARKS
        assert len(session.counters) <= MAX_COUNTERS + 40
        assert session.is_over or session.deadline < float("inf")

    def check_invariants(self) -> None:
        sent = [action.ulaw for action in self.actions_of(SendToAssistant)]
        first = self.forwarded.index(sent[0]) if sent else 0
        assert sent == self.forwarded[first : first + len(sent)], (
            "in order; only the oldest held frames may be missing"
        )
        ends = self.entries_of(StreamEnded)
        assert len(self.actions_of(HangUp)) == 1
        assert len(ends) == len(self.actions_of(HangUpAssistant)) == (1 if self.is_accepted else 0)
        assert all(end.end_reason in end_reasons.ENDED_BY for end in ends)
        events = self.entries_of(TimelineEvent)
        assert [entry.index for entry in events] == list(range(len(events)))
        assert len(events) <= MAX_EVENTS
        assert [entry.index for entry in self.entries_of(UtteranceSpoken)] == list(
            range(len(self.entries_of(UtteranceSpoken)))
        )
        numbers = [turn.number for turn in self.turns()]
        assert numbers == list(range(1, len(numbers) + 1))
        for turn in self.turns():
            assert turn.response_latency_ms is None or turn.response_latency_ms >= 0
            assert turn.endpointed_ms is None or turn.end_of_speech_ms <= turn.endpointed_ms


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.lists(LIVE_STEPS, min_size=4, max_size=12), st.lists(ANY_STEPS, max_size=30))
def test_any_sequence_of_events_keeps_the_invariants_and_ends_once(
    local_barge_in: bool, live_steps: list[tuple[str, object]], steps: list[tuple[str, object]]
) -> None:
    call = CallModel(local_barge_in=local_barge_in)
    # Accept and answer, so that most examples reach LIVE.
    before, after = steps[:2], steps[2:]
    for kind, argument in [
        *before,
        ("connect", "accept"),
        *live_steps[:2],
        ("connect", "answer"),
        *live_steps[2:],
        *after,
    ]:
        call.step(kind, argument)
        call.check_bounds()
    call.advance(100)  # longer than every deadline
    assert call.session.is_over
    call.check_invariants()
    done = len(call.actions)
    for kind, argument in steps:
        call.step(kind, argument)
    assert call.actions[done:] == []
