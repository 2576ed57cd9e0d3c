"""Who speaks, and how long the caller waits for an answer.

A turn is: the caller speaks, the assistant answers. Its clock is what crosses the bridge, not what
Vapi says about it (its "user stopped" comes most of a second late):

- T0, the end of the caller's speech: arrival of the last loud frame, by our own detector.
- T1, the answer: first audible assistant audio after T0, counted only when the assistant had been
  silent before it, or was cleared since the caller began; audio that merely goes on is a back-channel
  under the caller's words, no answer to them.

The turn opens when the detector is sure that the caller is done, or with the answer, whichever comes
first: a quick answer arrives before the detector's hangover is over. Speech that resumes before the
answer belongs to the same turn and moves its T0.

Pure: the time is an argument, monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.audio.energy import EndOfSpeech, SpeechDetector

# The assistant must have been silent this long for its next audio to be an answer.
SILENCE_BEFORE_ANSWER = 0.200
# After a clear, stragglers of the old answer arrive about 50 ms apart; a new one needs longer.
STRAGGLER_GAP = 0.080
# A caller whose last loud frame is younger than this is still speaking: nobody answers that fast.
STILL_LOUD = 0.060


@dataclass(slots=True)
class Turn:
    """One exchange; times are monotonic seconds, None until known."""

    number: int
    end_of_speech: float  # T0
    endpointed: float | None = None  # Vapi's word that the caller stopped
    first_audio: float | None = None  # T1
    sent: float | None = None  # T2, handed to Twilio's socket
    heard: float | None = None  # T3, echo of the mark before it
    interrupted: bool = False  # the answer was cut by the caller


class Turns:
    """The floor of one call."""

    def __init__(self) -> None:
        self.caller = SpeechDetector()
        self.open: Turn | None = None  # the caller is done and nobody has answered yet
        self.latest: Turn | None = None  # the turn answered last
        self.stretch_began: float | None = None  # the assistant's current stretch of speech, its start
        self._last_audible = float("-inf")  # the end of the latest audible assistant audio
        self._answered_at = float("-inf")  # T1 of the latest answer; speech before it is dealt with
        self._cleared_at = float("-inf")
        self._count = 0
        # Vapi's signs that the caller's turn is over, of the present turn only.
        self._stopped_at: float | None = None
        self._final_at: float | None = None
        self._started_at: float | None = None

    def caller_frame(self, ulaw: bytes, now: float) -> Turn | None:
        """A frame of the caller's. Returns the turn that this opens or whose T0 it moves."""
        change = self.caller.feed(ulaw, now)
        if not isinstance(change, EndOfSpeech) or change.at <= self._answered_at:
            return None  # nothing ended, or the answer was quicker than the detector's hangover
        return self._opened(change.at)

    def assistant_audible(self, now: float, seconds: float) -> Turn | None:
        """So much audible assistant audio arrived. Returns the turn that it answers, if it is an answer."""
        quiet_for, self._last_audible = now - self._last_audible, now + seconds
        if quiet_for < (STRAGGLER_GAP if self._is_cleared() else SILENCE_BEFORE_ANSWER):
            return None
        self.stretch_began = now
        end = self.caller.last_loud_at
        # Speech younger than STILL_LOUD goes on: the answer can only be to a turn before it.
        if end is not None and self._answered_at < end <= now - STILL_LOUD:
            self._opened(end)
        turn = self.open
        if turn is not None:
            turn.first_audio = self._answered_at = now
            turn.endpointed = self._endpointed(turn)
            self.open, self.latest = None, turn
            self._stopped_at = self._final_at = self._started_at = None
        return turn

    @property
    def unanswered(self) -> Turn | None:
        """The open turn, if the assistant has yet to speak after it. One that talked on over the
        caller's words, and then fell silent, is waiting for the caller."""
        turn = self.open
        if turn is None or self._is_cleared() or self._last_audible <= turn.end_of_speech:
            return turn
        return None

    def _is_cleared(self) -> bool:
        """Whether the assistant was cut off since the caller last began to speak."""
        return self.caller.onset_at is not None and self._cleared_at >= self.caller.onset_at

    def _opened(self, end: float) -> Turn:
        if self.open is None:
            self._count += 1
            self.open = Turn(self._count, end)
        self.open.end_of_speech = max(self.open.end_of_speech, end)
        return self.open

    def cleared(self, now: float) -> Turn | None:
        """The assistant was cut off. Returns the turn whose answer that was, None for a greeting."""
        self._cleared_at = now
        self._last_audible = min(self._last_audible, now)
        if self.latest is not None:
            self.latest.interrupted = True
        return self.latest

    def caller_stopped(self, now: float) -> None:
        """Vapi says that the caller stopped speaking. The first such word after the end counts."""
        if self._stopped_at is None or self._is_stale(self._stopped_at):
            self._stopped_at = now

    def caller_final(self, now: float) -> None:
        """Vapi has words of the caller's. The last such word before the answer counts."""
        self._final_at = now

    def assistant_started(self, now: float) -> None:
        """Vapi says that the assistant begins to speak. The first such word after the end counts."""
        if self._started_at is None or self._is_stale(self._started_at):
            self._started_at = now

    def _is_stale(self, at: float) -> bool:
        return self.caller.last_loud_at is not None and at <= self.caller.last_loud_at

    def _endpointed(self, turn: Turn) -> float | None:
        signs = (self._stopped_at, self._final_at, self._started_at)
        return min((at for at in signs if at is not None and at > turn.end_of_speech), default=None)
