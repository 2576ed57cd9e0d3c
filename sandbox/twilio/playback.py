"""Twilio's playback buffer: queued audio, what the caller has heard of it, and which marks are due.

Audio plays at 8000 bytes a second from its arrival, or from the end of the audio queued before it.
So no timer is needed: each piece has a start time, a mark is due when the last piece before it has ended,
and `clear` cuts off everything after now.

Pure: time is passed as `now`, monotonic seconds. At most ten minutes are queued, as at Twilio; more is
rejected and counted.
"""

from bisect import bisect_left
from collections import deque

from sandbox.speech import audio
from sandbox.twilio.record import HeardSegment, MarkRecord

BYTES_PER_SECOND = 8_000
MAX_QUEUED_BYTES = 600 * BYTES_PER_SECOND
WINDOW = audio.WINDOW
MAX_PAUSE_SECONDS = 0.3


class Playback:
    def __init__(self) -> None:
        self._pieces: list[tuple[float, bytes]] = []  # when each starts, ascending
        self._queued_until = 0.0  # when all queued audio will have been played
        self._loud: list[float] = []  # the start of each loud window, ascending
        self._pending: deque[MarkRecord] = deque()
        self.rejected_bytes = 0

    def play(self, ulaw: bytes, now: float) -> bool:
        """Append audio to the queue. False when the buffer is full."""
        starts_at = max(now, self._queued_until)
        if (starts_at - now) * BYTES_PER_SECOND + len(ulaw) > MAX_QUEUED_BYTES:
            self.rejected_bytes += len(ulaw)
            return False
        self._pieces.append((starts_at, ulaw))
        self._queued_until = starts_at + len(ulaw) / BYTES_PER_SECOND
        for window in audio.loud_windows(audio.ulaw_decode(ulaw)):
            self._loud.append(starts_at + window * WINDOW / BYTES_PER_SECOND)
        return True

    def mark(self, name: str, now: float) -> MarkRecord:
        mark = MarkRecord(name=name, received_at=now, due_at=max(now, self._queued_until))
        self._pending.append(mark)
        return mark

    def next_mark_at(self) -> float | None:
        return self._pending[0].due_at if self._pending else None

    def take_due_marks(self, now: float) -> list[MarkRecord]:
        due = []
        while self._pending and self._pending[0].due_at <= now:
            due.append(self._pending.popleft())
        return due

    def clear(self, now: float) -> tuple[int, list[MarkRecord]]:
        """Drop what has not been played. Returns the number of dropped bytes and all pending marks."""
        dropped = self._cut(now)
        # The audio before a mark that is due was played, not cleared: only the echo is late.
        for mark in self._pending:
            mark.cleared = mark.due_at > now
        marks = list(self._pending)
        self._pending.clear()
        return dropped, marks

    def stop(self, now: float) -> int:
        """End playback: returns the number of bytes not played. Pending marks are not echoed."""
        self._pending.clear()
        return self._cut(now)

    def _cut(self, now: float) -> int:
        dropped = 0
        while self._pieces:
            starts_at, ulaw = self._pieces[-1]
            played = max(0, min(len(ulaw), round((now - starts_at) * BYTES_PER_SECOND)))
            if played == len(ulaw):
                break
            dropped += len(ulaw) - played
            self._pieces.pop()
            if played:
                self._pieces.append((starts_at, ulaw[:played]))
                break
        self._queued_until = min(self._queued_until, now)
        del self._loud[bisect_left(self._loud, now) :]
        return dropped

    def first_loud_after(self, since: float) -> float | None:
        """Time of the first audible sound at or after `since`; it may lie in the future."""
        index = bisect_left(self._loud, since)
        return self._loud[index] if index < len(self._loud) else None

    def quiet_since(self) -> float | None:
        """End of the last audible sound, which may lie in the future; None before the first sound."""
        return self._loud[-1] + WINDOW / BYTES_PER_SECOND if self._loud else None

    def is_audible(self, now: float) -> bool:
        """Whether the assistant is audible now, or was within `MAX_PAUSE_SECONDS`."""
        index = bisect_left(self._loud, now - MAX_PAUSE_SECONDS)
        return index < len(self._loud) and self._loud[index] <= now

    def heard(self, since: float, until: float) -> bytes:
        """What the caller heard between two times: the played audio, with silence in the gaps."""
        timeline = bytearray([audio.SILENCE]) * max(0, round((until - since) * BYTES_PER_SECOND))
        position = 0
        for starts_at, ulaw in self._pieces:
            # Rounding must not make two adjacent pieces overlap.
            position = max(position, round((starts_at - since) * BYTES_PER_SECOND))
            end = min(position + len(ulaw), len(timeline))
            timeline[position:end] = ulaw[: max(0, end - position)]
            position += len(ulaw)
        return bytes(timeline)

    def segments(self) -> list[HeardSegment]:
        """Stretches of audible sound; shorter pauses do not divide them."""
        segments: list[HeardSegment] = []
        for starts_at in self._loud:
            ends_at = starts_at + WINDOW / BYTES_PER_SECOND
            if segments and starts_at - segments[-1].ended_at <= MAX_PAUSE_SECONDS:
                segments[-1] = HeardSegment(segments[-1].started_at, ends_at)
            else:
                segments.append(HeardSegment(starts_at, ends_at))
        return segments
