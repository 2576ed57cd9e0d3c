"""Waiting until a condition holds, and background tasks: shared by both simulators."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Observable:
    """Evaluates conditions again after each change, and owns background tasks."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def until(self, condition: Callable[[], object], timeout_seconds: float = 5.0) -> None:
        """Return once the condition holds; it is evaluated after each change. Raises TimeoutError."""
        async with asyncio.timeout(timeout_seconds):
            while not condition():
                changed = asyncio.get_running_loop().create_future()
                self._waiters.add(changed)
                try:
                    await changed
                finally:
                    self._waiters.discard(changed)

    def notify_changed(self) -> None:
        for future in self._waiters:
            if not future.done():
                future.set_result(None)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
