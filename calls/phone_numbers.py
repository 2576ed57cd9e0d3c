"""Phone numbers: as people type them, as Twilio requires them (E.164), and as carriers withhold them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import phonenumbers
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
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\x00-\x08\x0e-\x1f\x7f]")
_SPACING = re.compile(r"\(0\)|[\s().\u2010-\u2015/-]")


def parse_e164(text: str) -> str:
    """The number in E.164, however it was written or pasted: with spaces, `(0)`, invisible characters.

    Raises `ValidationError`, also for a number with an extension, which E.164 cannot express.
    """
    number = _plain(text)
    if is_withheld(number):
        raise ValidationError("This is a carrier's code for a withheld number. It cannot be called.")
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        parsed = None
    # Possible, not valid: numbering plans change faster than the tables of a library.
    if parsed is None or parsed.extension or not phonenumbers.is_possible_number(parsed):
        raise ValidationError("Enter the number with + and the country code, such as +15551234567.")
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def _plain(text: str) -> str:
    """Without invisible characters, with the usual digits, and with `+` instead of `00`."""
    number = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).strip().removeprefix("tel:")
    number = re.sub(r"\d", lambda digit: str(int(digit[0])), number)
    return f"+{number[2:]}" if number.startswith("00") else number


def is_e164(number: str) -> bool:
    """Whether it is a number that can be dialed: neither an address, nor withheld, nor a short code."""
    return _E164.fullmatch(number) is not None and not is_withheld(number)


def is_withheld(number: str) -> bool:
    """Whether the carrier withheld the number: a word such as `anonymous`, its keypad code, or RFC 3323's
    `sip:anonymous@anonymous.invalid`."""
    if address := _SIP_USER.match(number):
        user, host = address.groups("")
        return user.lower() in _WITHHELD or host.lower() == "anonymous.invalid"
    return number.strip().removeprefix("+").lower() in _WITHHELD


def choose_caller_id(from_number: str, our_number: str) -> str:
    """The `callerId` of a `<Dial>`: our number, if the caller's cannot be shown; empty to show the caller's.

    Twilio refuses (error 13214) a `<Dial>` whose caller id is an address or a withheld number.
    """
    return "" if is_e164(from_number) else our_number


def is_allowed(number: str, allowed: Iterable[str]) -> bool:
    """Whether the number starts with one of the allowed numbers or prefixes.

    An entry without + or without digits allows nothing.
    """
    prefixes = (_SPACING.sub("", _plain(prefix)) for prefix in allowed)
    return any(
        prefix.startswith("+") and len(prefix) > 1 and number.startswith(prefix) for prefix in prefixes
    )
