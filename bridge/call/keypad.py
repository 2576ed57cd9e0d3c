"""Keys that the caller presses, collected into groups: "42#" instead of "4", "2", "#".

A group is complete at `#` or after a pause. Groups completed before the assistant answers are held here. Keys
beyond the limits are dropped and counted.

Pure: times are arguments, monotonic seconds.
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
        self.due_at: float | None = None  # when the current group is complete, if no key follows
        self._group = ""
        self._held: list[str] = []  # groups completed before the assistant answered
        self._accepted = 0
        self._second_began = float("-inf")  # start of the current second, for the limit per second
        self._in_second = 0

    def press(self, digit: str, now: float) -> str | None:
        """Add a key. Returns the group if the key completes it."""
        if now - self._second_began >= 1.0:
            self._second_began, self._in_second = now, 0
        if self._in_second >= MAX_PER_SECOND or self._accepted >= MAX_PER_CALL:
            self.dropped += 1
            return None
        self._in_second += 1
        self._accepted += 1
        self._group += digit
        self.due_at = now + PAUSE_SECONDS
        return self.take() if digit == "#" or len(self._group) >= MAX_GROUP else None

    def take(self) -> str | None:
        """Complete the current group and return it; None when no key was pressed."""
        group, self._group, self.due_at = self._group, "", None
        return group or None

    def hold(self, group: str) -> None:
        """Keep a complete group until the assistant answers."""
        self._held.append(group)

    def release(self) -> list[str]:
        """Remove and return the held groups, oldest first."""
        groups, self._held = self._held, []
        return groups

    @property
    def unsent_keys(self) -> int:
        """How many keys have not been sent to the assistant."""
        return len("".join(self._held)) + len(self._group)
