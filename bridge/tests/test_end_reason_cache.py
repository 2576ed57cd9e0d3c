"""How recent calls ended: this process's own memory first, then the cache that all share."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bridge import end_reason_cache
from bridge.end_reason_cache import MAX_STORED, EndReasonCache


class Cache:
    """The two commands of Redis that are used, with dials."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}
        self.broken = False
        self.frozen = False

    async def get(self, name: str) -> Any:
        await self._trouble()
        value = self.held.get(name)
        return value.encode() if value is not None else None

    async def set(self, name: str, value: str, *, ex: int, nx: bool = False) -> Any:
        await self._trouble()
        if nx and name in self.held:
            return None
        self.held[name] = value
        return True

    async def _trouble(self) -> None:
        if self.broken:
            raise ConnectionError("cache is down")
        if self.frozen:
            await asyncio.Event().wait()


async def test_a_process_knows_its_own_ends() -> None:
    end_reasons = EndReasonCache()
    end_reasons.store("CA1", "assistant-failed")
    assert await end_reasons.find("CA1") == "assistant-failed"
    assert await end_reasons.find("CA2") is None


async def test_the_first_word_stands() -> None:
    end_reasons = EndReasonCache()
    end_reasons.store("CA1", "assistant-failed")
    end_reasons.store("CA1", "caller-hung-up")
    end_reasons.store("CA1", "ticket-refused")
    assert await end_reasons.find("CA1") == "assistant-failed"


async def test_a_stream_that_was_turned_away_says_nothing_about_the_call() -> None:
    end_reasons = EndReasonCache()
    end_reasons.store("CA1", "ticket-refused")
    end_reasons.store("CA1", "caller-hung-up")
    assert await end_reasons.find("CA1") == "caller-hung-up"


async def test_memory_is_bounded_and_forgets_the_oldest() -> None:
    end_reasons = EndReasonCache()
    for n in range(MAX_STORED + 1):
        end_reasons.store(f"CA{n}", "caller-hung-up")
    assert await end_reasons.find("CA0") is None
    assert await end_reasons.find("CA1") == "caller-hung-up"


async def test_any_worker_may_be_asked() -> None:
    cache = Cache()
    carrying, asked = EndReasonCache(cache), EndReasonCache(cache)
    await carrying.publish("CA1", "assistant-failed")
    await carrying.publish("CA1", "caller-hung-up")
    assert await asked.find("CA1") == "assistant-failed"


async def test_the_worker_that_carried_the_call_knows_better_than_one_that_refused_a_stream() -> None:
    cache = Cache()
    carrying, asked = EndReasonCache(cache), EndReasonCache(cache)
    asked.store("CA1", "ticket-refused")
    assert await asked.find("CA1") == "ticket-refused"
    await carrying.publish("CA1", "assistant-failed")
    assert await asked.find("CA1") == "assistant-failed"


async def test_its_own_memory_needs_no_cache() -> None:
    cache = Cache()
    end_reasons = EndReasonCache(cache)
    end_reasons.store("CA1", "caller-hung-up")
    cache.broken = True
    assert await end_reasons.find("CA1") == "caller-hung-up"


async def test_without_a_cache_there_is_nobody_to_tell() -> None:
    await EndReasonCache().publish("CA1", "caller-hung-up")


async def test_a_ticket_is_spent_once_among_all_workers() -> None:
    cache = Cache()
    assert await EndReasonCache(cache).use_ticket("t1", 120)
    assert not await EndReasonCache(cache).use_ticket("t1", 120)
    assert await EndReasonCache().use_ticket("t1", 120)


@pytest.mark.parametrize("trouble", ["broken", "frozen"])
async def test_a_cache_in_trouble_holds_nobody_up(monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    monkeypatch.setattr(end_reason_cache, "SHARED_SECONDS", 0.01)
    cache = Cache()
    setattr(cache, trouble, True)
    end_reasons = EndReasonCache(cache)
    async with asyncio.timeout(2):
        assert await end_reasons.use_ticket("t1", 120)
        assert await end_reasons.find("CA1") is None
        await end_reasons.publish("CA1", "caller-hung-up")
