"""The hold buffer: caller frames in order, bounded, with dropped frames counted."""

from __future__ import annotations

from bridge.call.hold_buffer import HoldBuffer

FRAME_MS = 20


def frame(number: int) -> bytes:
    return b"%160d" % number


def test_held_frames_are_released_in_order() -> None:
    buffer = HoldBuffer(1000)
    assert [buffer.add(frame(number)) for number in range(5)] == [0] * 5
    assert buffer.release() == [frame(number) for number in range(5)]


def test_a_full_buffer_drops_the_oldest_frames() -> None:
    buffer = HoldBuffer(3 * FRAME_MS)
    assert [buffer.add(frame(number)) for number in range(5)] == [0, 0, 0, 1, 1]
    assert buffer.release() == [frame(2), frame(3), frame(4)]


def test_a_long_frame_replaces_several_short_ones() -> None:
    buffer = HoldBuffer(3 * FRAME_MS)
    for number in range(3):
        buffer.add(frame(number))
    assert buffer.add(bytes(2 * 160)) == 2
    assert len(buffer) == 2


def test_a_frame_longer_than_the_buffer_is_not_held() -> None:
    buffer = HoldBuffer(0)
    assert buffer.add(frame(1)) == 1
    assert len(buffer) == 0


def test_a_released_buffer_is_empty_and_keeps_its_frame_count() -> None:
    buffer = HoldBuffer(2 * FRAME_MS)
    for number in range(5):
        buffer.add(frame(number))
    buffer.release()
    assert (len(buffer), buffer.frames) == (0, 5)
    assert buffer.release() == []
