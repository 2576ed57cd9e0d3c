"""The outbox of a leg: items in order, audio bounded with the oldest dropped first, control never dropped."""

from __future__ import annotations

import asyncio

import pytest

from bridge.io import outbox
from bridge.io.outbox import Outbox, OutboxStuck


class FakePeer:
    """Receives items, or blocks while `may_receive` is not set."""

    def __init__(self) -> None:
        self.received: list[bytes | str] = []
        self.may_receive = asyncio.Event()
        self.may_receive.set()

    async def send(self, item: bytes | str) -> None:
        await self.may_receive.wait()
        self.received.append(item)


def make_outbox(peer: FakePeer, max_bytes: int = 1000) -> Outbox[bytes | str]:
    """An outbox of bytes, which are audio, and text, which is control."""
    return Outbox(peer.send, lambda item: len(item) if isinstance(item, bytes) else 0, max_bytes)


async def test_items_are_sent_in_order() -> None:
    peer = FakePeer()
    queue = make_outbox(peer)
    items: list[bytes | str] = [b"1", "mark", b"2", "mark"]
    for item in items:
        assert queue.put(item) == 0
    queue.close()
    await queue.run()
    assert peer.received == items


async def test_it_waits_for_items() -> None:
    peer = FakePeer()
    queue = make_outbox(peer)
    run_task = asyncio.create_task(queue.run())
    for item in (b"1", b"2"):
        await asyncio.sleep(0)
        queue.put(item)
    queue.put(b"3")
    await asyncio.sleep(0)
    queue.close()
    async with asyncio.timeout(5):
        await run_task
    assert peer.received == [b"1", b"2", b"3"]


async def test_a_waiting_outbox_can_be_closed() -> None:
    queue = make_outbox(FakePeer())
    run_task = asyncio.create_task(queue.run())
    await asyncio.sleep(0)
    queue.close()
    queue.close()
    async with asyncio.timeout(5):
        await run_task


async def test_a_full_outbox_drops_the_oldest_audio_and_keeps_control_messages() -> None:
    queue = make_outbox(FakePeer(), max_bytes=3)
    dropped = [queue.put(item) for item in (b"1", "mark", b"2", b"3", b"4", b"567")]
    assert dropped == [0, 0, 0, 0, 1, 3]
    assert list(queue._items) == ["mark", b"567"]


async def test_a_clear_removes_all_audio() -> None:
    queue = make_outbox(FakePeer(), max_bytes=3)
    for item in (b"1", "mark", b"2"):
        queue.put(item)
    assert queue.clear_audio() == 2
    assert list(queue._items) == ["mark"]
    assert queue.put(b"345") == 0


def test_a_closed_outbox_accepts_nothing() -> None:
    queue = make_outbox(FakePeer())
    queue.close()
    assert queue.put(b"1") == 0
    assert not queue._items


async def stuck_outbox(peer: FakePeer) -> tuple[Outbox[bytes | str], asyncio.Task[None]]:
    """An outbox that is blocked while it sends its first item."""
    peer.may_receive.clear()
    queue = make_outbox(peer)
    run_task = asyncio.create_task(queue.run())
    queue.put(b"1")
    await asyncio.sleep(0)
    return queue, run_task


async def test_a_write_that_exceeds_its_deadline_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "WRITE_SECONDS", -1.0)
    queue, run_task = await stuck_outbox(FakePeer())
    queue.put(b"2")
    queue.put(b"3")
    with pytest.raises(OutboxStuck):
        await run_task
    assert queue.put(b"4") == 0


async def test_a_slow_write_within_its_deadline_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = FakePeer()
    queue, run_task = await stuck_outbox(peer)
    queue.put(b"2")
    queue.put(b"3")
    peer.may_receive.set()
    queue.close()
    await run_task
    assert peer.received == [b"1", b"2", b"3"]


async def test_too_many_queued_items_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_ITEMS", 3)
    queue, run_task = await stuck_outbox(FakePeer())
    for _ in range(5):
        queue.put("mark")
    with pytest.raises(OutboxStuck):
        await run_task


async def test_items_are_bounded_before_sending_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_ITEMS", 3)
    queue = make_outbox(FakePeer())
    for _ in range(100):
        queue.put("mark")
    assert len(queue._items) == 4


async def test_it_can_be_cancelled() -> None:
    _, run_task = await stuck_outbox(FakePeer())
    run_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run_task


async def test_an_error_of_the_socket_is_raised_from_run() -> None:
    async def broken(item: bytes) -> None:
        raise ConnectionResetError

    queue: Outbox[bytes] = Outbox(broken, len, 1000)
    queue.put(b"1")
    with pytest.raises(ConnectionResetError):
        await queue.run()
