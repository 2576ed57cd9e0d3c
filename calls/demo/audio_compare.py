"""Compares received with sent audio: is it complete, without duplicates, in order? Pure.

Without transcoding (mu-law to mu-law) the bytes must be equal. Where the bridge changed the sample rate, the
received audio is compared with a reference from an independent resampler, which is applied to the whole
signal: soxr if it is installed, else the Fourier transform of `sandbox.speech.audio`. Both signals are
aligned by the delay of the bridge and compared at 16 kHz, as a whole and in frames of 20 ms. Simulated line
noise never repeats, so a frame that was lost, duplicated or swapped is found even where nobody speaks.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from sandbox.speech import audio as sound
from sandbox.speech.audio import Pcm

RATE_HZ = 16_000
FRAME_SAMPLES = RATE_HZ // 50
MAX_LAG_SAMPLES = RATE_HZ * 3 // 1000  # the bridge's filters may delay audio by 3 ms
PAD_SAMPLES = 4_000
MIN_SNR_DB = 30.0
# For one frame: the right frame has over 20 dB, the noise of another frame about -3 dB.
MIN_FRAME_SNR_DB = 12.0
# RMS error of a frame that is only mu-law rounding, and therefore ignored.
FLOOR_RMS = 6.0


@dataclass(frozen=True, slots=True)
class Match:
    """The result of a comparison. An empty `fault` means that the audio is equal."""

    fault: str = ""
    frames: int = 0
    lag_ms: float = 0.0
    snr_db: float = float("inf")

    def __str__(self) -> str:
        if self.fault:
            return self.fault
        if self.snr_db == float("inf"):
            return f"{self.frames} frames, byte for byte"
        return f"{self.frames} frames, SNR {self.snr_db:.1f} dB at {self.lag_ms:.2f} ms"


def resampler_name() -> str:
    return "soxr" if importlib.util.find_spec("soxr") else "FFT"


def resample(pcm: Pcm, rate: int, to_rate: int, *, resampler: str = "") -> Pcm:
    """The whole signal at another rate, by a resampler that is independent of the bridge's."""
    if (resampler or resampler_name()) == "soxr":
        soxr = importlib.import_module("soxr")
        out: NDArray[np.float64] = soxr.resample(pcm.astype(np.float64), rate, to_rate, quality="VHQ")
        return sound.to_int16(out)
    # The transform is periodic: silence at both ends keeps the end from leaking into the start. It also
    # stretches the signal to a whole number of samples: an odd length must not be halved.
    pad = np.zeros(PAD_SAMPLES * rate // RATE_HZ, np.int16)
    whole = sound.resample(np.concatenate([pad, pcm, pad, pad[: len(pcm) % 2]]), rate, to_rate)
    start = len(pad) * to_rate // rate
    return whole[start : start + (len(pcm) * to_rate + rate - 1) // rate]


def compare_bytes(sent: Sequence[bytes], received: bytes) -> Match:
    """Compare mu-law frames with received bytes, which must be a prefix of them in whole frames."""
    position = 0
    for number, frame in enumerate(sent):
        if position == len(received):
            return Match(frames=number)
        if received[position : position + len(frame)] != frame:
            hint = _describe_position(sent, received)
            return Match(fault=f"frame {number + 1} of {len(sent)} differs from the sent frame{hint}")
        position += len(frame)
    if position < len(received):
        return Match(fault=f"{len(received) - position} bytes were received that were never sent")
    return Match(frames=len(sent))


def compare_upsampled(sent: Sequence[bytes], received: bytes, *, resampler: str = "") -> Match:
    """Compare mu-law frames at 8 kHz with received 16-bit samples at 16 kHz, a prefix in whole frames."""
    samples, rest = divmod(len(received), 2)
    sizes = np.cumsum([0, *(2 * len(frame) for frame in sent)])
    frames = int(np.searchsorted(sizes, samples))
    if rest or frames >= len(sizes) or sizes[frames] != samples:
        return Match(
            fault=f"{len(received)} bytes were received, not a whole number of the {len(sent)} sent frames"
        )
    # The reference contains all sent frames, so that it does not end where the received audio ends.
    reference = resample(sound.ulaw_decode(b"".join(sent)), 8_000, RATE_HZ, resampler=resampler)
    return compare_signals(reference, np.frombuffer(received, "<i2").astype(np.int16), frames)


def compare_downsampled(sent: bytes, received: bytes, *, resampler: str = "") -> Match:
    """Compare all samples at 16 kHz with received mu-law at 8 kHz: length and content."""
    pcm = np.frombuffer(sent[: len(sent) & ~1], "<i2").astype(np.int16)
    expected = (len(pcm) + 1) // 2
    if len(received) != expected:
        return Match(fault=f"{len(received)} samples were received, expected {expected}")
    reference = resample(
        resample(pcm, RATE_HZ, 8_000, resampler=resampler), 8_000, RATE_HZ, resampler=resampler
    )
    decoded = resample(sound.ulaw_decode(received), 8_000, RATE_HZ, resampler=resampler)
    return compare_signals(reference, decoded, len(received) // 160)


def compare_signals(reference: Pcm, received: Pcm, frames: int) -> Match:
    """Compare two signals at 16 kHz; the second may be delayed by up to `MAX_LAG_SAMPLES`."""
    if not len(received) or not len(reference):
        return Match(fault="no audio was received")
    length = min(len(reference), len(received) - MAX_LAG_SAMPLES)
    if length <= 0:
        return Match(frames=frames)
    expected = reference[:length].astype(np.float64)
    delayed = received.astype(np.float64)
    lag = int(np.argmax([expected @ delayed[lag : lag + length] for lag in range(MAX_LAG_SAMPLES + 1)]))
    error = delayed[lag : lag + length] - expected
    snr_db = _to_decibels(float(np.mean(expected**2)), float(np.mean(error**2)))
    whole = length // FRAME_SAMPLES * FRAME_SAMPLES
    power = np.mean(expected[:whole].reshape(-1, FRAME_SAMPLES) ** 2, axis=1)
    error_power = np.mean(error[:whole].reshape(-1, FRAME_SAMPLES) ** 2, axis=1)
    bad = np.flatnonzero(error_power > np.maximum(power / 10 ** (MIN_FRAME_SNR_DB / 10), FLOOR_RMS**2))
    fault = ""
    if len(bad):
        count = whole // FRAME_SAMPLES
        fault = f"{len(bad)} of {count} frames of 20 ms differ from the sent audio, the first is {bad[0] + 1}"
    elif snr_db < MIN_SNR_DB:
        fault = f"SNR {snr_db:.1f} dB, expected at least {MIN_SNR_DB:.0f} dB"
    return Match(fault, frames, lag * 1000 / RATE_HZ, snr_db)


def join_without_cut_tail(pieces: Sequence[tuple[bytes, bool]], missing: int) -> bytes:
    """All pieces joined, without `missing` bytes at the end of the only piece that was cut off.

    Raises `ValueError` if bytes are missing and not exactly one piece was cut off.
    """
    cut = [number for number, (_, was_cut) in enumerate(pieces) if was_cut]
    if missing and (len(cut) != 1 or not 0 < missing <= len(pieces[cut[0]][0])):
        raise ValueError(f"{missing} bytes were lost, and no interruption explains it")
    return b"".join(
        audio[: len(audio) - missing] if missing and number == cut[0] else audio
        for number, (audio, _) in enumerate(pieces)
    )


def _describe_position(sent: Sequence[bytes], received: bytes) -> str:
    """Which frame arrived in place of the expected one, if that is known."""
    size = len(sent[0])
    received_frames = [received[at : at + size] for at in range(0, len(received), size)]
    numbers = {frame: number for number, frame in enumerate(sent)}
    for number, (frame, expected) in enumerate(zip_longest(received_frames, sent)):
        if frame != expected:
            actual = numbers.get(frame or b"")
            return "" if actual is None else f" (frame {actual + 1} in place of {number + 1})"
    return ""


def _to_decibels(signal: float, noise: float) -> float:
    return 10 * float(np.log10(max(signal, 1e-9) / max(noise, 1e-9)))
