"""A number's row and the settings' defaults: which of the two a call gets."""

from __future__ import annotations

import pytest

from bridge.config import BridgeConfig
from bridge.routes import Route

CONFIG = BridgeConfig(
    vapi_assistant_id="assistant-of-the-settings",
    vapi_endpointing_ms=350,
    max_call_seconds=600,
    record_calls=True,
    ai_disclosure="An AI answers.",
    fallback_number="+15550107777",
)
DEFAULTS = {
    "assistant_id": "assistant-of-the-settings",
    "endpointing_ms": 350,
    "max_call_seconds": 600,
    "record": True,
    "disclosure": "An AI answers.",
    "fallback_number": "+15550107777",
}
OWN = {
    "assistant_id": "assistant-2",
    "endpointing_ms": 0,
    "max_call_seconds": 60,
    "record": False,
    "disclosure": "",
    "fallback_number": "+15550108888",
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_value_that_the_row_leaves_blank_comes_from_the_settings(name: str) -> None:
    for values in ({}, {name: None}):
        assert getattr(Route.resolve(CONFIG, values), name) == DEFAULTS[name]


@pytest.mark.parametrize("name", OWN)
def test_a_value_of_the_row_wins_even_when_it_is_zero_off_or_empty(name: str) -> None:
    assert getattr(Route.resolve(CONFIG, {name: OWN[name]}), name) == OWN[name]


def test_a_number_without_a_row_has_the_default_route() -> None:
    route = Route.resolve(CONFIG, {})
    assert (route.id, route.number, route.hours, route.max_concurrent_calls) == ("default", "", None, None)
