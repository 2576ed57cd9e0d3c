"""Energy-based speech detector: where the caller's speech starts and ends.

The received audio is cut into 10 ms windows. A window over -48 dBFS is loud; line noise, about
-58 dBFS, never is. Speech starts at a loud window and is confirmed once it spans 60 ms; it has ended when no
window was loud for the hangover. Time inside an utterance is counted in audio, not on the clock: a gap in
the stream is not silence, as with Vapi itself, which needs the quiet frames to find the end of a turn.

The events carry clock times: `at` is when the chunk with the first or the last loud window *arrived*, so a
delay counted from it is the delay that the caller perceives.

Imports numpy and `sandbox.speech.audio` only; no clock.
"""

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from sandbox.speech.audio import Pcm

LOUD_DBFS = -48.0
WINDOW_MS = 10
HANGOVER_MS = 180
CONFIRMED_MS = 60
LEAD_MS = 200  # audio kept from before the onset, for the recognizer
MAX_UTTERANCE_MS = 30_000  # longer utterances are split, so that constant noise cannot fill the memory

_LOUD_POWER = (32_768 * 10 ** (LOUD_DBFS / 20)) ** 2


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    at: float


@dataclass(frozen=True, slots=True, eq=False)
class SpeechEnded:
    started_at: float
    at: float  # arrival of the last loud chunk
    pcm: Pcm  # from `LEAD_MS` before the onset to the end of the hangover


SpeechEvent: TypeAlias = SpeechStarted | SpeechEnded


class SpeechDetector:
    """Feed it the received audio in order; it returns the events."""

    def __init__(self, rate: int, hangover_ms: int = HANGOVER_MS) -> None:
        self._window = rate * WINDOW_MS // 1000
        self._hangover = hangover_ms // WINDOW_MS
        self._remainder = np.zeros(0, dtype=np.int16)  # less than one window, completed by the next chunk
        self._before: deque[Pcm] = deque(maxlen=LEAD_MS // WINDOW_MS)
        self._utterance: list[Pcm] = []  # windows since the onset; empty: no speech
        self._started_at = 0.0
        self._loud_at = 0.0
        self._last_loud = 0  # index in _utterance of the last loud window
        self._confirmed = False

    @property
    def speech_ms(self) -> int:
        """From the onset to the last loud window of the utterance in progress; 0 without speech."""
        return (self._last_loud + 1) * WINDOW_MS if self._utterance else 0

    @property
    def started_at(self) -> float:
        return self._started_at

    @property
    def loud_at(self) -> float:
        """When the chunk with the last loud window arrived."""
        return self._loud_at

    def feed(self, pcm: Pcm, at: float) -> list[SpeechEvent]:
        samples = np.concatenate([self._remainder, pcm])
        whole = len(samples) - len(samples) % self._window
        self._remainder = samples[whole:]
        windows = samples[:whole].reshape(-1, self._window)
        power = np.mean(np.square(windows.astype(np.float64)), axis=1)
        events: list[SpeechEvent] = []
        for window, loud in zip(windows, power > _LOUD_POWER, strict=True):
            events.extend(self._add_window(window, bool(loud), at))
        return events

    def _add_window(self, window: Pcm, loud: bool, at: float) -> list[SpeechEvent]:
        if not self._utterance and not loud:
            self._before.append(window)
            return []
        if not self._utterance:
            self._started_at = at
        self._utterance.append(window)
        if loud:
            self._loud_at, self._last_loud = at, len(self._utterance) - 1
        events: list[SpeechEvent] = []
        if not self._confirmed and self.speech_ms >= CONFIRMED_MS:
            self._confirmed = True
            events.append(SpeechStarted(self._started_at))
        quiet = len(self._utterance) - 1 - self._last_loud
        if quiet >= self._hangover or len(self._utterance) * WINDOW_MS >= MAX_UTTERANCE_MS:
            if self._confirmed:
                pcm = np.concatenate([*self._before, *self._utterance])
                events.append(SpeechEnded(self._started_at, self._loud_at, pcm))
            self._before.clear()
            self._utterance, self._confirmed, self._last_loud = [], False, 0
        return events
