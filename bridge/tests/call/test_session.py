"""The call session: the actions that it returns for a sequence of events."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bridge.audio.dtmf import tones
from bridge.call.events import (
    Aborted,
    Action,
    AssistantConnected,
    AssistantLegClosed,
    AssistantUnreachable,
    BadMessage,
    CallerLegClosed,
    ClearPlayout,
    DeadlinePassed,
    DialAssistant,
    Dropped,
    Event,
    HangUp,
    HangUpAssistant,
    OversizeMessage,
    PlaceMark,
    SendControl,
    SendToAssistant,
    SendToCaller,
    TicketRefused,
    WriteEntry,
)
from bridge.call.report import MAX_COUNTERS, MAX_EVENTS
from bridge.call.states import IllegalTransition, State
from bridge.journal import (
    AssistantAnswered,
    StreamEnded,
    StreamRefused,
    StreamStarted,
    TimelineEvent,
    UtteranceSpoken,
)
from bridge.tests.call.scenario import (
    CALL,
    LOUD,
    SILENCE,
    START,
    STARTED_AT,
    STREAM,
    CallScenario,
    connecting_call,
    live_call,
    waiting_call,
)
from bridge.tool_calls import ToolCall
from bridge.wire import twilio, vapi

STOP = twilio.Stop(STREAM, CALL)


def kinds(actions: Sequence[Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


# Start of the stream


def test_a_valid_ticket_dials_the_assistant() -> None:
    call = waiting_call()
    call.accept()
    assert call.actions_of(DialAssistant) == [DialAssistant()]
    assert call.entries_of(StreamStarted) == [StreamStarted(CALL, STARTED_AT, STREAM)]
    assert call.session.state is State.CONNECTING


def test_the_connected_message_has_no_effect() -> None:
    call = waiting_call()
    assert call.handle(twilio.Connected("Call", "1.0.0")) == []
    assert str(call.session) == "no call yet"


def test_an_invalid_ticket_closes_the_socket_and_dials_nobody() -> None:
    call = waiting_call()
    call.handle(TicketRefused(START, STARTED_AT, "forged"))
    assert call.entries() == [StreamRefused(CALL, STARTED_AT, "ticket-refused")]
    assert call.actions_of(HangUp) == [HangUp(4003)]
    assert not call.actions_of(DialAssistant)


def test_the_socket_is_closed_when_no_start_arrives_within_five_seconds() -> None:
    call = waiting_call()
    assert call.advance(4.9) == []
    assert call.advance(0.2) == [HangUp(4008)]
    assert call.session.end_reason == "no-start"


def test_a_socket_that_closes_before_start_writes_no_entry() -> None:
    call = waiting_call()
    assert call.handle(CallerLegClosed(1000)) == [HangUp()]
    assert call.session.is_over


def test_media_and_marks_before_start_are_counted_as_bad_messages() -> None:
    call = waiting_call()
    call.send_frame()
    call.handle(twilio.Mark(STREAM, "g0-1"))
    assert call.session.counters["bad_caller_media-before-start"] == 1
    assert call.session.counters["bad_caller_before-start"] == 1
    assert call.entries() == []


def test_a_second_start_is_counted_as_a_bad_message() -> None:
    call = live_call()
    call.handle(START)
    assert call.session.counters["bad_caller_second-start"] == 1
    assert call.session.state is State.LIVE


def test_a_second_accepted_stream_raises_and_keeps_the_state() -> None:
    call = live_call()
    with pytest.raises(IllegalTransition):
        call.accept()
    assert call.session.state is State.LIVE


# The hold buffer


def test_caller_audio_is_held_while_dialling_and_then_sent_in_order() -> None:
    call = connecting_call()
    frames = [bytes([n]) * 160 for n in range(5)]
    for ulaw in frames:
        call.send_frame(ulaw)
    assert not call.actions_of(SendToAssistant)
    call.handle(AssistantConnected("vapi-1"))
    call.send_frame(b"\x55" * 160)
    assert [sent.ulaw for sent in call.actions_of(SendToAssistant)] == [*frames, b"\x55" * 160]


def test_a_full_hold_buffer_drops_the_oldest_audio() -> None:
    call = connecting_call(hold_buffer_ms=60)
    for n in range(5):
        call.send_frame(bytes([n]) * 160)
    call.handle(AssistantConnected())
    assert [sent.ulaw[0] for sent in call.actions_of(SendToAssistant)] == [2, 3, 4]
    call.handle(STOP)
    ended = call.stream_ended
    assert (ended.frames_held, ended.frames_dropped, ended.frames_to_assistant) == (5, 2, 3)


def test_a_frame_larger_than_the_hold_buffer_is_dropped() -> None:
    call = connecting_call(hold_buffer_ms=10)
    call.send_frame()
    call.handle(AssistantConnected())
    assert not call.actions_of(SendToAssistant)


def test_the_assistant_answered_entry_has_the_connect_time() -> None:
    call = connecting_call()
    call.send_frame()
    call.advance(0.412)
    call.handle(AssistantConnected("vapi-1"))
    assert call.entries_of(AssistantAnswered) == [
        AssistantAnswered(CALL, pytest.approx(STARTED_AT + 0.412), 412, "vapi-1", 1)  # type: ignore[arg-type]
    ]


def test_frames_held_for_an_unreachable_assistant_are_counted() -> None:
    call = connecting_call()
    call.send_frame()
    call.handle(AssistantUnreachable("Vapi answered 503", 503))
    assert call.stream_ended.counters["frames_unsent"] == 1


def test_a_second_assistant_connected_event_is_ignored() -> None:
    call = live_call()
    assert call.handle(AssistantConnected("vapi-2")) == []


# Audio to the caller


def test_a_mark_is_placed_just_before_the_first_audible_audio() -> None:
    call = live_call()
    call.assistant_speaks(100, audible=False)
    before = len(call.actions)
    call.assistant_speaks(100)
    assert kinds([a for a in call.actions[before:] if not isinstance(a, WriteEntry)]) == [
        "PlaceMark",
        "SendToCaller",
    ]


def test_audio_that_continues_is_sent_without_another_mark() -> None:
    call = live_call()
    call.assistant_speaks(100)
    call.advance(0.05)
    assert kinds(call.assistant_speaks(100)) == ["SendToCaller"]


def test_assistant_audio_before_its_socket_is_open_is_dropped_and_counted() -> None:
    call = connecting_call()
    call.assistant_speaks(100)
    assert not call.actions_of(SendToCaller)
    assert call.session.counters["audio_after_end"] == 800


def test_audio_more_than_thirty_seconds_ahead_is_dropped_and_counted() -> None:
    call = live_call()
    call.assistant_speaks(30_001)
    assert call.assistant_speaks(100) == []
    assert call.session.counters["assistant_bytes_dropped"] == 800


def test_a_flood_of_assistant_audio_ends_the_call() -> None:
    call = live_call()
    call.assistant_speaks(30_001)
    call.assistant_speaks(3_000)
    assert call.session.state is State.LIVE
    call.assistant_speaks(20)
    assert (call.stream_ended.end_reason, call.stream_ended.ended_by) == ("flood", "us")
    assert call.actions_of(HangUpAssistant) == [HangUpAssistant("end-call")]


def test_a_flood_of_caller_audio_ends_the_call() -> None:
    call = live_call()
    for _ in range(3 * 50):
        call.send_frame()
    assert call.session.state is State.LIVE
    call.send_frame()
    assert call.stream_ended.end_reason == "flood"


def test_a_mark_is_placed_behind_audio_that_pauses() -> None:
    call = live_call()
    call.assistant_speaks(1000)
    (mark,) = [action for action in call.advance(0.25) if isinstance(action, PlaceMark)]
    assert mark.name == "g0-2"


def test_audio_that_was_played_gets_no_mark_behind_it() -> None:
    call = live_call()
    call.handle(twilio.Mark(STREAM, "g0-1"))
    call.assistant_speaks(20, audible=False)
    assert call.advance(1.0) == []


def test_time_to_first_audio_is_measured_from_start_to_sent() -> None:
    call = connecting_call()
    call.advance(0.4)
    call.handle(AssistantConnected())
    call.advance(0.5)
    call.assistant_speaks(100)
    call.advance(3)
    call.assistant_speaks(100)
    call.handle(STOP)
    assert call.stream_ended.time_to_first_audio_ms == 900
    assert call.timeline_kinds().count("first-audio") == 1


# Turns


def test_a_turn_is_timed_from_the_end_of_speech_to_the_returned_mark() -> None:
    call = live_call()
    call.caller_speaks(400)
    call.caller_is_silent(800)
    call.handle(vapi.Transcript("caller", True, "Hello?"))
    call.caller_is_silent(200)
    call.assistant_speaks(500)
    (mark,) = call.actions_of(PlaceMark)
    call.advance(0.1)
    call.handle(twilio.Mark(STREAM, mark.name))
    (turn,) = call.turns()
    assert turn.number == 1
    assert turn.end_of_speech_ms == pytest.approx(400, abs=20)
    assert turn.endpointed_ms == 1200
    assert (turn.first_audio_ms, turn.sent_ms, turn.heard_ms) == (1400, 1400, 1500)
    assert turn.response_latency_ms == pytest.approx(1000, abs=20)
    assert turn.bridge_overhead_us == 0


def test_an_unanswered_turn_is_written_with_nulls() -> None:
    call = live_call()
    call.caller_speaks(400)
    call.caller_is_silent(400)
    call.handle(STOP)
    (turn,) = call.turns()
    assert (turn.first_audio_ms, turn.response_latency_ms, turn.bridge_overhead_us) == (None, None, None)


def test_a_mark_returned_after_a_clear_does_not_count_as_heard() -> None:
    call = live_call()
    call.caller_speaks(400)
    call.caller_is_silent(400)
    call.assistant_speaks(500)
    (mark,) = call.actions_of(PlaceMark)
    call.handle(vapi.UserInterrupted())
    call.handle(twilio.Mark(STREAM, mark.name))
    assert call.turns()[0].heard_ms is None
    assert call.session.counters["marks_cleared"] == 1


def test_the_mark_of_the_greeting_belongs_to_no_turn() -> None:
    call = live_call()
    call.assistant_speaks(500)
    call.handle(twilio.Mark(STREAM, "g0-1"))
    assert call.turns() == []


def test_a_mark_returned_after_the_next_answer_does_not_change_its_turn() -> None:
    call = live_call()
    for _ in range(2):
        call.caller_speaks(400)
        call.caller_is_silent(400)
        call.assistant_speaks(500)
    first, second = [mark.name for mark in call.actions_of(PlaceMark) if mark.name in ("g0-1", "g0-3")]
    call.handle(twilio.Mark(STREAM, first))
    assert [turn.heard_ms for turn in call.turns()] == [None, None]
    call.handle(twilio.Mark(STREAM, second))
    assert call.turns()[1].heard_ms is not None


# Barge-in


def test_a_barge_in_clears_what_the_caller_has_not_heard() -> None:
    call = live_call()
    call.assistant_speaks(3000)
    call.advance(1.0)
    assert kinds(call.handle(vapi.UserInterrupted()))[0] == "ClearPlayout"
    (event,) = [entry for entry in call.entries_of(TimelineEvent) if entry.kind == "barge-in"]
    assert event.data == {"how": "user-interrupted", "unplayed_ms": 2000}


def test_a_barge_in_marks_the_turn_whose_answer_was_cut() -> None:
    call = live_call()
    call.caller_speaks(400)
    call.caller_is_silent(400)
    call.assistant_speaks(3000)
    call.handle(vapi.UserInterrupted())
    assert call.turns()[0].interrupted


def test_mark_names_carry_the_generation() -> None:
    call = live_call()
    call.assistant_speaks(3000)
    call.handle(vapi.UserInterrupted())
    call.advance(1.0)
    call.assistant_speaks(100)
    assert [mark.name for mark in call.actions_of(PlaceMark)][-1].startswith("g1-")


def test_several_signs_of_one_barge_in_count_once() -> None:
    call = live_call()
    call.assistant_speaks(3000)
    call.handle(vapi.SpeechUpdate("caller", True))
    call.advance(0.3)
    call.handle(vapi.UserInterrupted())
    call.advance(0.1)
    call.handle(vapi.UserInterrupted())
    call.handle(vapi.SpeechUpdate("assistant", False))
    assert len(call.actions_of(ClearPlayout)) == 1
    assert call.session.counters["barge_ins"] == 1


def test_audio_that_arrives_after_a_barge_in_is_cleared_without_counting_again() -> None:
    call = live_call()
    call.assistant_speaks(3000)
    call.handle(vapi.UserInterrupted())
    call.advance(0.1)
    call.assistant_speaks(1000)
    call.handle(vapi.UserInterrupted())
    assert len(call.actions_of(ClearPlayout)) == 2
    assert call.session.counters["barge_ins"] == 1


def test_a_barge_in_is_inferred_without_user_interrupted() -> None:
    call = live_call()
    call.assistant_speaks(3000)
    call.handle(vapi.SpeechUpdate("caller", True))
    call.advance(0.4)
    assert ClearPlayout() in call.handle(vapi.SpeechUpdate("assistant", False))
    assert call.session.counters["barge_ins"] == 1


def test_no_barge_in_is_inferred_when_the_assistant_stops_much_later() -> None:
    call = live_call()
    call.assistant_speaks(5000)
    call.handle(vapi.SpeechUpdate("caller", True))
    call.advance(1.5)
    call.handle(vapi.SpeechUpdate("assistant", False))
    assert not call.actions_of(ClearPlayout)


def test_no_barge_in_is_inferred_when_nothing_played_at_the_callers_start() -> None:
    call = live_call()
    call.handle(vapi.SpeechUpdate("caller", True))
    call.assistant_speaks(500)
    call.handle(vapi.SpeechUpdate("assistant", False))
    assert not call.actions_of(ClearPlayout)


def test_no_barge_in_is_inferred_when_the_assistant_had_finished() -> None:
    call = live_call()
    call.assistant_speaks(500)
    call.handle(vapi.SpeechUpdate("caller", True))
    call.handle(twilio.Mark(STREAM, "g0-1"))
    call.advance(0.7)
    for mark in call.actions_of(PlaceMark):
        call.handle(twilio.Mark(STREAM, mark.name))
    call.handle(vapi.SpeechUpdate("assistant", False))
    assert not call.actions_of(ClearPlayout)


# Barge-in, socket dialect


def test_local_barge_in_sends_cancel_and_clears_the_playout() -> None:
    call = live_call(local_barge_in=True)
    call.assistant_speaks(3000)
    call.caller_speaks(300)
    assert call.actions_of(SendControl) == [SendControl(vapi.Cancel())]
    assert len(call.actions_of(ClearPlayout)) == 1
    assert call.session.counters["barge_ins"] == 1


def test_audio_right_after_a_local_barge_in_is_dropped() -> None:
    call = live_call(local_barge_in=True)
    call.assistant_speaks(3000)
    while not call.actions_of(ClearPlayout):
        call.caller_speaks(20)
    assert call.assistant_speaks(100) == []
    assert call.session.counters["assistant_bytes_dropped"] == 800
    call.advance(0.16)
    assert call.assistant_speaks(100) != []


def test_a_short_noise_is_not_a_local_barge_in() -> None:
    call = live_call(local_barge_in=True)
    call.assistant_speaks(3000)
    call.caller_speaks(120)
    call.caller_is_silent(500)
    assert not call.actions_of(ClearPlayout)


def test_a_caller_who_speaks_while_nothing_plays_is_not_a_local_barge_in() -> None:
    call = live_call(local_barge_in=True)
    call.caller_speaks(600)
    assert not call.actions_of(SendControl)


def test_only_caller_speech_over_assistant_audio_counts_for_a_local_barge_in() -> None:
    """The assistant starts while the caller is speaking; the caller's speech before that does not count."""
    call = live_call(local_barge_in=True)
    call.caller_speaks(600)
    call.assistant_speaks(3000)
    call.caller_speaks(100)
    assert not call.actions_of(ClearPlayout)
    call.caller_speaks(240)
    assert len(call.actions_of(ClearPlayout)) == 1


