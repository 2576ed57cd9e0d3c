"""Keypad: keys grouped by `#` or a pause, with excess keys dropped and counted."""

from __future__ import annotations

from bridge.call.keypad import MAX_GROUP, MAX_PER_CALL, MAX_PER_SECOND, PAUSE_SECONDS, Keypad


def test_a_hash_completes_a_group() -> None:
    keypad = Keypad()
    assert [keypad.press(key, 1.0) for key in "42#"] == [None, None, "42#"]
    assert keypad.due_at is None


def test_a_pause_completes_a_group() -> None:
    keypad = Keypad()
    keypad.press("4", 1.0)
    keypad.press("2", 1.5)
    assert keypad.due_at == 1.5 + PAUSE_SECONDS
    assert keypad.take() == "42"
    assert keypad.due_at is None


def test_a_group_is_taken_once() -> None:
    keypad = Keypad()
    keypad.press("4", 1.0)
    keypad.take()
    assert keypad.take() is None


def test_a_group_is_complete_at_its_maximum_length() -> None:
    keypad = Keypad()
    groups = [keypad.press("7", float(second)) for second in range(MAX_GROUP)]
    assert groups[-1] == "7" * MAX_GROUP


def test_keys_are_limited_per_second() -> None:
    keypad = Keypad()
    for _ in range(100):
        keypad.press("1", 5.0)
    assert keypad.dropped == 100 - MAX_PER_SECOND
    keypad.press("1", 6.0)
    assert keypad.dropped == 100 - MAX_PER_SECOND


def test_keys_are_limited_per_call() -> None:
    keypad = Keypad()
    for number in range(5000):
        keypad.press("1", number / 10)
    assert keypad.dropped == 5000 - MAX_PER_CALL
