"""Outbox: the bounded outbound queue of one leg. `put` never waits; one task sends in order.

The runner must not wait for a peer, so messages wait here instead. While the leg keeps up, nothing is queued:
`put` starts the send itself, which completes at once, and no task has to be woken (Python 3.12 calls this
eager). Only a send that must wait is handed to the task.

When a leg cannot keep up, the oldest audio is dropped first, because late speech is worth less than new
speech. Control messages are few and are never dropped. A send that takes longer than `WRITE_SECONDS` means
that the peer is gone. This is checked on each `put`, fifty times a second in a call: a timer for each send
would cost more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

WRITE_SECONDS = 10.0
MAX_ITEMS = 10_000  # far more than a call ever queues

Item = TypeVar("Item")


class OutboxStuck(Exception):
    """The peer accepted nothing for `WRITE_SECONDS`, or more than `MAX_ITEMS` messages are queued."""


class _StartedSend:
    """A send coroutine whose first step has run, outside of any task. Awaiting it runs the other steps."""

    def __init__(self, steps: Generator[Any, Any, None], first_result: object) -> None:
        self._steps = steps
        self._first_result = first_result  # the future that the first step awaits, or the error it raised

    def __await__(self) -> Generator[Any, Any, None]:
        if isinstance(self._first_result, Exception):
            raise self._first_result
        try:
            yield self._first_result
        except BaseException as error:  # cancelled: raise it where the coroutine waits
            self._steps.throw(error)
            return
        yield from self._steps


class Outbox(Generic[Item]):
    """The outbound queue of one leg."""

    def __init__(
        self,
        send: Callable[[Item], Coroutine[Any, Any, None]],
        audio_bytes: Callable[[Item], int],
        max_bytes: int,
        is_open: Callable[[], bool] = lambda: True,
    ) -> None:
        """`audio_bytes` returns the size of an item's audio, 0 for control messages.

        `is_open` returns whether the leg is neither opening nor closing. While it is not open, a send may
        create timers that belong to the current task, so it must run in the outbox's own task.
        """
        self._send = send
        self._is_open = is_open
        self._audio_bytes = audio_bytes
        self._max_bytes = max_bytes
        self._items: deque[Item] = deque()
        self._queued_bytes = 0
        self._wake: asyncio.Future[None] | None = None
        self._started: _StartedSend | None = None  # a send that did not complete at once
        self._sending_since = float("inf")  # by the loop's clock; infinite while nothing is being sent
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._stuck = False

    def put(self, item: Item) -> int:
        """Send or queue an item. Returns how many older audio items were dropped for it."""
        if self._closed:
            return 0
        is_idle = self._wake is not None and not self._items and self._started is None
        if is_idle and self._is_open():
            self._start(self._send(item))
            return 0
        if self._items and self._check_stuck():
            self.close()
            return 0
        self._items.append(item)
        self._queued_bytes += self._audio_bytes(item)
        dropped = 0
        while self._queued_bytes > self._max_bytes:
            dropped += self._drop_oldest_audio()
        self._wake_up()
        return dropped

    def _start(self, send: Coroutine[Any, Any, None]) -> None:
        """Run the first step of a send, which usually completes it. Otherwise `run` completes it."""
        steps = send.__await__()
        try:
            self._started = _StartedSend(steps, next(steps))
        except StopIteration:
            return
        except Exception as error:
            self._started = _StartedSend(steps, error)
        self._wake_up()

    def clear_audio(self) -> int:
        """Drop all audio that has not been sent. Returns the number of dropped items."""
        control = [item for item in self._items if not self._audio_bytes(item)]
        dropped = len(self._items) - len(control)
        self._items, self._queued_bytes = deque(control), 0
        return dropped

    def close(self) -> None:
        """Accept no more items; `run` returns when the queue is empty."""
        self._closed = True
        self._wake_up()

    async def run(self) -> None:
        """Send in order until closed and empty. Raises what `send` raises, or `OutboxStuck`."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        try:
            while True:
                while self._items or self._started is not None:
                    self._sending_since = loop.time()
                    if self._started is not None:
                        await self._started
                        self._started = None
                        continue
                    item = self._items.popleft()
                    self._queued_bytes -= self._audio_bytes(item)
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

    def _check_stuck(self) -> bool:
        """Whether the peer accepts nothing any more; if so, the current send is cancelled."""
        is_late = asyncio.get_running_loop().time() - self._sending_since > WRITE_SECONDS
        if is_late or len(self._items) > MAX_ITEMS:
            self._stuck = True
            if self._task is not None:
                self._task.cancel()
        return self._stuck

    def _drop_oldest_audio(self) -> int:
        for index, item in enumerate(self._items):
            if size := self._audio_bytes(item):
                del self._items[index]
                self._queued_bytes -= size
                return 1
        raise AssertionError("queued bytes without an audio item")
