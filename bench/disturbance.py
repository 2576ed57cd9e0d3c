"""Measures what a disturbance adds to audio latency: calls run throughout, the disturbance comes and goes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from statistics import median
from typing import Literal

from bench.calls import percentile
from bench.load import Assistant, Direction

RECOVERY_SECONDS = 1.0

State = Literal["normal", "disturbed", "recovering"]
Way = Literal["to the assistant", "to the caller"]
WAYS: tuple[Way, ...] = ("to the assistant", "to the caller")


@dataclass(frozen=True, slots=True)
class Figures:
    """One direction: one-way latencies in ms, medians of the repeats, and how many frames they are of."""

    normal_p50: float
    normal_p99: float
    disturbed_p50: float
    disturbed_p99: float
    added_p99: float
    recovering_p99: float
    normal_frames: int
    disturbed_frames: int


class DisturbanceCycle:
    """Alternates between a normal period and a disturbed one, and collects the latencies of each."""

    def __init__(
        self,
        assistant: Assistant,
        disturb: Callable[[], AbstractAsyncContextManager[object]],
        *,
        repeats: int,
        period_seconds: float,
    ) -> None:
        self.repeats = repeats
        self._assistant = assistant
        self._disturb = disturb
        self._period_seconds = period_seconds
        self._latencies: dict[tuple[State, Way], list[list[float]]] = defaultdict(list)
        self._sent: dict[int, int] = {}  # frames of each direction, by id(), when the calls were about to end
        self._task: asyncio.Task[None] | None = None

    @property
    def seconds(self) -> float:
        """How long the calls must run, without what `disturb` takes to begin and to end."""
        return self.repeats * (2 * self._period_seconds + RECOVERY_SECONDS) + 1.0

    def on_phase(self, phase: str) -> None:
        """Start the cycle when all calls are up; count the frames sent when they are about to end."""
        if phase == "running":
            self._task = asyncio.create_task(self._run())
        else:
            self._sent = {id(direction): len(direction.sent) for direction in self._directions}

    @property
    def lost(self) -> int:
        """Frames sent while the calls were up that never arrived. (The assistant sends on after that.)"""
        return sum(max(0, self._sent[id(way)] - way.arrived) for way in self._directions)

    def figures(self, way: Way) -> Figures:
        normal, disturbed, recovering = (
            self._latencies[state, way] for state in ("normal", "disturbed", "recovering")
        )
        added = (
            percentile(during, 0.99) - percentile(before, 0.99)
            for before, during in zip(normal, disturbed, strict=True)
        )
        return Figures(
            median(percentile(each, 0.5) for each in normal),
            median(percentile(each, 0.99) for each in normal),
            median(percentile(each, 0.5) for each in disturbed),
            median(percentile(each, 0.99) for each in disturbed),
            median(added),
            median(percentile(each, 0.99) for each in recovering),
            sum(map(len, normal)),
            sum(map(len, disturbed)),
        )

    async def wait(self) -> None:
        assert self._task is not None
        await self._task

    @property
    def _directions(self) -> list[Direction]:
        return [*self._assistant.up.values(), *self._assistant.down.values()]

    async def _run(self) -> None:
        for _ in range(self.repeats):
            self._collect(None)
            await asyncio.sleep(self._period_seconds)
            self._collect("normal")
            async with self._disturb():
                await asyncio.sleep(self._period_seconds)
            self._collect("disturbed")
            await asyncio.sleep(RECOVERY_SECONDS)
            self._collect("recovering")

    def _collect(self, state: State | None) -> None:
        """Store the latencies since the last change under `state`, or discard them if it is None."""
        for way, directions in zip(WAYS, (self._assistant.up, self._assistant.down), strict=True):
            if state is not None:
                seconds = [latency for each in directions.values() for latency in each.latencies]
                self._latencies[state, way].append([latency * 1000 for latency in seconds])
            for each in directions.values():
                each.latencies.clear()
