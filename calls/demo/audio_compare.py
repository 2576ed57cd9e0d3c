"""Did all the audio arrive, once and in order? Pure comparisons of what was sent with what came.

mu-law to mu-law must be the same bytes. Where the bridge changed the sample rate, what came is held
against a reference made in one piece by other means: soxr where it is installed, else the Fourier
transform of `sound`. Both are then compared at 16 kHz, after finding the bridge's delay, once over
everything and once for each 20 ms: the simulated line's noise is never the same twice, so one frame that
was lost, doubled or swapped shows even where nobody speaks.
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

RATE = 16_000
FRAME = RATE // 50
MAX_LAG = RATE * 3 // 1000  # the bridge's filters may be 3 ms late
PAD = 4_000
MIN_SNR_DB = 30.0
# One frame: what is right is over 20 dB, another frame's noise is about -3 dB.
MIN_FRAME_SNR_DB = 12.0
# Below this the rounding of mu-law is all there is: rms of a frame's error that says nothing.
FLOOR_RMS = 6.0


@dataclass(frozen=True, slots=True)
class Match:
    """The outcome of a comparison. An empty `fault` means that all is as it was sent."""

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


def reference_name() -> str:
    return "soxr" if importlib.util.find_spec("soxr") else "FFT"


def resampled(pcm: Pcm, rate: int, to_rate: int, *, by: str = "") -> Pcm:
    """The whole of it at another rate, by a filter that shares nothing with the bridge's."""
    if (by or reference_name()) == "soxr":
        soxr = importlib.import_module("soxr")
        out: NDArray[np.float64] = soxr.resample(pcm.astype(np.float64), rate, to_rate, quality="VHQ")
        return sound.to_int16(out)
    # The transform is periodic: silence at both ends keeps the end out of the beginning. And it stretches
    # what it resizes to a whole number of samples: an odd length must not be halved.
    pad = np.zeros(PAD * rate // RATE, np.int16)
    whole = sound.resample(np.concatenate([pad, pcm, pad, pad[: len(pcm) % 2]]), rate, to_rate)
    start = len(pad) * to_rate // rate
    return whole[start : start + (len(pcm) * to_rate + rate - 1) // rate]


def same_bytes(sent: Sequence[bytes], came: bytes) -> Match:
    """mu-law frames against the bytes that arrived: a prefix of them, in whole frames."""
    position = 0
    for number, frame in enumerate(sent):
        if position == len(came):
            return Match(frames=number)
        if came[position : position + len(frame)] != frame:
            return Match(fault=f"frame {number + 1} of {len(sent)} is not what was sent{_where(sent, came)}")
        position += len(frame)
    if position < len(came):
        return Match(fault=f"{len(came) - position} bytes came that were never sent")
    return Match(frames=len(sent))


def upsampled(sent: Sequence[bytes], came: bytes, *, by: str = "") -> Match:
    """mu-law frames at 8 kHz against linear 16-bit samples at 16 kHz: a prefix of them, in whole frames."""
    samples, rest = divmod(len(came), 2)
    sizes = np.cumsum([0, *(2 * len(frame) for frame in sent)])
    frames = int(np.searchsorted(sizes, samples))
    if rest or frames >= len(sizes) or sizes[frames] != samples:
        return Match(fault=f"{len(came)} bytes came, which is no whole number of the {len(sent)} frames sent")
    # The reference is of all that was sent, so that it does not break off where the received audio does.
    reference = resampled(sound.ulaw_decode(b"".join(sent)), 8_000, RATE, by=by)
    return compared(reference, np.frombuffer(came, "<i2").astype(np.int16), frames)


def downsampled(sent: bytes, came: bytes, *, by: str = "") -> Match:
    """Linear samples at 16 kHz, all of them, against mu-law at 8 kHz: length and sound."""
    pcm = np.frombuffer(sent[: len(sent) & ~1], "<i2").astype(np.int16)
    expected = (len(pcm) + 1) // 2
    if len(came) != expected:
        return Match(fault=f"{len(came)} samples came to the caller, {expected} were expected")
    telephone = resampled(resampled(pcm, RATE, 8_000, by=by), 8_000, RATE, by=by)
    heard = resampled(sound.ulaw_decode(came), 8_000, RATE, by=by)
    return compared(telephone, heard, len(came) // 160)


def compared(reference: Pcm, came: Pcm, frames: int) -> Match:
    """Two signals at 16 kHz, the second late by up to `MAX_LAG`."""
    if not len(came) or not len(reference):
        return Match(fault="nothing came")
    length = min(len(reference), len(came) - MAX_LAG)
    if length <= 0:
        return Match(frames=frames)
    wanted = reference[:length].astype(np.float64)
    late = came.astype(np.float64)
    lag = int(np.argmax([wanted @ late[lag : lag + length] for lag in range(MAX_LAG + 1)]))
    error = late[lag : lag + length] - wanted
    snr_db = _decibels(float(np.mean(wanted**2)), float(np.mean(error**2)))
    whole = length // FRAME * FRAME
    power = np.mean(wanted[:whole].reshape(-1, FRAME) ** 2, axis=1)
    wrong = np.mean(error[:whole].reshape(-1, FRAME) ** 2, axis=1)
    bad = np.flatnonzero(wrong > np.maximum(power / 10 ** (MIN_FRAME_SNR_DB / 10), FLOOR_RMS**2))
    fault = ""
    if len(bad):
        fault = f"{len(bad)} of {whole // FRAME} stretches of 20 ms are not what was sent, first {bad[0] + 1}"
    elif snr_db < MIN_SNR_DB:
        fault = f"SNR {snr_db:.1f} dB, at least {MIN_SNR_DB:.0f} dB wanted"
    return Match(fault, frames, lag * 1000 / RATE, snr_db)


def without_cut_tail(pieces: Sequence[tuple[bytes, bool]], missing: int) -> bytes:
    """All pieces as one, `missing` bytes less at the end of the only piece that was cut off.

    Raises `ValueError` when there is no such piece, or not one only: then nothing may be missing.
    """
    cut = [number for number, (_, was_cut) in enumerate(pieces) if was_cut]
    if missing and (len(cut) != 1 or not 0 < missing <= len(pieces[cut[0]][0])):
        raise ValueError(f"{missing} bytes more were sent than came, and no cut accounts for them")
    return b"".join(
        audio[: len(audio) - missing] if missing and number == cut[0] else audio
        for number, (audio, _) in enumerate(pieces)
    )


def _where(sent: Sequence[bytes], came: bytes) -> str:
    """What seems to have happened, for a person to read."""
    size = len(sent[0])
    arrived = [came[at : at + size] for at in range(0, len(came), size)]
    numbers = {frame: number for number, frame in enumerate(sent)}
    for number, (frame, wanted) in enumerate(zip_longest(arrived, sent)):
        if frame != wanted:
            found = numbers.get(frame or b"")
            return "" if found is None else f" (in place of {number + 1} came {found + 1})"
    return ""


def _decibels(signal: float, noise: float) -> float:
    return 10 * float(np.log10(max(signal, 1e-9) / max(noise, 1e-9)))
