"""Routes: how calls to each of our phone numbers are answered.

A number's row may leave a value blank. `Route.resolve` replaces it with the default from the settings, so
that all values of a route are final.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from bridge.config import BridgeConfig
from bridge.opening_hours import OpeningHours


@dataclass(frozen=True, slots=True)
class Route:
    """The settings of one phone number, with all defaults applied."""

    id: str = "default"
    number: str = ""
    assistant_id: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)  # Vapi's assistantOverrides
    endpointing_ms: int = 300
    greeting: str = ""  # spoken by Twilio before the assistant is connected
    fallback_number: str = ""  # dialed when the assistant fails; empty: callers hear an apology
    max_call_seconds: int = 1800
    record: bool = False  # Vapi records the call
    say_language: str = ""  # of Twilio's voice, such as `zh-CN`; empty: Twilio's default
    say_voice: str = ""  # such as `Polly.Zhiyu`; empty: Twilio's for the language
    disclosure: str = ""  # spoken notice that an AI answers; empty: none
    hours: OpeningHours | None = None  # None: always open
    closed_message: str = ""
    max_concurrent_calls: int | None = None  # in one server process; None: no limit of its own

    @property
    def notice_seconds(self) -> float:
        """An upper estimate of how long Twilio speaks before it opens the stream."""
        return speech_seconds(self.disclosure) + speech_seconds(self.greeting)

    @classmethod
    def resolve(cls, config: BridgeConfig, values: Mapping[str, Any]) -> Self:
        """A route from a number's values, by field name. Values that are None or missing are defaults."""
        given = {name: value for name, value in values.items() if value is not None}
        return cls(**{**_defaults(config), **given})


# Allowances, not measurements: a longer estimate only keeps a ticket valid for longer.
SECONDS_PER_LETTER = 0.1
SECONDS_PER_DIGIT = 0.5  # each is a word
SECONDS_PER_WIDE_CHARACTER = 0.35  # Chinese, Japanese, Korean: each is a syllable or more


def speech_seconds(text: str) -> float:
    """An upper estimate of how long a synthetic voice takes for the text."""
    return sum(
        SECONDS_PER_DIGIT
        if char.isdigit()
        else SECONDS_PER_WIDE_CHARACTER
        if unicodedata.east_asian_width(char) in "WF"
        else SECONDS_PER_LETTER
        for char in text
    )


def _defaults(config: BridgeConfig) -> dict[str, Any]:
    return {
        "assistant_id": config.vapi_assistant_id,
        "endpointing_ms": config.vapi_endpointing_ms,
        "fallback_number": config.fallback_number,
        "max_call_seconds": config.max_call_seconds,
        "record": config.record_calls,
        "disclosure": config.ai_disclosure,
        "say_language": config.say_language,
        "say_voice": config.say_voice,
    }