def test_without_local_barge_in_a_loud_caller_clears_nothing() -> None:
    call = live_call()
    call.assistant_speaks(3000)
    call.caller_speaks(600)
    assert not call.actions_of(ClearPlayout)


# Transcripts


def test_final_transcripts_become_utterances_in_order() -> None:
    call = live_call()
    call.handle(vapi.Transcript("assistant", True, "Hello"))
    call.handle(vapi.Transcript("caller", False, "I wou"))
    call.handle(vapi.Transcript("caller", True, "I would"))
    call.handle(vapi.Transcript("caller", True, "  "))
    assert [(u.index, u.speaker, u.text) for u in call.entries_of(UtteranceSpoken)] == [
        (0, "assistant", "Hello"),
        (1, "caller", "I would"),
    ]
    assert (call.session.counters["finals"], call.session.counters["partials"]) == (3, 1)


def test_a_caller_utterance_has_the_times_of_the_speech_detector() -> None:
    call = live_call()
    call.caller_is_silent(200)
    call.caller_speaks(400)
    call.caller_is_silent(400)
    call.handle(vapi.Transcript("caller", True, "Hello?"))
    (utterance,) = call.entries_of(UtteranceSpoken)
    assert utterance.started_ms == pytest.approx(220, abs=20)
    assert utterance.ended_ms == pytest.approx(600, abs=20)


