"""How caller audio arrives: jitter, late and missing frames, and messages that are malformed.

Twilio sends a frame every 20 ms and numbers them. Jitter is the deviation of the gap between two frames from
20 ms; a gap in the numbers is loss. Both are counted, and the call continues. A peer that sends many
malformed messages, or audio faster than somebody can speak, is not Twilio: the session then ends the call.

Pure: times are arguments, monotonic seconds.
"""

from __future__ import annotations

from collections import Counter, deque

LATE_FRAME_SECONDS = 0.06
FRAME_MS = 20.0
MAX_JITTER_MS = 250  # larger deviations count as this
ABUSE_COUNT, ABUSE_SECONDS = 50, 10.0
BYTES_PER_SECOND = 8000
FLOOD_SECONDS = 3.0  # of audio more than time has passed since the start; what a stall delayed is less


class InboundMedia:
    """Timing and order of the caller's frames. Counts into `counters`."""

    def __init__(self, now: float, counters: Counter[str]) -> None:
        self.latest_at = now  # when the last frame arrived, or the stream started
        self._started_at = now
        self._received_bytes = 0
        self._counters = counters
        self._chunk: int | None = None  # Twilio's number of the last frame
        self._jitter = [0] * (MAX_JITTER_MS + 1)  # number of frames by deviation in ms
        self._bad_times: deque[float] = deque(maxlen=ABUSE_COUNT + 1)

    def start(self, now: float) -> None:
        """The stream has started: frames may arrive from now on."""
        self.latest_at = self._started_at = now

    def count_frame(self, chunk: int | None, size: int, now: float) -> bool:
        """A frame of so many bytes arrived; `chunk` is its number, if it has one. True if it is too much."""
        self._received_bytes += size
        gap = now - self.latest_at
        if gap > LATE_FRAME_SECONDS:
            self._counters["frames_late"] += 1
        deviation_ms = int(abs(gap * 1000 - FRAME_MS))
        self._jitter[deviation_ms if deviation_ms < MAX_JITTER_MS else MAX_JITTER_MS] += 1
        self.latest_at = now
        if chunk is not None:
            if self._chunk is not None and chunk != self._chunk + 1:
                self._counters["frames_missing"] += abs(chunk - self._chunk - 1)
            self._chunk = chunk
        return self._received_bytes / BYTES_PER_SECOND > now - self._started_at + FLOOD_SECONDS

    @property
    def jitter_p95_ms(self) -> int | None:
        """95th percentile of the deviation from 20 ms; None before the first frame."""
        remaining = 0.95 * sum(self._jitter)
        for ms, frames in enumerate(self._jitter):
            remaining -= frames
            if frames and remaining <= 0:
                return ms
        return None

    def count_bad_message(self, now: float) -> bool:
        """A malformed message arrived. True when there were more than 50 within 10 s."""
        self._bad_times.append(now)
        return len(self._bad_times) > ABUSE_COUNT and now - self._bad_times[0] <= ABUSE_SECONDS
