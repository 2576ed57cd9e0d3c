"""What the stand-in can say, and to what: a handful of clips and the phrases that call for them."""

from sandbox.speech import audio
from sandbox.speech.audio import Clip

GREETING, SORRY, FAREWELL, STAND_IN = "greeting", "sorry", "farewell", "transfer"

# A phrase in the caller's words -> the clip that answers it. The first that fits wins.
ANSWERS = {
    "move my appointment": "which_day",
    "opening hours": "open_hours",
    "book a table": "table_booked",
    "talk to a person": "transfer",
    "correct": "long_story",
    "goodbye": FAREWELL,
}


class Repertoire:
    def __init__(self) -> None:
        self._clips = audio.load_clips()
        self._answers = [name for name in ANSWERS.values() if name != FAREWELL]
        self._given = 0  # answers to words that no phrase fits

    @property
    def greeting(self) -> Clip:
        return self._clips[GREETING]

    def greeting_for(self, first_message: str) -> Clip:
        """The clip that says this; the usual greeting when there is none."""
        clip = self.for_text(first_message)
        return clip if clip.text == first_message else self.greeting

    def for_words(self, words: str) -> Clip:
        """The answer to the caller's words: sorry to none, one after the other to unknown ones."""
        if not words:
            return self._clips[SORRY]
        for phrase, name in ANSWERS.items():
            if phrase in words.lower():
                return self._clips[name]
        self._given += 1
        return self._clips[self._answers[(self._given - 1) % len(self._answers)]]

    def for_text(self, text: str) -> Clip:
        """The clip that says this, or one that stands for it: real speech, though of other words."""
        spoken = (clip for clip in self._clips.values() if clip.speaker == "assistant" and clip.text == text)
        return next(spoken, self._clips[STAND_IN])


def caller_sentences() -> list[str]:
    return [clip.text for clip in audio.load_clips().values() if clip.speaker == "caller"]
