"""G.711 mu-law to linear samples and back, by lookup tables.

A code is a sign bit, three bits of segment and four of step, all inverted on the line. Both tables are
computed from that rule. The encoder uses 14 bits, as the reference code of the standard does (a 16-bit
encoder rounds some negative samples differently), so both directions equal `audioop` for every code and every
sample.

Pure: numpy only. Every byte is a valid code, so nothing here can fail.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE: Final = 8000
SILENCE: Final = 0xFF  # the code of a zero sample; 0x7F, minus zero, decodes to zero as well

_BIAS = 33  # added to the magnitude (14 bits) so that each segment begins at a power of two
_TOP = 0x1FFF  # the last magnitude, bias included, that a code can hold


def _decode_table() -> NDArray[np.int16]:
    codes = ~np.arange(256) & 0xFF
    segment, step = (codes >> 4) & 7, codes & 15
    magnitude = (((2 * step + _BIAS) << segment) - _BIAS) << 2
    return np.where(codes & 0x80, -magnitude, magnitude).astype(np.int16)


def _encode_table() -> NDArray[np.uint8]:
    """Indexed by the sample's bits read as an unsigned number."""
    samples = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.int64) >> 2
    # Clipped after the bias is added: clipping before it misses the top of the last segment.
    magnitude = np.minimum(np.abs(samples) + _BIAS, _TOP)
    segment = np.frexp(magnitude)[1] - 6  # 33 has six bits and lies in segment 0
    step = (magnitude >> (segment + 1)) & 15
    sign = np.where(samples < 0, 0x80, 0)
    codes: NDArray[np.int64] = ~(sign | segment << 4 | step) & 0xFF
    return codes.astype(np.uint8)


_DECODE: Final = _decode_table()
_ENCODE: Final = _encode_table()


def decode(ulaw: bytes) -> NDArray[np.int16]:
    """One sample per byte."""
    return _DECODE.take(np.frombuffer(ulaw, np.uint8))


def encode(pcm: NDArray[np.int16]) -> bytes:
    """One byte per sample."""
    return _ENCODE.take(pcm.view(np.uint16)).tobytes()
