"""Keys as sound: what a receiver at the other end would hear in them."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.audio import dtmf
from bridge.audio.g711 import decode

FREQUENCIES = (697, 770, 852, 941, 1209, 1336, 1477, 1633)
KEYS = {"1": (697, 1209), "5": (770, 1336), "#": (941, 1477), "0": (941, 1336), "D": (941, 1633)}
KEY_BYTES = 8 * (dtmf.TONE_MS + dtmf.PAUSE_MS)


def power(ulaw: bytes, hertz: int) -> float:
    """How much of one frequency there is, by Goertzel's sum."""
    samples = decode(ulaw).astype(np.float64)
    turns = np.exp(-2j * np.pi * hertz * np.arange(len(samples)) / 8000)
    return float(abs((samples * turns).sum()) / len(samples))


@pytest.mark.parametrize(("key", "pair"), KEYS.items())
def test_each_key_is_its_two_frequencies_and_nothing_else(key: str, pair: tuple[int, int]) -> None:
    heard = {hertz: power(dtmf.tones(key)[: 8 * dtmf.TONE_MS], hertz) for hertz in FREQUENCIES}
    loud = sorted(heard, key=heard.__getitem__)[-2:]
    assert set(loud) == set(pair)
    assert min(heard[hertz] for hertz in pair) > 10 * max(heard[h] for h in FREQUENCIES if h not in pair)


def test_keys_are_apart_and_a_w_waits() -> None:
    assert dtmf.tones("1w2") == dtmf.tones("1") + b"\xff" * 8 * dtmf.WAIT_MS + dtmf.tones("2")
    assert dtmf.tones("1")[8 * dtmf.TONE_MS :] == b"\xff" * 8 * dtmf.PAUSE_MS
    assert len(dtmf.tones("1")) == KEY_BYTES


def test_two_waves_together_do_not_clip() -> None:
    assert all(abs(decode(dtmf.tones(key))).max() < 32124 for key in "159D")


def test_what_is_no_key_has_no_sound() -> None:
    with pytest.raises(KeyError):
        dtmf.tones("x")
