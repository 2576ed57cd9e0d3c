"""The carrier's playback buffer: what was queued, what the caller has heard of it, and which marks are due.

Theory: audio plays at 8000 bytes a second from the moment it arrives, or from the end of what is queued
before it. So nothing needs to tick: each piece has the time at which it starts, a mark is due when the
last piece before it has ended, and `clear` cuts off whatever lies after now.

Pure: time comes in as `now`, monotonic seconds. At most ten minutes are queued, as at Twilio; the rest is
refused and counted.
"""

from bisect import bisect_left
from collections import deque

from sandbox.speech import audio
from sandbox.twilio.record import HeardSegment, MarkNote

BYTES_PER_SECOND = 8_000
MAX_QUEUED_BYTES = 600 * BYTES_PER_SECOND
WINDOW = audio.WINDOW
PAUSE_WITHIN_SPEECH_S = 0.3


class Playback:
    def __init__(self) -> None:
        self._pieces: list[tuple[float, bytes]] = []  # when each starts, ascending
        self._queued_until = 0.0  # when all that is queued has been played
        self._loud: list[float] = []  # the start of each loud window, ascending
        self._pending: deque[MarkNote] = deque()
        self.refused_bytes = 0

    def play(self, ulaw: bytes, now: float) -> bool:
        """Queue audio behind what is queued. False when the buffer is full."""
        starts_at = max(now, self._queued_until)
        if (starts_at - now) * BYTES_PER_SECOND + len(ulaw) > MAX_QUEUED_BYTES:
            self.refused_bytes += len(ulaw)
            return False
        self._pieces.append((starts_at, ulaw))
        self._queued_until = starts_at + len(ulaw) / BYTES_PER_SECOND
        for window in audio.loud_windows(audio.ulaw_decode(ulaw)):
            self._loud.append(starts_at + window * WINDOW / BYTES_PER_SECOND)
        return True

    def mark(self, name: str, now: float) -> MarkNote:
        note = MarkNote(name=name, received_at=now, due_at=max(now, self._queued_until))
        self._pending.append(note)
        return note

    def next_mark_at(self) -> float | None:
        return self._pending[0].due_at if self._pending else None

    def take_due_marks(self, now: float) -> list[MarkNote]:
        due = []
        while self._pending and self._pending[0].due_at <= now:
            due.append(self._pending.popleft())
        return due

    def clear(self, now: float) -> tuple[int, list[MarkNote]]:
        """Drop what has not been played. Returns how many bytes that was, and all marks still pending."""
        dropped = self._cut(now)
        # A mark already due was played, not cleared: only its echo is late.
        for note in self._pending:
            note.cleared = note.due_at > now
        marks = list(self._pending)
        self._pending.clear()
        return dropped, marks

    def stop(self, now: float) -> int:
        """The stream is over: returns how many bytes nobody will hear. Marks are not returned any more."""
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
        """When the first audible sound at or after that time is, or will be, heard."""
        index = bisect_left(self._loud, since)
        return self._loud[index] if index < len(self._loud) else None

    def quiet_since(self) -> float | None:
        """The end of the last audible sound, which may lie ahead; None when there was none yet."""
        return self._loud[-1] + WINDOW / BYTES_PER_SECOND if self._loud else None

    def is_audible(self, now: float) -> bool:
        """Whether the assistant is being heard now, or was a moment ago."""
        index = bisect_left(self._loud, now - PAUSE_WITHIN_SPEECH_S)
        return index < len(self._loud) and self._loud[index] <= now

    def heard(self, since: float, until: float) -> bytes:
        """The caller's ear between two times: what was played, and silence in between."""
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
        found: list[HeardSegment] = []
        for starts_at in self._loud:
            ends_at = starts_at + WINDOW / BYTES_PER_SECOND
            if found and starts_at - found[-1].ended_at <= PAUSE_WITHIN_SPEECH_S:
                found[-1] = HeardSegment(found[-1].started_at, ends_at)
            else:
                found.append(HeardSegment(starts_at, ends_at))
        return found
