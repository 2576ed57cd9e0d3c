"""The resampler: results do not depend on chunking, and the frequency response is as documented."""

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
def test_chunking_does_not_change_the_upsampled_stream(sizes: list[int], seed: int) -> None:
    pcm = loud_noise(seed, sum(sizes) + 50)
    assert np.array_equal(in_chunks(Upsampler().feed, pcm, sizes), Upsampler().feed(pcm))


@settings(deadline=None, max_examples=60)
@given(sizes=lengths, seed=seeds)
def test_chunking_does_not_change_the_downsampled_stream(sizes: list[int], seed: int) -> None:
    pcm_16k = loud_noise(seed, sum(sizes) + 51)
    assert np.array_equal(in_chunks(Downsampler().feed, pcm_16k, sizes), Downsampler().feed(pcm_16k))


def test_single_samples_give_the_same_stream() -> None:
    noise = loud_noise(1, 300)
    assert np.array_equal(in_chunks(Upsampler().feed, noise, [1] * 300), Upsampler().feed(noise))
    assert np.array_equal(in_chunks(Downsampler().feed, noise, [1] * 300), Downsampler().feed(noise))


def test_the_taps_are_whole_multiples_so_that_sums_are_exact() -> None:
    taps = resample._SIDE * resample._SCALE
    assert np.array_equal(taps, np.rint(taps))
    assert np.abs(taps).sum() * 32768 < 2**38
    assert np.array_equal(taps, taps[::-1])


def test_it_equals_the_filter_computed_with_fractions() -> None:
    noise = loud_noise(7, 90)
    taps = [Fraction(0)] * (2 * DELAY + 1)
    taps[::2] = [Fraction(int(tap), 1 << 20) for tap in resample._SIDE * resample._SCALE]
    taps[DELAY] = Fraction(1)

    def rounded(value: Fraction) -> int:
        return max(-32768, min(32767, round(value)))

    def filtered(signal: list[int], n: int) -> Fraction:
        return sum((tap * signal[n - k] for k, tap in enumerate(taps) if n >= k), Fraction(0))

    zero_stuffed = [int(value) for sample in noise for value in (sample, 0)]
    assert Upsampler().feed(noise).tolist() == [rounded(filtered(zero_stuffed, n)) for n in range(180)]
    plain = [int(sample) for sample in noise]
    assert Downsampler().feed(noise).tolist() == [rounded(filtered(plain, n) / 2) for n in range(0, 90, 2)]


@given(sizes=lengths)
@settings(deadline=None, max_examples=30)
def test_it_returns_every_sample_at_once(sizes: list[int]) -> None:
    up, down, fed, returned = Upsampler(), Downsampler(), 0, 0
    for size in sizes:
        piece = np.zeros(size, np.int16)
        assert len(up.feed(piece)) == 2 * size
        fed += size
        returned += len(down.feed(piece))
        assert returned == (fed + 1) // 2


@pytest.mark.parametrize("value", [0, 1, -1, 12345, 32767, -32768])
def test_a_constant_input_gives_the_same_constant(value: int) -> None:
    constant = np.full(400, value, np.int16)
    assert set(Upsampler().feed(constant)[2 * DELAY :].tolist()) == {value}
    assert set(Downsampler().feed(constant)[DELAY + 1 :].tolist()) == {value}


def test_it_saturates_where_the_filter_overshoots() -> None:
    square = np.repeat(np.array([32767, -32768] * 20, np.int16), 40)
    for pcm in (Upsampler().feed(square), Downsampler().feed(square)):
        assert pcm.max() == 32767
        assert pcm.min() == -32768
        # Wrapped instead of saturated, a sample within a plateau would have the other sign.
        assert np.diff(pcm[60:] >= 0).sum() <= 40


def test_the_telephone_band_is_flat_and_free_of_images_and_aliases() -> None:
    measured = measure.measure_resampling()
    assert measured.up_flatness < 0.5
    assert measured.down_flatness < 0.5
    assert measured.worst_image < -60
    assert measured.worst_alias < -60


def test_its_delay_is_less_than_two_milliseconds() -> None:
    measured = measure.measure_resampling()
    assert measured.up_delay_ms == pytest.approx(DELAY / 16, abs=0.01)
    assert measured.down_delay_ms == pytest.approx(DELAY / 16, abs=0.01)
    assert measured.up_delay_ms < 2


def test_it_agrees_with_soxr() -> None:
    narrow, wide = measure.multi_tone(8000), measure.multi_tone(16000)
    up = measure.snr_db(measure.upsample(narrow), soxr.resample(narrow, 8000, 16000, "VHQ"), DELAY)
    down = measure.snr_db(measure.downsample(wide), soxr.resample(wide, 16000, 8000, "VHQ"), DELAY / 2)
    assert up > 60
    assert down > 60
