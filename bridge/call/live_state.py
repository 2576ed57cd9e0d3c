"""What is true now but never a row: who has the floor, and the words that are not final yet.

The floor changes when our detector hears the caller begin or end, and when audible assistant audio begins to
play or has played out; a pause of `PAUSE_SECONDS` changes nothing. When both speak the floor is the caller's,
because the assistant should yield.

Live notes are limited to four a second and call. A note that comes too early is delayed, and then tells what
is true by that time, so that notes never queue up and the last one is never lost.

Pure: times are arguments, monotonic seconds.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Floor: TypeAlias = Literal["", "caller", "assistant"]

MIN_INTERVAL_SECONDS = 0.25
PAUSE_SECONDS = 0.2  # an assistant that pauses no longer than this has not finished
MAX_PARTIAL = 300  # characters; of longer partial words the end is kept, which is the newest


class LiveState:
    """The floor and the partial words of one call."""

    def __init__(self, now: float) -> None:
        # Compared with the detectors on every frame, so that only changes cost anything.
        self.caller_speaks = False
        self.assistant_speaks = False
        self.assistant_until = now  # when the audible audio sent so far will have played out
        self.floor: Floor = ""
        self.floor_since = now
        self.speaker: Floor = ""  # whose words `partial` are
        self.partial = ""
        self._published_at = float("-inf")

    def set_caller(self, speaks: bool, now: float) -> None:
        self.caller_speaks = speaks
        self._update_floor(now)

    def set_assistant(self, speaks: bool, now: float) -> None:
        self.assistant_speaks = speaks
        self._update_floor(now)

    def assistant_done_at(self) -> float:
        """When the assistant will lose the floor, if no more audio arrives."""
        return self.assistant_until + PAUSE_SECONDS

    def interrupted(self, now: float) -> None:
        """The assistant's queued audio was cleared."""
        self.assistant_until = min(self.assistant_until, now)
        self.set_assistant(False, now)

    def set_words(self, speaker: Floor, text: str, *, final: bool) -> None:
        """Partial words replace the partial words before them; a speaker's final words end them."""
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
        """None when a note may be written now, which then counts as written; else when to try again."""
        allowed_at = self._published_at + MIN_INTERVAL_SECONDS
        if now < allowed_at:
            return allowed_at
        self._published_at = now
        return None

    def _update_floor(self, now: float) -> None:
        floor: Floor = "caller" if self.caller_speaks else "assistant" if self.assistant_speaks else ""
        if floor != self.floor:
            self.floor, self.floor_since = floor, now
