"""Phone numbers: as people type them, as Twilio requires them (E.164), and as carriers withhold them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from django.core.exceptions import ValidationError

_E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
# A caller's number that is withheld arrives as a word, or as its letters on a telephone keypad: +266696687
# spells "anonymous". Twilio lists the codes in "What do the numbers +266696687 and +7378742833 mean".
_KEYPAD = str.maketrans("abcdefghijklmnopqrstuvwxyz", "22233344455566677778889999")
_WITHHELD_WORDS = (
    "anonymous", "blocked", "private", "restricted", "unavailable", "unknown", "withheld",
)  # fmt: skip
_WITHHELD = frozenset(_WITHHELD_WORDS) | {word.translate(_KEYPAD) for word in _WITHHELD_WORDS}
_SIP_USER = re.compile(r"sips?:(?:\+?([^@;?]*)@)?([^;?]*)", re.IGNORECASE)
_SPACING = re.compile(r"[\s().\u2010-\u2015/-]")


def parse_e164(text: str) -> str:
    """The number in E.164, without spaces, dashes and brackets. Raises `ValidationError`."""
    number = _SPACING.sub("", text)
    if is_withheld(number):
        raise ValidationError("This is a carrier's code for a withheld number. It cannot be called.")
    number = f"+{number[2:]}" if number.startswith("00") else number
    if not _E164.fullmatch(number):
        raise ValidationError("Enter the number with + and the country code, such as +15551234567.")
    return number


def is_e164(number: str) -> bool:
    """Whether it is a number that can be dialled: neither an address, nor withheld, nor a short code."""
    return _E164.fullmatch(number) is not None and not is_withheld(number)


def is_withheld(number: str) -> bool:
    """Whether the carrier withheld the number: a word such as `anonymous`, its keypad code, or RFC 3323's
    `sip:anonymous@anonymous.invalid`."""
    if address := _SIP_USER.match(number):
        user, host = address.groups("")
        return user.lower() in _WITHHELD or host.lower() == "anonymous.invalid"
    return number.strip().removeprefix("+").lower() in _WITHHELD


def caller_id(from_number: str, our_number: str) -> str:
    """The `callerId` of a `<Dial>`: our number, if the caller's cannot be shown; empty to show the caller's.

    Twilio refuses (error 13214) to dial on with a caller id that is an address or a withheld number.
    """
    return "" if is_e164(from_number) else our_number


def is_allowed(number: str, allowed: Iterable[str]) -> bool:
    """Whether the number starts with one of the allowed numbers or prefixes.

    An entry without + or without digits allows nothing.
    """
    prefixes = (_SPACING.sub("", prefix) for prefix in allowed)
    return any(
        prefix.startswith("+") and len(prefix) > 1 and number.startswith(prefix) for prefix in prefixes
    )
