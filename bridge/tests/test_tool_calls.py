"""Keys of a `send_dtmf` tool call: accepted forms and rejected values."""

from __future__ import annotations

import pytest

from bridge.tool_calls import MAX_KEYS, SEND_DTMF, ToolCall, keys_of


def send_dtmf(digits: object) -> ToolCall:
    return ToolCall("t1", SEND_DTMF, {"digits": digits})


@pytest.mark.parametrize(
    ("digits", "keys"), [("1w42#", "1w42#"), ("1 800 555", "1800555"), (42, "42"), ("*D", "*D")]
)
def test_keys_are_read_in_every_form_that_a_model_writes(digits: object, keys: str) -> None:
    assert keys_of(send_dtmf(digits)) == keys


@pytest.mark.parametrize("digits", ["", "12x", "a", "1" * (MAX_KEYS + 1), "\u0661", None, {"a": 1}])
def test_invalid_keys_are_rejected(digits: object) -> None:
    with pytest.raises(ValueError, match="keys are"):
        keys_of(send_dtmf(digits))


def test_missing_digits_are_rejected() -> None:
    with pytest.raises(ValueError, match="keys are"):
        keys_of(ToolCall("t1", SEND_DTMF, {}))
