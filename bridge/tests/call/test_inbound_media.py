"""Arrival of caller audio: late frames, missing frames, jitter and bad messages."""

from __future__ import annotations

from collections import Counter

import pytest

from bridge.call.inbound_media import (
    ABUSE_COUNT,
    ABUSE_SECONDS,
    FLOOD_SECONDS,
    FRAME_MS,
    MAX_JITTER_MS,
    InboundMedia,
)


def counters_after(*frames: tuple[int | None, float]) -> Counter[str]:
    counters: Counter[str] = Counter()
    media = InboundMedia(10.0, counters)
    for chunk, at in frames:
        media.count_frame(chunk, 160, at)
    assert media.latest_at == frames[-1][1]
    return counters


def test_frames_on_time_and_in_order_are_not_counted() -> None:
    assert counters_after((1, 10.02), (2, 10.04), (3, 10.06)) == {}


def test_a_gap_in_time_is_counted_as_a_late_frame() -> None:
    assert counters_after((1, 10.02), (2, 10.12)) == {"frames_late": 1}


@pytest.mark.parametrize(("chunk", "missing"), [(5, 3), (1, 1)])
def test_a_gap_in_the_numbers_is_counted_as_missing_frames(chunk: int, missing: int) -> None:
    assert counters_after((1, 10.02), (chunk, 10.04)) == {"frames_missing": missing}


def test_a_frame_without_a_number_is_no_gap() -> None:
    assert counters_after((1, 10.02), (None, 10.04), (2, 10.06)) == {}


def test_too_many_bad_messages_at_once_are_abuse() -> None:
    media = InboundMedia(10.0, Counter())
    assert [media.count_bad_message(11.0) for _ in range(ABUSE_COUNT + 1)] == [False] * ABUSE_COUNT + [True]


def test_bad_messages_over_a_long_time_are_not_abuse() -> None:
    media = InboundMedia(10.0, Counter())
    pause = ABUSE_SECONDS / (ABUSE_COUNT - 1)
    assert not any(media.count_bad_message(11.0 + number * pause) for number in range(4 * ABUSE_COUNT))


def test_jitter_is_the_95th_percentile_of_the_deviation() -> None:
    media, at = InboundMedia(10.0, Counter()), 10.0
    assert media.jitter_p95_ms is None
    for number in range(100):
        at += 0.0205 if number % 50 else 3.0  # two frames of a hundred are very late
        media.count_frame(None, 160, at)
    assert media.jitter_p95_ms == 0
    for _ in range(10):
        at += 0.0335
        media.count_frame(None, 160, at)
    assert media.jitter_p95_ms == 13
    for _ in range(400):
        at += 3.0
        media.count_frame(None, 160, at)
    assert media.jitter_p95_ms == MAX_JITTER_MS


def test_audio_faster_than_speech_is_too_much() -> None:
    media = InboundMedia(10.0, Counter())
    media.start(20.0)
    frames = round(FLOOD_SECONDS * 1000 / FRAME_MS)
    assert not any(media.count_frame(None, 160, 20.0) for _ in range(frames))
    assert media.count_frame(None, 160, 20.0)


def test_audio_that_was_delayed_is_not_too_much() -> None:
    """However long the network stood still: it is no more than what was said meanwhile."""
    media = InboundMedia(10.0, Counter())
    media.start(20.0)
    assert not any(media.count_frame(None, 160, 80.0) for _ in range(60 * 50))
