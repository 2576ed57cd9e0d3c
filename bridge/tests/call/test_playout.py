"""What the caller has not heard yet: arithmetic, marks and generations."""

from __future__ import annotations

import pytest

from bridge.call.playout import MAX_PENDING_MARKS, OVERDUE_SECONDS, PendingMark, Playout


def test_what_was_sent_plays_in_real_time() -> None:
    playout = Playout()
    playout.queue(8000, now=10.0)
    assert playout.unplayed(10.25) == pytest.approx(0.75)
    assert playout.unplayed(12.0) == 0.0


def test_audio_is_played_behind_what_is_queued_already() -> None:
    playout = Playout()
    assert playout.queue(8000, now=10.0) == 10.0
    assert playout.queue(160, now=10.1) == 11.0
    assert playout.queue(160, now=20.0) == 20.0


def test_mark_names_are_unique_and_carry_the_generation() -> None:
    playout = Playout()
    first = playout.place_mark(1.0)
    playout.clear(1.0)
    assert (first, playout.place_mark(1.0)) == ("g0-1", "g1-2")


def test_an_echo_brings_back_what_was_marked() -> None:
    playout = Playout()
    playout.queue(8000, now=10.0)
    name = playout.place_mark(10.0, turn=3)
    assert playout.echoed(name, 11.02) == PendingMark(11.0, 3)
    assert playout.overdue == 0


def test_an_echo_proves_nothing_after_a_clear() -> None:
    playout = Playout()
    name = playout.place_mark(10.0, turn=3)
    playout.clear(10.1)
    assert playout.echoed(name, 10.2) is None


def test_a_mark_that_is_not_ours_is_nobodys() -> None:
    assert Playout().echoed("g0-1", 1.0) is None


def test_a_clear_empties_the_buffer() -> None:
    playout = Playout()
    playout.queue(80_000, now=10.0)
    playout.clear(10.5)
    assert not playout.is_playing(10.5)
    assert playout.generation == 1


def test_a_clear_does_not_put_audio_back_that_was_played() -> None:
    playout = Playout()
    playout.queue(800, now=10.0)
    playout.clear(12.0)
    assert playout.ends_at == pytest.approx(10.1)


def test_it_plays_by_arithmetic() -> None:
    playout = Playout()
    playout.queue(8000, now=10.0)
    assert playout.is_playing(10.9)
    assert not playout.is_playing(11.1)


def test_it_plays_until_a_mark_comes_back() -> None:
    playout = Playout()
    playout.queue(8000, now=10.0)
    name = playout.place_mark(10.0)
    assert playout.is_playing(11.5)
    playout.echoed(name, 11.5)
    assert not playout.is_playing(11.5)


def test_a_mark_is_not_waited_for_for_ever() -> None:
    playout = Playout()
    playout.place_mark(10.0)
    playout.queue(80_000, now=10.0)
    playout.place_mark(10.0)
    assert playout.is_playing(10.0 + OVERDUE_SECONDS + 0.1)
    assert playout.overdue == 1


def test_a_late_echo_shows_a_slow_caller_leg() -> None:
    playout = Playout()
    name = playout.place_mark(10.0)
    assert playout.echoed(name, 10.0 + OVERDUE_SECONDS + 0.5) is not None
    assert playout.overdue == 1


def test_marks_that_never_come_back_are_bounded() -> None:
    playout = Playout()
    names = [playout.place_mark(10.0) for _ in range(MAX_PENDING_MARKS + 5)]
    assert playout.overdue == 5
    assert playout.echoed(names[4], 10.0) is None
    assert playout.echoed(names[5], 10.0) is not None
