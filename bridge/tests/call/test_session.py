"""The call as a story: a few events, and what is to be done about them."""

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
    SendToAssistant,
    SendToCaller,
    TellAssistant,
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
from bridge.tests.call.stories import (
    CALL,
    LOUD,
    SILENCE,
    START,
    STREAM,
    WALL,
    Story,
    connecting,
    live,
    waiting,
)
from bridge.tool_calls import ToolCall
from bridge.wire import twilio, vapi

STOP = twilio.Stop(STREAM, CALL)


def kinds(actions: Sequence[Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


# The stream begins


def test_a_good_ticket_has_the_assistant_dialled() -> None:
    call = waiting()
    call.accepted()
    assert call.done(DialAssistant) == [DialAssistant()]
    assert call.written(StreamStarted) == [StreamStarted(CALL, WALL, STREAM)]
    assert call.session.state is State.CONNECTING


def test_connected_means_nothing_yet() -> None:
    call = waiting()
    assert call.tell(twilio.Connected("Call", "1.0.0")) == []
    assert str(call.session) == "no call yet"


def test_a_bad_ticket_closes_the_socket_and_touches_no_call() -> None:
    call = waiting()
    call.tell(TicketRefused(START, WALL, "forged"))
    assert call.entries() == [StreamRefused(CALL, WALL, "ticket-refused")]
    assert call.done(HangUp) == [HangUp(4003)]
    assert not call.done(DialAssistant)


def test_without_a_start_the_socket_is_closed_after_five_seconds() -> None:
    call = waiting()
    assert call.later(4.9) == []
    assert call.later(0.2) == [HangUp(4008)]
    assert call.session.end_reason == "no-start"


def test_a_socket_that_breaks_before_start_leaves_nothing() -> None:
    call = waiting()
    assert call.tell(CallerLegClosed(1000)) == [HangUp()]
    assert call.session.is_over


def test_media_and_marks_before_start_are_counted_as_strange() -> None:
    call = waiting()
    call.frame()
    call.tell(twilio.Mark(STREAM, "g0-1"))
    assert call.session.counters["bad_caller_media-before-start"] == 1
    assert call.session.counters["bad_caller_before-start"] == 1
    assert call.entries() == []


def test_a_second_start_is_counted_as_strange() -> None:
    call = live()
    call.tell(START)
    assert call.session.counters["bad_caller_second-start"] == 1
    assert call.session.state is State.LIVE


def test_a_second_good_ticket_would_be_our_own_mistake() -> None:
    call = live()
    with pytest.raises(IllegalTransition):
        call.accepted()
    assert call.session.state is State.LIVE


# The hold buffer


def test_caller_audio_waits_for_the_assistant_and_leaves_in_order() -> None:
    call = connecting()
    frames = [bytes([n]) * 160 for n in range(5)]
    for ulaw in frames:
        call.frame(ulaw)
    assert not call.done(SendToAssistant)
    call.tell(AssistantConnected("vapi-1"))
    call.frame(b"\x55" * 160)
    assert [sent.ulaw for sent in call.done(SendToAssistant)] == [*frames, b"\x55" * 160]


def test_beyond_the_bound_the_oldest_held_audio_goes() -> None:
    call = connecting(hold_buffer_ms=60)
    for n in range(5):
        call.frame(bytes([n]) * 160)
    call.tell(AssistantConnected())
    assert [sent.ulaw[0] for sent in call.done(SendToAssistant)] == [2, 3, 4]
    call.tell(STOP)
    assert (call.ended.frames_held, call.ended.frames_dropped, call.ended.frames_to_assistant) == (5, 2, 3)


def test_a_frame_larger_than_the_whole_buffer_is_dropped() -> None:
    call = connecting(hold_buffer_ms=10)
    call.frame()
    call.tell(AssistantConnected())
    assert not call.done(SendToAssistant)


def test_the_answer_is_written_with_how_long_it_took() -> None:
    call = connecting()
    call.frame()
    call.later(0.412)
    call.tell(AssistantConnected("vapi-1"))
    assert call.written(AssistantAnswered) == [
        AssistantAnswered(CALL, pytest.approx(WALL + 0.412), 412, "vapi-1", 1)  # type: ignore[arg-type]
    ]


def test_frames_held_for_an_assistant_that_never_came_are_counted() -> None:
    call = connecting()
    call.frame()
    call.tell(AssistantUnreachable("Vapi answered 503", 503))
    assert call.ended.counters["frames_unsent"] == 1


def test_the_assistant_answers_once() -> None:
    call = live()
    assert call.tell(AssistantConnected("vapi-2")) == []


# Audio to the caller


def test_the_first_audible_audio_has_a_mark_just_before_it() -> None:
    call = live()
    call.assistant_speaks(100, audible=False)
    before = len(call.did)
    call.assistant_speaks(100)
    assert kinds([a for a in call.did[before:] if not isinstance(a, WriteEntry)]) == [
        "PlaceMark",
        "SendToCaller",
    ]


def test_audio_that_goes_on_is_sent_as_it_comes() -> None:
    call = live()
    call.assistant_speaks(100)
    call.later(0.05)
    assert kinds(call.assistant_speaks(100)) == ["SendToCaller"]


def test_assistant_audio_before_its_socket_is_open_is_dropped_and_counted() -> None:
    call = connecting()
    call.assistant_speaks(100)
    assert not call.done(SendToCaller)
    assert call.session.counters["audio_after_end"] == 800


def test_an_assistant_thirty_seconds_ahead_is_cut_and_counted() -> None:
    call = live()
    call.assistant_speaks(30_001)
    assert call.assistant_speaks(100) == []
    assert call.session.counters["assistant_bytes_dropped"] == 800


def test_audio_that_pauses_gets_a_mark_behind_it() -> None:
    call = live()
    call.assistant_speaks(1000)
    (mark,) = [action for action in call.later(0.25) if isinstance(action, PlaceMark)]
    assert mark.name == "g0-2"


def test_audio_that_was_played_needs_no_mark_behind_it() -> None:
    call = live()
    call.tell(twilio.Mark(STREAM, "g0-1"))
    call.assistant_speaks(20, audible=False)
    assert call.later(1.0) == []


def test_time_to_first_audio_is_from_start_to_sent() -> None:
    call = connecting()
    call.later(0.4)
    call.tell(AssistantConnected())
    call.later(0.5)
    call.assistant_speaks(100)
    call.later(3)
    call.assistant_speaks(100)
    call.tell(STOP)
    assert call.ended.time_to_first_audio_ms == 900
    assert call.timeline().count("first-audio") == 1


# Turns


def test_a_turn_is_timed_from_our_own_ears_to_the_callers() -> None:
    call = live()
    call.caller_speaks(400)
    call.caller_is_silent(800)
    call.tell(vapi.Transcript("caller", True, "Hello?"))
    call.caller_is_silent(200)
    call.assistant_speaks(500)
    (mark,) = call.done(PlaceMark)
    call.later(0.1)
    call.tell(twilio.Mark(STREAM, mark.name))
    (turn,) = call.turns()
    assert turn.number == 1
    assert turn.end_of_speech_ms == pytest.approx(400, abs=20)
    assert turn.endpointed_ms == 1200
    assert (turn.first_audio_ms, turn.sent_ms, turn.heard_ms) == (1400, 1400, 1500)
    assert turn.response_latency_ms == pytest.approx(1000, abs=20)
    assert turn.bridge_overhead_us == 0


def test_a_turn_that_was_never_answered_is_written_with_nulls() -> None:
    call = live()
    call.caller_speaks(400)
    call.caller_is_silent(400)
    call.tell(STOP)
    (turn,) = call.turns()
    assert (turn.first_audio_ms, turn.response_latency_ms, turn.bridge_overhead_us) == (None, None, None)


def test_the_echo_of_a_cleared_mark_is_nobody_hearing_anything() -> None:
    call = live()
    call.caller_speaks(400)
    call.caller_is_silent(400)
    call.assistant_speaks(500)
    (mark,) = call.done(PlaceMark)
    call.tell(vapi.UserInterrupted())
    call.tell(twilio.Mark(STREAM, mark.name))
    assert call.turns()[0].heard_ms is None
    assert call.session.counters["marks_cleared"] == 1


def test_the_echo_of_a_greetings_mark_belongs_to_no_turn() -> None:
    call = live()
    call.assistant_speaks(500)
    call.tell(twilio.Mark(STREAM, "g0-1"))
    assert call.turns() == []


def test_a_quick_echo_after_the_next_answer_changes_nothing() -> None:
    call = live()
    for _ in range(2):
        call.caller_speaks(400)
        call.caller_is_silent(400)
        call.assistant_speaks(500)
    first, second = [mark.name for mark in call.done(PlaceMark) if mark.name in ("g0-1", "g0-3")]
    call.tell(twilio.Mark(STREAM, first))
    assert [turn.heard_ms for turn in call.turns()] == [None, None]
    call.tell(twilio.Mark(STREAM, second))
    assert call.turns()[1].heard_ms is not None


# Barge-in


def test_a_barge_in_clears_what_the_caller_has_not_heard() -> None:
    call = live()
    call.assistant_speaks(3000)
    call.later(1.0)
    assert kinds(call.tell(vapi.UserInterrupted()))[0] == "ClearPlayout"
    (happened,) = [entry for entry in call.written(TimelineEvent) if entry.kind == "barge-in"]
    assert happened.data == {"how": "user-interrupted", "unplayed_ms": 2000}


def test_a_barge_in_marks_the_turn_whose_answer_was_cut() -> None:
    call = live()
    call.caller_speaks(400)
    call.caller_is_silent(400)
    call.assistant_speaks(3000)
    call.tell(vapi.UserInterrupted())
    assert call.turns()[0].interrupted


def test_marks_of_the_next_generation_say_so() -> None:
    call = live()
    call.assistant_speaks(3000)
    call.tell(vapi.UserInterrupted())
    call.later(1.0)
    call.assistant_speaks(100)
    assert [mark.name for mark in call.done(PlaceMark)][-1].startswith("g1-")


def test_two_words_of_one_barge_in_count_once() -> None:
    call = live()
    call.assistant_speaks(3000)
    call.tell(vapi.SpeechUpdate("caller", True))
    call.later(0.3)
    call.tell(vapi.UserInterrupted())
    call.later(0.1)
    call.tell(vapi.UserInterrupted())
    call.tell(vapi.SpeechUpdate("assistant", False))
    assert len(call.done(ClearPlayout)) == 1
    assert call.session.counters["barge_ins"] == 1


def test_audio_that_slipped_in_is_cleared_too_but_not_counted_again() -> None:
    call = live()
    call.assistant_speaks(3000)
    call.tell(vapi.UserInterrupted())
    call.later(0.1)
    call.assistant_speaks(1000)
    call.tell(vapi.UserInterrupted())
    assert len(call.done(ClearPlayout)) == 2
    assert call.session.counters["barge_ins"] == 1


def test_a_missing_user_interrupted_is_inferred() -> None:
    call = live()
    call.assistant_speaks(3000)
    call.tell(vapi.SpeechUpdate("caller", True))
    call.later(0.4)
    assert ClearPlayout() in call.tell(vapi.SpeechUpdate("assistant", False))
    assert call.session.counters["barge_ins"] == 1


def test_an_assistant_that_stops_much_later_was_not_interrupted() -> None:
    call = live()
    call.assistant_speaks(5000)
    call.tell(vapi.SpeechUpdate("caller", True))
    call.later(1.5)
    call.tell(vapi.SpeechUpdate("assistant", False))
    assert not call.done(ClearPlayout)


def test_a_caller_who_speaks_over_silence_interrupts_nobody() -> None:
    call = live()
    call.tell(vapi.SpeechUpdate("caller", True))
    call.assistant_speaks(500)
    call.tell(vapi.SpeechUpdate("assistant", False))
    assert not call.done(ClearPlayout)


def test_an_assistant_that_finished_was_not_interrupted() -> None:
    call = live()
    call.assistant_speaks(500)
    call.tell(vapi.SpeechUpdate("caller", True))
    call.tell(twilio.Mark(STREAM, "g0-1"))
    call.later(0.7)
    for mark in call.done(PlaceMark):
        call.tell(twilio.Mark(STREAM, mark.name))
    call.tell(vapi.SpeechUpdate("assistant", False))
    assert not call.done(ClearPlayout)


# Barge-in, socket dialect


def test_in_the_socket_dialect_our_own_ears_decide() -> None:
    call = live(local_barge_in=True)
    call.assistant_speaks(3000)
    call.caller_speaks(300)
    assert call.done(TellAssistant) == [TellAssistant(vapi.Cancel())]
    assert len(call.done(ClearPlayout)) == 1
    assert call.session.counters["barge_ins"] == 1


def test_late_audio_of_the_cut_answer_is_dropped_for_a_moment() -> None:
    call = live(local_barge_in=True)
    call.assistant_speaks(3000)
    while not call.done(ClearPlayout):
        call.caller_speaks(20)
    assert call.assistant_speaks(100) == []
    assert call.session.counters["assistant_bytes_dropped"] == 800
    call.later(0.16)
    assert call.assistant_speaks(100) != []


def test_a_short_noise_does_not_cut_the_assistant() -> None:
    call = live(local_barge_in=True)
    call.assistant_speaks(3000)
    call.caller_speaks(120)
    call.caller_is_silent(500)
    assert not call.done(ClearPlayout)


def test_a_caller_over_silence_cuts_nobody() -> None:
    call = live(local_barge_in=True)
    call.caller_speaks(600)
    assert not call.done(TellAssistant)


def test_only_what_the_caller_says_over_the_assistant_counts() -> None:
    """The assistant began in mid-word: the caller's words before that were over nobody."""
    call = live(local_barge_in=True)
    call.caller_speaks(600)
    call.assistant_speaks(3000)
    call.caller_speaks(100)
    assert not call.done(ClearPlayout)
    call.caller_speaks(240)
    assert len(call.done(ClearPlayout)) == 1


def test_in_the_call_dialect_our_ears_do_not_decide() -> None:
    call = live()
    call.assistant_speaks(3000)
    call.caller_speaks(600)
    assert not call.done(ClearPlayout)


# Words


def test_finals_become_utterances_in_order() -> None:
    call = live()
    call.tell(vapi.Transcript("assistant", True, "Hello"))
    call.tell(vapi.Transcript("caller", False, "I wou"))
    call.tell(vapi.Transcript("caller", True, "I would"))
    call.tell(vapi.Transcript("caller", True, "  "))
    assert [(u.index, u.speaker, u.text) for u in call.written(UtteranceSpoken)] == [
        (0, "assistant", "Hello"),
        (1, "caller", "I would"),
    ]
    assert (call.session.counters["finals"], call.session.counters["partials"]) == (3, 1)


def test_what_the_caller_said_has_our_own_times() -> None:
    call = live()
    call.caller_is_silent(200)
    call.caller_speaks(400)
    call.caller_is_silent(400)
    call.tell(vapi.Transcript("caller", True, "Hello?"))
    (said,) = call.written(UtteranceSpoken)
    assert said.started_ms == pytest.approx(220, abs=20)
    assert said.ended_ms == pytest.approx(600, abs=20)


def test_a_second_final_of_the_same_speech_has_no_times() -> None:
    call = live()
    call.caller_speaks(400)
    call.caller_is_silent(400)
    call.tell(vapi.Transcript("caller", True, "I would like"))
    call.tell(vapi.Transcript("caller", True, "a table"))
    assert [said.ended_ms is None for said in call.written(UtteranceSpoken)] == [False, True]


def test_words_of_a_caller_that_we_did_not_hear_have_no_times() -> None:
    call = live()
    call.tell(vapi.Transcript("caller", True, "Hello?"))
    (said,) = call.written(UtteranceSpoken)
    assert (said.started_ms, said.ended_ms) == (None, None)


def test_what_the_assistant_said_has_the_times_of_its_playout() -> None:
    call = live()
    call.later(1.0)
    call.assistant_speaks(500)
    call.later(2.0)
    call.tell(vapi.Transcript("assistant", True, "For which day?"))
    (said,) = call.written(UtteranceSpoken)
    assert (said.started_ms, said.ended_ms) == (1000, 1500)


def test_a_pause_between_two_sentences_begins_no_utterance_of_its_own() -> None:
    call = live()
    call.later(1.0)
    call.assistant_speaks(500)
    call.later(1.0)
    call.assistant_speaks(500)
    call.later(1.0)
    call.tell(vapi.Transcript("assistant", True, "Let me see. For which day?"))
    (said,) = call.written(UtteranceSpoken)
    assert (said.started_ms, said.ended_ms) == (1000, 2500)


def test_words_that_were_never_audible_have_no_times() -> None:
    call = live()
    call.tell(vapi.Transcript("assistant", True, "Hello"))
    (said,) = call.written(UtteranceSpoken)
    assert (said.started_ms, said.ended_ms) == (None, None)


def test_the_utterance_that_was_cut_is_marked_and_the_next_is_not() -> None:
    call = live()
    call.assistant_speaks(3000)
    call.later(1.0)
    call.tell(vapi.UserInterrupted())
    call.tell(vapi.Transcript("assistant", True, "We are open from"))
    call.later(2.0)
    call.assistant_speaks(500)
    call.tell(vapi.Transcript("assistant", True, "Sorry?"))
    cut, next_one = call.written(UtteranceSpoken)
    assert (cut.interrupted, cut.ended_ms) == (True, 1000)
    assert not next_one.interrupted


# The other events of the assistant leg


def test_its_events_are_counted_and_put_on_the_timeline() -> None:
    call = live()
    call.tell(vapi.StatusUpdate("in-progress"))
    call.tell(vapi.SpeechUpdate("caller", True))
    call.tell(vapi.SpeechUpdate("caller", False))
    call.tell(vapi.SpeechUpdate("assistant", True))
    call.tell(vapi.Hang())
    call.tell(vapi.IgnoredEvent("model-output"))
    call.tell(vapi.IgnoredEvent("weather", known=False))
    assert call.timeline()[2:] == [
        "assistant-status",
        "caller-started",
        "caller-stopped",
        "assistant-started",
        "hang",
    ]
    counters = call.session.counters
    assert (counters["hangs"], counters["vapi_model-output"], counters["vapi_unknown"]) == (1, 1, 1)
    assert counters["vapi_unknown_weather"] == 1


def test_unknown_event_names_are_bounded() -> None:
    call = live()
    for n in range(1000):
        call.tell(vapi.IgnoredEvent(f"weather-{n}", known=False))
    assert len(call.session.counters) <= MAX_COUNTERS + 1
    assert call.session.counters["other"] > 900


def test_the_timeline_is_bounded() -> None:
    call = live()
    for _ in range(MAX_EVENTS + 50):
        call.tell(vapi.Hang())
    assert len(call.written(TimelineEvent)) == MAX_EVENTS
    assert call.session.counters["happenings_dropped"] >= 50


def test_a_strange_message_from_the_assistant_is_counted_and_never_ends_the_call() -> None:
    call = live()
    for _ in range(200):
        call.tell(BadMessage("assistant", "bad-json"))
    assert call.session.state is State.LIVE
    assert call.session.counters["bad_assistant_bad-json"] == 200
    assert call.timeline().count("bad-message") == 1


def test_lost_frames_are_counted_by_direction() -> None:
    call = live()
    call.tell(Dropped(3))
    call.tell(Dropped(2, "caller"))
    call.tell(STOP)
    assert call.ended.frames_dropped == 3
    assert call.ended.counters["chunks_dropped"] == 2


def test_audio_that_was_not_transcoded_at_the_door_is_our_own_mistake() -> None:
    with pytest.raises(IllegalTransition):
        live().tell(vapi.Audio(b"\xff"))


# Frames


def test_late_and_missing_frames_are_counted() -> None:
    call = live()
    call.tell(twilio.Media(STREAM, SILENCE, 1))
    call.later(0.5)
    call.tell(twilio.Media(STREAM, SILENCE, 2))
    call.tell(twilio.Media(STREAM, SILENCE, 7))
    call.tell(twilio.Media(STREAM, SILENCE))
    assert (call.session.counters["frames_late"], call.session.counters["frames_missing"]) == (1, 4)


def test_another_streams_messages_are_not_ours() -> None:
    call = live()
    for event in (
        twilio.Media("MZ2", LOUD),
        twilio.Mark("MZ2", "g0-1"),
        twilio.Dtmf("MZ2", "1"),
        twilio.Stop("MZ2"),
    ):
        call.tell(event)
    assert call.session.state is State.LIVE
    assert call.session.counters["bad_caller_wrong-streamSid"] == 4
    assert not call.done(SendToAssistant)


# Keys


def test_pressed_keys_are_told_to_the_assistant() -> None:
    told = [action for action in live().digits("42#") if isinstance(action, TellAssistant)]
    assert told == [TellAssistant(vapi.AddMessage("The caller pressed 42# on the keypad."))]


def test_keys_are_told_after_a_pause() -> None:
    call = live()
    call.digits("7")
    assert call.later(1.4) == []
    assert kinds(call.later(0.2)) == ["TellAssistant"]


def test_a_pause_after_a_finished_group_tells_nothing() -> None:
    call = live()
    call.digits("7")
    call.digits("#")
    assert call.later(2.0) == []


def test_keys_pressed_before_the_assistant_answers_are_told_when_it_does() -> None:
    call = connecting()
    call.digits("12#")
    call.digits("3#")
    assert not call.done(TellAssistant)
    call.tell(AssistantConnected())
    assert [told.message for told in call.done(TellAssistant)] == [
        vapi.AddMessage("The caller pressed 12# on the keypad."),
        vapi.AddMessage("The caller pressed 3# on the keypad."),
    ]


def test_keys_that_nobody_was_told_of_are_counted() -> None:
    call = connecting()
    call.digits("12#3")
    call.tell(STOP)
    assert call.ended.counters["keys_unsaid"] == 4


def test_keys_pressed_over_the_last_words_are_counted() -> None:
    call = live()
    call.assistant_speaks(1000)
    call.digits("1")
    call.tell(AssistantLegClosed(1000))
    call.digits("2")
    call.later(5.0)
    assert call.ended.counters["keys_unsaid"] == 2


def test_a_flood_of_finished_groups_is_cut_too() -> None:
    call = live()
    call.digits("#" * 25)
    assert len(call.done(TellAssistant)) == 20


def test_a_flood_of_keys_is_cut_and_counted() -> None:
    call = live()
    call.digits("5" * 5000)
    call.tell(STOP)
    assert call.ended.counters["keys_dropped"] == 4980
    assert call.timeline().count("dtmf") == 20


# Endings


def ends(event: Event) -> Story:
    call = live()
    call.assistant_speaks(1000)
    call.tell(event)
    call.later(10.0)
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
def test_a_live_call_ends(event: Event, reason: str, by: str, assistant: str, cleared: bool) -> None:
    call = ends(event)
    assert (call.ended.end_reason, call.ended.ended_by) == (reason, by)
    assert [leave.how for leave in call.done(HangUpAssistant)] == [assistant]
    assert call.done(HangUp) == [HangUp()]
    assert bool(call.done(ClearPlayout)) is cleared
    assert call.session.state is State.ENDED


def test_what_vapi_says_about_the_end_is_kept() -> None:
    call = ends(vapi.StatusUpdate("ended", "silence-timed-out"))
    assert call.ended.vapi_ended_reason == "silence-timed-out"
    assert ends(AssistantLegClosed(1012)).ended.vapi_close_code == 1012


def test_an_assistant_that_cannot_be_reached_ends_the_call() -> None:
    call = connecting()
    call.tell(AssistantUnreachable("Vapi answered 401: Invalid Key.", 401, "vapi-1"))
    assert (call.ended.end_reason, call.ended.ended_by) == ("assistant-unreachable", "assistant")
    (happened,) = [entry for entry in call.written(TimelineEvent) if entry.kind == "assistant-unreachable"]
    assert happened.data == {
        "detail": "Vapi answered 401: Invalid Key.",
        "status": 401,
        "vapi_call_id": "vapi-1",
    }


def test_a_caller_who_hangs_up_while_we_dial_ends_the_call() -> None:
    call = connecting()
    call.tell(STOP)
    call.tell(AssistantConnected())
    assert call.ended.end_reason == "caller-hung-up"
    assert not call.written(AssistantAnswered)


def test_the_last_words_are_heard_out() -> None:
    call = live()
    call.assistant_speaks(1000)
    call.tell(vapi.StatusUpdate("ended", "assistant-ended-call"))
    assert call.session.state is State.ENDING
    goodbye = call.done(PlaceMark)[-1].name
    call.tell(AssistantLegClosed(1000))
    call.later(1.05)
    assert not call.done(HangUp)
    call.tell(twilio.Mark(STREAM, goodbye))
    assert call.done(HangUp) == [HangUp()]


def test_last_words_that_no_mark_confirms_end_two_seconds_later() -> None:
    call = live()
    call.assistant_speaks(1000)
    call.tell(AssistantLegClosed(1000))
    call.later(2.9)
    assert not call.done(HangUp)
    call.later(0.2)
    assert call.done(HangUp) == [HangUp()]


def test_ended_decides_before_the_close_code_does() -> None:
    call = live()
    call.tell(vapi.StatusUpdate("ended", "assistant-ended-call"))
    call.tell(AssistantLegClosed(1006))
    call.later(5.0)
    assert (call.ended.end_reason, call.ended.vapi_close_code) == ("assistant-ended", 1006)


def test_whoever_ends_first_names_it() -> None:
    call = live()
    call.assistant_speaks(1000)
    call.tell(vapi.StatusUpdate("ended", "assistant-ended-call"))
    call.tell(CallerLegClosed(1006))
    assert call.ended.end_reason == "assistant-ended"
    assert not call.done(ClearPlayout)


def test_while_the_last_words_play_only_the_end_matters() -> None:
    call = live()
    call.assistant_speaks(1000)
    call.tell(AssistantLegClosed(1000))
    call.frame(LOUD)
    call.tell(vapi.UserInterrupted())
    call.assistant_speaks(100)
    call.later(0.25)
    counters = call.session.counters
    assert (counters["frames_after_end"], counters["events_after_end"], counters["audio_after_end"]) == (
        1,
        1,
        800,
    )
    assert not call.done(ClearPlayout)


def test_of_two_deadlines_passed_at_once_the_first_names_the_end() -> None:
    call = Story().accepted(max_call_seconds=10)
    call.now += 20  # the process was frozen
    call.tell(DeadlinePassed())
    assert call.ended.end_reason == "stream-lost"
    assert call.done(HangUp) == [HangUp()]


def test_nothing_happens_after_the_end() -> None:
    call = ends(STOP)
    before = len(call.did)
    for event in (STOP, AssistantConnected(), twilio.Media(STREAM, LOUD), vapi.UserInterrupted(), Aborted()):
        call.tell(event)
    call.tell(DeadlinePassed())
    assert call.did[before:] == []
    assert call.session.deadline == float("inf")


def test_no_media_for_eight_seconds_means_that_the_stream_is_lost() -> None:
    call = live()
    call.caller_is_silent(1000)
    call.later(7.9)
    assert not call.done(HangUp)
    call.later(0.2)
    assert call.ended.end_reason == "stream-lost"


def test_no_media_while_we_dial_is_noticed_too() -> None:
    call = connecting()
    call.later(8.1)
    assert call.ended.end_reason == "stream-lost"


def test_a_call_has_its_longest_time() -> None:
    call = Story().accepted(max_call_seconds=30)
    call.tell(AssistantConnected())
    for _ in range(5):
        call.later(5)
        call.frame()
    assert not call.done(HangUp)
    call.later(5)
    assert (call.ended.end_reason, call.ended.ended_by) == ("limit-reached", "us")


def test_an_assistant_that_falls_silent_for_twelve_seconds_has_stalled() -> None:
    call = live()
    call.caller_speaks(400)
    call.caller_is_silent(11_900)
    assert not call.done(HangUp)
    call.caller_is_silent(300)
    assert call.ended.end_reason == "assistant-stalled"
    assert call.turns()[0].first_audio_ms is None


def test_any_word_of_the_assistants_is_a_sign_of_life() -> None:
    call = live()
    call.caller_speaks(400)
    call.caller_is_silent(6000)
    call.tell(vapi.IgnoredEvent("model-output"))
    call.caller_is_silent(11_000)
    assert not call.done(HangUp)
    call.caller_is_silent(1500)
    assert call.ended.end_reason == "assistant-stalled"


def test_an_assistant_that_answered_may_be_silent() -> None:
    call = live()
    call.caller_speaks(400)
    call.caller_is_silent(800)
    call.assistant_speaks(500)
    call.caller_is_silent(20_000)
    assert call.session.state is State.LIVE


def test_an_assistant_that_talked_on_over_the_caller_may_be_silent() -> None:
    """The caller said "mhm" under its question; now it waits, and so may the caller."""
    call = live()
    for part in [*[LOUD] * 15, *[SILENCE] * 40]:
        call.assistant_speaks(20)
        call.later(0.02)
        call.frame(part)
    assert call.turns()[0].first_audio_ms is None
    call.caller_is_silent(20_000)
    assert call.session.state is State.LIVE


def test_an_assistant_still_being_dialled_has_not_stalled() -> None:
    call = connecting()
    call.caller_speaks(400)
    call.caller_is_silent(13_000)
    assert call.session.state is State.CONNECTING


def test_fifty_one_bad_messages_in_ten_seconds_are_abuse() -> None:
    call = live()
    for _ in range(50):
        call.tell(BadMessage("caller", "bad-json"))
    assert not call.done(HangUp)
    call.tell(BadMessage("caller", "no-event"))
    assert (call.ended.end_reason, call.ended.ended_by) == ("protocol-abuse", "us")
    assert call.ended.counters["bad_caller_bad-json"] == 50


def test_bad_messages_far_apart_are_only_strange() -> None:
    call = live()
    for _ in range(200):
        call.frame()
        call.later(0.25)
        call.tell(BadMessage("caller", "bad-json"))
    assert call.session.state is State.LIVE


def test_abuse_ends_a_socket_that_has_no_call_yet() -> None:
    call = waiting()
    for _ in range(51):
        call.frame()
    assert call.done(HangUp) == [HangUp()]
    assert call.entries() == []


def test_a_huge_message_closes_the_socket_at_once() -> None:
    call = live()
    call.tell(OversizeMessage())
    assert call.done(HangUp) == [HangUp(4009)]
    assert call.ended.end_reason == "protocol-abuse"


def test_the_sum_of_the_call_is_its_last_entry() -> None:
    call = live()
    call.caller_speaks(200)
    call.assistant_speaks(1000)
    call.tell(vapi.UserInterrupted())
    call.tell(STOP)
    assert isinstance(call.entries()[-1], StreamEnded)
    assert call.ended == StreamEnded(
        CALL, pytest.approx(WALL + 0.2), 200, "caller-hung-up", "caller",  # type: ignore[arg-type]
        time_to_first_audio_ms=200, frames_to_assistant=10, frames_to_caller=1, barge_ins=1,
        counters={"barge_ins": 1, "frames_to_assistant": 10, "frames_to_caller": 1},
    )  # fmt: skip


def test_the_timeline_tells_the_call_in_order() -> None:
    call = ends(STOP)
    assert call.timeline() == ["stream-started", "assistant-answered", "first-audio", "stream-ended"]
    assert [entry.index for entry in call.written(TimelineEvent)] == [0, 1, 2, 3]


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_changes_of_state_are_one_log_line_each(caplog: pytest.LogCaptureFixture, level: str) -> None:
    with caplog.at_level(level, "bridge.call.session"):
        ends(STOP)
    states = [record.getMessage() for record in caplog.records if " = " in record.getMessage()]
    assert states == [
        "CA00..01 = CONNECTING after 0 ms",
        "CA00..01 = LIVE after 0 ms",
        "CA00..01 = ENDED after 0 ms (caller-hung-up, by caller)",
    ]


# Tools


def happened(call: Story, kind: str) -> list[TimelineEvent]:
    return [event for event in call.written(TimelineEvent) if event.kind == kind]


def keys(digits: str, number: str = "t1") -> vapi.ToolCalls:
    return vapi.ToolCalls((ToolCall(number, "send_dtmf", {"digits": digits}),))


def test_keys_that_the_assistant_presses_are_played_to_the_line_once() -> None:
    call = live()
    call.tell(keys("42#"))
    call.tell(keys("42#"))  # told again
    played = b"".join(action.ulaw for action in call.done(SendToCaller))
    assert played == tones("42#")
    assert max(len(action.ulaw) for action in call.done(SendToCaller)) <= 800
    assert [event.data for event in happened(call, "keys-played")] == [{"keys": "42#"}]
    assert call.session.counters["keys_played"] == 3


def test_keys_that_are_none_are_counted_and_not_played() -> None:
    call = live()
    call.tell(keys("call the police"))
    assert not call.done(SendToCaller)
    assert call.session.counters["keys_refused"] == 1


def test_other_tools_are_noted_and_left_to_the_webhook() -> None:
    call = live()
    call.tell(vapi.ToolCalls((ToolCall("t1", "transfer_call", {}), ToolCall("t2", "book", {}))))
    told = [event.data["tool"] for event in happened(call, "tool-called")]
    assert told == ["transfer_call", "book"]
    assert not call.done(SendToCaller)
