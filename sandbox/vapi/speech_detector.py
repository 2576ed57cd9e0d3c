"""How the stand-in hears: where the caller's speech begins and ends, by loudness alone.

Theory: the received audio is cut into 10 ms windows. A window over -48 dBFS is loud; a line's own noise,
about -58 dBFS, never is. Speech begins at a loud window and is believed once it spans 60 ms; it has ended
when no window was loud for the hangover. Time inside an utterance is counted in audio, not on the clock: a
gap in the stream is not silence, exactly as with the real thing, which needs the quiet frames to find the
end of a turn.

What is reported carries clock times all the same: `at` is when the chunk with the first or the last loud
window *arrived*, so that a delay counted from it is a delay the caller would feel.

Imports numpy and `sound` only; no clock.
"""

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from sandbox.speech.audio import Pcm

LOUD_DBFS = -48.0
WINDOW_MS = 10
HANGOVER_MS = 180
BELIEVED_MS = 60
LEAD_MS = 200  # kept from before the onset, for the recogniser
LONGEST_MS = 30_000  # an utterance longer than this is cut, so that noise cannot fill the memory

_LOUD_POWER = (32_768 * 10 ** (LOUD_DBFS / 20)) ** 2


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    at: float


@dataclass(frozen=True, slots=True, eq=False)
class SpeechEnded:
    began_at: float
    at: float  # arrival of the last loud chunk
    pcm: Pcm  # from a little before the onset to the end of the hangover


Heard: TypeAlias = SpeechBegan | SpeechEnded


class Ears:
    """Feed it what arrives, in order; it says where speech began and ended."""

    def __init__(self, rate: int, hangover_ms: int = HANGOVER_MS) -> None:
        self._window = rate * WINDOW_MS // 1000
        self._hangover = hangover_ms // WINDOW_MS
        self._rest = np.zeros(0, dtype=np.int16)  # less than one window, until the next chunk
        self._before: deque[Pcm] = deque(maxlen=LEAD_MS // WINDOW_MS)
        self._utterance: list[Pcm] = []  # windows since the onset; empty: nobody speaks
        self._began_at = 0.0
        self._loud_at = 0.0
        self._last_loud = 0  # index in _utterance of the last loud window
        self._believed = False

    @property
    def speech_ms(self) -> int:
        """From the onset to the last loud window of the utterance in progress; 0 when nobody speaks."""
        return (self._last_loud + 1) * WINDOW_MS if self._utterance else 0

    @property
    def began_at(self) -> float:
        return self._began_at

    @property
    def loud_at(self) -> float:
        """When the chunk with the last loud window arrived."""
        return self._loud_at

    def feed(self, pcm: Pcm, at: float) -> list[Heard]:
        samples = np.concatenate([self._rest, pcm])
        whole = len(samples) - len(samples) % self._window
        self._rest = samples[whole:]
        windows = samples[:whole].reshape(-1, self._window)
        power = np.mean(np.square(windows.astype(np.float64)), axis=1)
        heard: list[Heard] = []
        for window, loud in zip(windows, power > _LOUD_POWER, strict=True):
            heard.extend(self._window_heard(window, bool(loud), at))
        return heard

    def _window_heard(self, window: Pcm, loud: bool, at: float) -> list[Heard]:
        if not self._utterance and not loud:
            self._before.append(window)
            return []
        if not self._utterance:
            self._began_at = at
        self._utterance.append(window)
        if loud:
            self._loud_at, self._last_loud = at, len(self._utterance) - 1
        heard: list[Heard] = []
        if not self._believed and self.speech_ms >= BELIEVED_MS:
            self._believed = True
            heard.append(SpeechBegan(self._began_at))
        quiet = len(self._utterance) - 1 - self._last_loud
        if quiet >= self._hangover or len(self._utterance) * WINDOW_MS >= LONGEST_MS:
            if self._believed:
                pcm = np.concatenate([*self._before, *self._utterance])
                heard.append(SpeechEnded(self._began_at, self._loud_at, pcm))
            self._before.clear()
            self._utterance, self._believed, self._last_loud = [], False, 0
        return heard
