"""The hold buffer: what the caller says while the assistant is being dialled, so that no word is lost.

In order, and bounded by the length of the audio: when it is full, the oldest frames go. Pure.
"""

from __future__ import annotations

from collections import deque

BYTES_PER_MS = 8


class HoldBuffer:
    """Caller frames that wait for the assistant."""

    def __init__(self, limit_ms: int) -> None:
        self.frames = 0  # all that were ever held, for the journal
        self._limit = limit_ms * BYTES_PER_MS
        self._held: deque[bytes] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def held_ms(self) -> float:
        return self._bytes / BYTES_PER_MS

    def keep(self, ulaw: bytes) -> int:
        """Hold one more frame. Returns how many had to go."""
        self._held.append(ulaw)
        self._bytes += len(ulaw)
        self.frames += 1
        dropped = 0
        while self._bytes > self._limit:
            self._bytes -= len(self._held.popleft())
            dropped += 1
        return dropped

    def release(self) -> list[bytes]:
        """All that is held, oldest first; then the buffer is empty."""
        frames = list(self._held)
        self._held.clear()
        self._bytes = 0
        return frames
