"""The resampler in chunks equals the resampler at once; and it sounds as promised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import measure_audio as measure
from bridge.audio import resample
from bridge.audio.resample import DELAY, Downsampler, Upsampler

Pcm = measure.Pcm
lengths = st.lists(st.integers(0, 333), max_size=12)
seeds = st.integers(0, 2**32 - 1)


def loud_noise(seed: int, size: int) -> Pcm:
    """Full scale, so that overshoot saturates too."""
    return np.random.default_rng(seed).integers(-32768, 32768, size).astype(np.int16)


def in_chunks(feed: Callable[[Pcm], Pcm], samples: Pcm, sizes: Sequence[int]) -> Pcm:
    ends = np.cumsum(sizes)
    return np.concatenate([feed(piece) for piece in np.split(samples, ends)])


@settings(deadline=None, max_examples=60)
@given(sizes=lengths, seed=seeds)
def test_it_gives_the_same_samples_upwards_however_the_stream_is_cut(sizes: list[int], seed: int) -> None:
    pcm = loud_noise(seed, sum(sizes) + 50)
    assert np.array_equal(in_chunks(Upsampler().feed, pcm, sizes), Upsampler().feed(pcm))


@settings(deadline=None, max_examples=60)
@given(sizes=lengths, seed=seeds)
def test_it_gives_the_same_samples_downwards_however_the_stream_is_cut(sizes: list[int], seed: int) -> None:
    pcm_16k = loud_noise(seed, sum(sizes) + 51)
    assert np.array_equal(in_chunks(Downsampler().feed, pcm_16k, sizes), Downsampler().feed(pcm_16k))


def test_it_gives_the_same_samples_one_by_one() -> None:
    noise = loud_noise(1, 300)
    assert np.array_equal(in_chunks(Upsampler().feed, noise, [1] * 300), Upsampler().feed(noise))
    assert np.array_equal(in_chunks(Downsampler().feed, noise, [1] * 300), Downsampler().feed(noise))


def test_it_computes_exact_sums_so_that_their_order_cannot_matter() -> None:
    taps = resample._SIDE * resample._SCALE
    assert np.array_equal(taps, np.rint(taps))
    assert np.abs(taps).sum() * 32768 < 2**38
    assert np.array_equal(taps, taps[::-1])


def test_it_equals_the_filter_written_out_in_fractions() -> None:
    noise = loud_noise(7, 90)
    taps = [Fraction(0)] * (2 * DELAY + 1)
    taps[::2] = [Fraction(int(tap), 1 << 20) for tap in resample._SIDE * resample._SCALE]
    taps[DELAY] = Fraction(1)

    def rounded(value: Fraction) -> int:
        return max(-32768, min(32767, round(value)))

    def filtered(signal: list[int], n: int) -> Fraction:
        return sum((tap * signal[n - k] for k, tap in enumerate(taps) if n >= k), Fraction(0))

    stuffed = [int(value) for sample in noise for value in (sample, 0)]
    assert Upsampler().feed(noise).tolist() == [rounded(filtered(stuffed, n)) for n in range(180)]
    plain = [int(sample) for sample in noise]
    assert Downsampler().feed(noise).tolist() == [rounded(filtered(plain, n) / 2) for n in range(0, 90, 2)]


@given(sizes=lengths)
@settings(deadline=None, max_examples=30)
def test_it_never_holds_a_sample_back(sizes: list[int]) -> None:
    up, down, fed, given_back = Upsampler(), Downsampler(), 0, 0
    for size in sizes:
        piece = np.zeros(size, np.int16)
        assert len(up.feed(piece)) == 2 * size
        fed += size
        given_back += len(down.feed(piece))
        assert given_back == (fed + 1) // 2


@pytest.mark.parametrize("value", [0, 1, -1, 12345, 32767, -32768])
def test_it_leaves_a_constant_as_it_is(value: int) -> None:
    constant = np.full(400, value, np.int16)
    assert set(Upsampler().feed(constant)[2 * DELAY :].tolist()) == {value}
    assert set(Downsampler().feed(constant)[DELAY + 1 :].tolist()) == {value}


def test_it_saturates_where_the_filter_overshoots() -> None:
    square = np.repeat(np.array([32767, -32768] * 20, np.int16), 40)
    for pcm in (Upsampler().feed(square), Downsampler().feed(square)):
        assert pcm.max() == 32767
        assert pcm.min() == -32768
        # Wrapped instead of saturated, a sample amid a plateau would have the other sign.
        assert np.diff(pcm[60:] >= 0).sum() <= 40


def test_it_keeps_the_telephone_band_flat_and_clean() -> None:
    found = measure.resampling()
    assert found.up_flatness < 0.5
    assert found.down_flatness < 0.5
    assert found.worst_image < -60
    assert found.worst_alias < -60


def test_it_delays_by_less_than_two_milliseconds() -> None:
    found = measure.resampling()
    assert found.up_delay_ms == pytest.approx(DELAY / 16, abs=0.01)
    assert found.down_delay_ms == pytest.approx(DELAY / 16, abs=0.01)
    assert found.up_delay_ms < 2


def test_it_agrees_with_a_resampler_of_renown() -> None:
    narrow, wide = measure.multi_tone(8000), measure.multi_tone(16000)
    up = measure.snr_db(measure.upsampled(narrow), soxr.resample(narrow, 8000, 16000, "VHQ"), DELAY)
    down = measure.snr_db(measure.downsampled(wide), soxr.resample(wide, 16000, 8000, "VHQ"), DELAY / 2)
    assert up > 60
    assert down > 60
