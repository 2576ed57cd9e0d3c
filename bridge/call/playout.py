"""What the caller has not heard yet.

We hand audio to Twilio faster than it is played: a burst may wait there for seconds. Two things tell
how much: the arithmetic of what was sent (8 bytes a millisecond, played in real time), and marks, which
Twilio returns when everything before them was played. A `clear` empties Twilio's buffer and returns all
pending marks at once, so each mark carries the generation it was placed in; an echo of an older one
proves nothing.

Pure: the time is an argument, monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

BYTES_PER_SECOND = 8000
MAX_PENDING_MARKS = 256
# An echo this late means that the caller leg is slow; the mark is no longer waited for.
OVERDUE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Pending:
    """A mark on its way: when it should be heard, and the turn whose first audio follows it, if any."""

    expected_at: float
    turn: int | None


class Playout:
    """The caller leg's playback buffer, as far as we can know it."""

    def __init__(self) -> None:
        self.generation = 0  # raised by every clear
        self.ends_at = 0.0  # when all that was sent will have been played
        self.overdue = 0  # marks that came back late, or never
        self._serial = 0  # makes mark names unique within the stream
        self._pending: OrderedDict[str, Pending] = OrderedDict()

    def queue(self, size: int, now: float) -> float:
        """`size` bytes go to the caller; returns when the first of them will be played."""
        begins_at = max(now, self.ends_at)
        self.ends_at = begins_at + size / BYTES_PER_SECOND
        return begins_at

    def unplayed(self, now: float) -> float:
        """Seconds of audio that the caller has yet to hear, by arithmetic."""
        return max(0.0, self.ends_at - now)

    def playing(self, now: float) -> bool:
        """Whether the caller still hears the assistant: by arithmetic, or by a mark not yet echoed."""
        self._forget_overdue(now)
        return self.ends_at > now or bool(self._pending)

    def place_mark(self, now: float, turn: int | None = None) -> str:
        """The name of a mark to send now: behind what was sent, before what follows."""
        self._serial += 1
        name = f"g{self.generation}-{self._serial}"
        self._pending[name] = Pending(max(now, self.ends_at), turn)
        if len(self._pending) > MAX_PENDING_MARKS:
            self._pending.popitem(last=False)
            self.overdue += 1
        return name

    def echoed(self, name: str, now: float) -> Pending | None:
        """A mark came back. None when it is not ours, or of a generation that was cleared."""
        mark = self._pending.pop(name, None)
        if mark is not None and now > mark.expected_at + OVERDUE_SECONDS:
            self.overdue += 1
        return mark

    def clear(self, now: float) -> None:
        """All that was queued is dropped; marks that come back from now on prove nothing."""
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
