"""Which keys the assistant may press."""

from __future__ import annotations

import pytest

from bridge.tool_calls import MAX_KEYS, SEND_DTMF, ToolCall, keys_of


def asked(digits: object) -> ToolCall:
    return ToolCall("t1", SEND_DTMF, {"digits": digits})


@pytest.mark.parametrize(
    ("digits", "keys"), [("1w42#", "1w42#"), ("1 800 555", "1800555"), (42, "42"), ("*D", "*D")]
)
def test_keys_are_read_as_a_model_may_write_them(digits: object, keys: str) -> None:
    assert keys_of(asked(digits)) == keys


@pytest.mark.parametrize("digits", ["", "12x", "a", "1" * (MAX_KEYS + 1), "\u0661", None, {"a": 1}])
def test_what_is_no_key_is_refused(digits: object) -> None:
    with pytest.raises(ValueError, match="keys are"):
        keys_of(asked(digits))


def test_no_digits_are_no_keys() -> None:
    with pytest.raises(ValueError, match="keys are"):
        keys_of(ToolCall("t1", SEND_DTMF, {}))
