"""Keys the caller pressed, gathered into what a person would say: "42#", not "4", "2", "#".

A group is over at `#` or after a pause. A flood of keys is cut, counted, and never grows.
Pure: the time is an argument, monotonic seconds.
"""

from __future__ import annotations

PAUSE_SECONDS = 1.5
MAX_PER_SECOND = 20
MAX_PER_CALL = 500
MAX_GROUP = 32


class Keypad:
    """The keys of one call."""

    def __init__(self) -> None:
        self.dropped = 0
        self.due: float | None = None  # when the group at hand is over, if no key follows
        self._group = ""
        self._accepted = 0
        self._second = float("-inf")  # start of the second in which keys are being counted
        self._in_second = 0

    def press(self, digit: str, now: float) -> str | None:
        """One key. Returns the group that it completes."""
        if now - self._second >= 1.0:
            self._second, self._in_second = now, 0
        if self._in_second >= MAX_PER_SECOND or self._accepted >= MAX_PER_CALL:
            self.dropped += 1
            return None
        self._in_second += 1
        self._accepted += 1
        self._group += digit
        self.due = now + PAUSE_SECONDS
        return self.take() if digit == "#" or len(self._group) >= MAX_GROUP else None

    def take(self) -> str | None:
        """The group at hand, which is over."""
        group, self._group, self.due = self._group, "", None
        return group or None
