"""How our numbers are answered: their rows, as the routes of the bridge's snapshot.

A row may have been written by anything, not by the admin's form alone: what cannot be read of it is said
in the log, once, and turns no caller away.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings

from bridge.opening_hours import BadHours, OpeningHours, parse_hours
from calls.models import PhoneNumber

log = logging.getLogger(__name__)


def active_routes() -> list[dict[str, Any]]:
    """Active numbers, by the names that the bridge's routes have."""
    return [
        {
            "id": str(number.pk),
            "number": number.number,
            "assistant_id": number.assistant_id or None,
            "overrides": number.overrides if isinstance(number.overrides, dict) else {},
            "endpointing_ms": number.endpointing_ms,
            "greeting": number.greeting,
            "fallback_number": number.fallback_number or None,
            "max_call_seconds": number.max_call_seconds,
            "record": number.record_calls or None,
            "disclosure": disclosure_of(number),
            "hours": opening_hours(number.hours, number.time_zone),
            "closed_message": number.closed_message,
            "max_concurrent_calls": number.max_concurrent_calls,
        }
        for number in PhoneNumber.objects.filter(active=True)
    ]


def disclosure_of(number: PhoneNumber) -> str:
    """How this number says that an AI answers. It does so although the settings do not."""
    if not number.discloses_ai:
        return ""
    return number.disclosure.strip() or settings.AI_DISCLOSURE or settings.AI_DISCLOSURE_LINE


@lru_cache(maxsize=1000)  # asked every few seconds, and told about once
def opening_hours(text: str, zone: str) -> OpeningHours | None:
    """When a number is open; None for always, and where that cannot be read."""
    if not text.strip():
        return None
    try:
        return OpeningHours(parse_hours(text), ZoneInfo(zone or "UTC"))
    except (BadHours, ZoneInfoNotFoundError, ValueError, OSError) as error:
        log.warning("routes: hours %r in zone %r do not apply: %s", text[:100], zone[:64], error)
        return None