def test_a_second_final_of_the_same_speech_has_no_times() -> None:
    call = live_call()
    call.caller_speaks(400)
    call.caller_is_silent(400)
    call.handle(vapi.Transcript("caller", True, "I would like"))
    call.handle(vapi.Transcript("caller", True, "a table"))
    assert [utterance.ended_ms is None for utterance in call.entries_of(UtteranceSpoken)] == [False, True]


def test_a_caller_utterance_without_detected_speech_has_no_times() -> None:
    call = live_call()
    call.handle(vapi.Transcript("caller", True, "Hello?"))
    (utterance,) = call.entries_of(UtteranceSpoken)
    assert (utterance.started_ms, utterance.ended_ms) == (None, None)


def test_an_assistant_utterance_has_the_times_of_its_playout() -> None:
    call = live_call()
    call.advance(1.0)
    call.assistant_speaks(500)
    call.advance(2.0)
    call.handle(vapi.Transcript("assistant", True, "For which day?"))
    (utterance,) = call.entries_of(UtteranceSpoken)
    assert (utterance.started_ms, utterance.ended_ms) == (1000, 1500)


def test_a_pause_between_two_sentences_does_not_split_an_utterance() -> None:
    call = live_call()
    call.advance(1.0)
    call.assistant_speaks(500)
    call.advance(1.0)
    call.assistant_speaks(500)
    call.advance(1.0)
    call.handle(vapi.Transcript("assistant", True, "Let me see. For which day?"))
    (utterance,) = call.entries_of(UtteranceSpoken)
    assert (utterance.started_ms, utterance.ended_ms) == (1000, 2500)


