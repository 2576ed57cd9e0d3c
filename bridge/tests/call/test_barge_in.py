"""Barge-in detection: each sign that the caller interrupts the assistant."""

from __future__ import annotations

from bridge.call.barge_in import IGNORE_AUDIO_SECONDS, LOUD_MS, SAME_BARGE_IN_SECONDS, BargeIn
from bridge.call.playout import Playout
from bridge.call.turns import Turns
from bridge.tests.call.scenario import LOUD, SILENCE


class Overlap:
    """A caller who may speak over assistant audio; that audio plays from the start of the test."""

    def __init__(self, *, playing_seconds: float) -> None:
        self.now = 100.0
        self.turns, self.playout = Turns(), Playout()
        self.barge_in = BargeIn(self.turns, self.playout)
        self.playout.queue(round(playing_seconds * 8000), self.now)

    def caller(self, ulaw: bytes, ms: int) -> list[bool]:
        """Feed frames. Returns for each whether it is a barge-in, which clears the playout."""
        detected = []
        for _ in range(0, ms, 20):
            self.now += 0.02
            self.turns.caller_frame(ulaw, self.now)
            detected.append(self.barge_in.detect_overlap(self.now))
            if detected[-1]:
                self.playout.clear(self.now)
        return detected


def test_a_loud_caller_over_playing_audio_is_detected_once() -> None:
    overlap = Overlap(playing_seconds=60.0)
    assert not any(overlap.caller(SILENCE, 400))
    overlap.turns.on_assistant_audible(overlap.now, 60.0)
    detected = overlap.caller(LOUD, 380)
    assert detected.count(True) == 1
    assert LOUD_MS / 20 <= detected.index(True) + 1 <= LOUD_MS / 20 + 3
    assert overlap.barge_in.ignore_audio_until > 100.0 + IGNORE_AUDIO_SECONDS


def test_speech_before_the_audio_does_not_count_as_overlap() -> None:
    overlap = Overlap(playing_seconds=0.0)
    overlap.caller(LOUD, 1000)
    overlap.turns.on_assistant_audible(overlap.now, 60.0)
    overlap.playout.queue(8000 * 60, overlap.now)
    assert not any(overlap.caller(LOUD, LOUD_MS))
    assert any(overlap.caller(LOUD, 40))


def test_a_loud_caller_is_no_barge_in_while_nothing_plays() -> None:
    overlap = Overlap(playing_seconds=0.0)
    assert not any(overlap.caller(LOUD, 1000))
    assert overlap.barge_in.ignore_audio_until < 0


def test_an_assistant_that_stops_soon_after_the_caller_started_was_interrupted() -> None:
    overlap = Overlap(playing_seconds=60.0)
    overlap.barge_in.on_caller_started(101.0)
    assert overlap.barge_in.on_assistant_stopped(101.0 + SAME_BARGE_IN_SECONDS)
    assert not overlap.barge_in.on_assistant_stopped(101.0 + SAME_BARGE_IN_SECONDS), "a sign counts once"


def test_an_assistant_that_stops_later_was_not_interrupted() -> None:
    overlap = Overlap(playing_seconds=60.0)
    overlap.barge_in.on_caller_started(101.0)
    assert not overlap.barge_in.on_assistant_stopped(101.1 + SAME_BARGE_IN_SECONDS)


def test_an_assistant_whose_audio_was_played_was_not_interrupted() -> None:
    overlap = Overlap(playing_seconds=1.5)
    overlap.barge_in.on_caller_started(101.0)
    assert not overlap.barge_in.on_assistant_stopped(101.6)


def test_a_caller_who_starts_while_nothing_plays_does_not_interrupt() -> None:
    overlap = Overlap(playing_seconds=0.5)
    overlap.barge_in.on_caller_started(101.0)
    overlap.playout.queue(8000, 101.0)
    assert not overlap.barge_in.on_assistant_stopped(101.1)


def test_several_signs_within_a_second_are_one_barge_in() -> None:
    barge_in = Overlap(playing_seconds=1.0).barge_in
    assert [barge_in.register_sign(at) for at in (100.0, 100.5, 100.9, 101.0, 101.5)] == [
        True, False, False, True, False,
    ]  # fmt: skip
