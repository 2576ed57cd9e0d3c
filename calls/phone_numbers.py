"""Parses phone numbers, as people type them, to E.164, which Twilio requires."""

from __future__ import annotations

import re
from collections.abc import Iterable

from django.core.exceptions import ValidationError

_E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
_SPACING = re.compile(r"[\s().\u2010-\u2015/-]")


def parse_e164(text: str) -> str:
    """The number in E.164, without spaces, dashes and brackets. Raises `ValidationError`."""
    number = _SPACING.sub("", text)
    number = f"+{number[2:]}" if number.startswith("00") else number
    if not _E164.fullmatch(number):
        raise ValidationError("Enter the number with + and the country code, such as +15551234567.")
    return number


def is_allowed(number: str, allowed: Iterable[str]) -> bool:
    """Whether the number starts with one of the allowed numbers or prefixes.

    An entry without + or without digits allows nothing.
    """
    prefixes = (_SPACING.sub("", prefix) for prefix in allowed)
    return any(
        prefix.startswith("+") and len(prefix) > 1 and number.startswith(prefix) for prefix in prefixes
    )
