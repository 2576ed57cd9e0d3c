"""Lag of the event loop during a call, which the checks of timing tolerate.

Both simulators run in this process, so the lateness of a timer in their event loop shows how busy the machine
was.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

INTERVAL_SECONDS = 0.02


@dataclass(slots=True)
class LoopLag:
    """Lateness of each timer in ms. All values are 0 without samples."""

    samples_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        return statistics.median(self.samples_ms) if self.samples_ms else 0.0

    @property
    def p95_ms(self) -> float:
        return statistics.quantiles(self.samples_ms, n=20)[-1] if len(self.samples_ms) > 1 else 0.0

    @property
    def max_ms(self) -> float:
        return max(self.samples_ms, default=0.0)


@asynccontextmanager
async def measure_loop_lag() -> AsyncIterator[LoopLag]:
    """Sample the lag until the block ends."""
    lag = LoopLag()
    sampler = asyncio.create_task(_sample(lag))
    try:
        yield lag
    finally:
        sampler.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampler


async def _sample(lag: LoopLag) -> None:
    while True:
        due_at = time.monotonic() + INTERVAL_SECONDS
        await asyncio.sleep(INTERVAL_SECONDS)
        lag.samples_ms.append(max(0.0, time.monotonic() - due_at) * 1000)