def test_an_assistant_utterance_without_audio_has_no_times() -> None:
    call = live_call()
    call.handle(vapi.Transcript("assistant", True, "Hello"))
    (utterance,) = call.entries_of(UtteranceSpoken)
    assert (utterance.started_ms, utterance.ended_ms) == (None, None)


def test_only_the_utterance_that_was_cut_off_is_marked_as_interrupted() -> None:
    call = live_call()
    call.assistant_speaks(3000)
    call.advance(1.0)
    call.handle(vapi.UserInterrupted())
    call.handle(vapi.Transcript("assistant", True, "We are open from"))
    call.advance(2.0)
    call.assistant_speaks(500)
    call.handle(vapi.Transcript("assistant", True, "Sorry?"))
    cut_off, following = call.entries_of(UtteranceSpoken)
    assert (cut_off.interrupted, cut_off.ended_ms) == (True, 1000)
    assert not following.interrupted


# The other events of the assistant leg


def test_assistant_events_are_counted_and_put_on_the_timeline() -> None:
    call = live_call()
    call.handle(vapi.StatusUpdate("in-progress"))
    call.handle(vapi.SpeechUpdate("caller", True))
    call.handle(vapi.SpeechUpdate("caller", False))
    call.handle(vapi.SpeechUpdate("assistant", True))
    call.handle(vapi.Hang())
    call.handle(vapi.IgnoredEvent("model-output"))
    call.handle(vapi.IgnoredEvent("weather", known=False))
    assert call.timeline_kinds()[2:] == [
        "assistant-status",
        "caller-started",
        "caller-stopped",
        "assistant-started",
        "hang",
    ]
    counters = call.session.counters
    assert (counters["hangs"], counters["vapi_model-output"], counters["vapi_unknown"]) == (1, 1, 1)
    assert counters["vapi_unknown_weather"] == 1


