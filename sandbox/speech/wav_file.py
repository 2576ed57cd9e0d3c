"""Reads any WAV file as a caller's audio: 8 kHz, mono, 16 bits.

The header is read first, and then a few seconds at a time, so that memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from sandbox.speech.audio import LINE_RATE, Pcm, resample_float, to_int16

FORMATS = ("WAV", "WAVEX", "RF64", "W64")
MAX_RATE = 768_000
BLOCK_SAMPLES = 1 << 18
PIECE_SECONDS = 4
# Read before and after each piece, because the resampled ends of a piece leak into each other.
MARGIN_SECONDS = 1
MAX_CHUNKS = 1000
# Programs that stream into a pipe write a size of 0, or one of 2 or 4 GB.
UNKNOWN_SIZE = 0x7FFF_0000
UNSIZED = b"\xff\xff\xff\xff"

Samples = NDArray[np.float64]


def read_wav_file(path: Path, max_seconds: float) -> Pcm:
    """The audio of the file. Raises OSError, or ValueError with one sentence for the user."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file")
    try:
        with path.open("rb") as raw, soundfile.SoundFile(_check_size(path, raw)) as file:
            _check(path, file, max_seconds)
            pcm = _read(file, round(max_seconds * LINE_RATE))
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be read: {error.error_string}") from None
    if len(pcm) > max_seconds * LINE_RATE:
        raise ValueError(f"{path} is longer than {_duration(max_seconds)}")
    if not len(pcm):
        raise ValueError(f"{path} is empty")
    return pcm


def _check(path: Path, file: soundfile.SoundFile, max_seconds: float) -> None:
    if file.format not in FORMATS:
        raise ValueError(f"{path} is not a WAV file, but {file.format}")
    if file.samplerate > MAX_RATE:
        raise ValueError(f"{path} has a sample rate of {file.samplerate} Hz; the maximum is {MAX_RATE} Hz")
    if not file.frames:
        raise ValueError(f"{path} is empty")
    seconds = file.frames / file.samplerate
    if seconds > max_seconds:
        raise ValueError(f"{path} is {_duration(seconds)} long; the maximum is {_duration(max_seconds)}")


def _duration(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 120 or seconds % 60 else f"{seconds / 60:g} minutes"


class _Unsized:
    """A file whose data chunk has a size of 0, although audio follows. libsndfile reads it to its end."""

    def __init__(self, raw: BinaryIO, size_at: int) -> None:
        self._raw, self._size_at = raw, size_at
        self.seek, self.tell = raw.seek, raw.tell

    def read(self, count: int = -1) -> bytes:
        start = self._raw.tell()
        found = bytearray(self._raw.read(count))
        for index, byte in enumerate(UNSIZED, self._size_at - start):
            if 0 <= index < len(found):
                found[index] = byte
        return bytes(found)


def _check_size(path: Path, raw: BinaryIO) -> Any:
    """The file for libsndfile, which reads a truncated one without an error. Raises `ValueError` for that."""
    size = raw.seek(0, 2)
    raw.seek(0)
    head = raw.read(12)
    if not size:
        raise ValueError(f"{path} is empty: it has no header")
    if head[:4] == b"riff":  # Sony Wave64 has a layout of its own
        return _rewound(raw)
    if head[:4] not in (b"RIFF", b"RIFX", b"RF64") or head[8:12] not in (b"WAVE", b""):
        raise ValueError(f"{path} is not a WAV file")
    order: Literal["big", "little"] = "big" if head[:4] == b"RIFX" else "little"
    data_size_64 = None
    for _ in range(MAX_CHUNKS):
        chunk = raw.read(8)
        if len(chunk) < 8:
            raise ValueError(f"{path} is truncated: it ends before its audio")
        length = int.from_bytes(chunk[4:], order)
        if chunk[:4] == b"ds64":
            sizes = raw.read(16)
            data_size_64 = int.from_bytes(sizes[8:16], "little")
            raw.seek(length - len(sizes) + length % 2, 1)
            continue
        if chunk[:4] == b"data":
            present = size - raw.tell()
            if length == 0xFFFFFFFF and data_size_64 is not None:
                length = data_size_64
            if present < length and (length < UNKNOWN_SIZE or data_size_64 is not None):
                raise ValueError(f"{path} is truncated: it has {present} of {length} bytes of audio")
            is_streamed = not length and int.from_bytes(head[4:8], order) != size - 8
            return _Unsized(_rewound(raw), size - present - 4) if is_streamed else _rewound(raw)
        raw.seek(length + length % 2, 1)
    raise ValueError(f"{path} is not a WAV file: it has no audio among its first {MAX_CHUNKS} chunks")


def _rewound(raw: BinaryIO) -> BinaryIO:
    raw.seek(0)
    return raw


def _read(file: soundfile.SoundFile, max_samples: int) -> Pcm:
    """The audio, resampled piece by piece; it may be longer than `max_samples` by a piece."""
    rate = file.samplerate
    margin, piece = MARGIN_SECONDS * rate, PIECE_SECONDS * rate
    keep = slice(MARGIN_SECONDS * LINE_RATE, (MARGIN_SECONDS + PIECE_SECONDS) * LINE_RATE)
    pieces: list[Pcm] = []
    frames, samples = 0, 0
    pending: Samples = np.zeros(margin)
    blocks = _mono_blocks(file)
    at_end = False
    while not at_end and samples <= max_samples:
        while len(pending) < piece + 2 * margin and not at_end:
            block = next(blocks, None)
            if block is None:
                at_end = True
                break
            frames += len(block)
            pending = np.concatenate((pending, block))
        while len(pending) >= piece + 2 * margin or (at_end and len(pending) > margin):
            window = pending[: piece + 2 * margin]
            window = np.pad(window, (0, piece + 2 * margin - len(window)))
            pieces.append(to_int16(resample_float(window, rate, LINE_RATE)[keep] * 32_768))
            samples += len(pieces[-1])
            pending = pending[piece:]
    pcm = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int16)
    return pcm[: max(round(frames * LINE_RATE / rate), 1)] if frames else pcm[:0]


def _mono_blocks(file: soundfile.SoundFile) -> Iterator[Samples]:
    """The mean of all channels, between -1 and 1."""
    frames = max(1, BLOCK_SAMPLES // file.channels)
    while len(block := file.read(frames, dtype="float64", always_2d=True)):
        # A float file may hold anything.
        yield np.clip(np.nan_to_num(block, nan=0.0, posinf=1.0, neginf=-1.0), -1, 1).mean(axis=1)
