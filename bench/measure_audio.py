"""Quality of the resamplers: flatness, images, aliases, delay.

Feeds sines in frames of 20 ms, as in a call, and fits the output by least squares at the frequency in
question. `bench/audio.py` prints these figures, and the tests of `bridge/audio/` check them against limits.
Pure: uses no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bridge.audio.resample import Downsampler, Upsampler

Pcm = NDArray[np.int16]
Filter = Callable[[Pcm], Pcm]

SECONDS = 0.25
AMPLITUDE = 16000.0
PASSBAND = range(300, 3401, 100)  # the telephone band
FOLDING = range(4600, 7701, 100)  # folds onto the telephone band at 8 kHz; its images are here too
TRANSITION = (3500, 3700, 3900, 4100, 4300, 4500)
EDGE_SAMPLES = 100  # output samples at each end that the filter's start and end affect


@dataclass(frozen=True, slots=True)
class Resampling:
    """Figures in decibels and milliseconds. Gains are relative to the input."""

    up_flatness: float  # largest deviation from 0 dB, 300 to 3400 Hz
    down_flatness: float
    worst_image: float  # of the same tones, mirrored at 4 kHz
    worst_alias: float  # of tones at 4600 to 7700 Hz, folded onto the telephone band
    up_delay_ms: float
    down_delay_ms: float


def sine(hertz: float, rate: int, seconds: float = SECONDS, amplitude: float = AMPLITUDE) -> Pcm:
    t = np.arange(round(rate * seconds)) / rate
    return np.rint(amplitude * np.sin(2 * np.pi * hertz * t)).astype(np.int16)


def upsample(pcm: Pcm) -> Pcm:
    return _in_frames(Upsampler().feed, pcm, 160)


def downsample(pcm_16k: Pcm) -> Pcm:
    return _in_frames(Downsampler().feed, pcm_16k, 320)


def _in_frames(convert: Filter, samples: Pcm, frame: int) -> Pcm:
    return np.concatenate([convert(samples[i : i + frame]) for i in range(0, len(samples), frame)])


def tone_gain(samples: Pcm, hertz: float, rate: int) -> float:
    """Level of one tone in the samples, in dB relative to `AMPLITUDE`."""
    t = np.arange(len(samples)) / rate
    waves = np.array([np.cos(2 * np.pi * hertz * t), np.sin(2 * np.pi * hertz * t)]).T
    weights = np.linalg.lstsq(
        waves[EDGE_SAMPLES:-EDGE_SAMPLES], samples[EDGE_SAMPLES:-EDGE_SAMPLES].astype(np.float64)
    )[0]
    return float(20 * np.log10(max(np.hypot(*weights) / AMPLITUDE, 1e-9)))


def up_gain(hertz: float, measured_at: float | None = None) -> float:
    return tone_gain(upsample(sine(hertz, 8000)), measured_at or hertz, 16000)


def down_gain(hertz: float, measured_at: float | None = None) -> float:
    return tone_gain(downsample(sine(hertz, 16000)), measured_at or hertz, 8000)


def image(hertz: float) -> float:
    """Level of the image of a tone: 8 kHz in, its mirror at 16 kHz out."""
    return up_gain(hertz, 8000 - hertz)


def alias(hertz: float) -> float:
    """Level of the alias of a tone above 4 kHz: 16 kHz in, folded at 8 kHz out."""
    return down_gain(hertz, 8000 - hertz)


def delay_ms(convert: Filter, rate: int, rate_out: int) -> float:
    """Delay of a filter: the centre of its impulse response, which is symmetrical."""
    impulse = np.zeros(rate // 10, np.int16)
    impulse[80] = 32000
    # When downsampling, a single sample reaches one phase of the filter only; two neighbours reach both.
    impulse[81] = 32000
    response = convert(impulse).astype(np.float64)
    centre = float(np.arange(len(response)) @ response / response.sum())
    return centre * 1000 / rate_out - 80.5 * 1000 / rate


def measure_resampling() -> Resampling:
    def flatness(gain: Callable[[float], float], at: Iterable[float]) -> float:
        return max(abs(gain(hertz)) for hertz in at)

    return Resampling(
        up_flatness=flatness(up_gain, PASSBAND),
        down_flatness=flatness(down_gain, PASSBAND),
        worst_image=max(map(image, PASSBAND)),
        worst_alias=max(map(alias, FOLDING)),
        up_delay_ms=delay_ms(upsample, 8000, 16000),
        down_delay_ms=delay_ms(downsample, 16000, 8000),
    )


def multi_tone(rate: int, seconds: float = 1.0) -> Pcm:
    """Many tones across the telephone band, with phases that keep the crest factor low."""
    t = np.arange(round(rate * seconds)) / rate
    tones = [np.sin(2 * np.pi * hertz * t + 0.3 * k * k) for k, hertz in enumerate(range(310, 3400, 103))]
    total = np.sum(tones, axis=0)
    scaled: NDArray[np.float64] = total * (AMPLITUDE / np.abs(total).max())
    return np.rint(scaled).astype(np.int16)


def snr_db(samples: Pcm, reference: Pcm, delay: float) -> float:
    """Signal-to-noise ratio. `samples` lag behind `reference` by `delay` samples, which may be fractional."""
    a, b = samples.astype(np.float64), reference.astype(np.float64)
    frequency = np.fft.rfftfreq(len(b))
    b = np.fft.irfft(np.fft.rfft(b) * np.exp(-2j * np.pi * frequency * delay), len(b))
    inner = slice(len(b) // 8, -len(b) // 8)
    a, b = a[inner], b[inner]
    return float(10 * np.log10((b @ b) / ((a - b) @ (a - b))))
