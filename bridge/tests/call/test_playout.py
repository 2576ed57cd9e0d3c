"""Playout: how much audio the caller has not heard yet, from byte counts, marks and generations."""

from __future__ import annotations

import pytest

from bridge.call.playout import MAX_PENDING_MARKS, OVERDUE_SECONDS, PendingMark, Playout


def test_queued_audio_plays_in_real_time() -> None:
    playout = Playout()
    playout.queue(8000, now=10.0)
    assert playout.unplayed(10.25) == pytest.approx(0.75)
    assert playout.unplayed(12.0) == 0.0


def test_audio_plays_after_the_audio_queued_before_it() -> None:
    playout = Playout()
    assert playout.queue(8000, now=10.0) == 10.0
    assert playout.queue(160, now=10.1) == 11.0
    assert playout.queue(160, now=20.0) == 20.0


def test_mark_names_are_unique_and_carry_the_generation() -> None:
    playout = Playout()
    first = playout.place_mark(1.0)
    playout.clear(1.0)
    assert (first, playout.place_mark(1.0)) == ("g0-1", "g1-2")


def test_a_returned_mark_gives_its_position_and_turn() -> None:
    playout = Playout()
    playout.queue(8000, now=10.0)
    name = playout.place_mark(10.0, turn=3)
    assert playout.on_mark(name, 11.02) == PendingMark(11.0, 3)
    assert playout.overdue == 0


def test_a_mark_returned_after_a_clear_is_not_counted_as_played() -> None:
    playout = Playout()
    name = playout.place_mark(10.0, turn=3)
    playout.clear(10.1)
    assert playout.on_mark(name, 10.2) is None


def test_an_unknown_mark_is_ignored() -> None:
    assert Playout().on_mark("g0-1", 1.0) is None


def test_a_clear_empties_the_playout() -> None:
    playout = Playout()
    playout.queue(80_000, now=10.0)
    playout.clear(10.5)
    assert not playout.is_playing(10.5)
    assert playout.generation == 1


def test_a_clear_keeps_the_end_of_audio_that_was_played() -> None:
    playout = Playout()
    playout.queue(800, now=10.0)
    playout.clear(12.0)
    assert playout.ends_at == pytest.approx(10.1)


def test_it_is_playing_for_the_length_of_the_queued_audio() -> None:
    playout = Playout()
    playout.queue(8000, now=10.0)
    assert playout.is_playing(10.9)
    assert not playout.is_playing(11.1)


def test_it_is_playing_until_a_pending_mark_returns() -> None:
    playout = Playout()
    playout.queue(8000, now=10.0)
    name = playout.place_mark(10.0)
    assert playout.is_playing(11.5)
    playout.on_mark(name, 11.5)
    assert not playout.is_playing(11.5)


def test_an_overdue_mark_is_dropped_and_counted() -> None:
    playout = Playout()
    playout.place_mark(10.0)
    playout.queue(80_000, now=10.0)
    playout.place_mark(10.0)
    assert playout.is_playing(10.0 + OVERDUE_SECONDS + 0.1)
    assert playout.overdue == 1


def test_a_mark_that_returns_late_is_counted_as_overdue() -> None:
    playout = Playout()
    name = playout.place_mark(10.0)
    assert playout.on_mark(name, 10.0 + OVERDUE_SECONDS + 0.5) is not None
    assert playout.overdue == 1


def test_pending_marks_are_bounded() -> None:
    playout = Playout()
    names = [playout.place_mark(10.0) for _ in range(MAX_PENDING_MARKS + 5)]
    assert playout.overdue == 5
    assert playout.on_mark(names[4], 10.0) is None
    assert playout.on_mark(names[5], 10.0) is not None
