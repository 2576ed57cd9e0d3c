"""The replies of the Vapi simulator: clips, and the phrases of the caller that select them."""

from sandbox.speech import audio
from sandbox.speech.audio import Clip

GREETING, SORRY, FAREWELL, TRANSFER = "greeting", "sorry", "farewell", "transfer"

# A phrase in the caller's words -> the clip that answers it. The first match wins.
ANSWERS = {
    "move my appointment": "which_day",
    "opening hours": "open_hours",
    "book a table": "table_booked",
    "talk to a person": TRANSFER,
    "correct": "long_story",
    "goodbye": FAREWELL,
}


class ReplyClips:
    def __init__(self) -> None:
        self._clips = audio.load_clips()
        self._answers = [name for name in ANSWERS.values() if name != FAREWELL]
        self._unmatched = 0  # utterances without a matching phrase

    @property
    def greeting(self) -> Clip:
        return self._clips[GREETING]

    def greeting_for(self, first_message: str) -> Clip:
        """The clip with this text, or the default greeting."""
        clip = self.clip_for_text(first_message)
        return clip if clip.text == first_message else self.greeting

    def answer_to(self, words: str) -> Clip:
        """The answer to the caller's words: "sorry" without words, each clip in turn without a match."""
        if not words:
            return self._clips[SORRY]
        for phrase, name in ANSWERS.items():
            if phrase in words.lower():
                return self._clips[name]
        self._unmatched += 1
        return self._clips[self._answers[(self._unmatched - 1) % len(self._answers)]]

    def clip_for_text(self, text: str) -> Clip:
        """The clip with this text. Without one, the transfer clip: real speech, but other words."""
        clips = (clip for clip in self._clips.values() if clip.speaker == "assistant" and clip.text == text)
        return next(clips, self._clips[TRANSFER])


def caller_sentences() -> list[str]:
    return [clip.text for clip in audio.load_clips().values() if clip.speaker == "caller"]
