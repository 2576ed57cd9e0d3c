"""Deadlines by name: the earliest one, and those that have passed."""

from __future__ import annotations

from bridge.call.deadlines import NEVER, Deadlines


def test_without_deadlines_nothing_is_due() -> None:
    deadlines = Deadlines()
    assert deadlines.earliest == NEVER
    assert deadlines.due(1e9) == []


def test_it_returns_the_earliest_deadline() -> None:
    deadlines = Deadlines()
    deadlines.set("limit", 1800.0)
    deadlines.set("media", 8.0)
    deadlines.set("last-audio", 20.0)
    assert deadlines.earliest == 8.0


def test_a_passed_deadline_is_due_once() -> None:
    deadlines = Deadlines()
    deadlines.set("limit", 30.0)
    deadlines.set("media", 8.0)
    deadlines.set("quiet", 9.0)
    assert deadlines.due(9.0) == ["media", "quiet"]
    assert deadlines.due(9.0) == []
    assert deadlines.earliest == 30.0


def test_a_postponed_deadline_is_due_at_its_new_time() -> None:
    deadlines = Deadlines()
    deadlines.set("quiet", 1.0)
    deadlines.set("quiet", 2.0)
    assert deadlines.earliest == 1.0
    assert deadlines.due(1.0) == []
    assert deadlines.earliest == 2.0


def test_a_dropped_deadline_is_never_due() -> None:
    deadlines = Deadlines()
    deadlines.set("start", 5.0)
    deadlines.drop("start")
    assert deadlines.due(5.0) == []


def test_a_clear_removes_all_deadlines() -> None:
    deadlines = Deadlines()
    deadlines.set("start", 5.0)
    deadlines.clear()
    assert deadlines.earliest == NEVER
    assert deadlines.due(5.0) == []
