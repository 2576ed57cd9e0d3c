"""How calls end: every reason has its author, and closes the socket with a code that Daphne allows."""

from __future__ import annotations

from bridge import endings


def test_every_reason_names_who_ended_the_call() -> None:
    reasons = {value for name, value in vars(endings).items() if name.isupper() and isinstance(value, str)}
    assert set(endings.ENDED_BY) == reasons
    assert set(endings.ENDED_BY.values()) == {"caller", "assistant", "network", "us", "staff"}


def test_close_codes_are_ones_that_an_app_may_use() -> None:
    assert all(3000 <= code <= 4999 for code in [*endings.CLOSE_CODES.values(), endings.CLOSE_OVERSIZE])
