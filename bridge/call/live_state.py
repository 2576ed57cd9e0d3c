"""What is live but no row: who has the floor, and the words that are not final yet.

The floor moves when the caller's speech begins or ends by our own detector, and when audible assistant
audio begins to play or has been played; a pause of `PAUSE_SECONDS` leaves it where it is. Two who speak at
once: the floor is the caller's, for that is whom the assistant should yield to.

Whoever watches a call is told at most four times a second. What came too early is told when its time has
come, with what is true by then: nothing piles up, and nothing stays untold.

Pure: the time is an argument, monotonic seconds.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Floor: TypeAlias = Literal["", "caller", "assistant"]

APART_SECONDS = 0.25
PAUSE_SECONDS = 0.2  # an assistant that pauses no longer than this has not finished
MAX_PARTIAL = 300  # characters; of a longer one the end, which is what is being said


class LiveNotes:
    """The floor and the partial words of one call."""

    def __init__(self, now: float) -> None:
        # Both are compared with every piece of audio, and told when they turned out to be wrong.
        self.caller_speaks = False
        self.assistant_speaks = False
        self.assistant_until = now  # when the audible audio that was sent will have been played
        self.floor: Floor = ""
        self.floor_since = now
        self.speaker: Floor = ""  # whose words the partial ones are
        self.partial = ""
        self.told_at = float("-inf")

    def caller(self, speaks: bool, now: float) -> None:
        self.caller_speaks = speaks
        self._move(now)

    def assistant(self, speaks: bool, now: float) -> None:
        self.assistant_speaks = speaks
        self._move(now)

    def assistant_done_at(self) -> float:
        """When the assistant will have lost the floor, if no more audio comes."""
        return self.assistant_until + PAUSE_SECONDS

    def cut_off(self, now: float) -> None:
        """What the assistant still had to say will not be heard."""
        self.assistant_until = min(self.assistant_until, now)
        self.assistant(False, now)

    def said(self, speaker: Floor, text: str, *, final: bool) -> None:
        """Words: partial ones replace those before them, a speaker's final ones end them."""
        if not final:
            self.speaker, self.partial = speaker, text.strip()[-MAX_PARTIAL:]
        elif speaker == self.speaker:
            self.speaker, self.partial = "", ""

    def over(self, now: float) -> None:
        """Nobody speaks any more."""
        self.speaker, self.partial = "", ""
        self.caller_speaks = self.assistant_speaks = False
        self._move(now)

    def due_at(self) -> float:
        """From when on the next note may go out."""
        return self.told_at + APART_SECONDS

    def _move(self, now: float) -> None:
        floor: Floor = "caller" if self.caller_speaks else "assistant" if self.assistant_speaks else ""
        if floor != self.floor:
            self.floor, self.floor_since = floor, now
