"""Barge-in detection: whether the caller interrupts the assistant.

Vapi reports a barge-in with `user-interrupted`, but not always. There are two more signs:

- inferred: the caller started while audio was playing, and the assistant stopped within a second.
- caller-loud, for assistants that send no events: 200 ms of loud caller audio over unplayed assistant audio.

Signs within one second of each other are one barge-in. Pure: times are arguments, monotonic seconds.
"""

from __future__ import annotations

from bridge.call.playout import Playout
from bridge.call.turns import Turns

SAME_BARGE_IN_SECONDS = 1.0
LOUD_MS = 200
IGNORE_AUDIO_SECONDS = 0.15


class BargeIn:
    """Detects the signs of a barge-in, from the turns and the playout."""

    def __init__(self, turns: Turns, playout: Playout) -> None:
        # Assistant audio that arrives before this was sent before the assistant received `cancel`.
        self.ignore_audio_until = float("-inf")
        self._turns = turns
        self._playout = playout
        self._caller_started_at: float | None = None  # by Vapi's event, while the assistant played
        self._overlap_from_ms: float | None = None
        self._latest_at = float("-inf")

    def on_caller_started(self, now: float) -> None:
        """Vapi reports that the caller started speaking."""
        self._caller_started_at = now if self._playout.is_playing(now) else None

    def on_assistant_stopped(self, now: float) -> bool:
        """Vapi reports that the assistant stopped. True when it stopped because of the caller."""
        started_at, self._caller_started_at = self._caller_started_at, None
        if started_at is None or now - started_at > SAME_BARGE_IN_SECONDS:
            return False
        return self._playout.is_playing(now)

    def detect_overlap(self, now: float) -> bool:
        """After a caller frame: whether the caller has been loud for 200 ms over unplayed audio.

        The count restarts after it was true, and when nothing plays any more.
        """
        caller = self._turns.caller
        if not caller.speaking or not self._playout.is_playing(now):
            self._overlap_from_ms = None
            return False
        if self._overlap_from_ms is None:
            speech_at, onset_at = self._turns.assistant_speech_at, caller.onset_at
            whole_onset = speech_at is not None and onset_at is not None and speech_at <= onset_at
            self._overlap_from_ms = 0.0 if whole_onset else caller.loud_ms
        if caller.loud_ms - self._overlap_from_ms < LOUD_MS:
            return False
        self._overlap_from_ms = None
        self.ignore_audio_until = now + IGNORE_AUDIO_SECONDS
        return True

    def register_sign(self, now: float) -> bool:
        """Remember a sign of a barge-in. False when it is another sign of the same one."""
        if now - self._latest_at < SAME_BARGE_IN_SECONDS:
            return False
        self._latest_at = now
        return True
