"""Turns and the floor: end of speech (T0), first audio of the answer (T1), and audio that is no answer."""

from __future__ import annotations

import pytest

from bridge.call.turns import Turn, Turns
from bridge.tests.call.scenario import LOUD, SILENCE


class Conversation:
    """Feeds speech and silence to `Turns` and moves the clock. Returns a turn that was opened or answered."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.now = 50.0
        self.last_loud_at = 0.0

    def caller(self, ms: int) -> Turn | None:
        turn = self._frames(LOUD, ms)
        self.last_loud_at = self.now
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
            answered = self.turns.on_assistant_audible(self.now, chunk_ms / 1000) or answered
            self.now += chunk_ms / 1000
        return answered


@pytest.fixture
def conversation() -> Conversation:
    return Conversation()


def test_a_turn_opens_at_the_end_of_the_hangover(conversation: Conversation) -> None:
    assert conversation.caller(400) is None
    assert conversation.silence(280) is None
    turn = conversation.silence(60)
    assert turn is conversation.turns.open
    assert turn == Turn(1, end_of_speech=conversation.last_loud_at)


def test_latency_is_measured_from_the_last_loud_frame(conversation: Conversation) -> None:
    conversation.caller(400)
    conversation.silence(800)
    turn = conversation.assistant(50)
    assert turn is not None
    assert turn.first_audio is not None
    assert turn.first_audio - turn.end_of_speech == pytest.approx(0.8)
    assert (conversation.turns.open, conversation.turns.latest) == (None, turn)


def test_an_answer_may_arrive_before_the_end_of_the_hangover(conversation: Conversation) -> None:
    conversation.caller(400)
    conversation.silence(100)
    turn = conversation.assistant(50)
    assert turn is not None
    assert turn.end_of_speech == conversation.last_loud_at
    assert conversation.silence(400) is None, "the end of speech that is detected now was answered"


def test_speech_that_resumes_before_the_answer_belongs_to_the_same_turn(conversation: Conversation) -> None:
    conversation.caller(400)
    conversation.silence(400)
    conversation.caller(200)
    turn = conversation.silence(400)
    assert turn == Turn(1, end_of_speech=conversation.last_loud_at)


def test_turns_are_numbered_from_one(conversation: Conversation) -> None:
    for number in (1, 2, 3):
        conversation.caller(400)
        conversation.silence(800)
        turn = conversation.assistant(1000)
        assert turn is not None
        assert turn.number == number
        conversation.silence(500)


def test_a_greeting_belongs_to_no_turn(conversation: Conversation) -> None:
    assert conversation.assistant(1000) is None
    assert conversation.turns.assistant_speech_at == 50.0


def test_audio_that_continues_through_the_callers_speech_is_no_answer(conversation: Conversation) -> None:
    """The caller's "mhm" is a back-channel: the assistant never stopped."""
    for _ in range(10):
        assert conversation.assistant(50) is None
        conversation.caller(60)
    for _ in range(8):
        assert conversation.assistant(50) is None
        conversation.silence(60)
    assert conversation.turns.open is not None


def test_consecutive_large_chunks_are_one_speech(conversation: Conversation) -> None:
    conversation.assistant(3000, chunk_ms=500)
    assert conversation.turns.assistant_speech_at == 50.0


def test_audio_after_a_clear_is_an_answer_without_a_long_silence(conversation: Conversation) -> None:
    conversation.assistant(500)
    conversation.caller(300)
    conversation.turns.on_clear(conversation.now)
    conversation.silence(100)
    assert conversation.assistant(50) is not None


def test_late_audio_right_after_a_clear_is_no_answer(conversation: Conversation) -> None:
    conversation.assistant(500)
    conversation.caller(300)
    conversation.assistant(50)
    conversation.turns.on_clear(conversation.now)
    assert conversation.assistant(100) is None


