"""The journal entries of a call: CallSid, times, numbering and limits."""

from __future__ import annotations

from bridge import end_reasons
from bridge.call.report import MAX_COUNTERS, MAX_EVENTS, CallReport
from bridge.call.turns import Turn
from bridge.call.utterances import SpeechTimes
from bridge.journal import AssistantAnswered, StreamRefused, StreamStarted, TimelineEvent, TurnTaken
from bridge.tests.call.scenario import CALL, STARTED_AT, STREAM


def started_report() -> CallReport:
    """A report that was created at 99 and whose stream started at 100."""
    report = CallReport(99.0, "worker-1")
    report.started(CALL, STREAM, STARTED_AT, 100.0)
    return report


def test_milliseconds_count_from_the_start_of_the_stream() -> None:
    report = CallReport(99.0, "worker-1")
    assert report.ms(99.5) == 500
    assert report.started(CALL, STREAM, STARTED_AT, 100.0) == StreamStarted(
        CALL, STARTED_AT, STREAM, "worker-1"
    )
    assert report.ms(100.5) == 500


def test_wall_clock_times_are_computed_from_the_start() -> None:
    assert started_report().answered("vapi-1", 20, 100.5) == AssistantAnswered(
        CALL, STARTED_AT + 0.5, 500, "vapi-1", 20
    )


def test_a_refused_stream_has_an_entry_and_no_timeline() -> None:
    report = CallReport(99.0)
    reason = end_reasons.TICKET_REFUSED
    assert report.refused(CALL, STARTED_AT, reason) == StreamRefused(CALL, STARTED_AT, reason)
    assert report.timeline_event("bad-message", 100.0, {}) is None
    assert not report.counters


def test_timeline_events_are_numbered_from_zero() -> None:
    report = started_report()
    assert report.timeline_event("stream-started", 100.0, {}) == TimelineEvent(
        CALL, 0, "stream-started", 0, {}
    )
    assert report.timeline_event("dtmf", 101.0, {"digit": "4"}) == TimelineEvent(
        CALL, 1, "dtmf", 1000, {"digit": "4"}
    )


def test_excess_timeline_events_are_dropped_and_counted() -> None:
    report = started_report()
    written = [report.timeline_event("hang", 101.0, {}) for _ in range(MAX_EVENTS + 7)]
    assert written.count(None) == report.counters["happenings_dropped"] == 7


def test_utterances_are_numbered_separately_from_timeline_events() -> None:
    report = started_report()
    report.timeline_event("stream-started", 100.0, {})
    first = report.utterance("assistant", "Hello.", SpeechTimes(100.5, 101.0, interrupted=True))
    second = report.utterance("caller", "Hi.", SpeechTimes(None, None))
    assert (first.index, first.started_ms, first.ended_ms, first.interrupted) == (0, 500, 1000, True)
    assert (second.index, second.started_ms, second.ended_ms, second.interrupted) == (1, None, None, False)


def test_a_turn_entry_has_all_times_known_so_far() -> None:
    report, turn = started_report(), Turn(1, end_of_speech=102.0)
    assert report.turn(turn) == TurnTaken(CALL, 1, 2000)
    turn.first_audio = 102.9
    assert report.turn(turn).response_latency_ms == 900
    assert report.turn(turn).bridge_overhead_us is None
    turn.sent, turn.heard = 102.9002, 103.0
    entry = report.turn(turn)
    assert (entry.sent_ms, entry.heard_ms, entry.bridge_overhead_us) == (2900, 3000, 200)


def test_counters_named_by_a_peer_are_bounded() -> None:
    report = started_report()
    for number in range(MAX_COUNTERS + 5):
        report.count(f"vapi_unknown_{number}")
    report.count("vapi_unknown_0")
    assert report.counters["other"] == 5
    assert report.counters["vapi_unknown_0"] == 2
    assert len(report.counters) == MAX_COUNTERS + 1


def test_the_stream_ended_entry_has_all_counters() -> None:
    report = started_report()
    report.first_audio = 101.25
    report.vapi_ended_reason, report.vapi_close_code = "customer-ended-call", 1000
    report.counters.update(frames_to_caller=3, barge_ins=1, keys_dropped=0)
    entry = report.ended(end_reasons.ASSISTANT_ENDED, 20, 130.0)
    assert (entry.at, entry.at_ms, entry.ended_by) == (STARTED_AT + 30.0, 30_000, "assistant")
    assert (entry.vapi_ended_reason, entry.vapi_close_code) == ("customer-ended-call", 1000)
    assert (entry.time_to_first_audio_ms, entry.frames_held) == (1250, 20)
    assert (entry.frames_to_caller, entry.frames_to_assistant, entry.barge_ins) == (3, 0, 1)
    assert entry.counters == {"barge_ins": 1, "frames_to_caller": 3}, "sorted, without zeros"
