"""What a frozen database costs the callers: `python -m bench.frozen`.

Several calls at once through our server, whose PostgreSQL, a cluster of our own, is calm for ten seconds
and frozen for ten, by turns. All the while callbacks come in, so that the journal has something to write.
Prints the one-way audio latency that the server adds in either state, both ways, what the freeze adds to
its p99, which is at most 5 ms, and the p99 of the second after it, in which the rows are written. Loopback
only; stops by itself. Exit 1 when a bound was not held.
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
from calls.tests.live_server import Cluster, LiveServer, live_server, postgres_programs

PERIOD_SECONDS = 10.0
AFTER_THAW_SECONDS = 1.0  # the writer makes up for lost time
CALLBACK_EVERY = 0.1
MAX_ADDED_MS = 5.0
BUSY_MS = 20.0  # a calm p99 beyond a frame's length is the machine's own trouble

State = Literal["calm", "frozen", "thawed"]
Way = Literal["to the assistant", "to the caller"]
Latencies = dict[tuple[State, Way], list[list[float]]]  # ms, round by round
WAYS: tuple[Way, ...] = ("to the assistant", "to the caller")


class Weather:
    """Calm and frozen by turns, and the latencies of each."""

    def __init__(self, cluster: Cluster, assistant: Assistant, rounds: int) -> None:
        self.found: Latencies = defaultdict(list)
        self._sent: dict[int, int] = {}  # by each direction, when the calls were about to end
        self._cluster = cluster
        self._assistant = assistant
        self._rounds = rounds
        self._changing: asyncio.Task[None] | None = None

    @property
    def seconds(self) -> float:
        return self._rounds * (2 * PERIOD_SECONDS + AFTER_THAW_SECONDS) + 1.0

    def window(self, state: str) -> None:
        """All calls are up, or about to end."""
        if state == "open":
            self._changing = asyncio.create_task(self._change())
        else:
            self._sent = {id(each): len(each.sent) for each in self._directions}

    @property
    def lost(self) -> int:
        """Sent while the calls were up, and never arrived. (The assistant speaks on after them.)"""
        return sum(max(0, self._sent[id(each)] - each.arrived) for each in self._directions)

    @property
    def _directions(self) -> list[Direction]:
        return [*self._assistant.up.values(), *self._assistant.down.values()]

    async def done(self) -> None:
        assert self._changing is not None
        await self._changing

    async def _change(self) -> None:
        for _ in range(self._rounds):
            self._keep(None)
            await asyncio.sleep(PERIOD_SECONDS)
            self._keep("calm")
            self._cluster.freeze()
            try:
                await asyncio.sleep(PERIOD_SECONDS)
            finally:
                self._cluster.thaw()
            self._keep("frozen")
            await asyncio.sleep(AFTER_THAW_SECONDS)
            self._keep("thawed")

    def _keep(self, state: State | None) -> None:
        """What was measured since the last change."""
        for way, directions in zip(WAYS, (self._assistant.up, self._assistant.down), strict=True):
            if state is not None:
                latencies = [x * 1000 for each in directions.values() for x in each.latencies]
                self.found[state, way].append(latencies)
            for each in directions.values():
                each.latencies.clear()


async def call_back(server: LiveServer) -> None:
    """Status callbacks of other calls, each of which is an entry of the journal, until cancelled."""
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
            await asyncio.sleep(CALLBACK_EVERY)


async def measure(cluster: Cluster, calls: int, rounds: int, audio_format: str) -> tuple[Weather, Load]:
    with tempfile.TemporaryDirectory() as folder:
        async with Assistant(mulaw=audio_format == "mulaw") as assistant:
            server = live_server(
                assistant.url, cluster.database.url, Path(folder) / "journal",
                VAPI_AUDIO_FORMAT=audio_format, TWILIO_ACCOUNT_SID=ACCOUNT, TWILIO_AUTH_TOKEN=TOKEN,
                MAX_CONCURRENT_CALLS=str(calls + 1), OPENBLAS_NUM_THREADS="1",
            )  # fmt: skip
            async with server:
                if (os.cpu_count() or 1) > 1:
                    for task in Path(f"/proc/{server.pid}/task").iterdir():
                        os.sched_setaffinity(int(task.name), {0})
                weather = Weather(cluster, assistant, rounds)
                callbacks = asyncio.create_task(call_back(server))
                try:
                    load = await run(
                        server.url, assistant,
                        calls=calls, seconds=weather.seconds, ticketed=True, window=weather.window,
                    )  # fmt: skip
                    await weather.done()
                finally:
                    callbacks.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await callbacks
            return weather, load


def report(weather: Weather, load: Load) -> bool:
    rounds = len(weather.found["frozen", "to the caller"])
    title = f"{load.calls} calls, added one-way audio latency in ms, medians of {rounds} rounds"
    table = Table(title=title)
    headings = ("", "frames", "calm p50", "calm p99", "frozen p50", "frozen p99", "difference", "thawed p99")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    good, busy = not weather.lost and not load.wrong, False
    for way in WAYS:
        calm, frozen, thawed = (weather.found[state, way] for state in ("calm", "frozen", "thawed"))
        added = median(
            percentile(after, 0.99) - percentile(before, 0.99)
            for before, after in zip(calm, frozen, strict=True)
        )
        good = good and added <= MAX_ADDED_MS
        busy = busy or median(percentile(each, 0.99) for each in calm) > BUSY_MS
        figures = [median(percentile(x, q) for x in each) for each in (calm, frozen) for q in (0.5, 0.99)]
        catching_up = median(percentile(x, 0.99) for x in thawed)
        count = f"{sum(map(len, calm))} + {sum(map(len, frozen))}"
        table.add_row(
            way, count, *(f"{figure:.2f}" for figure in figures), f"{added:+.2f}", f"{catching_up:.2f}"
        )
    verdict = "the machine was too busy to tell" if busy else "held" if good else "NOT HELD"
    console = Console(width=110)
    console.print(table)
    console.print(
        f"Lost {weather.lost}, misread {load.wrong}. Bounds: p99 at most {MAX_ADDED_MS:.0f} ms more while"
        f" frozen, nothing lost or misread: {verdict}. {platform.machine()},"
        f" {os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}."
    )
    return good and not busy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--format", choices=("pcm_s16le", "mulaw"), default="pcm_s16le")
    options = parser.parse_args()
    programs = postgres_programs()
    if programs is None:
        print("PostgreSQL's programs (initdb, postgres) are not installed.", file=sys.stderr)
        return 2
    with Cluster(programs) as cluster:
        # After the cluster, which is to run where it likes.
        if (os.cpu_count() or 1) > 1:
            os.sched_setaffinity(0, {1})
        weather, load = asyncio.run(measure(cluster, options.calls, options.rounds, options.format))
    return 0 if report(weather, load) else 1


if __name__ == "__main__":
    sys.exit(main())
