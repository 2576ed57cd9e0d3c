"""The hold buffer: caller audio that waits, in order, while the assistant is being dialed.

Bounded by the length of the audio: when it is full, the oldest frames are dropped. Pure.
"""

from __future__ import annotations

from collections import deque

BYTES_PER_MS = 8  # mu-law at 8 kHz


class HoldBuffer:
    """Caller frames that wait for the assistant."""

    def __init__(self, limit_ms: int) -> None:
        self.frames = 0  # number of frames held in total, for the journal
        self._limit_bytes = limit_ms * BYTES_PER_MS
        self._held: deque[bytes] = deque()
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, ulaw: bytes) -> int:
        """Hold a frame. Returns how many of the oldest frames were dropped because the buffer was full."""
        self._held.append(ulaw)
        self._held_bytes += len(ulaw)
        self.frames += 1
        dropped = 0
        while self._held_bytes > self._limit_bytes:
            self._held_bytes -= len(self._held.popleft())
            dropped += 1
        return dropped

    def release(self) -> list[bytes]:
        """Remove and return all frames, oldest first."""
        frames = list(self._held)
        self._held.clear()
        self._held_bytes = 0
        return frames