def test_audio_while_the_caller_still_speaks_is_no_answer(conversation: Conversation) -> None:
    conversation.caller(400)
    assert conversation.assistant(50) is None
    assert conversation.turns.latest is None


def test_a_clear_interrupts_the_latest_answered_turn(conversation: Conversation) -> None:
    conversation.caller(400)
    conversation.silence(500)
    turn = conversation.assistant(50)
    assert conversation.turns.on_clear(conversation.now) is turn
    assert turn is not None
    assert turn.interrupted


def test_a_clear_during_the_greeting_interrupts_no_turn(conversation: Conversation) -> None:
    conversation.assistant(50)
    assert conversation.turns.on_clear(conversation.now) is None


def test_endpointing_is_the_earliest_sign_after_the_end_of_speech(conversation: Conversation) -> None:
    conversation.caller(400)
    conversation.silence(200)
    conversation.turns.on_caller_final(conversation.now)
    endpointed = conversation.now
    conversation.silence(100)
    conversation.turns.on_caller_stopped(conversation.now)
    conversation.turns.on_assistant_started(conversation.now)
    conversation.turns.on_caller_stopped(conversation.now + 0.1)
    conversation.turns.on_assistant_started(conversation.now + 0.1)
    conversation.silence(200)
    turn = conversation.assistant(50)
    assert turn is not None
    assert turn.endpointed == endpointed


def test_signs_of_endpointing_before_the_end_of_speech_do_not_count(conversation: Conversation) -> None:
    conversation.caller(200)
    conversation.turns.on_caller_stopped(conversation.now)
    conversation.turns.on_assistant_started(conversation.now)
    conversation.turns.on_caller_final(conversation.now)
    conversation.caller(200)
    conversation.silence(500)
    turn = conversation.assistant(50)
    assert turn is not None
    assert turn.endpointed is None


def test_a_new_sign_of_endpointing_replaces_one_before_the_end_of_speech(conversation: Conversation) -> None:
    conversation.caller(200)
    conversation.turns.on_caller_stopped(conversation.now)
    conversation.turns.on_assistant_started(conversation.now)
    conversation.caller(200)
    conversation.silence(200)
    conversation.turns.on_caller_stopped(conversation.now)
    conversation.turns.on_assistant_started(conversation.now)
    stopped = conversation.now
    conversation.silence(200)
    turn = conversation.assistant(50)
    assert turn is not None
    assert turn.endpointed == stopped


def test_signs_of_endpointing_do_not_carry_over_to_the_next_turn(conversation: Conversation) -> None:
    conversation.caller(400)
    conversation.silence(200)
    conversation.turns.on_caller_stopped(conversation.now)
    conversation.silence(200)
    conversation.assistant(1000)
    conversation.silence(500)
    conversation.caller(400)
    conversation.silence(500)
    turn = conversation.assistant(50)
    assert turn is not None
    assert turn.endpointed is None


def test_a_turn_is_unanswered_once_the_caller_has_stopped(conversation: Conversation) -> None:
    assert conversation.turns.unanswered is None
    conversation.caller(400)
    turn = conversation.silence(400)
    assert conversation.turns.unanswered is turn


def test_no_turn_is_unanswered_while_the_assistant_continues_over_the_caller(
    conversation: Conversation,
) -> None:
    """The caller said "mhm" while the assistant spoke, and now the assistant waits for the caller."""
    for _ in range(10):
        conversation.assistant(50)
        conversation.caller(60)
    for _ in range(8):
        conversation.assistant(50)
        conversation.silence(60)
    assert conversation.turns.open is not None
    assert conversation.turns.unanswered is None


def test_a_turn_is_unanswered_when_the_assistant_was_cut_off(conversation: Conversation) -> None:
    conversation.assistant(500)
    conversation.caller(300)
    conversation.turns.on_clear(conversation.now)
    conversation.assistant(50)  # late audio of the answer that was cut off
    turn = conversation.silence(400)
    assert turn is not None
    assert conversation.turns.unanswered is turn
