"""Whether the caller is cutting the assistant off: the signs, one by one."""

from __future__ import annotations

from bridge.call.barge_in import IGNORE_AUDIO_SECONDS, LOUD_MS, SAME_BARGE_IN_SECONDS, BargeIn
from bridge.call.playout import Playout
from bridge.call.turns import Turns
from bridge.tests.call.stories import LOUD, SILENCE


class Scene:
    """The caller's frames, and the assistant's audio, which plays from the start."""

    def __init__(self, *, plays: float) -> None:
        self.now = 100.0
        self.turns, self.playout = Turns(), Playout()
        self.barge_in = BargeIn(self.turns, self.playout)
        self.playout.queue(round(plays * 8000), self.now)

    def caller(self, ulaw: bytes, ms: int) -> list[bool]:
        """What each frame tells; like the session, a barge-in clears what plays."""
        found = []
        for _ in range(0, ms, 20):
            self.now += 0.02
            self.turns.caller_frame(ulaw, self.now)
            found.append(self.barge_in.is_overlap(self.now))
            if found[-1]:
                self.playout.clear(self.now)
        return found


def test_a_loud_caller_over_playing_audio_is_noticed_once() -> None:
    scene = Scene(plays=60.0)
    assert not any(scene.caller(SILENCE, 400))
    scene.turns.assistant_audible(scene.now, 60.0)
    found = scene.caller(LOUD, 380)
    assert found.count(True) == 1
    assert LOUD_MS / 20 <= found.index(True) + 1 <= LOUD_MS / 20 + 3
    assert scene.barge_in.ignore_audio_until > 100.0 + IGNORE_AUDIO_SECONDS


def test_speech_before_the_audio_does_not_count_as_over_it() -> None:
    scene = Scene(plays=0.0)
    scene.caller(LOUD, 1000)
    scene.turns.assistant_audible(scene.now, 60.0)
    scene.playout.queue(8000 * 60, scene.now)
    assert not any(scene.caller(LOUD, LOUD_MS))
    assert any(scene.caller(LOUD, 40))


def test_a_loud_caller_over_nothing_cuts_nobody_off() -> None:
    scene = Scene(plays=0.0)
    assert not any(scene.caller(LOUD, 1000))
    assert scene.barge_in.ignore_audio_until < 0


def test_an_assistant_that_falls_silent_for_the_caller_was_cut_off() -> None:
    scene = Scene(plays=60.0)
    scene.barge_in.caller_started(101.0)
    assert scene.barge_in.assistant_stopped(101.0 + SAME_BARGE_IN_SECONDS)
    assert not scene.barge_in.assistant_stopped(101.0 + SAME_BARGE_IN_SECONDS), "one sign, one use"


def test_one_that_falls_silent_later_was_just_done() -> None:
    scene = Scene(plays=60.0)
    scene.barge_in.caller_started(101.0)
    assert not scene.barge_in.assistant_stopped(101.1 + SAME_BARGE_IN_SECONDS)


def test_one_that_was_heard_to_the_end_was_not_cut_off() -> None:
    scene = Scene(plays=1.5)
    scene.barge_in.caller_started(101.0)
    assert not scene.barge_in.assistant_stopped(101.6)


def test_a_caller_who_begins_in_silence_interrupts_nobody() -> None:
    scene = Scene(plays=0.5)
    scene.barge_in.caller_started(101.0)
    scene.playout.queue(8000, 101.0)
    assert not scene.barge_in.assistant_stopped(101.1)


def test_several_signs_within_a_second_are_one_barge_in() -> None:
    barge_in = Scene(plays=1.0).barge_in
    assert [barge_in.is_first(at) for at in (100.0, 100.5, 100.9, 101.0, 101.5)] == [
        True, False, False, True, False,
    ]  # fmt: skip
