"""How the stand-in speaks: real speech, near real time, in chunks as irregular as Vapi's.

A reply is first planned, as a list of chunks with due times, then spoken. Chunks come in pairs, sent
together, about 46 ms of audio a pair and now and then one large chunk of up to 93 ms; no size is a multiple
of 20 ms, and with PCM a chunk may end in the middle of a sample. The supply runs some 60 ms ahead of real
time, so the listener never starves. The first audible sample always begins a chunk: whoever measures when
it was sent measures one instant, not a range.
"""

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sandbox.speech import audio as sound
from sandbox.speech.audio import Clip, Pcm

PAIR_MS = (40, 54)
LARGE_MS = 92.8  # 743 bytes of mu-law at most: the largest chunk ever seen
LARGE_EVERY = 9
AHEAD_S = 0.06
JITTER_S = 0.008


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """What was agreed for the socket: raw samples, mono, no header."""

    name: str = "pcm_s16le"
    rate: int = 16_000

    @property
    def width(self) -> int:
        return 1 if self.name == "mulaw" else 2

    @property
    def bytes_per_second(self) -> int:
        return self.rate * self.width


@lru_cache(maxsize=64)
def encoded(clip: Clip, audio_format: AudioFormat) -> bytes:
    pcm = sound.resample(clip.pcm_8k, sound.LINE_RATE, audio_format.rate)
    return sound.ulaw_encode(pcm) if audio_format.name == "mulaw" else pcm.astype("<i2").tobytes()


class Unpacker:
    """Received bytes to samples. A chunk may end inside a sample: its first byte waits for the second."""

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
    due_s: float  # after the first chunk
    audio: bytes
    ends_s: float  # how far into the clip it reaches


@dataclass(frozen=True, slots=True)
class Plan:
    """One clip, ready to be spoken."""

    chunks: tuple[Chunk, ...]
    audible: int  # index of the chunk that the first audible sample begins
    speech_s: tuple[float, float]  # where in the clip the speech begins and ends
    duration_s: float

    @property
    def audible_due_s(self) -> float:
        return self.chunks[self.audible].due_s

    def words_until(self, text: str, position_s: float) -> str:
        """The words spoken up to this position of the clip: what a transcript has of a reply cut short."""
        begin, end = self.speech_s
        share = min(1.0, max(0.0, (position_s - begin) / max(0.001, end - begin)))
        words = text.split()
        return " ".join(words[: round(share * len(words))])


def plan_clip(clip: Clip, audio_format: AudioFormat, rng: random.Random, *, burst: bool, odd: bool) -> Plan:
    audio = encoded(clip, audio_format)
    per_second = audio_format.bytes_per_second
    audible_at = min(clip.speech_start_ms * per_second // 1000, len(audio) - 1)
    pieces = _pieces(audio[:audible_at], audio_format, rng, odd)
    audible = len(pieces)
    pieces += _pieces(audio[audible_at:], audio_format, rng, odd)
    chunks: list[Chunk] = []
    position = 0
    due = 0.0
    for index, piece in enumerate(pieces):
        if index % 2 == 0 and not burst:  # the second of a pair leaves together with the first
            wanted = position / per_second - AHEAD_S + rng.uniform(-JITTER_S, JITTER_S)
            due = max(due, wanted)
        position += len(piece)
        chunks.append(Chunk(due, piece, position / per_second))
    speech = (clip.speech_start_ms / 1000, clip.speech_end_ms / 1000)
    return Plan(tuple(chunks), audible, speech, len(audio) / per_second)


def _pieces(audio: bytes, audio_format: AudioFormat, rng: random.Random, odd: bool) -> list[bytes]:
    """The audio in irregular pieces, two to a pair; what is left over at the end may be of any size."""
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
            size = _irregular(int(size_ms * audio_format.bytes_per_second / 1000), audio_format, rng, odd)
            if position < len(audio):
                pieces.append(audio[position : position + size])
                position += size
    return pieces


def _irregular(size: int, audio_format: AudioFormat, rng: random.Random, odd: bool) -> int:
    frame = audio_format.bytes_per_second // 50
    if size % frame == 0:
        size -= 2
    if audio_format.width == 2:
        size -= size % 2
        if odd and rng.random() < 0.5:
            size -= 1
    return size
