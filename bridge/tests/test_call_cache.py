"""End reasons of recent calls: the process's own memory first, then the shared cache."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bridge import call_cache
from bridge.call_cache import MAX_STORED, CallCache


class FakeSharedCache:
    """The two Redis commands that are used; it can be broken or frozen."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.broken = False
        self.frozen = False

    async def get(self, name: str) -> Any:
        await self._fail_if_faulty()
        value = self.values.get(name)
        return value.encode() if value is not None else None

    async def set(self, name: str, value: str, *, ex: int, nx: bool = False) -> Any:
        await self._fail_if_faulty()
        if nx and name in self.values:
            return None
        self.values[name] = value
        return True

    async def _fail_if_faulty(self) -> None:
        if self.broken:
            raise ConnectionError("cache is down")
        if self.frozen:
            await asyncio.Event().wait()


async def test_a_stored_end_reason_is_found() -> None:
    cache = CallCache()
    cache.store("CA1", "assistant-failed")
    assert await cache.find("CA1") == "assistant-failed"
    assert await cache.find("CA2") is None


async def test_the_first_end_reason_stands() -> None:
    cache = CallCache()
    cache.store("CA1", "assistant-failed")
    cache.store("CA1", "caller-hung-up")
    cache.store("CA1", "ticket-refused")
    assert await cache.find("CA1") == "assistant-failed"


async def test_a_refused_ticket_is_replaced_by_a_later_end_reason() -> None:
    cache = CallCache()
    cache.store("CA1", "ticket-refused")
    cache.store("CA1", "caller-hung-up")
    assert await cache.find("CA1") == "caller-hung-up"


async def test_a_full_cache_drops_the_oldest_end_reason() -> None:
    cache = CallCache()
    for n in range(MAX_STORED + 1):
        cache.store(f"CA{n}", "caller-hung-up")
    assert await cache.find("CA0") is None
    assert await cache.find("CA1") == "caller-hung-up"


async def test_a_published_end_reason_is_found_by_every_worker() -> None:
    shared = FakeSharedCache()
    call_worker, other_worker = CallCache(shared), CallCache(shared)
    await call_worker.publish("CA1", "assistant-failed")
    await call_worker.publish("CA1", "caller-hung-up")
    assert await other_worker.find("CA1") == "assistant-failed"


async def test_a_published_end_reason_replaces_a_local_refused_ticket() -> None:
    shared = FakeSharedCache()
    call_worker, other_worker = CallCache(shared), CallCache(shared)
    other_worker.store("CA1", "ticket-refused")
    assert await other_worker.find("CA1") == "ticket-refused"
    await call_worker.publish("CA1", "assistant-failed")
    assert await other_worker.find("CA1") == "assistant-failed"


async def test_a_local_end_reason_is_found_without_the_shared_cache() -> None:
    shared = FakeSharedCache()
    cache = CallCache(shared)
    cache.store("CA1", "caller-hung-up")
    shared.broken = True
    assert await cache.find("CA1") == "caller-hung-up"


async def test_publish_does_nothing_without_a_shared_cache() -> None:
    await CallCache().publish("CA1", "caller-hung-up")


async def test_a_ticket_is_used_once_for_all_workers() -> None:
    shared = FakeSharedCache()
    assert await CallCache(shared).claim_stream("t1", 120)
    assert not await CallCache(shared).claim_stream("t1", 120)
    assert await CallCache().claim_stream("t1", 120)


@pytest.mark.parametrize("fault", ["broken", "frozen"])
async def test_a_broken_or_frozen_shared_cache_delays_nothing(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(call_cache, "SHARED_SECONDS", 0.01)
    shared = FakeSharedCache()
    setattr(shared, fault, True)
    cache = CallCache(shared)
    async with asyncio.timeout(2):
        assert await cache.claim_stream("t1", 120) is None
        assert await cache.find("CA1") is None
        await cache.publish("CA1", "caller-hung-up")
