"""Routes: a number's own values, and the defaults from the settings."""

from __future__ import annotations

import pytest

from bridge.config import BridgeConfig
from bridge.routes import Route

CONFIG = BridgeConfig(
    vapi_assistant_id="assistant-1",
    vapi_endpointing_ms=350,
    max_call_seconds=600,
    record_calls=True,
    ai_disclosure="An AI answers.",
    fallback_number="+15550107777",
)
DEFAULTS = {
    "assistant_id": "assistant-1",
    "endpointing_ms": 350,
    "max_call_seconds": 600,
    "record": True,
    "disclosure": "An AI answers.",
    "fallback_number": "+15550107777",
}
NUMBER_VALUES = {
    "assistant_id": "assistant-2",
    "endpointing_ms": 0,
    "max_call_seconds": 60,
    "record": False,
    "disclosure": "",
    "fallback_number": "+15550108888",
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_missing_value_comes_from_the_settings(name: str) -> None:
    for values in ({}, {name: None}):
        assert getattr(Route.resolve(CONFIG, values), name) == DEFAULTS[name]


@pytest.mark.parametrize("name", NUMBER_VALUES)
def test_a_given_value_is_used_even_when_it_is_false(name: str) -> None:
    assert getattr(Route.resolve(CONFIG, {name: NUMBER_VALUES[name]}), name) == NUMBER_VALUES[name]


def test_a_route_without_values_is_the_default_route() -> None:
    route = Route.resolve(CONFIG, {})
    assert (route.id, route.number, route.hours, route.max_concurrent_calls) == ("default", "", None, None)
