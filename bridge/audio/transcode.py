"""The door between the caller's mu-law at 8 kHz and whatever the assistant speaks.

A transcoder belongs to one call: it carries filter state, and what a chunk left unfinished, to the next.
Chunks may have any length, odd ones too. Nothing is buffered beyond half a sample.

Pure: numpy only, by way of `g711` and `resample`.
"""

from __future__ import annotations

from typing import Protocol, assert_never

import numpy as np

from bridge.audio import g711
from bridge.audio.resample import Downsampler, Upsampler
from bridge.config import AudioFormat


class Transcoder(Protocol):
    def to_assistant(self, ulaw: bytes) -> bytes:
        """The caller's frame, as the assistant wants it."""

    def to_caller(self, chunk: bytes) -> bytes:
        """The assistant's chunk as mu-law; empty when it did not complete a sample."""

    def cut_off(self) -> None:
        """The assistant was interrupted: what comes next begins with a whole sample."""


class PassThrough:
    """Both ends speak mu-law at 8 kHz."""

    def to_assistant(self, ulaw: bytes) -> bytes:
        return ulaw

    def to_caller(self, chunk: bytes) -> bytes:
        return chunk

    def cut_off(self) -> None:
        pass  # a byte is a sample


class Pcm16k:
    """The assistant speaks PCM, 16 bits little-endian, one channel at 16 kHz."""

    def __init__(self) -> None:
        self._up = Upsampler()
        self._down = Downsampler()
        self._half_sample = b""  # a chunk may end inside a sample: its first byte

    def to_assistant(self, ulaw: bytes) -> bytes:
        return self._up.feed(g711.decode(ulaw)).astype("<i2", copy=False).tobytes()

    def to_caller(self, chunk: bytes) -> bytes:
        data = self._half_sample + chunk
        whole = len(data) & ~1
        self._half_sample = data[whole:]
        pcm_16k = np.frombuffer(data, "<i2", whole // 2).astype(np.int16, copy=False)
        return g711.encode(self._down.feed(pcm_16k))

    def cut_off(self) -> None:
        # The other half was dropped with the rest of the answer. Joined to the next answer's first byte
        # it would shift that and all that follows by a byte: noise until the next odd chunk.
        self._half_sample = b""


def transcoder_for(audio_format: AudioFormat) -> Transcoder:
    """A new one, for one call."""
    match audio_format:
        case AudioFormat.PCM_16K:
            return Pcm16k()
        case AudioFormat.MULAW:
            return PassThrough()
        case _:
            assert_never(audio_format)
