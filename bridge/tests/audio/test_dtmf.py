"""DTMF tones: the frequencies that a receiver would detect."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.audio import dtmf
from bridge.audio.g711 import decode

FREQUENCIES = (697, 770, 852, 941, 1209, 1336, 1477, 1633)
KEYS = {"1": (697, 1209), "5": (770, 1336), "#": (941, 1477), "0": (941, 1336), "D": (941, 1633)}
KEY_BYTES = 8 * (dtmf.TONE_MS + dtmf.PAUSE_MS)


def power(ulaw: bytes, hertz: int) -> float:
    """The power of one frequency, by the sum of the Goertzel algorithm."""
    samples = decode(ulaw).astype(np.float64)
    rotation = np.exp(-2j * np.pi * hertz * np.arange(len(samples)) / 8000)
    return float(abs((samples * rotation).sum()) / len(samples))


@pytest.mark.parametrize(("key", "pair"), KEYS.items())
def test_each_key_has_exactly_its_two_frequencies(key: str, pair: tuple[int, int]) -> None:
    powers = {hertz: power(dtmf.tones(key)[: 8 * dtmf.TONE_MS], hertz) for hertz in FREQUENCIES}
    loudest = sorted(powers, key=powers.__getitem__)[-2:]
    assert set(loudest) == set(pair)
    assert min(powers[hertz] for hertz in pair) > 10 * max(powers[h] for h in FREQUENCIES if h not in pair)


def test_keys_are_separated_by_pauses_and_w_is_a_wait() -> None:
    assert dtmf.tones("1w2") == dtmf.tones("1") + b"\xff" * 8 * dtmf.WAIT_MS + dtmf.tones("2")
    assert dtmf.tones("1")[8 * dtmf.TONE_MS :] == b"\xff" * 8 * dtmf.PAUSE_MS
    assert len(dtmf.tones("1")) == KEY_BYTES


def test_the_sum_of_two_tones_does_not_clip() -> None:
    assert all(abs(decode(dtmf.tones(key))).max() < 32124 for key in "159D")


def test_an_invalid_key_raises() -> None:
    with pytest.raises(KeyError):
        dtmf.tones("x")
