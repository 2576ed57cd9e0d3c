"""Deadlines by name: what is due, and when to look."""

from __future__ import annotations

from bridge.call.deadlines import NEVER, Deadlines


def test_nothing_set_is_never_due() -> None:
    deadlines = Deadlines()
    assert deadlines.earliest == NEVER
    assert deadlines.due(1e9) == []


def test_the_earliest_is_the_one_to_wait_for() -> None:
    deadlines = Deadlines()
    deadlines.set("limit", 1800.0)
    deadlines.set("media", 8.0)
    deadlines.set("goodbye", 20.0)
    assert deadlines.earliest == 8.0


def test_what_is_due_is_due_once() -> None:
    deadlines = Deadlines()
    deadlines.set("limit", 30.0)
    deadlines.set("media", 8.0)
    deadlines.set("quiet", 9.0)
    assert deadlines.due(9.0) == ["media", "quiet"]
    assert deadlines.due(9.0) == []
    assert deadlines.earliest == 30.0


def test_one_that_was_put_off_is_looked_at_early_and_kept() -> None:
    deadlines = Deadlines()
    deadlines.set("quiet", 1.0)
    deadlines.set("quiet", 2.0)
    assert deadlines.earliest == 1.0
    assert deadlines.due(1.0) == []
    assert deadlines.earliest == 2.0


def test_one_that_was_dropped_does_not_come() -> None:
    deadlines = Deadlines()
    deadlines.set("start", 5.0)
    deadlines.drop("start")
    assert deadlines.due(5.0) == []


def test_none_are_left_after_the_end() -> None:
    deadlines = Deadlines()
    deadlines.set("start", 5.0)
    deadlines.clear()
    assert deadlines.earliest == NEVER
    assert deadlines.due(5.0) == []
