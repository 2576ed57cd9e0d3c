"""Transcoding between the caller's mu-law at 8 kHz and the assistant's audio format.

A transcoder belongs to one call: filter state, and an incomplete sample at the end of a chunk, carry over to
the next chunk. Chunks may have any length, odd ones included. At most half a sample is buffered.

Pure: numpy only, through `g711` and `resample`.
"""

from __future__ import annotations

from typing import Protocol, assert_never

import numpy as np

from bridge.audio import g711
from bridge.audio.resample import Downsampler, Upsampler
from bridge.config import AudioFormat


class Transcoder(Protocol):
    def to_assistant(self, ulaw: bytes) -> bytes:
        """A caller frame in the assistant's format."""

    def to_caller(self, chunk: bytes) -> bytes:
        """An assistant chunk as mu-law; empty when it completes no sample."""

    def interrupt(self) -> None:
        """The assistant was interrupted: the next chunk begins with a whole sample."""


class PassThrough:
    """For an assistant that uses mu-law at 8 kHz: no conversion."""

    def to_assistant(self, ulaw: bytes) -> bytes:
        return ulaw

    def to_caller(self, chunk: bytes) -> bytes:
        return chunk

    def interrupt(self) -> None:
        pass  # a byte is a sample


class Pcm16k:
    """For an assistant that uses PCM: 16 bits little-endian, mono, 16 kHz."""

    def __init__(self) -> None:
        self._up = Upsampler()
        self._down = Downsampler()
        self._half_sample = b""  # first byte of a sample that the next chunk completes

    def to_assistant(self, ulaw: bytes) -> bytes:
        return self._up.feed(g711.decode(ulaw)).astype("<i2", copy=False).tobytes()

    def to_caller(self, chunk: bytes) -> bytes:
        data = self._half_sample + chunk
        whole = len(data) & ~1
        self._half_sample = data[whole:]
        pcm_16k = np.frombuffer(data, "<i2", whole // 2).astype(np.int16, copy=False)
        return g711.encode(self._down.feed(pcm_16k))

    def interrupt(self) -> None:
        # The sample's second byte was dropped with the rest of the answer. Joined to the first byte of the
        # next answer, the first one would shift all samples by a byte: noise until the next odd chunk.
        self._half_sample = b""


def transcoder_for(audio_format: AudioFormat) -> Transcoder:
    """A new transcoder, for one call."""
    match audio_format:
        case AudioFormat.PCM_16K:
            return Pcm16k()
        case AudioFormat.MULAW:
            return PassThrough()
        case _:
            assert_never(audio_format)
