"""The deadlines of one call, by name. They are data: the runner sleeps until the earliest.

Setting a deadline is cheap, because it happens with every chunk of audio. After a deadline was moved or
dropped, `earliest` may be too early, never too late: then `due` returns nothing. Pure: times are arguments,
monotonic seconds.
"""

from __future__ import annotations

NEVER = float("inf")


class Deadlines:
    """Points in time by name."""

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
        """Remove and return the deadlines that have passed, in the order in which they were first set."""
        names = [name for name, at in self._at.items() if at <= now]
        for name in names:
            del self._at[name]
        self.earliest = min(self._at.values(), default=NEVER)
        return names
