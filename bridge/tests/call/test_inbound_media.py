"""How the caller leg delivers: late frames, missing frames, rubbish."""

from __future__ import annotations

from collections import Counter

import pytest

from bridge.call.inbound_media import ABUSE_COUNT, ABUSE_SECONDS, MAX_JITTER_MS, InboundMedia


def counted(*frames: tuple[int | None, float]) -> Counter[str]:
    counters: Counter[str] = Counter()
    arrivals = InboundMedia(10.0, counters)
    for chunk, at in frames:
        arrivals.frame(chunk, at)
    assert arrivals.latest_at == frames[-1][1]
    return counters


def test_frames_in_time_and_order_are_not_worth_a_count() -> None:
    assert counted((1, 10.02), (2, 10.04), (3, 10.06)) == {}


def test_a_gap_in_time_is_a_late_frame() -> None:
    assert counted((1, 10.02), (2, 10.12)) == {"frames_late": 1}


@pytest.mark.parametrize(("chunk", "missing"), [(5, 3), (1, 1)])
def test_a_gap_in_the_numbers_is_missing_frames(chunk: int, missing: int) -> None:
    assert counted((1, 10.02), (chunk, 10.04)) == {"frames_missing": missing}


def test_a_frame_without_a_number_leaves_no_gap() -> None:
    assert counted((1, 10.02), (None, 10.04), (2, 10.06)) == {}


def test_too_much_rubbish_at_once_is_abuse() -> None:
    arrivals = InboundMedia(10.0, Counter())
    assert [arrivals.bad_message(11.0) for _ in range(ABUSE_COUNT + 1)] == [False] * ABUSE_COUNT + [True]


def test_as_much_rubbish_over_a_long_time_is_not() -> None:
    arrivals = InboundMedia(10.0, Counter())
    pause = ABUSE_SECONDS / (ABUSE_COUNT - 1)
    assert not any(arrivals.bad_message(11.0 + number * pause) for number in range(4 * ABUSE_COUNT))


def test_jitter_is_how_far_19_frames_of_20_are_off_their_time_at_most() -> None:
    arrivals, at = InboundMedia(10.0, Counter()), 10.0
    assert arrivals.jitter_p95_ms is None
    for number in range(100):
        at += 0.0205 if number % 50 else 3.0  # two of a hundred come very late
        arrivals.frame(None, at)
    assert arrivals.jitter_p95_ms == 0
    for _ in range(10):
        at += 0.0335
        arrivals.frame(None, at)
    assert arrivals.jitter_p95_ms == 13
    for _ in range(400):
        at += 3.0
        arrivals.frame(None, at)
    assert arrivals.jitter_p95_ms == MAX_JITTER_MS
