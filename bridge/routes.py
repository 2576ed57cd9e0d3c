"""How calls to each of our numbers are answered.

A row of a number may leave a value blank; `Route.resolve` fills it in from the settings, once, so that nobody
who reads a route has to know where a value comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from bridge.config import BridgeConfig
from bridge.opening_hours import OpeningHours


@dataclass(frozen=True, slots=True)
class Route:
    """One number, with every default filled in."""

    id: str = "default"
    number: str = ""
    assistant_id: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)  # Vapi's assistantOverrides
    endpointing_ms: int = 300
    greeting: str = ""  # spoken by Twilio before the assistant is connected
    fallback_number: str = ""  # dialled when the assistant fails; empty: callers hear an apology
    max_call_seconds: int = 1800
    record: bool = False  # by Vapi
    disclosure: str = ""  # says that an AI answers; empty: callers are not told
    hours: OpeningHours | None = None  # None: always open
    closed_message: str = ""
    max_concurrent_calls: int | None = None  # in one server process; None: no limit of its own

    @classmethod
    def resolve(cls, config: BridgeConfig, values: Mapping[str, Any]) -> Self:
        """A number's values, by field name; those that are None or missing come from the settings."""
        given = {name: value for name, value in values.items() if value is not None}
        return cls(**{**_defaults(config), **given})


def _defaults(config: BridgeConfig) -> dict[str, Any]:
    return {
        "assistant_id": config.vapi_assistant_id,
        "endpointing_ms": config.vapi_endpointing_ms,
        "fallback_number": config.fallback_number,
        "max_call_seconds": config.max_call_seconds,
        "record": config.record_calls,
        "disclosure": config.ai_disclosure,
    }
