"""Turns and their response latency: the caller speaks, the assistant answers.

Latency is measured on the audio that passes through the bridge. Vapi's events cannot be used: its "user
stopped" arrives most of a second late.

- T0, end of the caller's speech: arrival of the last loud frame, by our own detector.
- T1, the answer: first audible assistant audio after T0. It counts only when the assistant had been silent
  before it, or was cleared since the caller's onset. Audio that merely continues while the caller says
  "mm-hm" (a back-channel) is no answer.

A turn opens when the detector's hangover has passed, or with the answer, whichever comes first: a quick
answer arrives within the hangover. Speech that resumes before the answer belongs to the same turn and moves
its T0.

Pure: times are arguments, monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.audio.energy import EndOfSpeech, SpeechDetector

# Assistant audio is an answer only after this much silence, in seconds.
ANSWER_SILENCE_SECONDS = 0.200
# After a clear, late chunks of the old answer arrive about 50 ms apart; a longer gap begins a new answer.
LATE_CHUNK_GAP_SECONDS = 0.080
# A caller whose last loud frame is more recent than this still speaks: no assistant answers that fast.
STILL_SPEAKING_SECONDS = 0.060


@dataclass(slots=True)
class Turn:
    """One turn. Times are monotonic seconds, None until known."""

    number: int
    end_of_speech: float  # T0
    endpointed: float | None = None  # when Vapi decided that the caller had finished
    first_audio: float | None = None  # T1
    sent: float | None = None  # T2, handed to Twilio's socket
    heard: float | None = None  # T3, Twilio returned the mark before it
    interrupted: bool = False  # the caller interrupted the answer


class Turns:
    """The turns of one call."""

    def __init__(self) -> None:
        self.caller = SpeechDetector()
        self.open: Turn | None = None  # the caller has finished, the answer has not begun
        self.latest: Turn | None = None  # the turn answered last
        self.assistant_speech_at: float | None = None  # when the assistant's current speech began
        self._last_audible = float("-inf")  # the end of the latest audible assistant audio
        self._answered_at = float("-inf")  # T1 of the latest answer; earlier speech belongs to earlier turns
        self._cleared_at = float("-inf")
        self._count = 0
        # Vapi's events that end the caller's turn, of the current turn only.
        self._stopped_at: float | None = None
        self._final_at: float | None = None
        self._started_at: float | None = None

    def caller_frame(self, ulaw: bytes, now: float) -> Turn | None:
        """A frame from the caller. Returns the turn that it opens, or whose T0 it moves."""
        change = self.caller.feed(ulaw, now)
        if not isinstance(change, EndOfSpeech) or change.at <= self._answered_at:
            return None  # no speech ended, or the answer came within the detector's hangover
        return self._open(change.at)

    def on_assistant_audible(self, now: float, seconds: float) -> Turn | None:
        """`seconds` of audible assistant audio arrived. Returns the turn that it answers, if any."""
        quiet_for, self._last_audible = now - self._last_audible, now + seconds
        if quiet_for < (LATE_CHUNK_GAP_SECONDS if self._is_cleared() else ANSWER_SILENCE_SECONDS):
            return None
        self.assistant_speech_at = now
        end = self.caller.last_loud_at
        # More recent speech is still going on: the answer can only belong to a turn before it.
        if end is not None and self._answered_at < end <= now - STILL_SPEAKING_SECONDS:
            self._open(end)
        turn = self.open
        if turn is not None:
            turn.first_audio = self._answered_at = now
            turn.endpointed = self._endpointed(turn)
            self.open, self.latest = None, turn
            self._stopped_at = self._final_at = self._started_at = None
        return turn

    @property
    def unanswered(self) -> Turn | None:
        """The open turn, if the assistant has not spoken since. An assistant that spoke over the caller and
        then stopped is waiting for the caller: no answer is due."""
        turn = self.open
        if turn is None or self._is_cleared() or self._last_audible <= turn.end_of_speech:
            return turn
        return None

    def _is_cleared(self) -> bool:
        """Whether the playout was cleared since the caller last began to speak."""
        return self.caller.onset_at is not None and self._cleared_at >= self.caller.onset_at

    def _open(self, end: float) -> Turn:
        if self.open is None:
            self._count += 1
            self.open = Turn(self._count, end)
        self.open.end_of_speech = max(self.open.end_of_speech, end)
        return self.open

    def on_clear(self, now: float) -> Turn | None:
        """The playout was cleared. Returns the turn whose answer was interrupted, None for a greeting."""
        self._cleared_at = now
        self._last_audible = min(self._last_audible, now)
        if self.latest is not None:
            self.latest.interrupted = True
        return self.latest

    def on_caller_stopped(self, now: float) -> None:
        """Vapi reports that the caller stopped. The first report after T0 counts."""
        if self._stopped_at is None or self._is_stale(self._stopped_at):
            self._stopped_at = now

    def on_caller_final(self, now: float) -> None:
        """Vapi sent a final transcript of the caller. The last one before the answer counts."""
        self._final_at = now

    def on_assistant_started(self, now: float) -> None:
        """Vapi reports that the assistant started. The first report after T0 counts."""
        if self._started_at is None or self._is_stale(self._started_at):
            self._started_at = now

    def _is_stale(self, at: float) -> bool:
        return self.caller.last_loud_at is not None and at <= self.caller.last_loud_at

    def _endpointed(self, turn: Turn) -> float | None:
        signs = (self._stopped_at, self._final_at, self._started_at)
        return min((at for at in signs if at is not None and at > turn.end_of_speech), default=None)
