"""Whether the caller is cutting the assistant off.

Vapi says so itself (`user-interrupted`), but not always. Two more signs count:

- inferred: the caller began over audio that was playing, and within a second the assistant fell silent.
- caller-loud, for the dialect in which Vapi sends no word: 200 ms of loud caller over unplayed audio.

Several signs within a second are one barge-in. Pure: the time is an argument, monotonic seconds.
"""

from __future__ import annotations

from bridge.call.playout import Playout
from bridge.call.turns import Turns

ONCE_SECONDS = 1.0
LOCAL_MS = 200
DEAF_SECONDS = 0.15


class BargeIn:
    """The signs of a barge-in, read from the floor and from what the caller still hears."""

    def __init__(self, turns: Turns, playout: Playout) -> None:
        # Until then assistant audio is what was on its way when we told it to be silent.
        self.ignore_audio_until = float("-inf")
        self._turns = turns
        self._playout = playout
        self._caller_began: float | None = None  # by Vapi's word, while the assistant played
        self._overlap_from_ms: float | None = None
        self._latest = float("-inf")

    def caller_started(self, now: float) -> None:
        """Vapi says that the caller began to speak."""
        self._caller_began = now if self._playout.playing(now) else None

    def assistant_stopped(self, now: float) -> bool:
        """Vapi says that the assistant fell silent. Whether that was for the caller."""
        began, self._caller_began = self._caller_began, None
        return began is not None and now - began <= ONCE_SECONDS and self._playout.playing(now)

    def overlapped(self, now: float) -> bool:
        """A frame of the caller's came. Whether it has been loud for long enough over unplayed audio.

        It is so again with the next frame, unless what was playing has been cleared.
        """
        caller = self._turns.caller
        if not caller.speaking or not self._playout.playing(now):
            self._overlap_from_ms = None
            return False
        if self._overlap_from_ms is None:
            stretch, onset = self._turns.stretch_began, caller.onset_at
            over = stretch is not None and onset is not None and stretch <= onset
            self._overlap_from_ms = 0.0 if over else caller.loud_ms
        if caller.loud_ms - self._overlap_from_ms < LOCAL_MS:
            return False
        self._overlap_from_ms = None
        self.ignore_audio_until = now + DEAF_SECONDS
        return True

    def is_first(self, now: float) -> bool:
        """A sign was seen. Whether it is a barge-in of its own, and no later sign of the one before."""
        if now - self._latest < ONCE_SECONDS:
            return False
        self._latest = now
        return True
