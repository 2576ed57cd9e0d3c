"""Twilio's call statuses, and which of two reports of the same call is the later one."""

from __future__ import annotations

OPEN_STATUSES = ("queued", "initiated", "ringing", "in-progress")  # in the order in which a call passes them
# Nobody was there for the assistant to answer, and Twilio reports no price.
NEVER_CONNECTED_STATUSES = ("busy", "no-answer", "canceled")
TERMINAL_STATUSES = ("completed", "busy", "failed", "no-answer", "canceled")


def later_status(old: str, new: str) -> str:
    """The status that holds after both were reported, in whichever order they arrived.

    Never moves back, and never leaves a terminal status. An unknown status never replaces a known one.
    """
    if old in TERMINAL_STATUSES:
        return old
    if new in TERMINAL_STATUSES or old not in OPEN_STATUSES:
        return new
    if new not in OPEN_STATUSES:
        return old
    return max(old, new, key=OPEN_STATUSES.index)
