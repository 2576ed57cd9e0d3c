"""Bounded mail to one leg: put without waiting, sent in order by one task.

The runner must never wait for a peer, so what is to be sent waits here instead. While the leg keeps up,
nothing does wait: `put` begins the send itself, which is done at once, and no task need be woken for it
(Python 3.12 calls that eager). Only a send that has to wait is handed to the task to finish.

When a leg cannot keep up, the oldest audio goes first: late speech is worth less than fresh speech.
Control messages are never dropped and are few. A send that takes longer than `WRITE_SECONDS` means that
the peer is gone; it is noticed when more is put, fifty times a second in a call, which costs nothing,
unlike a timer for each send.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

WRITE_SECONDS = 10.0
MAX_ITEMS = 10_000  # many more than a call ever has waiting

Item = TypeVar("Item")


class OutboxStuck(Exception):
    """The peer took no mail for `WRITE_SECONDS`, or far more messages wait than a call ever has."""


class _Begun:
    """A coroutine whose first step has been taken outside of any task; awaiting it takes the others."""

    def __init__(self, steps: Generator[Any, Any, None], met: object) -> None:
        self._steps = steps
        self._met = met  # what the first step waits for, or the error it raised

    def __await__(self) -> Generator[Any, Any, None]:
        if isinstance(self._met, Exception):
            raise self._met
        try:
            yield self._met
        except BaseException as error:  # cancelled: the coroutine is told where it waits
            self._steps.throw(error)
            return
        yield from self._steps


class Outbox(Generic[Item]):
    """Mail of one leg. `weight` says how much audio an item is, in bytes; 0 for control messages."""

    def __init__(
        self,
        send: Callable[[Item], Coroutine[Any, Any, None]],
        weight: Callable[[Item], int],
        max_bytes: int,
        is_open: Callable[[], bool] = lambda: True,
    ) -> None:
        """`is_open`: whether the leg is neither opening nor closing. A send to one that is may set up
        timers for the task it runs in, which must then be ours."""
        self._send = send
        self._is_open = is_open
        self._weight = weight
        self._max_bytes = max_bytes
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._wake: asyncio.Future[None] | None = None
        self._begun: _Begun | None = None  # a send that had to wait
        self._sending_since = float("inf")  # by the loop's clock; infinite while no send is under way
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._stuck = False

    def put(self, item: Item) -> int:
        """Queue an item; returns how many older items of audio had to go for it."""
        if self._closed:
            return 0
        idle = self._wake is not None and not self._items and self._begun is None
        if idle and self._is_open():
            self._begin(self._send(item))
            return 0
        if self._items and self._is_stuck():
            self.close()
            return 0
        self._items.append(item)
        self._bytes += self._weight(item)
        dropped = 0
        while self._bytes > self._max_bytes:
            dropped += self._drop_oldest_audio()
        self._wake_up()
        return dropped

    def _begin(self, sending: Coroutine[Any, Any, None]) -> None:
        """The usual case: the leg takes it at once. Else `run` goes on from here, or raises what it met."""
        steps = sending.__await__()
        try:
            self._begun = _Begun(steps, next(steps))
        except StopIteration:
            return
        except Exception as error:
            self._begun = _Begun(steps, error)
        self._wake_up()

    def clear_audio(self) -> int:
        """Take out all audio that has not been sent; returns how many items."""
        kept = [item for item in self._items if not self._weight(item)]
        dropped = len(self._items) - len(kept)
        self._items, self._bytes = deque(kept), 0
        return dropped

    def close(self) -> None:
        """Nothing more will be put; `run` returns when the rest is sent."""
        self._closed = True
        self._wake_up()

    async def run(self) -> None:
        """Send in order until closed and empty. Raises what `send` raises, or `OutboxStuck`."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        try:
            while True:
                while self._items or self._begun is not None:
                    self._sending_since = loop.time()
                    if self._begun is not None:
                        await self._begun
                        self._begun = None
                        continue
                    item = self._items.popleft()
                    self._bytes -= self._weight(item)
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

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

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