def test_counters_of_unknown_event_names_are_bounded() -> None:
    call = live_call()
    for n in range(1000):
        call.handle(vapi.IgnoredEvent(f"weather-{n}", known=False))
    assert len(call.session.counters) <= MAX_COUNTERS + 1
    assert call.session.counters["other"] > 900


def test_the_timeline_is_bounded() -> None:
    call = live_call()
    for _ in range(MAX_EVENTS + 50):
        call.handle(vapi.Hang())
    assert len(call.entries_of(TimelineEvent)) == MAX_EVENTS
    assert call.session.counters["happenings_dropped"] >= 50


def test_bad_messages_from_the_assistant_are_counted_and_do_not_end_the_call() -> None:
    call = live_call()
    for _ in range(200):
        call.handle(BadMessage("assistant", "bad-json"))
    assert call.session.state is State.LIVE
    assert call.session.counters["bad_assistant_bad-json"] == 200
    assert call.timeline_kinds().count("bad-message") == 1


def test_dropped_frames_are_counted_by_direction() -> None:
    call = live_call()
    call.handle(Dropped(3))
    call.handle(Dropped(2, "caller"))
    call.handle(STOP)
    assert call.stream_ended.frames_dropped == 3
    assert call.stream_ended.counters["chunks_dropped"] == 2


def test_audio_that_was_not_transcoded_raises() -> None:
    with pytest.raises(TypeError):
        live_call().handle(vapi.Audio(b"\xff"))


# Frames


def test_late_and_missing_frames_are_counted() -> None:
    call = live_call()
    call.handle(twilio.Media(STREAM, SILENCE, 1))
    call.advance(0.5)
    call.handle(twilio.Media(STREAM, SILENCE, 2))
    call.handle(twilio.Media(STREAM, SILENCE, 7))
    call.handle(twilio.Media(STREAM, SILENCE))
    assert (call.session.counters["frames_late"], call.session.counters["frames_missing"]) == (1, 4)


def test_messages_of_another_stream_are_ignored_and_counted() -> None:
    call = live_call()
    for event in (
        twilio.Media("MZ2", LOUD),
        twilio.Mark("MZ2", "g0-1"),
        twilio.Dtmf("MZ2", "1"),
        twilio.Stop("MZ2"),
    ):
        call.handle(event)
    assert call.session.state is State.LIVE
    assert call.session.counters["bad_caller_wrong-streamSid"] == 4
    assert not call.actions_of(SendToAssistant)


# Keys


def test_pressed_keys_are_sent_to_the_assistant() -> None:
    sent = [action for action in live_call().press_keys("42#") if isinstance(action, SendControl)]
    assert sent == [SendControl(vapi.AddMessage("The caller pressed 42# on the keypad."))]


def test_pressed_keys_are_sent_after_a_pause() -> None:
    call = live_call()
    call.press_keys("7")
    assert call.advance(1.4) == []
    assert kinds(call.advance(0.2)) == ["SendControl"]


def test_a_pause_after_a_completed_group_sends_nothing() -> None:
    call = live_call()
    call.press_keys("7")
    call.press_keys("#")
    assert call.advance(2.0) == []


def test_keys_pressed_while_dialling_are_sent_when_the_assistant_answers() -> None:
    call = connecting_call()
    call.press_keys("12#")
    call.press_keys("3#")
    assert not call.actions_of(SendControl)
    call.handle(AssistantConnected())
    assert [action.message for action in call.actions_of(SendControl)] == [
        vapi.AddMessage("The caller pressed 12# on the keypad."),
        vapi.AddMessage("The caller pressed 3# on the keypad."),
    ]


