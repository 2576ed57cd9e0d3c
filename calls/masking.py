"""Masks phone numbers and ids for logs and pages: enough to recognize, not enough to dial."""

from __future__ import annotations

from calls.phone_numbers import is_withheld

WITHHELD = "withheld"


def mask_number(number: str) -> str:
    """`+15550100134` -> `+1 555 …0134`, `+442079460011` -> `+44 …0011`, `anonymous` -> `withheld`.

    Of a `sip:` or `client:` address only the scheme stays: the rest is a person's name.
    """
    if is_withheld(number):
        return WITHHELD
    scheme, colon, _ = number.partition(":")
    if colon:
        return f"{scheme[:8]}:…"
    digits = "".join(char for char in number if char.isascii() and char.isdigit())
    if not digits:
        return number[:16]
    if len(digits) < 8:  # a short code or an extension, of which the country code would be nearly all
        return f"…{digits[-2:]}"
    if not number.startswith("+"):
        return f"…{digits[-4:]}"
    if digits.startswith("1"):
        return f"+1 {digits[1:4]} …{digits[-4:]}"
    return f"+{digits[:2]} …{digits[-4:]}"


def short_sid(sid: str) -> str:
    """The sid as log lines show it: `CA12..ef`."""
    return sid if len(sid) <= 8 else f"{sid[:4]}..{sid[-2:]}"
