"""Playout: how much of the audio sent to Twilio the caller has not heard yet.

Audio may reach Twilio faster than it is played: a burst can wait there for seconds. Two measures are used:
the bytes sent (8 bytes a millisecond, played in real time), and marks, which Twilio returns when everything
before them was played. `clear` empties Twilio's buffer and makes it return all pending marks at once. Those
say nothing about playback: their names are forgotten at the clear, and no later mark has the same name.

Pure: times are arguments, monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

BYTES_PER_SECOND = 8000
MAX_PENDING_MARKS = 256
# A mark that is later than this means that the caller leg is slow. It is counted and no longer awaited.
OVERDUE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class PendingMark:
    """A mark that Twilio has not returned yet."""

    expected_at: float  # when everything before it should have been played
    turn: int | None  # the turn whose first audio follows the mark, if any


class Playout:
    """A model of the playback buffer at Twilio."""

    def __init__(self) -> None:
        self.generation = 0  # incremented by every clear
        self.ends_at = 0.0  # when everything sent so far will have been played
        self.overdue = 0  # marks that were returned late, or never
        self._serial = 0  # makes mark names unique within the stream
        self._pending: OrderedDict[str, PendingMark] = OrderedDict()

    def queue(self, size: int, now: float) -> float:
        """Add `size` bytes of mu-law. Returns when the first of them will be played."""
        begins_at = max(now, self.ends_at)
        self.ends_at = begins_at + size / BYTES_PER_SECOND
        return begins_at

    def unplayed(self, now: float) -> float:
        """Seconds of audio that the caller has not heard yet, by the bytes sent."""
        return max(0.0, self.ends_at - now)

    def is_playing(self, now: float) -> bool:
        """Whether the caller still hears the assistant, by the bytes sent or by a mark not yet returned."""
        self._forget_overdue(now)
        return self.ends_at > now or bool(self._pending)

    def place_mark(self, now: float, turn: int | None = None) -> str:
        """Add a mark behind all audio sent so far. Returns the name to send."""
        self._serial += 1
        name = f"g{self.generation}-{self._serial}"
        self._pending[name] = PendingMark(max(now, self.ends_at), turn)
        if len(self._pending) > MAX_PENDING_MARKS:
            self._pending.popitem(last=False)
            self.overdue += 1
        return name

    def on_mark(self, name: str, now: float) -> PendingMark | None:
        """A mark was returned. None when it is unknown, such as one that was placed before a clear."""
        mark = self._pending.pop(name, None)
        if mark is not None and now > mark.expected_at + OVERDUE_SECONDS:
            self.overdue += 1
        return mark

    def clear(self, now: float) -> None:
        """Drop all queued audio, and all pending marks with it."""
        self.generation += 1
        self.ends_at = min(self.ends_at, now)
        self._pending.clear()

    def _forget_overdue(self, now: float) -> None:
        while self._pending:
            name, mark = next(iter(self._pending.items()))
            if now <= mark.expected_at + OVERDUE_SECONDS:
                return
            del self._pending[name]
            self.overdue += 1
