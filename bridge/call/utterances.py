"""Start and end of utterances, measured on the audio that passes through the bridge.

A final transcript arrives late and without reliable times. An utterance of the caller gets the times of the
speech that our detector detected last. An utterance of the assistant starts when its audio began to play
after the previous utterance, and ends when that audio ends, or now. A pause between two sentences does not
start a new utterance.

Pure: times are monotonic seconds, None where they cannot be measured.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpeechTimes:
    """When an utterance was spoken."""

    started: float | None
    ended: float | None
    interrupted: bool = False
    unheard: float | None = None  # seconds of its audio that were cleared before they were played


class Utterances:
    """Times of the speech in one call that has no transcript yet."""

    def __init__(self) -> None:
        self._caller_until: float | None = None  # caller speech up to here has its transcript
        self._assistant_from: float | None = None  # when assistant speech without a transcript began to play
        self._interrupted = False  # that speech was interrupted
        self._unheard = 0.0  # seconds of it that were cleared

    def assistant_plays(self, begins_at: float, *, answer: bool) -> None:
        """Assistant audio will be heard from `begins_at` on."""
        if answer or self._interrupted or self._assistant_from is None:
            self._assistant_from = begins_at
            self._interrupted, self._unheard = False, 0.0

    def interrupt(self, unheard: float = 0.0) -> None:
        """The caller interrupted the assistant: `unheard` seconds of queued audio were cleared."""
        self._interrupted = True
        self._unheard += unheard

    def of_caller(self, onset_at: float | None, last_loud_at: float | None) -> SpeechTimes:
        """Times of a caller utterance. A second final for the same speech gets none: its part is unknown."""
        if last_loud_at is not None and last_loud_at == self._caller_until:
            return SpeechTimes(None, None)
        self._caller_until = last_loud_at
        return SpeechTimes(onset_at, last_loud_at)

    def of_assistant(self, plays_until: float, now: float) -> SpeechTimes:
        """Times of an assistant utterance."""
        started, self._assistant_from = self._assistant_from, None
        interrupted, unheard = self._interrupted, self._unheard or None
        self._interrupted, self._unheard = False, 0.0
        ended = min(plays_until, now) if started is not None else None
        return SpeechTimes(started, ended, interrupted, unheard)
