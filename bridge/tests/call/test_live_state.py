"""Who has the floor and what is being said, told to whoever watches: often enough, never too often."""

from __future__ import annotations

from bridge.call.events import CallerLegClosed
from bridge.call.live_state import MAX_PARTIAL, MIN_INTERVAL_SECONDS
from bridge.journal import LiveNote, StreamEnded
from bridge.tests.call.stories import WALL, Story, connecting, live, waiting
from bridge.wire import vapi
from bridge.wire.vapi import Transcript


def notes(call: Story) -> list[LiveNote]:
    return call.written(LiveNote)


def floors(call: Story) -> list[str]:
    """Each floor that was told, once for as long as it stayed."""
    found = [""]
    for note in notes(call):
        if note.floor != found[-1]:
            found.append(note.floor)
    return found[1:]


def test_nobody_is_told_of_a_call_that_has_not_started() -> None:
    call = waiting()
    call.caller_speaks(400)
    assert notes(call) == []


def test_the_first_note_says_that_nobody_speaks() -> None:
    call = live()
    assert notes(call) == [LiveNote(call.session.call_sid, 0, "", WALL)]


def test_the_floor_follows_the_caller_and_the_assistant() -> None:
    call = live()
    call.caller_speaks(400)
    call.caller_is_silent(600)
    call.assistant_speaks(1000)
    call.later(2.0)
    assert floors(call) == ["caller", "", "assistant", ""]


def test_the_callers_floor_is_told_while_the_assistant_is_being_dialled() -> None:
    call = connecting()
    call.caller_speaks(400)
    assert floors(call) == ["caller"]


def test_a_note_says_since_when_the_floor_is_as_it_is() -> None:
    call = live()
    call.later(1.0)
    call.assistant_speaks(1000)
    call.later(0.5)
    call.tell(Transcript("assistant", False, "Thank you for"))
    assert [note.floor_since for note in notes(call)[-2:]] == [WALL + 1.0, WALL + 1.0]
    assert notes(call)[-1].at_ms == 1500


def test_the_assistant_has_the_floor_until_its_audio_was_played() -> None:
    call = live()
    call.assistant_speaks(3000)
    call.later(3.1)
    assert floors(call) == ["assistant"]
    call.later(0.2)
    assert floors(call) == ["assistant", ""]
    assert 3.2 <= notes(call)[-1].floor_since - WALL <= 3.3


def test_audio_that_goes_on_keeps_the_floor() -> None:
    call = live()
    for _ in range(20):
        call.assistant_speaks(100)
        call.later(0.25)  # pauses of 150 ms
    assert floors(call) == ["assistant"]


def test_audio_after_a_pause_takes_the_floor_again() -> None:
    call = live()
    for _ in range(2):
        call.assistant_speaks(100)
        call.later(1.0)
    assert floors(call) == ["assistant", "", "assistant", ""]


def test_silence_that_is_sent_as_audio_has_no_floor() -> None:
    call = live()
    call.assistant_speaks(3000, audible=False)
    call.later(1.0)
    assert floors(call) == []


def test_of_two_who_speak_the_caller_has_the_floor() -> None:
    call = live()
    call.assistant_speaks(5000)
    call.later(1.0)
    call.caller_speaks(400)
    assert floors(call) == ["assistant", "caller"]
    call.caller_is_silent(600)
    assert floors(call) == ["assistant", "caller", "assistant"]


def test_an_assistant_that_was_cut_off_has_lost_the_floor() -> None:
    call = live()
    call.assistant_speaks(5000)
    call.later(1.0)
    call.tell(vapi.UserInterrupted())
    assert floors(call) == ["assistant", ""]
    call.later(6.0)  # when its audio would have been over
    assert floors(call) == ["assistant", ""]


def test_partial_words_are_told_and_final_ones_end_them() -> None:
    call = live()
    call.later(1.0)
    call.tell(Transcript("caller", False, "Can I move"))
    call.later(1.0)
    call.tell(Transcript("caller", False, "Can I move it to"))
    call.later(1.0)
    call.tell(Transcript("assistant", True, "Sure."))  # late, and not about these words
    call.later(1.0)
    call.tell(Transcript("caller", True, "Can I move it to Friday?"))
    assert [(note.speaker, note.partial) for note in notes(call)[1:]] == [
        ("caller", "Can I move"),
        ("caller", "Can I move it to"),
        ("caller", "Can I move it to"),
        ("", ""),
    ]


def test_of_long_partial_words_the_end_is_told() -> None:
    call = live()
    call.later(1.0)
    call.tell(Transcript("caller", False, "never " * 200 + "mind"))
    assert len(notes(call)[-1].partial) == MAX_PARTIAL
    assert notes(call)[-1].partial.endswith("never mind")


def test_there_are_four_notes_a_second_and_the_latest_wins() -> None:
    call = live()
    call.later(1.0)
    before = len(notes(call))
    for number in range(90):
        call.tell(Transcript("caller", False, f"word {number}"))
        call.later(0.01)
    told = notes(call)[before:]
    assert len(told) == 4
    call.later(MIN_INTERVAL_SECONDS)
    assert len(notes(call)) == before + 5
    assert notes(call)[-1].partial == "word 89"
    times = [note.at_ms for note in notes(call)]
    assert all(after - first >= 250 for first, after in zip(times, times[1:], strict=False))
    call.later(5.0)
    assert len(notes(call)) == before + 5, "what was told once is not told again"


def test_the_latency_of_the_last_answer_is_told() -> None:
    call = live()
    call.caller_speaks(400)
    call.caller_is_silent(600)
    assert notes(call)[-1].latency_ms is None
    call.assistant_speaks(1000)
    call.later(1.5)
    assert notes(call)[-1].latency_ms == 600
    assert call.turns()[-1].response_latency_ms == 600


def test_frames_alone_are_nothing_to_tell() -> None:
    call = live()
    call.caller_is_silent(5000)
    assert len(notes(call)) == 1


def test_the_last_note_of_a_call_leaves_nothing_on_the_page() -> None:
    call = live()
    call.caller_speaks(400)
    call.tell(Transcript("caller", False, "Good b"))
    call.tell(CallerLegClosed(1000))
    assert [type(entry) for entry in call.entries()[-2:]] == [LiveNote, StreamEnded]
    last = notes(call)[-1]
    assert (last.floor, last.speaker, last.partial) == ("", "", "")
    told = len(notes(call))
    call.later(5.0)
    assert len(notes(call)) == told
