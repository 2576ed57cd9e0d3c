"""Live state of a call: the floor and the partial transcript. It is published, never stored as a row.

The floor changes when our detector reports the caller's onset or end of speech, and when audible assistant
audio begins to play or has been played; a pause of up to `PAUSE_SECONDS` changes nothing. When both speak the
caller has the floor, because the assistant should yield.

Live notes are limited to four a second and call. A note that comes too early is delayed, and then has the
state of that time. Notes therefore never queue up, and the last state is never lost.

Pure: times are arguments, monotonic seconds.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Floor: TypeAlias = Literal["", "caller", "assistant"]

MIN_INTERVAL_SECONDS = 0.25
PAUSE_SECONDS = 0.2  # after a longer pause the assistant has finished
MAX_PARTIAL = 300  # characters; of a longer partial the end is kept, because it is the newest


class LiveState:
    """The floor and the partial transcript of one call."""

    def __init__(self, now: float) -> None:
        # Compared with the detectors on every frame, so that only changes do any work.
        self.caller_speaks = False
        self.assistant_speaks = False
        self.assistant_until = now  # when the audible audio sent so far will have been played
        self.floor: Floor = ""
        self.floor_since = now
        self.speaker: Floor = ""  # the speaker of `partial`
        self.partial = ""
        self._published_at = float("-inf")

    def set_caller(self, speaks: bool, now: float) -> None:
        self.caller_speaks = speaks
        self._update_floor(now)

    def set_assistant(self, speaks: bool, now: float) -> None:
        self.assistant_speaks = speaks
        self._update_floor(now)

    def assistant_ends_at(self) -> float:
        """When the assistant will lose the floor, if no more audio arrives."""
        return self.assistant_until + PAUSE_SECONDS

    def interrupt(self, now: float) -> None:
        """The assistant's queued audio was cleared."""
        self.assistant_until = min(self.assistant_until, now)
        self.set_assistant(False, now)

    def set_transcript(self, speaker: Floor, text: str, *, final: bool) -> None:
        """A partial replaces the one before it; a final of the same speaker removes it."""
        if not final:
            self.speaker, self.partial = speaker, text.strip()[-MAX_PARTIAL:]
        elif speaker == self.speaker:
            self.speaker, self.partial = "", ""

    def clear(self, now: float) -> None:
        """Nobody speaks any more: the call has ended."""
        self.speaker, self.partial = "", ""
        self.caller_speaks = self.assistant_speaks = False
        self._update_floor(now)

    def throttle(self, now: float) -> float | None:
        """None when a note may be written now, which is then counted as written; else when to try again."""
        allowed_at = self._published_at + MIN_INTERVAL_SECONDS
        if now < allowed_at:
            return allowed_at
        self._published_at = now
        return None

    def _update_floor(self, now: float) -> None:
        floor: Floor = "caller" if self.caller_speaks else "assistant" if self.assistant_speaks else ""
        if floor != self.floor:
            self.floor, self.floor_since = floor, now
