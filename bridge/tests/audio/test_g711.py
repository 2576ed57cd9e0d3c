"""G.711 mu-law, compared with `audioop` byte by byte: all codes, all samples."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from bridge.audio import g711

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop  # the reference; on Python 3.13 it is the package audioop-lts

ALL_CODES = bytes(range(256))
ALL_SAMPLES = np.arange(-32768, 32768).astype(np.int16)


def test_it_decodes_every_code_as_the_reference_does() -> None:
    assert g711.decode(ALL_CODES).astype("<i2").tobytes() == audioop.ulaw2lin(ALL_CODES, 2)


def test_it_encodes_every_sample_as_the_reference_does() -> None:
    assert g711.encode(ALL_SAMPLES) == audioop.lin2ulaw(ALL_SAMPLES.tobytes(), 2)


@pytest.mark.parametrize(
    ("code", "sample"),
    [(0x00, -32124), (0x80, 32124), (0xFF, 0), (0x7F, 0), (0x0F, -16764), (0x8F, 16764), (0xD5, 716)],
)
def test_it_decodes_the_example_codes(code: int, sample: int) -> None:
    assert g711.decode(bytes([code])).tolist() == [sample]


@pytest.mark.parametrize(
    ("sample", "code"),
    [(0, 0xFF), (8, 0xFE), (100, 0xF2), (1000, 0xCE), (-1000, 0x4E), (32767, 0x80), (-32768, 0x00)],
)
def test_it_encodes_the_example_samples(sample: int, code: int) -> None:
    assert g711.encode(np.array([sample], np.int16)) == bytes([code])


def test_every_code_but_minus_zero_survives_decoding_and_encoding() -> None:
    encoded = g711.encode(g711.decode(ALL_CODES))
    assert encoded == ALL_CODES.replace(b"\x7f", b"\xff")


def test_it_encodes_samples_that_are_not_contiguous() -> None:
    assert g711.encode(ALL_SAMPLES[::3]) == g711.encode(ALL_SAMPLES[::3].copy())


def test_it_encodes_zero_as_silence() -> None:
    assert g711.encode(np.zeros(3, np.int16)) == bytes([g711.SILENCE]) * 3


def test_empty_input_gives_empty_output() -> None:
    assert g711.encode(g711.decode(b"")) == b""
