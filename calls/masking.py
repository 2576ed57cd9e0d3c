"""Numbers and ids as logs and pages may show them: enough to recognise, not enough to dial."""

from __future__ import annotations


def mask_number(number: str) -> str:
    """`+15550100134` -> `+1 555 …0134`, `+442079460011` -> `+44 …0011`; words such as `anonymous` stay.

    A `sip:` or `client:` address keeps its kind alone: the rest is somebody's name.
    """
    kind, colon, _ = number.partition(":")
    if colon:
        return f"{kind[:8]}:…"
    digits = "".join(char for char in number if char.isascii() and char.isdigit())
    if not digits:
        return number[:16]
    if len(digits) < 8:  # a short code or an extension: a country code's worth of it would be all of it
        return f"…{digits[-2:]}"
    if not number.startswith("+"):
        return f"…{digits[-4:]}"
    if digits.startswith("1"):
        return f"+1 {digits[1:4]} …{digits[-4:]}"
    return f"+{digits[:2]} …{digits[-4:]}"


def short_sid(sid: str) -> str:
    """`CA12..ef`: how a log line names a call."""
    return sid if len(sid) <= 8 else f"{sid[:4]}..{sid[-2:]}"
