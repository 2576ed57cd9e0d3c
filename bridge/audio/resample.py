"""Streaming resampler between 8 kHz and 16 kHz.

Both directions use one half-band low-pass: a sinc with a Kaiser window, 55 taps at 16 kHz. In such a filter
every other tap is zero, except the middle one. One phase of the output (or input) is therefore a plain delay,
and only the other, the *side*, is a convolution of 28 taps.

Guarantees:

- **Chunking does not change the result.** Filter state carries over, so a stream in chunks gives exactly the
  samples that the stream in one piece gives. Floating-point sums usually depend on their order, and numpy's
  order on the shape of its input. Here they do not: taps are whole multiples of 2^-20 and samples are whole
  numbers, so every product and partial sum is a whole number below 2^38, which float64 represents exactly.
- **No buffering.** n samples become 2n at once; downwards, a stream of n samples becomes ceil(n / 2). The
  only delay is the filter's, `DELAY` samples at 16 kHz, 1.7 ms.
- **Frequency response.** 300 to 3400 Hz pass flat; images and aliases are 60 dB down. A constant input gives
  the same constant. Overshoot saturates at 16 bits.

Pure: numpy only. One instance per stream and direction.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

DELAY: Final = 27  # samples at 16 kHz, from the first tap to the middle one; odd in a half-band filter
_SCALE: Final = float(1 << 20)
_BETA = 6.0  # of the Kaiser window: below it the images rise, above it the transition widens


def _side_taps() -> NDArray[np.float64]:
    """The filter's non-zero taps beside the middle one, in units of 1 / _SCALE; they sum to _SCALE."""
    at = np.arange(-DELAY, DELAY + 1, 2)
    window: NDArray[np.float64] = np.kaiser(2 * DELAY + 1, _BETA)[::2]
    taps: NDArray[np.float64] = np.sinc(at / 2) * window
    taps = np.rint(taps * (_SCALE / taps.sum()))
    middle = len(taps) // 2
    # Rounding is symmetric, so the sum is off by an even number. It must be exact: otherwise the two phases
    # of a constant input would differ, which is a tone at 8 kHz.
    taps[middle - 1 : middle + 1] += (_SCALE - taps.sum()) / 2
    return taps


# Scaling by a power of two is exact, so it is done once, here.
_SIDE: Final = _side_taps() / _SCALE
_HALF_SIDE: Final = _SIDE / 2


def _to_int16(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounded and saturated, still in float64: assignment to an int16 array is the cast."""
    np.rint(scaled, out=scaled)
    np.minimum(scaled, 32767.0, out=scaled)  # the same as clip(), which costs three times as much for a frame
    return np.maximum(scaled, -32768.0, out=scaled)


class Upsampler:
    """8 kHz in, 16 kHz out."""

    def __init__(self) -> None:
        self._before = np.zeros(DELAY)  # the last input samples, which the next outputs still need

    def feed(self, pcm: NDArray[np.int16]) -> NDArray[np.int16]:
        """Exactly twice as many samples."""
        if not len(pcm):
            return np.empty(0, np.int16)
        samples = np.concatenate((self._before, pcm), dtype=np.float64)
        self._before = samples[-DELAY:]
        pcm_16k = np.empty(2 * len(pcm), np.int16)
        pcm_16k[0::2] = _to_int16(np.correlate(samples, _SIDE))
        plain = DELAY // 2 + 1
        pcm_16k[1::2] = samples[plain : plain + len(pcm)]
        return pcm_16k


class Downsampler:
    """16 kHz in, 8 kHz out. After an odd chunk the next output sample is completed by the next chunk."""

    def __init__(self) -> None:
        # Input that the next outputs still need. It begins where the next output's window begins, so its
        # length, 2 * DELAY or one less, is also the phase.
        self._before = np.zeros(2 * DELAY)

    def feed(self, pcm_16k: NDArray[np.int16]) -> NDArray[np.int16]:
        """Half as many samples; over a stream of n it is ceil(n / 2)."""
        samples = np.concatenate((self._before, pcm_16k), dtype=np.float64)
        size = (len(samples) - 2 * DELAY + 1) // 2
        self._before = samples[2 * size :]
        pcm = np.empty(size, np.int16)
        if size:
            side = np.correlate(samples[0 : 2 * (size + DELAY) : 2], _HALF_SIDE)
            plain = samples[DELAY : DELAY + 2 * size : 2]
            pcm[:] = _to_int16(side + plain * 0.5)
        return pcm
