"""Who speaks, and how long the caller waits: T0, T1, and what is no answer."""

from __future__ import annotations

import pytest

from bridge.call.turns import Turn, Turns
from bridge.tests.call.stories import LOUD, SILENCE


class Talk:
    """A conversation on a clock of its own; each method tells what the floor made of it."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.now = 50.0
        self.last_loud = 0.0

    def caller(self, ms: int) -> Turn | None:
        turn = self._frames(LOUD, ms)
        self.last_loud = self.now
        return turn

    def silence(self, ms: int) -> Turn | None:
        return self._frames(SILENCE, ms)

    def _frames(self, ulaw: bytes, ms: int) -> Turn | None:
        opened = None
        for _ in range(0, ms, 20):
            self.now += 0.02
            opened = self.turns.caller_frame(ulaw, self.now) or opened
        return opened

    def assistant(self, ms: int, chunk_ms: int = 50) -> Turn | None:
        """Audible audio in chunks of 50 ms, as Vapi sends it."""
        answered = None
        for _ in range(0, ms, chunk_ms):
            answered = self.turns.assistant_audible(self.now, chunk_ms / 1000) or answered
            self.now += chunk_ms / 1000
        return answered


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_a_turn_opens_when_the_caller_is_surely_done(talk: Talk) -> None:
    assert talk.caller(400) is None
    assert talk.silence(280) is None
    turn = talk.silence(60)
    assert turn is talk.turns.open
    assert turn == Turn(1, end_of_speech=talk.last_loud)


def test_latency_is_counted_from_the_last_loud_frame(talk: Talk) -> None:
    talk.caller(400)
    talk.silence(800)
    turn = talk.assistant(50)
    assert turn is not None
    assert turn.first_audio is not None
    assert turn.first_audio - turn.end_of_speech == pytest.approx(0.8)
    assert (talk.turns.open, talk.turns.latest) == (None, turn)


def test_an_answer_may_be_quicker_than_the_detectors_hangover(talk: Talk) -> None:
    talk.caller(400)
    talk.silence(100)
    turn = talk.assistant(50)
    assert turn is not None
    assert turn.end_of_speech == talk.last_loud
    assert talk.silence(400) is None, "the end that the detector finds now was answered"


def test_speech_that_resumes_before_the_answer_belongs_to_the_same_turn(talk: Talk) -> None:
    talk.caller(400)
    talk.silence(400)
    talk.caller(200)
    turn = talk.silence(400)
    assert turn == Turn(1, end_of_speech=talk.last_loud)


def test_turns_are_numbered_from_one(talk: Talk) -> None:
    for number in (1, 2, 3):
        talk.caller(400)
        talk.silence(800)
        turn = talk.assistant(1000)
        assert turn is not None
        assert turn.number == number
        talk.silence(500)


def test_a_greeting_answers_nobody(talk: Talk) -> None:
    assert talk.assistant(1000) is None
    assert talk.turns.assistant_speech_at == 50.0


def test_audio_that_merely_goes_on_under_the_callers_words_is_no_answer(talk: Talk) -> None:
    """A back-channel: the assistant never stopped."""
    for _ in range(10):
        assert talk.assistant(50) is None
        talk.caller(60)
    for _ in range(8):
        assert talk.assistant(50) is None
        talk.silence(60)
    assert talk.turns.open is not None


def test_large_chunks_are_one_stretch_of_speech(talk: Talk) -> None:
    talk.assistant(3000, chunk_ms=500)
    assert talk.turns.assistant_speech_at == 50.0


def test_after_a_clear_the_next_audio_is_an_answer_without_long_silence(talk: Talk) -> None:
    talk.assistant(500)
    talk.caller(300)
    talk.turns.cleared(talk.now)
    talk.silence(100)
    assert talk.assistant(50) is not None


def test_stragglers_after_a_clear_are_no_answer(talk: Talk) -> None:
    talk.assistant(500)
    talk.caller(300)
    talk.assistant(50)
    talk.turns.cleared(talk.now)
    assert talk.assistant(100) is None


def test_a_caller_who_still_speaks_was_not_answered(talk: Talk) -> None:
    talk.caller(400)
    assert talk.assistant(50) is None
    assert talk.turns.latest is None


def test_the_turn_that_was_cut_is_the_one_answered_last(talk: Talk) -> None:
    talk.caller(400)
    talk.silence(500)
    turn = talk.assistant(50)
    assert talk.turns.cleared(talk.now) is turn
    assert turn is not None
    assert turn.interrupted


def test_a_greeting_that_was_cut_is_no_turn(talk: Talk) -> None:
    talk.assistant(50)
    assert talk.turns.cleared(talk.now) is None


def test_endpointing_is_the_earliest_sign_after_the_end_of_speech(talk: Talk) -> None:
    talk.caller(400)
    talk.silence(200)
    talk.turns.caller_final(talk.now)
    endpointed = talk.now
    talk.silence(100)
    talk.turns.caller_stopped(talk.now)
    talk.turns.assistant_started(talk.now)
    talk.turns.caller_stopped(talk.now + 0.1)
    talk.turns.assistant_started(talk.now + 0.1)
    talk.silence(200)
    turn = talk.assistant(50)
    assert turn is not None
    assert turn.endpointed == endpointed


def test_signs_from_before_the_end_of_speech_say_nothing(talk: Talk) -> None:
    talk.caller(200)
    talk.turns.caller_stopped(talk.now)
    talk.turns.assistant_started(talk.now)
    talk.turns.caller_final(talk.now)
    talk.caller(200)
    talk.silence(500)
    turn = talk.assistant(50)
    assert turn is not None
    assert turn.endpointed is None


def test_a_stale_sign_gives_way_to_a_new_one(talk: Talk) -> None:
    talk.caller(200)
    talk.turns.caller_stopped(talk.now)
    talk.turns.assistant_started(talk.now)
    talk.caller(200)
    talk.silence(200)
    talk.turns.caller_stopped(talk.now)
    talk.turns.assistant_started(talk.now)
    stopped = talk.now
    talk.silence(200)
    turn = talk.assistant(50)
    assert turn is not None
    assert turn.endpointed == stopped


def test_signs_do_not_outlive_their_turn(talk: Talk) -> None:
    talk.caller(400)
    talk.silence(200)
    talk.turns.caller_stopped(talk.now)
    talk.silence(200)
    talk.assistant(1000)
    talk.silence(500)
    talk.caller(400)
    talk.silence(500)
    turn = talk.assistant(50)
    assert turn is not None
    assert turn.endpointed is None


def test_an_answer_is_owed_once_the_caller_is_done(talk: Talk) -> None:
    assert talk.turns.unanswered is None
    talk.caller(400)
    turn = talk.silence(400)
    assert talk.turns.unanswered is turn


def test_no_answer_is_owed_by_an_assistant_that_talked_on(talk: Talk) -> None:
    """The caller said "mhm" under its words; now it waits for the caller."""
    for _ in range(10):
        talk.assistant(50)
        talk.caller(60)
    for _ in range(8):
        talk.assistant(50)
        talk.silence(60)
    assert talk.turns.open is not None
    assert talk.turns.unanswered is None


def test_an_answer_is_owed_by_an_assistant_that_was_cut_off(talk: Talk) -> None:
    talk.assistant(500)
    talk.caller(300)
    talk.turns.cleared(talk.now)
    talk.assistant(50)  # a straggler
    turn = talk.silence(400)
    assert turn is not None
    assert talk.turns.unanswered is turn
