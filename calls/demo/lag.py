"""How late the machine was while a call went on: what is judged by the clock may be off by as much.

Both far ends live in this process, so a pulse in their event loop tells how late it was to do anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

EVERY_SECONDS = 0.02


@dataclass(slots=True)
class Lag:
    """Milliseconds by which each pulse came late. None were measured: the machine was in time."""

    pulses_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        return statistics.median(self.pulses_ms) if self.pulses_ms else 0.0

    @property
    def p95_ms(self) -> float:
        return statistics.quantiles(self.pulses_ms, n=20)[-1] if len(self.pulses_ms) > 1 else 0.0

    @property
    def worst_ms(self) -> float:
        return max(self.pulses_ms, default=0.0)


@asynccontextmanager
async def measured() -> AsyncIterator[Lag]:
    """What it was as long as this is entered."""
    lag = Lag()
    pulse = asyncio.create_task(_beat(lag))
    try:
        yield lag
    finally:
        pulse.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pulse


async def _beat(lag: Lag) -> None:
    while True:
        due_at = time.monotonic() + EVERY_SECONDS
        await asyncio.sleep(EVERY_SECONDS)
        lag.pulses_ms.append(max(0.0, time.monotonic() - due_at) * 1000)
