"""Bounded mail to one leg: put without waiting, sent in order by one task.

The runner must never wait for a peer, so what is to be sent waits here instead. When a leg cannot keep
up, the oldest audio goes first: late speech is worth less than fresh speech. Control messages are never
dropped and are few. A send that takes longer than `WRITE_SECONDS` means that the peer is gone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

WRITE_SECONDS = 10.0
MAX_CONTROL = 2_000

Item = TypeVar("Item")


class OutboxStuck(Exception):
    """The peer took no mail for `WRITE_SECONDS`, or far more control messages wait than a call has."""


class Outbox(Generic[Item]):
    """Mail of one leg. `weight` says how much audio an item is, in bytes; 0 for control messages."""

    def __init__(
        self, send: Callable[[Item], Awaitable[None]], weight: Callable[[Item], int], max_bytes: int
    ) -> None:
        self._send = send
        self._weight = weight
        self._max_bytes = max_bytes
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._wake: asyncio.Future[None] | None = None
        self._closed = False

    def put(self, item: Item) -> int:
        """Queue an item; returns how many older items of audio had to go for it."""
        if self._closed:
            return 0
        self._items.append(item)
        self._bytes += self._weight(item)
        dropped = 0
        while self._bytes > self._max_bytes:
            dropped += self._drop_oldest_audio()
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        return dropped

    def clear_audio(self) -> int:
        """Take out all audio that has not been sent; returns how many items."""
        kept = [item for item in self._items if not self._weight(item)]
        dropped = len(self._items) - len(kept)
        self._items, self._bytes = deque(kept), 0
        return dropped

    def close(self) -> None:
        """Nothing more will be put; `run` returns when the rest is sent."""
        self._closed = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def run(self) -> None:
        """Send in order until closed and empty. Raises what `send` raises, or `OutboxStuck`."""
        loop = asyncio.get_running_loop()
        while True:
            while self._items:
                if len(self._items) > MAX_CONTROL and not self._bytes:
                    raise OutboxStuck
                item = self._items.popleft()
                self._bytes -= self._weight(item)
                try:
                    async with asyncio.timeout(WRITE_SECONDS):
                        await self._send(item)
                except TimeoutError:
                    raise OutboxStuck from None
            if self._closed:
                return
            self._wake = loop.create_future()
            await self._wake
            self._wake = None

    def _drop_oldest_audio(self) -> int:
        for index, item in enumerate(self._items):
            if size := self._weight(item):
                del self._items[index]
                self._bytes -= size
                return 1
        raise AssertionError("bytes are counted, so some item has them")
