"""Barge-in detection: whether the caller is interrupting the assistant.

Vapi reports it (`user-interrupted`), but not always. Two more signs count:

- inferred: the caller started while audio was playing, and within a second the assistant stopped.
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
    """The signs of a barge-in, from the floor and from what is still playing."""

    def __init__(self, turns: Turns, playout: Playout) -> None:
        # Assistant audio that arrives before this was on its way when the assistant was told to stop.
        self.ignore_audio_until = float("-inf")
        self._turns = turns
        self._playout = playout
        self._caller_started_at: float | None = None  # by Vapi's event, while the assistant played
        self._overlap_from_ms: float | None = None
        self._latest_at = float("-inf")

    def caller_started(self, now: float) -> None:
        """Vapi reports that the caller started speaking."""
        self._caller_started_at = now if self._playout.is_playing(now) else None

    def assistant_stopped(self, now: float) -> bool:
        """Vapi reports that the assistant stopped. True when it stopped because of the caller."""
        started_at, self._caller_started_at = self._caller_started_at, None
        if started_at is None or now - started_at > SAME_BARGE_IN_SECONDS:
            return False
        return self._playout.is_playing(now)

    def is_overlap(self, now: float) -> bool:
        """After a caller frame: whether the caller has been loud for long enough over unplayed audio.

        Starts over once it was true, or when nothing plays any more.
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

    def is_first(self, now: float) -> bool:
        """For each sign seen: whether it begins a barge-in, or is another sign of the one before."""
        if now - self._latest_at < SAME_BARGE_IN_SECONDS:
            return False
        self._latest_at = now
        return True