def test_keys_that_were_not_sent_are_counted() -> None:
    call = connecting_call()
    call.press_keys("12#3")
    call.handle(STOP)
    assert call.stream_ended.counters["keys_unsaid"] == 4


def test_keys_pressed_while_the_call_ends_are_counted() -> None:
    call = live_call()
    call.assistant_speaks(1000)
    call.press_keys("1")
    call.handle(AssistantLegClosed(1000))
    call.press_keys("2")
    call.advance(5.0)
    assert call.stream_ended.counters["keys_unsaid"] == 2


def test_the_number_of_key_groups_is_limited() -> None:
    call = live_call()
    call.press_keys("#" * 25)
    assert len(call.actions_of(SendControl)) == 20


def test_excess_keys_are_dropped_and_counted() -> None:
    call = live_call()
    call.press_keys("5" * 5000)
    call.handle(STOP)
    assert call.stream_ended.counters["keys_dropped"] == 4980
    assert call.timeline_kinds().count("dtmf") == 20


# End of the call


def call_ended_by(event: Event) -> CallScenario:
    call = live_call()
    call.assistant_speaks(1000)
    call.handle(event)
    call.advance(10.0)
    return call


@pytest.mark.parametrize(
    ("event", "reason", "by", "assistant", "cleared"),
    [
        (STOP, "caller-hung-up", "caller", "end-call", False),
        (CallerLegClosed(1000), "caller-hung-up", "caller", "end-call", False),
        (CallerLegClosed(1005), "caller-hung-up", "caller", "end-call", False),
        (CallerLegClosed(1006), "stream-lost", "network", "end-call", True),
        (vapi.StatusUpdate("ended", "assistant-ended-call"), "assistant-ended", "assistant", "close", False),
        (AssistantLegClosed(1000), "assistant-ended", "assistant", "close", False),
        (AssistantLegClosed(1001), "assistant-ended", "assistant", "close", False),
        (AssistantLegClosed(1005), "assistant-ended", "assistant", "close", False),
        (AssistantLegClosed(1006), "assistant-failed", "assistant", "control", True),
        (AssistantLegClosed(1011), "assistant-failed", "assistant", "control", True),
        (AssistantLegClosed(1012), "assistant-failed", "assistant", "control", True),
        (AssistantLegClosed(1013), "assistant-failed", "assistant", "control", True),
        (vapi.StatusUpdate("ended", "pipeline-error-x"), "assistant-failed", "assistant", "control", True),
        (Aborted(), "worker-lost", "us", "end-call", True),
    ],
)
def test_a_live_call_ends_with_the_expected_reason(
    event: Event, reason: str, by: str, assistant: str, cleared: bool
) -> None:
    call = call_ended_by(event)
    assert (call.stream_ended.end_reason, call.stream_ended.ended_by) == (reason, by)
    assert [leave.how for leave in call.actions_of(HangUpAssistant)] == [assistant]
    assert call.actions_of(HangUp) == [HangUp()]
    assert bool(call.actions_of(ClearPlayout)) is cleared
    assert call.session.state is State.ENDED


def test_vapis_ended_reason_and_close_code_are_reported() -> None:
    call = call_ended_by(vapi.StatusUpdate("ended", "silence-timed-out"))
    assert call.stream_ended.vapi_ended_reason == "silence-timed-out"
    assert call_ended_by(AssistantLegClosed(1012)).stream_ended.vapi_close_code == 1012


def test_an_unreachable_assistant_ends_the_call() -> None:
    call = connecting_call()
    call.handle(AssistantUnreachable("Vapi answered 401: Invalid Key.", 401, "vapi-1"))
    assert (call.stream_ended.end_reason, call.stream_ended.ended_by) == (
        "assistant-unreachable",
        "assistant",
    )
    (event,) = [entry for entry in call.entries_of(TimelineEvent) if entry.kind == "assistant-unreachable"]
    assert event.data == {
        "detail": "Vapi answered 401: Invalid Key.",
        "status": 401,
        "vapi_call_id": "vapi-1",
    }


def test_a_caller_who_hangs_up_while_dialling_ends_the_call() -> None:
    call = connecting_call()
    call.handle(STOP)
    call.handle(AssistantConnected())
    assert call.stream_ended.end_reason == "caller-hung-up"
    assert not call.entries_of(AssistantAnswered)


def test_the_call_ends_after_the_assistants_last_audio_was_played() -> None:
    call = live_call()
    call.assistant_speaks(1000)
    call.handle(vapi.StatusUpdate("ended", "assistant-ended-call"))
    assert call.session.state is State.ENDING
    last_mark = call.actions_of(PlaceMark)[-1].name
    call.handle(AssistantLegClosed(1000))
    call.advance(1.05)
    assert not call.actions_of(HangUp)
    call.handle(twilio.Mark(STREAM, last_mark))
    assert call.actions_of(HangUp) == [HangUp()]


