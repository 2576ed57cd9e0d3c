"""When the words that Vapi reports were spoken, by what crossed the bridge.

A final transcript comes without times that could be trusted, and late. The caller's words belong to the
speech that our detector heard last. The assistant's begin where its audio began to play after its words
before them, and end where that audio ends, or now: a pause between two sentences begins no utterance.

Pure: times are monotonic seconds, None where our measure does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spoken:
    """Where a piece of speech lies in the call."""

    started: float | None
    ended: float | None
    interrupted: bool = False
    unheard: float | None = None  # seconds of its audio that were thrown away


class Utterances:
    """The speech of one call that has no words yet."""

    def __init__(self) -> None:
        self._caller_until: float | None = None  # caller speech up to here has its words
        self._assistant_from: float | None = None
        self._cut = False  # the assistant words that follow were interrupted
        self._unheard = 0.0  # seconds of their audio that the caller will never hear

    def assistant_plays(self, begins_at: float, *, answer: bool) -> None:
        """A stretch of assistant audio will be heard from `begins_at` on."""
        if answer or self._cut or self._assistant_from is None:
            self._assistant_from = begins_at
            self._cut, self._unheard = False, 0.0

    def cut_off(self, unheard: float = 0.0) -> None:
        """The assistant was; `unheard` seconds of its audio lay waiting and were thrown away."""
        self._cut = True
        self._unheard += unheard

    def of_caller(self, onset_at: float | None, last_loud_at: float | None) -> Spoken:
        """The caller's words. A second final of the same speech gets no times: its share is unknown."""
        if last_loud_at is not None and last_loud_at == self._caller_until:
            return Spoken(None, None)
        self._caller_until = last_loud_at
        return Spoken(onset_at, last_loud_at)

    def of_assistant(self, plays_until: float, now: float) -> Spoken:
        """The assistant's words."""
        started, self._assistant_from = self._assistant_from, None
        cut, unheard = self._cut, self._unheard or None
        self._cut, self._unheard = False, 0.0
        return Spoken(started, min(plays_until, now) if started is not None else None, cut, unheard)
