"""Measure what a frozen database adds to audio latency: `python -m bench.frozen`.

Runs several simultaneous calls through the server. It starts a PostgreSQL, which alternates between ten
seconds of normal operation and ten seconds frozen. Status callbacks arrive throughout, so that the journal
has entries to write. Prints the one-way audio latency that the server adds in each state and direction, what
the freeze adds to its p99 (limit: 5 ms), and the p99 in the second after the freeze, when the rows are
written. Uses loopback only, and stops by itself. Exits with 1 if a limit was not met or the machine was too
busy to tell, with 2 if PostgreSQL is not installed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Literal

import aiohttp
from rich.console import Console
from rich.table import Table

from bench.calls import percentile
from bench.load import ACCOUNT, TOKEN, Assistant, Direction, Load, run, signature
from calls.tests.live_server import Cluster, LiveServer, find_postgres_programs, make_server

PERIOD_SECONDS = 10.0
AFTER_THAW_SECONDS = 1.0  # the writer applies the backlog
CALLBACK_PAUSE_SECONDS = 0.1
MAX_ADDED_MS = 5.0
BUSY_MS = 20.0  # a normal p99 longer than a frame means that the machine is too busy to measure

State = Literal["normal", "frozen", "catching up"]
Way = Literal["to the assistant", "to the caller"]
Latencies = dict[tuple[State, Way], list[list[float]]]  # milliseconds, a list for each repeat
WAYS: tuple[Way, ...] = ("to the assistant", "to the caller")


class FreezeCycle:
    """Freezes and thaws the database in turn, and collects the latencies of each state."""

    def __init__(self, cluster: Cluster, assistant: Assistant, repeats: int) -> None:
        self.latencies: Latencies = defaultdict(list)
        self._sent: dict[int, int] = {}  # frames of each direction, by id(), when the calls were about to end
        self._cluster = cluster
        self._assistant = assistant
        self._repeats = repeats
        self._task: asyncio.Task[None] | None = None

    @property
    def seconds(self) -> float:
        return self._repeats * (2 * PERIOD_SECONDS + AFTER_THAW_SECONDS) + 1.0

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

    @property
    def _directions(self) -> list[Direction]:
        return [*self._assistant.up.values(), *self._assistant.down.values()]

    async def wait(self) -> None:
        assert self._task is not None
        await self._task

    async def _run(self) -> None:
        for _ in range(self._repeats):
            self._collect(None)
            await asyncio.sleep(PERIOD_SECONDS)
            self._collect("normal")
            self._cluster.freeze()
            try:
                await asyncio.sleep(PERIOD_SECONDS)
            finally:
                self._cluster.thaw()
            self._collect("frozen")
            await asyncio.sleep(AFTER_THAW_SECONDS)
            self._collect("catching up")

    def _collect(self, state: State | None) -> None:
        """Store the latencies since the last change under `state`, or discard them if it is None."""
        for way, directions in zip(WAYS, (self._assistant.up, self._assistant.down), strict=True):
            if state is not None:
                seconds = [latency for each in directions.values() for latency in each.latencies]
                self.latencies[state, way].append([latency * 1000 for latency in seconds])
            for each in directions.values():
                each.latencies.clear()


async def send_callbacks(server: LiveServer) -> None:
    """Send status callbacks of other calls until cancelled. Each becomes a journal entry."""
    url = f"{server.url}/twilio/status"
    async with aiohttp.ClientSession(trust_env=False) as http:
        number = 0
        while True:
            number += 1
            form = {"CallSid": f"CA{number:030d}ff", "AccountSid": ACCOUNT, "CallStatus": "ringing"}
            async with http.post(
                url, data=form, headers={"X-Twilio-Signature": signature(url, form)}
            ) as answer:
                answer.raise_for_status()
            await asyncio.sleep(CALLBACK_PAUSE_SECONDS)


async def measure(cluster: Cluster, calls: int, repeats: int, audio_format: str) -> tuple[FreezeCycle, Load]:
    with tempfile.TemporaryDirectory() as folder:
        async with Assistant(mulaw=audio_format == "mulaw") as assistant:
            server = make_server(
                assistant.url, cluster.database.url, Path(folder) / "journal",
                VAPI_AUDIO_FORMAT=audio_format, TWILIO_ACCOUNT_SID=ACCOUNT, TWILIO_AUTH_TOKEN=TOKEN,
                MAX_CONCURRENT_CALLS=str(calls + 1), OPENBLAS_NUM_THREADS="1",
            )  # fmt: skip
            async with server:
                if (os.cpu_count() or 1) > 1:
                    for task in Path(f"/proc/{server.pid}/task").iterdir():
                        os.sched_setaffinity(int(task.name), {0})
                cycle = FreezeCycle(cluster, assistant, repeats)
                callbacks = asyncio.create_task(send_callbacks(server))
                try:
                    load = await run(
                        server.url, assistant,
                        calls=calls, seconds=cycle.seconds, ticketed=True, on_phase=cycle.on_phase,
                    )  # fmt: skip
                    await cycle.wait()
                finally:
                    callbacks.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await callbacks
            return cycle, load


def report(cycle: FreezeCycle, load: Load) -> bool:
    repeats = len(cycle.latencies["frozen", "to the caller"])
    title = f"{load.calls} calls, added one-way audio latency in ms, medians of {repeats} repeats"
    table = Table(title=title)
    headings = (
        "",
        "frames",
        "normal p50",
        "normal p99",
        "frozen p50",
        "frozen p99",
        "difference",
        "catching up p99",
    )
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    is_within_limits, is_busy = not cycle.lost and not load.misread, False
    for way in WAYS:
        normal, frozen, after = (cycle.latencies[state, way] for state in ("normal", "frozen", "catching up"))
        added = median(
            percentile(after, 0.99) - percentile(before, 0.99)
            for before, after in zip(normal, frozen, strict=True)
        )
        is_within_limits &= added <= MAX_ADDED_MS
        is_busy |= median(percentile(each, 0.99) for each in normal) > BUSY_MS
        figures = [median(percentile(x, q) for x in each) for each in (normal, frozen) for q in (0.5, 0.99)]
        catching_up = median(percentile(x, 0.99) for x in after)
        count = f"{sum(map(len, normal))} + {sum(map(len, frozen))}"
        table.add_row(
            way, count, *(f"{figure:.2f}" for figure in figures), f"{added:+.2f}", f"{catching_up:.2f}"
        )
    verdict = "machine too busy to measure" if is_busy else "met" if is_within_limits else "NOT MET"
    console = Console(width=110)
    console.print(table)
    console.print(
        f"Lost {cycle.lost}, misread {load.misread}. Limits: p99 at most {MAX_ADDED_MS:.0f} ms more while"
        f" frozen, nothing lost or misread: {verdict}. {platform.machine()},"
        f" {os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}."
    )
    return is_within_limits and not is_busy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--format", choices=("pcm_s16le", "mulaw"), default="pcm_s16le")
    options = parser.parse_args()
    programs = find_postgres_programs()
    if programs is None:
        print("PostgreSQL's programs (initdb, postgres) are not installed.", file=sys.stderr)
        return 2
    with Cluster(programs) as cluster:
        # Only now: the cluster, started before, must be free to use both cores.
        if (os.cpu_count() or 1) > 1:
            os.sched_setaffinity(0, {1})
        cycle, load = asyncio.run(measure(cluster, options.calls, options.repeats, options.format))
    return 0 if report(cycle, load) else 1


if __name__ == "__main__":
    sys.exit(main())