def test_the_call_ends_two_seconds_after_last_audio_without_a_returned_mark() -> None:
    call = live_call()
    call.assistant_speaks(1000)
    call.handle(AssistantLegClosed(1000))
    call.advance(2.9)
    assert not call.actions_of(HangUp)
    call.advance(0.2)
    assert call.actions_of(HangUp) == [HangUp()]


def test_an_ended_status_takes_precedence_over_the_close_code() -> None:
    call = live_call()
    call.handle(vapi.StatusUpdate("ended", "assistant-ended-call"))
    call.handle(AssistantLegClosed(1006))
    call.advance(5.0)
    assert (call.stream_ended.end_reason, call.stream_ended.vapi_close_code) == ("assistant-ended", 1006)


def test_the_first_end_reason_stands() -> None:
    call = live_call()
    call.assistant_speaks(1000)
    call.handle(vapi.StatusUpdate("ended", "assistant-ended-call"))
    call.handle(CallerLegClosed(1006))
    assert call.stream_ended.end_reason == "assistant-ended"
    assert not call.actions_of(ClearPlayout)


def test_events_while_the_call_ends_are_only_counted() -> None:
    call = live_call()
    call.assistant_speaks(1000)
    call.handle(AssistantLegClosed(1000))
    call.send_frame(LOUD)
    call.handle(vapi.UserInterrupted())
    call.assistant_speaks(100)
    call.advance(0.25)
    counters = call.session.counters
    assert (counters["frames_after_end"], counters["events_after_end"], counters["audio_after_end"]) == (
        1,
        1,
        800,
    )
    assert not call.actions_of(ClearPlayout)


def test_the_first_of_two_passed_deadlines_sets_the_end_reason() -> None:
    call = CallScenario().accept(max_call_seconds=10)
    call.now += 20  # the process was frozen
    call.handle(DeadlinePassed())
    assert call.stream_ended.end_reason == "stream-lost"
    assert call.actions_of(HangUp) == [HangUp()]


def test_events_after_the_end_have_no_effect() -> None:
    call = call_ended_by(STOP)
    before = len(call.actions)
    for event in (STOP, AssistantConnected(), twilio.Media(STREAM, LOUD), vapi.UserInterrupted(), Aborted()):
        call.handle(event)
    call.handle(DeadlinePassed())
    assert call.actions[before:] == []
    assert call.session.deadline == float("inf")


def test_no_media_for_eight_seconds_ends_the_call_as_stream_lost() -> None:
    call = live_call()
    call.caller_is_silent(1000)
    call.advance(7.9)
    assert not call.actions_of(HangUp)
    call.advance(0.2)
    assert call.stream_ended.end_reason == "stream-lost"


def test_no_media_while_dialling_ends_the_call_as_stream_lost() -> None:
    call = connecting_call()
    call.advance(8.1)
    assert call.stream_ended.end_reason == "stream-lost"


def test_a_call_ends_at_its_maximum_duration() -> None:
    call = CallScenario().accept(max_call_seconds=30)
    call.handle(AssistantConnected())
    for _ in range(5):
        call.advance(5)
        call.send_frame()
    assert not call.actions_of(HangUp)
    call.advance(5)
    assert (call.stream_ended.end_reason, call.stream_ended.ended_by) == ("limit-reached", "us")


def test_an_assistant_silent_for_twelve_seconds_after_the_caller_is_stalled() -> None:
    call = live_call()
    call.caller_speaks(400)
    call.caller_is_silent(11_900)
    assert not call.actions_of(HangUp)
    call.caller_is_silent(300)
    assert call.stream_ended.end_reason == "assistant-stalled"
    assert call.turns()[0].first_audio_ms is None


def test_any_message_from_the_assistant_restarts_the_stall_deadline() -> None:
    call = live_call()
    call.caller_speaks(400)
    call.caller_is_silent(6000)
    call.handle(vapi.IgnoredEvent("model-output"))
    call.caller_is_silent(11_000)
    assert not call.actions_of(HangUp)
    call.caller_is_silent(1500)
    assert call.stream_ended.end_reason == "assistant-stalled"


def test_an_assistant_that_has_answered_is_not_stalled() -> None:
    call = live_call()
    call.caller_speaks(400)
    call.caller_is_silent(800)
    call.assistant_speaks(500)
    call.caller_is_silent(20_000)
    assert call.session.state is State.LIVE


def test_an_assistant_that_continued_over_the_caller_is_not_stalled() -> None:
    """The caller said "mhm" during the assistant's question, so the assistant is waiting for the caller."""
    call = live_call()
    for part in [*[LOUD] * 15, *[SILENCE] * 40]:
        call.assistant_speaks(20)
        call.advance(0.02)
        call.send_frame(part)
    assert call.turns()[0].first_audio_ms is None
    call.caller_is_silent(20_000)
    assert call.session.state is State.LIVE


