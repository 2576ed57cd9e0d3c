"""Bounded mail to one leg: put without waiting, sent in order by one task.

The runner must never wait for a peer, so what is to be sent waits here instead. When a leg cannot keep
up, the oldest audio goes first: late speech is worth less than fresh speech. Control messages are never
dropped and are few. A send that takes longer than `WRITE_SECONDS` means that the peer is gone; it is
noticed when more is put, fifty times a second in a call, which costs nothing, unlike a timer for each send.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

WRITE_SECONDS = 10.0
MAX_ITEMS = 10_000  # many more than a call ever has waiting

Item = TypeVar("Item")


class OutboxStuck(Exception):
    """The peer took no mail for `WRITE_SECONDS`, or far more messages wait than a call ever has."""


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
        self._sending_since = float("inf")  # by the loop's clock; infinite while no send is under way
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._stuck = False

    def put(self, item: Item) -> int:
        """Queue an item; returns how many older items of audio had to go for it."""
        if self._closed:
            return 0
        if self._items and self._is_stuck():
            self.close()
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
        self._task = asyncio.current_task()
        try:
            while True:
                while self._items:
                    item = self._items.popleft()
                    self._bytes -= self._weight(item)
                    self._sending_since = loop.time()
                    await self._send(item)
                self._sending_since = float("inf")
                if self._closed:
                    return
                self._wake = loop.create_future()
                await self._wake
                self._wake = None
        except asyncio.CancelledError:
            if self._stuck:
                raise OutboxStuck from None
            raise

    def _is_stuck(self) -> bool:
        """Whether the peer takes nothing any more; if so, the send under way is given up."""
        late = asyncio.get_running_loop().time() - self._sending_since > WRITE_SECONDS
        if late or len(self._items) > MAX_ITEMS:
            self._stuck = True
            if self._task is not None:
                self._task.cancel()
        return self._stuck

    def _drop_oldest_audio(self) -> int:
        for index, item in enumerate(self._items):
            if size := self._weight(item):
                del self._items[index]
                self._bytes -= size
                return 1
        raise AssertionError("bytes are counted, so some item has them")
