"""The deadlines of one call, by name: data, for somebody else to sleep on.

Setting one is cheap, for it happens with every chunk of audio: `earliest` may be too early, after a
deadline was put off or dropped, and is never too late. Whoever wakes up for nothing asks `due` and
finds nothing. Pure: the time is an argument, monotonic seconds.
"""

from __future__ import annotations

NEVER = float("inf")


class Deadlines:
    """Named points in time, one to a name."""

    def __init__(self) -> None:
        self.earliest = NEVER
        self._at: dict[str, float] = {}

    def set(self, name: str, at: float) -> None:
        self._at[name] = at
        self.earliest = min(self.earliest, at)

    def drop(self, name: str) -> None:
        del self._at[name]

    def clear(self) -> None:
        self._at.clear()
        self.earliest = NEVER

    def due(self, now: float) -> list[str]:
        """The deadlines that have passed, in the order in which they were first set; they are no more."""
        names = [name for name, at in self._at.items() if at <= now]
        for name in names:
            del self._at[name]
        self.earliest = min(self._at.values(), default=NEVER)
        return names