def test_an_assistant_that_is_being_dialed_is_not_stalled() -> None:
    call = connecting_call()
    call.caller_speaks(400)
    call.caller_is_silent(13_000)
    assert call.session.state is State.CONNECTING


def test_over_fifty_bad_messages_in_ten_seconds_end_the_call() -> None:
    call = live_call()
    for _ in range(50):
        call.handle(BadMessage("caller", "bad-json"))
    assert not call.actions_of(HangUp)
    call.handle(BadMessage("caller", "no-event"))
    assert (call.stream_ended.end_reason, call.stream_ended.ended_by) == ("protocol-abuse", "us")
    assert call.stream_ended.counters["bad_caller_bad-json"] == 50


def test_bad_messages_far_apart_do_not_end_the_call() -> None:
    call = live_call()
    for _ in range(200):
        call.send_frame()
        call.advance(0.25)
        call.handle(BadMessage("caller", "bad-json"))
    assert call.session.state is State.LIVE


def test_over_fifty_bad_messages_before_start_close_the_socket() -> None:
    call = waiting_call()
    for _ in range(51):
        call.send_frame()
    assert call.actions_of(HangUp) == [HangUp()]
    assert call.entries() == []


def test_an_oversize_message_closes_the_socket_at_once() -> None:
    call = live_call()
    call.handle(OversizeMessage())
    assert call.actions_of(HangUp) == [HangUp(4009)]
    assert call.stream_ended.end_reason == "protocol-abuse"


def test_the_last_entry_is_stream_ended_with_the_counters() -> None:
    call = live_call()
    call.caller_speaks(200)
    call.assistant_speaks(1000)
    call.handle(vapi.UserInterrupted())
    call.handle(STOP)
    assert isinstance(call.entries()[-1], StreamEnded)
    assert call.stream_ended == StreamEnded(
        CALL, pytest.approx(STARTED_AT + 0.2), 200, "caller-hung-up", "caller",  # type: ignore[arg-type]
        time_to_first_audio_ms=200, frames_to_assistant=10, frames_to_caller=1, barge_ins=1,
        counters={"barge_ins": 1, "frames_to_assistant": 10, "frames_to_caller": 1},
    )  # fmt: skip


def test_the_timeline_lists_the_events_in_order() -> None:
    call = call_ended_by(STOP)
    assert call.timeline_kinds() == ["stream-started", "assistant-answered", "first-audio", "stream-ended"]
    assert [entry.index for entry in call.entries_of(TimelineEvent)] == [0, 1, 2, 3]


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_each_state_change_is_one_log_line(caplog: pytest.LogCaptureFixture, level: str) -> None:
    with caplog.at_level(level, "bridge.call.session"):
        call_ended_by(STOP)
    states = [record.getMessage() for record in caplog.records if " = " in record.getMessage()]
    assert states == [
        "CA00..01 = CONNECTING after 0 ms",
        "CA00..01 = LIVE after 0 ms",
        "CA00..01 = ENDED after 0 ms (caller-hung-up, by caller)",
    ]


# Tools


def timeline_events(call: CallScenario, kind: str) -> list[TimelineEvent]:
    return [event for event in call.entries_of(TimelineEvent) if event.kind == kind]


def send_dtmf(digits: str, number: str = "t1") -> vapi.ToolCalls:
    return vapi.ToolCalls((ToolCall(number, "send_dtmf", {"digits": digits}),))


def test_a_send_dtmf_tool_call_plays_its_tones_once() -> None:
    call = live_call()
    call.handle(send_dtmf("42#"))
    call.handle(send_dtmf("42#"))  # a repeated message
    played = b"".join(action.ulaw for action in call.actions_of(SendToCaller))
    assert played == tones("42#")
    assert max(len(action.ulaw) for action in call.actions_of(SendToCaller)) <= 800
    assert [event.data for event in timeline_events(call, "keys-played")] == [{"keys": "42#"}]
    assert call.session.counters["keys_played"] == 3


def test_a_send_dtmf_tool_call_with_invalid_keys_is_counted_and_plays_nothing() -> None:
    call = live_call()
    call.handle(send_dtmf("call the police"))
    assert not call.actions_of(SendToCaller)
    assert call.session.counters["keys_refused"] == 1


def test_each_tool_call_without_an_id_counts() -> None:
    call = live_call()
    call.handle(send_dtmf("4", ""))
    call.handle(send_dtmf("2", ""))
    assert call.session.counters["keys_played"] == 2


def test_other_tool_calls_are_only_put_on_the_timeline() -> None:
    call = live_call()
    call.handle(vapi.ToolCalls((ToolCall("t1", "transfer_call", {}), ToolCall("t2", "book", {}))))
    tools = [event.data["tool"] for event in timeline_events(call, "tool-called")]
    assert tools == ["transfer_call", "book"]
    assert not call.actions_of(SendToCaller)
