"""Bounded mail to one leg: in order, the oldest audio first to go, control never."""

from __future__ import annotations

import asyncio

import pytest

from bridge.io import outbox
from bridge.io.outbox import Outbox, OutboxStuck


class Leg:
    """A peer that takes mail, or holds it up until told."""

    def __init__(self) -> None:
        self.got: list[bytes | str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, item: bytes | str) -> None:
        await self.open.wait()
        self.got.append(item)


def box(leg: Leg, max_bytes: int = 1000) -> Outbox[bytes | str]:
    """Bytes are audio, text is control."""
    return Outbox(leg.send, lambda item: len(item) if isinstance(item, bytes) else 0, max_bytes)


async def test_mail_is_sent_in_order() -> None:
    leg = Leg()
    mail = box(leg)
    items: list[bytes | str] = [b"1", "mark", b"2", "mark"]
    for item in items:
        assert mail.put(item) == 0
    mail.close()
    await mail.run()
    assert leg.got == items


async def test_it_sleeps_until_there_is_mail() -> None:
    leg = Leg()
    mail = box(leg)
    running = asyncio.create_task(mail.run())
    for item in (b"1", b"2"):
        await asyncio.sleep(0)
        mail.put(item)
    mail.put(b"3")
    await asyncio.sleep(0)
    mail.close()
    async with asyncio.timeout(5):
        await running
    assert leg.got == [b"1", b"2", b"3"]


async def test_a_sleeping_outbox_can_be_closed() -> None:
    mail = box(Leg())
    running = asyncio.create_task(mail.run())
    await asyncio.sleep(0)
    mail.close()
    mail.close()
    async with asyncio.timeout(5):
        await running


async def test_beyond_the_bound_the_oldest_audio_goes_and_control_stays() -> None:
    mail = box(Leg(), max_bytes=3)
    dropped = [mail.put(item) for item in (b"1", "mark", b"2", b"3", b"4", b"567")]
    assert dropped == [0, 0, 0, 0, 1, 3]
    assert list(mail._items) == ["mark", b"567"]


async def test_a_clear_takes_out_all_audio() -> None:
    mail = box(Leg(), max_bytes=3)
    for item in (b"1", "mark", b"2"):
        mail.put(item)
    assert mail.clear_audio() == 2
    assert list(mail._items) == ["mark"]
    assert mail.put(b"345") == 0


def test_nothing_is_put_into_a_closed_outbox() -> None:
    mail = box(Leg())
    mail.close()
    assert mail.put(b"1") == 0
    assert not mail._items


async def stuck(leg: Leg) -> tuple[Outbox[bytes | str], asyncio.Task[None]]:
    """An outbox whose first item is on its way, and stays there."""
    leg.open.clear()
    mail = box(leg)
    running = asyncio.create_task(mail.run())
    mail.put(b"1")
    await asyncio.sleep(0)
    return mail, running


async def test_a_peer_that_takes_nothing_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "WRITE_SECONDS", -1.0)
    mail, running = await stuck(Leg())
    mail.put(b"2")
    mail.put(b"3")
    with pytest.raises(OutboxStuck):
        await running
    assert mail.put(b"4") == 0


async def test_a_peer_that_takes_its_time_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    leg = Leg()
    mail, running = await stuck(leg)
    mail.put(b"2")
    mail.put(b"3")
    leg.open.set()
    mail.close()
    await running
    assert leg.got == [b"1", b"2", b"3"]


async def test_far_too_many_messages_mean_that_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_ITEMS", 3)
    mail, running = await stuck(Leg())
    for _ in range(5):
        mail.put("mark")
    with pytest.raises(OutboxStuck):
        await running


async def test_mail_that_nobody_ever_sends_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_ITEMS", 3)
    mail = box(Leg())
    for _ in range(100):
        mail.put("mark")
    assert len(mail._items) == 4


async def test_its_owner_can_cancel_it() -> None:
    _, running = await stuck(Leg())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_what_the_socket_raises_reaches_the_owner() -> None:
    async def broken(item: bytes) -> None:
        raise ConnectionResetError

    mail: Outbox[bytes] = Outbox(broken, len, 1000)
    mail.put(b"1")
    with pytest.raises(ConnectionResetError):
        await mail.run()
