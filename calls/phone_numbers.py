"""Telephone numbers as people type them, and as Twilio wants them (E.164)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from django.core.exceptions import ValidationError

_E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
_SPACING = re.compile(r"[\s().\u2010-\u2015/-]")


def e164(text: str) -> str:
    """A number without the spaces and brackets of its country. Raises `ValidationError`."""
    number = _SPACING.sub("", text)
    number = f"+{number[2:]}" if number.startswith("00") else number
    if not _E164.fullmatch(number):
        raise ValidationError("Write the number with + and its country's code, such as +15551234567.")
    return number


def is_allowed(number: str, allowed: Iterable[str]) -> bool:
    """Whether a number, or the beginning of it, is among those that may be dialled."""
    beginnings = (_SPACING.sub("", each) for each in allowed)
    return any(each.startswith("+") and len(each) > 1 and number.startswith(each) for each in beginnings)
