"""Energy of mu-law audio, and detection of the caller's speech.

`is_audible` and `first_audible` measure one piece of audio. `SpeechDetector` follows the caller and finds T0,
the end of speech, from which the caller waits for an answer.

The detector divides its input into windows of 20 ms. A window is loud when its power exceeds both -44 dBFS
and the line's noise floor by 9 dB. Then:

- **A click is not speech.** Speech begins when 60 ms of 120 ms were loud. From then on each loud window moves
  the end of speech, until 100 ms were quiet: then the end stays, unless speech resumes by the same rule. A
  click after the last word therefore does not move T0.
- **Noise is not speech.** The noise floor falls at once and rises once a second, to the level of that
  second's quiet parts, up to -43 dBFS: a sustained tone above -34 dBFS stays loud. Only sound that has lasted
  11 s without a pause may raise it further.
- **Hum and offset do not count.** The mains frequency, 50 or 60 Hz, is removed from each window.
- **T0 has the hangover subtracted.** `EndOfSpeech` is reported `hangover_ms` later, but its time is the
  arrival of the last loud window.

Durations are measured in audio, so that a burst of frames after a stall gives the same result as frames on
time. All reported times are arrival times. Levels are dB relative to a full-scale square wave.

Pure: numpy only; times are arguments, monotonic seconds.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bridge.audio import g711

AUDIBLE_DBFS: Final = -50.0  # 10 ms above this can be heard; comfort noise is below -55
SPEECH_DBFS: Final = -44.0  # a caller's window below this level is quiet on any line

_BYTES_PER_MS = g711.SAMPLE_RATE // 1000
_AUDIBLE_WINDOW = 10 * _BYTES_PER_MS
_WINDOW_MS = 20
_WINDOW = _WINDOW_MS * _BYTES_PER_MS
_ONSET_LOUD = 3  # windows, 60 ms, that must be loud ...
_ONSET_WITHIN = 6  # ... of the last 120 ms
_MAX_PAUSE = 5  # quiet windows, 100 ms, after which a single loud window no longer extends the speech

_BLOCK = 1000 // _WINDOW_MS  # windows in one step of the noise floor's memory
_BLOCKS = 11


def _power(dbfs: float) -> float:
    return math.pow(10.0, dbfs / 10)


_AUDIBLE_POWER = _power(AUDIBLE_DBFS)
_AUDIBLE_ENERGY = _AUDIBLE_POWER * _AUDIBLE_WINDOW
_SPEECH_POWER = _power(SPEECH_DBFS)
_ABOVE_FLOOR = _power(9.0)
_FLOOR_CEILING = _power(-43.0)  # after one second; words and test tones last longer than that
_LONG_FLOOR_CEILING = _power(-30.0)  # after eleven seconds: no speech is that steady

_LINEAR: Final = g711.decode(bytes(range(256))) / 32768.0


def _mains_basis() -> NDArray[np.float64]:
    """Orthonormal rows that span offset, 50 Hz and 60 Hz within one window, at any phase."""
    t = np.arange(_WINDOW) / g711.SAMPLE_RATE
    waves = [np.ones(_WINDOW)]
    for hertz in (50, 60):
        waves += [np.cos(2 * np.pi * hertz * t), np.sin(2 * np.pi * hertz * t)]
    return np.ascontiguousarray(np.linalg.qr(np.array(waves).T)[0].T)


_MAINS: Final = _mains_basis()


def _samples(ulaw: bytes) -> NDArray[np.float64]:
    return _LINEAR.take(np.frombuffer(ulaw, np.uint8))


def is_audible(ulaw: bytes) -> bool:
    """Whether any window of 10 ms is audible, so that speech after silence in one chunk counts."""
    samples = _samples(ulaw)
    energy = samples.dot(samples)
    if energy <= _AUDIBLE_ENERGY:
        return False  # less energy in total than one loud window
    if energy > _AUDIBLE_POWER * len(samples):
        return True  # loud on average, so at least one window is: the usual case for speech
    return first_audible(ulaw) is not None


def first_audible(ulaw: bytes) -> int | None:
    """Offset in bytes of the first audible window of 10 ms. A shorter last window is padded with silence."""
    samples = _samples(ulaw)
    if samples.dot(samples) <= _AUDIBLE_ENERGY:
        return None  # the usual case for silence: less energy in total than one loud window
    starts = np.arange(0, len(ulaw), _AUDIBLE_WINDOW)
    loud = np.add.reduceat(samples * samples, starts) > _AUDIBLE_ENERGY
    return int(loud.argmax()) * _AUDIBLE_WINDOW if loud.any() else None


class _NoiseFloor:
    """The line's noise floor, from the quietest moments of the recent past, and the limit above it.

    The floor falls at once. Once a second it may rise, to the quietest moment of that second, if a fifth of
    the second was about as quiet, as noise between words is. Fluent speech is that quiet only for a moment,
    and must not raise the limit above its own soft ending.
    """

    def __init__(self) -> None:
        self.limit = _SPEECH_POWER  # power; a window above it is loud
        # Zero at first: speech may begin with the first frame.
        self._floor = 0.0
        self._block: list[float] = []  # the windows of this second
        self._quietest = math.inf  # power of this second's quietest moment
        self._blocks = deque([0.0] * _BLOCKS, maxlen=_BLOCKS)  # the same of the seconds before

    def feed(self, power: float) -> None:
        block = self._block
        # A moment is two windows: a single one may be the gap of a lost packet.
        moment = max(power, block[-1]) if block else math.inf
        self._quietest = quietest = min(moment, self._quietest)
        block.append(power)
        if len(block) == _BLOCK:
            is_steady = sum(window_power <= 2 * quietest for window_power in block) >= _BLOCK // 5
            self._floor = quietest if is_steady else min(quietest, self._floor)
            self._blocks.append(quietest)
            self._block, self._quietest = [], math.inf
        short_floor = min(quietest, self._floor, _FLOOR_CEILING)
        long_floor = min(quietest, min(self._blocks), _LONG_FLOOR_CEILING)
        self.limit = max(_SPEECH_POWER, max(short_floor, long_floor) * _ABOVE_FLOOR)


@dataclass(frozen=True, slots=True)
class Onset:
    """The caller began to speak. `at`: arrival of the first loud window; reported 40 to 100 ms later."""

    at: float


@dataclass(frozen=True, slots=True)
class EndOfSpeech:
    """The caller stopped. `at`: arrival of the last loud window, T0; reported `hangover_ms` later."""

    at: float


class SpeechDetector:
    """Detects the speech of one caller. Attributes describe the current or latest segment of speech."""

    def __init__(self, *, hangover_ms: int = 300) -> None:
        self.speaking = False  # from a confirmed onset until the end of the hangover
        self.onset_at: float | None = None  # arrival of the segment's first loud window
        self.last_loud_at: float | None = None  # arrival of its last one: T0
        self.loud_ms = 0.0  # loud audio in it
        self._hangover_ms = hangover_ms
        self._floor = _NoiseFloor()
        self._rest = b""  # the end of the latest frame, shorter than a window
        self._fed_at = -math.inf  # arrival of the latest frame
        self._index = 0  # of the latest window
        self._last_loud = -math.inf  # index of the segment's last loud window
        # Recent loud windows outside a segment: index and arrival.
        self._unconfirmed: list[tuple[int, float]] = []

    def feed(self, ulaw: bytes, now: float) -> Onset | EndOfSpeech | None:
        """Feed a frame of any length. Returns the last change that it causes, if any."""
        audio = self._rest + ulaw if self._rest else ulaw
        whole = len(audio) - len(audio) % _WINDOW
        changed: Onset | EndOfSpeech | None = None
        for start in range(0, whole, _WINDOW):
            window = audio[start : start + _WINDOW]
            # In a long frame, audio after this window was spoken later.
            bytes_after = len(audio) - start - _WINDOW
            at = max(self._fed_at, now - bytes_after / g711.SAMPLE_RATE) if bytes_after else now
            changed = self._feed_window(window, at) or changed
        self._rest = audio[whole:]
        self._fed_at = now
        return changed

    def _feed_window(self, window: bytes, at: float) -> Onset | EndOfSpeech | None:
        samples = _samples(window)
        mains = _MAINS.dot(samples)
        power = float(samples.dot(samples) - mains.dot(mains)) / _WINDOW
        self._index += 1
        onset = self._add_loud_window(at) if power > self._floor.limit else None
        self._floor.feed(power)
        return self._detect_end(at) or onset

    def _add_loud_window(self, at: float) -> Onset | None:
        """A loud window: it continues the segment, confirms a new one, or waits for more loud windows."""
        quiet_since = self._index - self._last_loud - 1
        if self.speaking and quiet_since < _MAX_PAUSE:
            self._extend(1, at)
            return None
        oldest = self._index - _ONSET_WITHIN + 1
        recent = [window for window in self._unconfirmed if window[0] >= oldest]
        self._unconfirmed = [*recent, (self._index, at)]
        if len(self._unconfirmed) < _ONSET_LOUD:
            return None
        confirmed, self._unconfirmed = self._unconfirmed, []
        if self.speaking:
            self._extend(len(confirmed), at)
            return None
        self.speaking, self.loud_ms = True, 0.0
        self.onset_at = onset_at = confirmed[0][1]
        self._extend(len(confirmed), at)
        return Onset(onset_at)

    def _extend(self, windows: int, at: float) -> None:
        self.loud_ms += windows * _WINDOW_MS
        self.last_loud_at, self._last_loud = at, self._index

    def _detect_end(self, at: float) -> EndOfSpeech | None:
        """The hangover ends by the length of received audio or, when frames are missing, by the clock."""
        if not self.speaking or self.last_loud_at is None:
            return None
        quiet_ms = max((self._index - self._last_loud) * _WINDOW_MS, (at - self.last_loud_at) * 1000)
        if quiet_ms < self._hangover_ms:
            return None
        self.speaking = False
        return EndOfSpeech(self.last_loud_at)
