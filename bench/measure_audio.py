"""What the resamplers do to sound, as numbers.

Sines go in as a call brings them, in frames of 20 ms, and what comes out is read off by least squares at
the frequency in question. The benchmark prints these figures and the tests hold them to their bounds.
Pure: nothing here looks at a clock.
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
PASSBAND = range(300, 3401, 100)  # what a telephone carries
FOLDING = range(4600, 7701, 100)  # what would fold onto it at 8 kHz; also where its images lie
TRANSITION = (3500, 3700, 3900, 4100, 4300, 4500)
SETTLED = 100  # output samples at either end that the filter's beginning touches


@dataclass(frozen=True, slots=True)
class Resampling:
    """Decibels and milliseconds; gains are relative to what went in."""

    up_flatness: float  # largest deviation from 0 dB, 300 to 3400 Hz
    down_flatness: float
    worst_image: float  # of those tones, mirrored at 4 kHz
    worst_alias: float  # of tones at 4600 to 7700 Hz, folded onto the band
    up_delay_ms: float
    down_delay_ms: float


def sine(hertz: float, rate: int, seconds: float = SECONDS, amplitude: float = AMPLITUDE) -> Pcm:
    t = np.arange(round(rate * seconds)) / rate
    return np.rint(amplitude * np.sin(2 * np.pi * hertz * t)).astype(np.int16)


def upsampled(pcm: Pcm) -> Pcm:
    return _in_frames(Upsampler().feed, pcm, 160)


def downsampled(pcm_16k: Pcm) -> Pcm:
    return _in_frames(Downsampler().feed, pcm_16k, 320)


def _in_frames(convert: Filter, samples: Pcm, frame: int) -> Pcm:
    return np.concatenate([convert(samples[i : i + frame]) for i in range(0, len(samples), frame)])


def tone_gain(samples: Pcm, hertz: float, rate: int) -> float:
    """How much of the tone there is, in dB of `AMPLITUDE`."""
    t = np.arange(len(samples)) / rate
    waves = np.array([np.cos(2 * np.pi * hertz * t), np.sin(2 * np.pi * hertz * t)]).T
    found = np.linalg.lstsq(waves[SETTLED:-SETTLED], samples[SETTLED:-SETTLED].astype(np.float64))[0]
    return float(20 * np.log10(max(np.hypot(*found) / AMPLITUDE, 1e-9)))


def up_gain(hertz: float, heard_at: float | None = None) -> float:
    return tone_gain(upsampled(sine(hertz, 8000)), heard_at or hertz, 16000)


def down_gain(hertz: float, heard_at: float | None = None) -> float:
    return tone_gain(downsampled(sine(hertz, 16000)), heard_at or hertz, 8000)


def image(hertz: float) -> float:
    """Of a tone on the 8 kHz side: its mirror at the 16 kHz side."""
    return up_gain(hertz, 8000 - hertz)


def alias(hertz: float) -> float:
    """Of a tone on the 16 kHz side above 4 kHz: where it folds to on the 8 kHz side."""
    return down_gain(hertz, 8000 - hertz)


def delay_ms(convert: Filter, rate: int, rate_out: int) -> float:
    """The middle of what an impulse becomes: the filter is symmetrical, so this is its delay."""
    impulse = np.zeros(rate // 10, np.int16)
    impulse[80] = 32000
    # Downwards one phase alone sees the impulse; two neighbours show both.
    impulse[81] = 32000
    response = convert(impulse).astype(np.float64)
    centre = float(np.arange(len(response)) @ response / response.sum())
    return centre * 1000 / rate_out - 80.5 * 1000 / rate


def resampling() -> Resampling:
    def flatness(gain: Callable[[float], float], at: Iterable[float]) -> float:
        return max(abs(gain(hertz)) for hertz in at)

    return Resampling(
        up_flatness=flatness(up_gain, PASSBAND),
        down_flatness=flatness(down_gain, PASSBAND),
        worst_image=max(map(image, PASSBAND)),
        worst_alias=max(map(alias, FOLDING)),
        up_delay_ms=delay_ms(upsampled, 8000, 16000),
        down_delay_ms=delay_ms(downsampled, 16000, 8000),
    )


def multi_tone(rate: int, seconds: float = 1.0) -> Pcm:
    """Many tones across the telephone band, with phases that keep the peaks low."""
    t = np.arange(round(rate * seconds)) / rate
    tones = [np.sin(2 * np.pi * hertz * t + 0.3 * k * k) for k, hertz in enumerate(range(310, 3400, 103))]
    total = np.sum(tones, axis=0)
    scaled: NDArray[np.float64] = total * (AMPLITUDE / np.abs(total).max())
    return np.rint(scaled).astype(np.int16)


def snr_db(samples: Pcm, reference: Pcm, late: float) -> float:
    """Against a reference that `samples` follow `late` samples behind, fractions too."""
    a, b = samples.astype(np.float64), reference.astype(np.float64)
    frequency = np.fft.rfftfreq(len(b))
    b = np.fft.irfft(np.fft.rfft(b) * np.exp(-2j * np.pi * frequency * late), len(b))
    inner = slice(len(b) // 8, -len(b) // 8)
    a, b = a[inner], b[inner]
    return float(10 * np.log10((b @ b) / ((a - b) @ (a - b))))
