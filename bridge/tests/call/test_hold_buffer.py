"""The hold buffer: in order, bounded, what is lost counted."""

from __future__ import annotations

from bridge.call.hold_buffer import HoldBuffer

FRAME_MS = 20


def frame(number: int) -> bytes:
    return b"%160d" % number


def test_what_is_held_comes_out_in_order() -> None:
    hold = HoldBuffer(1000)
    assert [hold.add(frame(number)) for number in range(5)] == [0] * 5
    assert hold.held_ms == 5 * FRAME_MS
    assert hold.release() == [frame(number) for number in range(5)]


def test_the_oldest_go_when_it_is_full() -> None:
    hold = HoldBuffer(3 * FRAME_MS)
    assert [hold.add(frame(number)) for number in range(5)] == [0, 0, 0, 1, 1]
    assert hold.release() == [frame(2), frame(3), frame(4)]


def test_one_long_frame_drives_out_several_short_ones() -> None:
    hold = HoldBuffer(3 * FRAME_MS)
    for number in range(3):
        hold.add(frame(number))
    assert hold.add(bytes(2 * 160)) == 2
    assert len(hold) == 2


def test_a_frame_longer_than_the_buffer_is_not_held() -> None:
    hold = HoldBuffer(0)
    assert hold.add(frame(1)) == 1
    assert hold.held_ms == len(hold) == 0


def test_it_is_empty_after_the_release_and_remembers_how_many_there_were() -> None:
    hold = HoldBuffer(2 * FRAME_MS)
    for number in range(5):
        hold.add(frame(number))
    hold.release()
    assert (len(hold), hold.held_ms, hold.frames) == (0, 0, 5)
    assert hold.release() == []
