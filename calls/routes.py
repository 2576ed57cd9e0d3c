"""Reads the phone numbers' rows as values for `bridge.routes.Route`.

A row may not have passed the admin's validation. A value that is not valid is logged once and ignored: no
caller is turned away because of it.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings

from bridge.opening_hours import BadHours, OpeningHours, parse_hours
from calls.models import PhoneNumber
from calls.twilio.voices import Voice, base_language, describe_voice_problem

logger = logging.getLogger(__name__)


def read_routes() -> list[dict[str, Any]]:
    """The active numbers, with the fields of `Route`. None stands for the setting's value. One query."""
    return [
        {
            "say_language": voice.language,
            "say_voice": voice.name,
            "id": str(number.pk),
            "number": number.number,
            "assistant_id": number.assistant_id or None,
            "overrides": number.overrides if isinstance(number.overrides, dict) else {},
            "endpointing_ms": number.endpointing_ms,
            "greeting": number.greeting,
            "fallback_number": number.fallback_number or None,
            "max_call_seconds": number.max_call_seconds,
            "record": number.record_calls,
            "disclosure": choose_disclosure(number),
            "hours": parse_opening_hours(number.hours, number.time_zone),
            "closed_message": number.closed_message,
            "max_concurrent_calls": number.max_concurrent_calls,
        }
        for number in PhoneNumber.objects.filter(active=True)
        for voice in (choose_voice(number),)
    ]


def choose_disclosure(number: PhoneNumber) -> str:
    """The sentence that says that an AI answers; empty where the number does not disclose it.

    The number's own choice outranks the setting.
    """
    discloses = bool(settings.AI_DISCLOSURE) if number.discloses_ai is None else number.discloses_ai
    if not discloses:
        return ""
    return number.disclosure.strip() or get_default_disclosure(number.say_language)


def get_default_disclosure(language: str) -> str:
    """The disclosure of a number that has none of its own: the setting's if it is in the same language.

    Else our own sentence, which Twilio speaks in the number's language (`calls/twilio/sentences.py`).
    """
    if language and base_language(language) != base_language(settings.SAY_LANGUAGE):
        return str(settings.AI_DISCLOSURE_LINE)
    return str(settings.AI_DISCLOSURE or settings.AI_DISCLOSURE_LINE)


def choose_voice(number: PhoneNumber | None) -> Voice:
    """How Twilio speaks to callers. A language of the number's own does not inherit the setting's voice."""
    default = Voice(settings.SAY_LANGUAGE, settings.SAY_VOICE)
    if number is None or not (number.say_language or number.say_voice):
        return default
    language = number.say_language or default.language
    candidates = (Voice(language, number.say_voice), Voice(language), default)
    return next(voice for voice in candidates if not _voice_problem(voice))


@lru_cache(maxsize=1000)  # called every few seconds; also keeps the warning from being repeated
def _voice_problem(voice: Voice) -> str:
    if problem := describe_voice_problem(voice):
        logger.warning("routes: ignored language %r and voice %r: %s", voice.language, voice.name, problem)
    return problem


@lru_cache(maxsize=1000)  # called every few seconds; also keeps the warning from being repeated
def parse_opening_hours(text: str, zone: str) -> OpeningHours | None:
    """A number's opening hours. None if it is always open, or if they are not valid."""
    if not text.strip():
        return None
    try:
        return OpeningHours(parse_hours(text), ZoneInfo(zone or "UTC"))
    except (BadHours, ZoneInfoNotFoundError, ValueError, OSError) as error:
        logger.warning("routes: ignored invalid hours %r in time zone %r: %s", text[:100], zone[:64], error)
        return None
