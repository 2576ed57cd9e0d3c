"""Audio of the simulators: G.711, resampling, WAV files, line noise, and clips of real speech.

Everything is offline and exact: whole clips are processed in one piece with a Fourier transform. It shares
no code with `bridge.audio`, because tests use it to check the bridge's streaming filters. Imports numpy and
the standard library only; `wav_file.py` reads other formats of WAV.
"""

import json
import wave
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pcm: TypeAlias = NDArray[np.int16]

CLIPS_DIR = Path(__file__).parent / "clips"
LINE_RATE = 8_000
SILENCE = 0xFF
LINE_NOISE_DBFS = -58.0
LOUD_DBFS = -45.0  # speech is louder, line noise is not
WINDOW = 40  # samples: 5 ms, the unit in which loudness is measured
VOICE_BAND_HZ = (300.0, 3300.0)

_BIAS = 132
_CLIP = 32_635


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A short piece of real speech, and where its loud part starts and ends."""

    name: str
    speaker: str  # "caller" or "assistant"
    text: str
    pcm_8k: Pcm
    speech_start_ms: int
    speech_end_ms: int

    @property
    def duration_ms(self) -> int:
        return len(self.pcm_8k) * 1000 // LINE_RATE


def ulaw_encode(pcm: Pcm) -> bytes:
    """G.711 mu-law: sign, segment (the leading bit of |x| + 132), four bits of step."""
    samples = pcm.astype(np.int32)
    magnitude = np.minimum(np.abs(samples), _CLIP) + _BIAS
    # frexp gives magnitude = m * 2**e with 0.5 <= m < 1, so the leading bit is e - 1, from 7 to 14.
    segment = np.frexp(magnitude.astype(np.float64))[1] - 8
    step = (magnitude >> (segment + 3)) & 0x0F
    code = np.where(samples < 0, 0x80, 0) | (segment << 4) | step
    return bytes((code ^ 0xFF).astype(np.uint8))


def ulaw_decode(ulaw: bytes) -> Pcm:
    code = np.frombuffer(ulaw, dtype=np.uint8).astype(np.int32) ^ 0xFF
    magnitude = ((((code & 0x0F) << 3) + _BIAS) << ((code >> 4) & 0x07)) - _BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def resample(pcm: Pcm, rate: int, to_rate: int) -> Pcm:
    """The whole clip at another rate, by cutting or padding its spectrum; nothing above half the lower rate.

    The transform is periodic, so the clip's end leaks into its start unless both are quiet: suitable for
    clips, wrong for pieces of a stream.
    """
    if rate == to_rate or not len(pcm):
        return pcm.copy()
    return to_int16(resample_float(pcm.astype(np.float64), rate, to_rate))


def resample_float(samples: NDArray[np.float64], rate: int, to_rate: int) -> NDArray[np.float64]:
    """As `resample`, without rounding."""
    if rate == to_rate or not len(samples):
        return samples
    length = round(len(samples) * to_rate / rate)
    spectrum = np.fft.rfft(samples)
    # The bin at half a rate is shared with its mirror image, which differs at the other rate.
    usable = min((len(samples) + 1) // 2, (length + 1) // 2)
    resized = np.zeros(length // 2 + 1, dtype=np.complex128)
    resized[:usable] = spectrum[:usable]
    resampled: NDArray[np.float64] = np.fft.irfft(resized, length) * (length / len(samples))
    return resampled


def to_16k(pcm_8k: Pcm) -> Pcm:
    return resample(pcm_8k, 8_000, 16_000)


def to_8k(pcm_16k: Pcm) -> Pcm:
    return resample(pcm_16k, 16_000, 8_000)


def to_int16(samples: NDArray[np.float64]) -> Pcm:
    return np.clip(np.rint(samples), -32_768, 32_767).astype(np.int16)


def level_dbfs(pcm: Pcm) -> float:
    """RMS level; a full-scale square wave is 0 dBFS, silence is -120."""
    if not len(pcm):
        return -120.0
    rms = float(np.sqrt(np.mean(np.square(pcm.astype(np.float64)))))
    return max(-120.0, 20 * float(np.log10(max(rms, 1e-9) / 32_768)))


def loud_windows(pcm: Pcm) -> list[int]:
    """Indexes of the 5 ms windows that are loud; the last window may be shorter."""
    if not len(pcm):
        return []
    starts = np.arange(0, len(pcm), WINDOW)
    energy = np.add.reduceat(np.square(pcm.astype(np.float64)), starts)
    sizes = np.diff(np.append(starts, len(pcm)))
    limit = (32_768 * 10 ** (LOUD_DBFS / 20)) ** 2
    return [int(index) for index in np.flatnonzero(energy / sizes > limit)]


def as_clip(pcm_8k: Pcm, name: str = "audio", *, speaker: str = "caller", text: str = "") -> Clip:
    """Any audio as a clip; the loud part is found by its level. For silence, start and end are 0."""
    loud = loud_windows(pcm_8k)
    start_ms, end_ms = (loud[0] * 5, (loud[-1] + 1) * 5) if loud else (0, 0)
    return Clip(name, speaker, text, pcm_8k, start_ms, min(end_ms, len(pcm_8k) * 1000 // LINE_RATE))


def line_noise(seed: int, samples: int) -> Pcm:
    """Line noise: the same for the same seed, and no two stretches of 20 ms are equal."""
    if samples <= 0:
        return np.zeros(0, dtype=np.int16)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    hertz = np.fft.rfftfreq(samples, 1 / LINE_RATE)
    spectrum[(hertz < VOICE_BAND_HZ[0]) | (hertz > VOICE_BAND_HZ[1])] = 0
    noise = np.fft.irfft(spectrum, samples)
    rms = float(np.sqrt(np.mean(np.square(noise)))) or 1.0
    return to_int16(noise * (32_768 * 10 ** (LINE_NOISE_DBFS / 20) / rms))


def read_wav(path: Path | str) -> tuple[Pcm, int]:
    """A PCM WAV file of 8 or 16 bits, its channels mixed to one, and its sample rate.

    Raises ValueError, with a message for the user, for other formats.
    """
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is not a PCM WAV file: {error or 'it ends too early'}") from error
    if width not in (1, 2):
        raise ValueError(f"{path} has {8 * width} bits per sample; 8 and 16 are supported")
    raw = raw[: len(raw) - len(raw) % (width * channels)]
    if width == 2:
        samples = np.frombuffer(raw, dtype="<i2").astype(np.float64)
    else:
        # Eight-bit WAV is unsigned, around 128.
        samples = (np.frombuffer(raw, dtype=np.uint8).astype(np.float64) - 128) * 256
    return to_int16(samples.reshape(-1, channels).mean(axis=1)), rate


def read_wav_8k(path: Path | str) -> Pcm:
    pcm, rate = read_wav(path)
    return resample(pcm, rate, LINE_RATE)


def write_wav(path: Path | str, pcm: Pcm, rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())


@lru_cache(maxsize=1)
def _clips() -> tuple[Clip, ...]:
    manifest = json.loads((CLIPS_DIR / "manifest.json").read_text(encoding="utf-8"))
    clips = []
    for entry in manifest["clips"]:
        pcm = read_wav_8k(CLIPS_DIR / entry["file"])
        pcm.setflags(write=False)  # shared by all calls in the process
        clips.append(
            Clip(
                name=entry["name"],
                speaker=entry["speaker"],
                text=entry["text"],
                pcm_8k=pcm,
                speech_start_ms=entry["speech_start_ms"],
                speech_end_ms=entry["speech_end_ms"],
            )
        )
    return tuple(clips)


def load_clips() -> dict[str, Clip]:
    """All clips of the manifest by name, read once per process."""
    return {clip.name: clip for clip in _clips()}
