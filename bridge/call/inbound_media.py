"""How the caller leg delivers: frames that come late or never, and messages that are none.

Twilio sends a frame every 20 ms and numbers them. How far a gap in time is off 20 ms is jitter, a gap in the
numbers is loss; both are counted and the call goes on. A peer that sends little but rubbish is not Twilio.

Pure: the time is an argument, monotonic seconds.
"""

from __future__ import annotations

from collections import Counter, deque

LATE_FRAME_SECONDS = 0.06
FRAME_MS = 20.0
MOST_JITTER_MS = 250  # anything beyond counts as this
ABUSE_COUNT, ABUSE_SECONDS = 50, 10.0


class Arrivals:
    """What came from the caller leg, as far as its time and order tell. Counts into `counters`."""

    def __init__(self, now: float, counters: Counter[str]) -> None:
        self.latest = now  # when the last frame came, or the stream began
        self._counters = counters
        self._chunk: int | None = None
        self._jitter = [0] * (MOST_JITTER_MS + 1)  # how many frames were so many milliseconds off
        self._bad_times: deque[float] = deque(maxlen=ABUSE_COUNT + 1)

    def frame(self, chunk: int | None, now: float) -> None:
        """A frame came, with its number if it has one."""
        gap = now - self.latest
        if gap > LATE_FRAME_SECONDS:
            self._counters["frames_late"] += 1
        off = int(abs(gap * 1000 - FRAME_MS))
        self._jitter[off if off < MOST_JITTER_MS else MOST_JITTER_MS] += 1
        self.latest = now
        if chunk is not None:
            if self._chunk is not None and chunk != self._chunk + 1:
                self._counters["frames_missing"] += abs(chunk - self._chunk - 1)
            self._chunk = chunk

    @property
    def jitter_p95_ms(self) -> int | None:
        """Of 20 frames 19 came no further off their time than this; None before there was any."""
        left = 0.95 * sum(self._jitter)
        for ms, frames in enumerate(self._jitter):
            left -= frames
            if frames and left <= 0:
                return ms
        return None

    def bad(self, now: float) -> bool:
        """A message came that is none. Whether there were too many of late."""
        self._bad_times.append(now)
        return len(self._bad_times) > ABUSE_COUNT and now - self._bad_times[0] <= ABUSE_SECONDS
