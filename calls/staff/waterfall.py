"""The waterfall of a turn: what the caller's wait consisted of, as one bar with a segment per part.

Segments come from rows and are never estimated. If Vapi reported no endpointing, the time until the first
audio is one segment of its own color.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calls.models import Turn
from calls.templatetags.call_format import seconds

WIDTH = 300  # of the drawing, in its own units


@dataclass(frozen=True, slots=True)
class Part:
    """One segment. `kind` is its CSS class; `x` and `width` are in drawing units."""

    kind: str
    name: str
    ms: int
    x: float
    width: float


def build_waterfalls(turns: Sequence[Turn], target_ms: int) -> list[Waterfall]:
    """All turns of a call on one scale, which fits the slowest turn and the target."""
    ends = [
        (turn, end_ms)
        for turn in turns
        for end_ms in (turn.first_audio_ms, turn.sent_ms, turn.heard_ms)
        if end_ms is not None
    ]
    scale_ms = max([target_ms, *(end_ms - turn.end_of_speech_ms for turn, end_ms in ends)])
    return [Waterfall(turn, scale_ms, target_ms) for turn in turns]


@dataclass(frozen=True, slots=True)
class Waterfall:
    turn: Turn
    scale_ms: int  # the time that the drawing's width represents
    target_ms: int

    @property
    def is_slow(self) -> bool:
        return (self.turn.response_latency_ms or 0) > self.target_ms

    @property
    def endpointing_ms(self) -> int | None:
        """From the caller's end of speech until Vapi reported it; else what Vapi's report says."""
        turn = self.turn
        if turn.endpointed_ms is not None and turn.endpointed_ms >= turn.end_of_speech_ms:
            return turn.endpointed_ms - turn.end_of_speech_ms
        return turn.endpointing_ms

    def explain(self) -> str:
        """Why the turn took as long as it did, in one sentence."""
        turn, latency_ms = self.turn, self.turn.response_latency_ms
        if latency_ms is None:
            return f"Turn {turn.number} was not answered."
        took = f"Turn {turn.number} took {seconds(latency_ms)}"
        if not self.is_slow:
            return f"Slowest response: turn {turn.number}, {seconds(latency_ms)}."
        reported = (
            ("the model", turn.model_ms),
            ("the voice", turn.voice_ms),
            ("the transcriber", turn.transcriber_ms),
            ("endpointing", self.endpointing_ms),
        )
        # A part that is longer than the whole overlapped with speech: it explains nothing.
        known = [(ms, name) for name, ms in reported if ms is not None and ms <= latency_ms]
        if not known or (turn.model_ms is None and turn.voice_ms is None):
            return f"{took}. There is no breakdown of it."
        ms, name = max(known)
        return f"{took}, of which {name} took {seconds(ms)}."

    def target_x(self) -> float:
        return round(self.target_ms / self.scale_ms * WIDTH, 1)

    def parts(self) -> list[Part]:
        """From the caller's end of speech (T0) to playout at the caller (T3), as far as measured."""
        turn = self.turn
        if turn.first_audio_ms is None:
            return []
        steps: list[tuple[str, str, int]] = []
        if (
            turn.endpointed_ms is not None
            and turn.end_of_speech_ms <= turn.endpointed_ms <= turn.first_audio_ms
        ):
            steps.append(("endpointing", "endpointing", turn.endpointed_ms - turn.end_of_speech_ms))
            steps.append(("model-voice", "model and voice", turn.first_audio_ms - turn.endpointed_ms))
        else:
            wait_ms = turn.first_audio_ms - turn.end_of_speech_ms
            steps.append(("no-breakdown", "endpointing, model and voice (no breakdown)", wait_ms))
        if turn.sent_ms is not None:
            steps.append(("bridge", "bridge", turn.sent_ms - turn.first_audio_ms))
            if turn.heard_ms is not None:
                steps.append(("line", "phone line", turn.heard_ms - turn.sent_ms))
        parts, x = [], 0.0
        for kind, name, ms in steps:
            width = min(max(ms, 0) / self.scale_ms * WIDTH, WIDTH - x)
            parts.append(Part(kind, name, ms, round(x, 1), round(width, 1)))
            x += width
        return parts

    def describe(self) -> str:
        """The drawing as text, for its tooltip and for screen readers."""
        if not self.turn.was_answered:
            return f"Turn {self.turn.number}: not answered."
        parts = ", ".join(f"{part.name} {part.ms} ms" for part in self.parts())
        return f"Turn {self.turn.number}: {self.turn.response_latency_ms} ms ({parts})."
