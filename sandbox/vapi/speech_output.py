"""Chunks of assistant audio: real speech, near real time, in chunks as irregular as Vapi's.

A reply is first planned, as a list of chunks with due times, then played by `ReplyPlayer`. Chunks are sent
in pairs, about 46 ms of audio a pair, and sometimes one large chunk of up to 93 ms; no size is a multiple of
20 ms, and with PCM a chunk may end in the middle of a sample. Audio is sent about 60 ms ahead of real time,
so playback never underruns. The first audible sample always starts a chunk, so the time at which it is sent
is exact.
"""

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sandbox.speech import audio as sound
from sandbox.speech.audio import Clip, Pcm

PAIR_MS = (40, 54)
LARGE_MS = 92.8  # at most 743 bytes of mu-law: the largest chunk seen from Vapi
LARGE_EVERY = 9
AHEAD_SECONDS = 0.06
JITTER_SECONDS = 0.008


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """The audio format of a socket: raw samples, mono, no header."""

    name: str = "pcm_s16le"
    rate: int = 16_000

    @property
    def width(self) -> int:
        return 1 if self.name == "mulaw" else 2

    @property
    def bytes_per_second(self) -> int:
        return self.rate * self.width


@lru_cache(maxsize=64)
def encode_clip(clip: Clip, audio_format: AudioFormat) -> bytes:
    pcm = sound.resample(clip.pcm_8k, sound.LINE_RATE, audio_format.rate)
    return sound.ulaw_encode(pcm) if audio_format.name == "mulaw" else pcm.astype("<i2").tobytes()


class SampleDecoder:
    """Decodes received bytes to samples. A sample may be split over two chunks."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._format = audio_format
        self._half = b""

    def __call__(self, payload: bytes) -> Pcm:
        if self._format.name == "mulaw":
            return sound.ulaw_decode(payload)
        data = self._half + payload
        whole = len(data) - len(data) % 2
        self._half = data[whole:]
        return np.frombuffer(data[:whole], dtype="<i2").astype(np.int16)


@dataclass(frozen=True, slots=True)
class Chunk:
    due_seconds: float  # after the first chunk
    audio: bytes
    end_seconds: float  # position in the clip at which the chunk ends


@dataclass(frozen=True, slots=True)
class SpeechPlan:
    """The chunks of one clip, with their due times."""

    chunks: tuple[Chunk, ...]
    audible: int  # index of the chunk that starts with the first audible sample
    speech_seconds: tuple[float, float]  # start and end of the speech in the clip
    duration_seconds: float

    @property
    def audible_due_seconds(self) -> float:
        return self.chunks[self.audible].due_seconds

    def words_until(self, text: str, position_seconds: float) -> str:
        """The words spoken up to this position: the transcript of a reply that was cut off."""
        start, end = self.speech_seconds
        share = min(1.0, max(0.0, (position_seconds - start) / max(0.001, end - start)))
        words = text.split()
        return " ".join(words[: round(share * len(words))])


def plan_clip(
    clip: Clip, audio_format: AudioFormat, rng: random.Random, *, burst: bool, odd: bool
) -> SpeechPlan:
    audio = encode_clip(clip, audio_format)
    per_second = audio_format.bytes_per_second
    audible_at = min(clip.speech_start_ms * per_second // 1000, len(audio) - 1)
    pieces = _pieces(audio[:audible_at], audio_format, rng, odd)
    audible = len(pieces)
    pieces += _pieces(audio[audible_at:], audio_format, rng, odd)
    chunks: list[Chunk] = []
    position = 0
    due = 0.0
    for index, piece in enumerate(pieces):
        if index % 2 == 0 and not burst:  # the second of a pair is sent together with the first
            target = position / per_second - AHEAD_SECONDS + rng.uniform(-JITTER_SECONDS, JITTER_SECONDS)
            due = max(due, target)
        position += len(piece)
        chunks.append(Chunk(due, piece, position / per_second))
    speech = (clip.speech_start_ms / 1000, clip.speech_end_ms / 1000)
    return SpeechPlan(tuple(chunks), audible, speech, len(audio) / per_second)


def _pieces(audio: bytes, audio_format: AudioFormat, rng: random.Random, odd: bool) -> list[bytes]:
    """The audio in irregular pieces, two to a pair; the last piece may have any size."""
    pieces: list[bytes] = []
    position = 0
    while position < len(audio):
        if rng.randrange(LARGE_EVERY) == 0:
            sizes_ms = [rng.uniform(70, LARGE_MS), rng.uniform(8, 14)]
        else:
            pair = rng.uniform(*PAIR_MS)
            first = rng.uniform(0.3, 0.7) * pair
            sizes_ms = [first, pair - first]
        for size_ms in sizes_ms:
            size = _irregular_size(
                int(size_ms * audio_format.bytes_per_second / 1000), audio_format, rng, odd
            )
            if position < len(audio):
                pieces.append(audio[position : position + size])
                position += size
    return pieces


def _irregular_size(size: int, audio_format: AudioFormat, rng: random.Random, odd: bool) -> int:
    frame = audio_format.bytes_per_second // 50
    if size % frame == 0:
        size -= 2
    if audio_format.width == 2:
        size -= size % 2
        if odd and rng.random() < 0.5:
            size -= 1
    return size
