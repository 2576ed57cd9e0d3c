"""Live notes of a call: floor, partial words and latency, at most four a second."""

from __future__ import annotations

from bridge.call.events import CallerLegClosed
from bridge.call.live_state import MAX_PARTIAL, MIN_INTERVAL_SECONDS
from bridge.journal import LiveNote, StreamEnded
from bridge.tests.call.scenario import STARTED_AT, CallScenario, connecting_call, live_call, waiting_call
from bridge.wire import vapi
from bridge.wire.vapi import Transcript


def notes(call: CallScenario) -> list[LiveNote]:
    return call.entries_of(LiveNote)


def floors(call: CallScenario) -> list[str]:
    """The floor of all notes, without repetitions."""
    changes = [""]
    for note in notes(call):
        if note.floor != changes[-1]:
            changes.append(note.floor)
    return changes[1:]


def test_a_call_that_has_not_started_writes_no_live_note() -> None:
    call = waiting_call()
    call.caller_speaks(400)
    assert notes(call) == []


def test_the_first_note_has_nobody_on_the_floor() -> None:
    call = live_call()
    assert notes(call) == [LiveNote(call.session.call_sid, 0, "", STARTED_AT)]


def test_the_floor_follows_the_caller_and_the_assistant() -> None:
    call = live_call()
    call.caller_speaks(400)
    call.caller_is_silent(600)
    call.assistant_speaks(1000)
    call.advance(2.0)
    assert floors(call) == ["caller", "", "assistant", ""]


def test_the_callers_floor_is_reported_while_the_assistant_is_being_dialed() -> None:
    call = connecting_call()
    call.caller_speaks(400)
    assert floors(call) == ["caller"]


def test_a_note_has_the_time_of_the_last_floor_change() -> None:
    call = live_call()
    call.advance(1.0)
    call.assistant_speaks(1000)
    call.advance(0.5)
    call.handle(Transcript("assistant", False, "Thank you for"))
    assert [note.floor_since for note in notes(call)[-2:]] == [STARTED_AT + 1.0, STARTED_AT + 1.0]
    assert notes(call)[-1].at_ms == 1500


def test_the_assistant_has_the_floor_until_its_audio_was_played() -> None:
    call = live_call()
    call.assistant_speaks(3000)
    call.advance(3.1)
    assert floors(call) == ["assistant"]
    call.advance(0.2)
    assert floors(call) == ["assistant", ""]
    assert 3.2 <= notes(call)[-1].floor_since - STARTED_AT <= 3.3


def test_audio_with_short_pauses_keeps_the_floor() -> None:
    call = live_call()
    for _ in range(20):
        call.assistant_speaks(100)
        call.advance(0.25)  # pauses of 150 ms
    assert floors(call) == ["assistant"]


def test_audio_after_a_pause_takes_the_floor_again() -> None:
    call = live_call()
    for _ in range(2):
        call.assistant_speaks(100)
        call.advance(1.0)
    assert floors(call) == ["assistant", "", "assistant", ""]


def test_inaudible_audio_does_not_take_the_floor() -> None:
    call = live_call()
    call.assistant_speaks(3000, audible=False)
    call.advance(1.0)
    assert floors(call) == []


def test_the_caller_has_the_floor_when_both_speak() -> None:
    call = live_call()
    call.assistant_speaks(5000)
    call.advance(1.0)
    call.caller_speaks(400)
    assert floors(call) == ["assistant", "caller"]
    call.caller_is_silent(600)
    assert floors(call) == ["assistant", "caller", "assistant"]


def test_an_assistant_that_was_cut_off_loses_the_floor() -> None:
    call = live_call()
    call.assistant_speaks(5000)
    call.advance(1.0)
    call.handle(vapi.UserInterrupted())
    assert floors(call) == ["assistant", ""]
    call.advance(6.0)  # past the end of the audio that was cleared
    assert floors(call) == ["assistant", ""]


def test_partials_are_reported_until_their_final_arrives() -> None:
    call = live_call()
    call.advance(1.0)
    call.handle(Transcript("caller", False, "Can I move"))
    call.advance(1.0)
    call.handle(Transcript("caller", False, "Can I move it to"))
    call.advance(1.0)
    call.handle(Transcript("assistant", True, "Sure."))  # a late final of the other speaker
    call.advance(1.0)
    call.handle(Transcript("caller", True, "Can I move it to Friday?"))
    assert [(note.speaker, note.partial) for note in notes(call)[1:]] == [
        ("caller", "Can I move"),
        ("caller", "Can I move it to"),
        ("caller", "Can I move it to"),
        ("", ""),
    ]


def test_a_long_partial_is_cut_to_its_end() -> None:
    call = live_call()
    call.advance(1.0)
    call.handle(Transcript("caller", False, "never " * 200 + "mind"))
    assert len(notes(call)[-1].partial) == MAX_PARTIAL
    assert notes(call)[-1].partial.endswith("never mind")


def test_at_most_four_notes_a_second_are_written_and_the_latest_wins() -> None:
    call = live_call()
    call.advance(1.0)
    before = len(notes(call))
    for number in range(90):
        call.handle(Transcript("caller", False, f"word {number}"))
        call.advance(0.01)
    written = notes(call)[before:]
    assert len(written) == 4
    call.advance(MIN_INTERVAL_SECONDS)
    assert len(notes(call)) == before + 5
    assert notes(call)[-1].partial == "word 89"
    times = [note.at_ms for note in notes(call)]
    assert all(after - first >= 250 for first, after in zip(times, times[1:], strict=False))
    call.advance(5.0)
    assert len(notes(call)) == before + 5, "an unchanged state is not written again"


def test_the_latency_of_the_latest_answer_is_reported() -> None:
    call = live_call()
    call.caller_speaks(400)
    call.caller_is_silent(600)
    assert notes(call)[-1].latency_ms is None
    call.assistant_speaks(1000)
    call.advance(1.5)
    assert notes(call)[-1].latency_ms == 600
    assert call.turns()[-1].response_latency_ms == 600


def test_silent_frames_write_no_further_note() -> None:
    call = live_call()
    call.caller_is_silent(5000)
    assert len(notes(call)) == 1


def test_the_last_note_of_a_call_clears_the_floor_and_the_partial() -> None:
    call = live_call()
    call.caller_speaks(400)
    call.handle(Transcript("caller", False, "Good b"))
    call.handle(CallerLegClosed(1000))
    assert [type(entry) for entry in call.entries()[-2:]] == [LiveNote, StreamEnded]
    last = notes(call)[-1]
    assert (last.floor, last.speaker, last.partial) == ("", "", "")
    written = len(notes(call))
    call.advance(5.0)
    assert len(notes(call)) == written
