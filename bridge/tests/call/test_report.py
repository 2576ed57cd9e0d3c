"""What a call tells the journal: its names, its clock, its numbering and its bounds."""

from __future__ import annotations

from bridge import end_reasons
from bridge.call.report import MAX_COUNTERS, MAX_EVENTS, CallReport
from bridge.call.turns import Turn
from bridge.call.utterances import SpeechTimes
from bridge.journal import AssistantAnswered, StreamRefused, StreamStarted, TimelineEvent, TurnTaken
from bridge.tests.call.stories import CALL, STREAM, WALL


def started() -> CallReport:
    """Made at 99, its stream began at 100."""
    report = CallReport(99.0, "worker-1")
    report.started(CALL, STREAM, WALL, 100.0)
    return report


def test_the_streams_start_is_millisecond_zero() -> None:
    report = CallReport(99.0, "worker-1")
    assert report.ms(99.5) == 500
    assert report.started(CALL, STREAM, WALL, 100.0) == StreamStarted(CALL, WALL, STREAM, "worker-1")
    assert report.ms(100.5) == 500


def test_wall_clock_times_follow_from_the_start() -> None:
    assert started().answered("vapi-1", 20, 100.5) == AssistantAnswered(CALL, WALL + 0.5, 500, "vapi-1", 20)


def test_a_refused_stream_has_a_call_and_no_happenings() -> None:
    report = CallReport(99.0)
    reason = end_reasons.TICKET_REFUSED
    assert report.refused(CALL, WALL, reason) == StreamRefused(CALL, WALL, reason)
    assert report.timeline_event("bad-message", 100.0, {}) is None
    assert not report.counters


def test_happenings_are_numbered_from_zero() -> None:
    report = started()
    assert report.timeline_event("stream-started", 100.0, {}) == TimelineEvent(
        CALL, 0, "stream-started", 0, {}
    )
    assert report.timeline_event("dtmf", 101.0, {"digit": "4"}) == TimelineEvent(
        CALL, 1, "dtmf", 1000, {"digit": "4"}
    )


def test_a_flood_of_happenings_is_cut_and_counted() -> None:
    report = started()
    written = [report.timeline_event("hang", 101.0, {}) for _ in range(MAX_EVENTS + 7)]
    assert written.count(None) == report.counters["happenings_dropped"] == 7


def test_utterances_are_numbered_by_themselves() -> None:
    report = started()
    report.timeline_event("stream-started", 100.0, {})
    first = report.utterance("assistant", "Hello.", SpeechTimes(100.5, 101.0, interrupted=True))
    second = report.utterance("caller", "Hi.", SpeechTimes(None, None))
    assert (first.index, first.started_ms, first.ended_ms, first.interrupted) == (0, 500, 1000, True)
    assert (second.index, second.started_ms, second.ended_ms, second.interrupted) == (1, None, None, False)


def test_a_turn_says_what_is_known_of_it() -> None:
    report, turn = started(), Turn(1, end_of_speech=102.0)
    assert report.turn(turn) == TurnTaken(CALL, 1, 2000)
    turn.first_audio = 102.9
    assert report.turn(turn).response_latency_ms == 900
    assert report.turn(turn).bridge_overhead_us is None
    turn.sent, turn.heard = 102.9002, 103.0
    entry = report.turn(turn)
    assert (entry.sent_ms, entry.heard_ms, entry.bridge_overhead_us) == (2900, 3000, 200)


def test_names_that_a_peer_chooses_are_bounded() -> None:
    report = started()
    for number in range(MAX_COUNTERS + 5):
        report.count(f"vapi_unknown_{number}")
    report.count("vapi_unknown_0")
    assert report.counters["other"] == 5
    assert report.counters["vapi_unknown_0"] == 2
    assert len(report.counters) == MAX_COUNTERS + 1


def test_the_end_sums_up_what_was_counted() -> None:
    report = started()
    report.first_audio = 101.25
    report.vapi_ended_reason, report.vapi_close_code = "customer-ended-call", 1000
    report.counters.update(frames_to_caller=3, barge_ins=1, keys_dropped=0)
    entry = report.ended(end_reasons.ASSISTANT_ENDED, 20, 130.0)
    assert (entry.at, entry.at_ms, entry.ended_by) == (WALL + 30.0, 30_000, "assistant")
    assert (entry.vapi_ended_reason, entry.vapi_close_code) == ("customer-ended-call", 1000)
    assert (entry.time_to_first_audio_ms, entry.frames_held) == (1250, 20)
    assert (entry.frames_to_caller, entry.frames_to_assistant, entry.barge_ins) == (3, 0, 1)
    assert entry.counters == {"barge_ins": 1, "frames_to_caller": 3}, "sorted, and nothing that never was"
