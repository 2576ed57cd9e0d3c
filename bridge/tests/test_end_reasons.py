"""End reasons: each names who ended the call, and close codes are ones that Daphne allows."""

from __future__ import annotations

from bridge import end_reasons


def test_every_reason_names_who_ended_the_call() -> None:
    reasons = {
        value for name, value in vars(end_reasons).items() if name.isupper() and isinstance(value, str)
    }
    assert set(end_reasons.ENDED_BY) == reasons
    assert set(end_reasons.ENDED_BY.values()) == {"caller", "assistant", "network", "us", "staff"}


def test_close_codes_are_allowed_for_an_application() -> None:
    assert all(
        3000 <= code <= 4999 for code in [*end_reasons.CLOSE_CODES.values(), end_reasons.CLOSE_OVERSIZE]
    )
