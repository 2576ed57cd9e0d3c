"""Measure what a frozen database adds to audio latency: `python -m bench.frozen`.

Runs several simultaneous calls through the server. It starts a PostgreSQL, which alternates between ten
seconds (`--seconds`) of normal operation and as many frozen. Status callbacks arrive throughout, so that the
journal has entries to write. Prints the one-way audio latency that the server adds in each state and
direction, what the freeze adds to its p99 (limit: 5 ms), and the p99 in the second after the freeze, when the
rows are written. Uses loopback only, and stops by itself. Exits with 1 if a limit was not met or the machine
was too busy to tell, with 2 if PostgreSQL is not installed.
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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.table import Table

from bench.disturbance import WAYS, DisturbanceCycle
from bench.load import ACCOUNT, TOKEN, Assistant, Load, run, signature
from calls.tests.live_server import Cluster, LiveServer, find_postgres_programs, make_server

CALLBACK_PAUSE_SECONDS = 0.1
MAX_ADDED_MS = 5.0
BUSY_MS = 20.0  # a normal p99 longer than a frame means that the machine is too busy to measure


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


@asynccontextmanager
async def freeze(cluster: Cluster) -> AsyncIterator[None]:
    cluster.freeze()
    try:
        yield
    finally:
        cluster.thaw()


async def measure(
    cluster: Cluster, calls: int, repeats: int, seconds: float, audio_format: str
) -> tuple[DisturbanceCycle, Load]:
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
                cycle = DisturbanceCycle(
                    assistant, lambda: freeze(cluster), repeats=repeats, period_seconds=seconds
                )
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


def report(cycle: DisturbanceCycle, load: Load) -> bool:
    title = f"{load.calls} calls, added one-way audio latency in ms, medians of {cycle.repeats} repeats"
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
        found = cycle.figures(way)
        is_within_limits &= found.added_p99 <= MAX_ADDED_MS
        is_busy |= found.normal_p99 > BUSY_MS
        figures = (found.normal_p50, found.normal_p99, found.disturbed_p50, found.disturbed_p99)
        table.add_row(
            way,
            f"{found.normal_frames} + {found.disturbed_frames}",
            *(f"{figure:.2f}" for figure in figures),
            f"{found.added_p99:+.2f}",
            f"{found.recovering_p99:.2f}",
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
    parser.add_argument("--seconds", type=float, default=10.0, help="of each period (default: 10)")
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
        cycle, load = asyncio.run(
            measure(cluster, options.calls, options.repeats, options.seconds, options.format)
        )
    return 0 if report(cycle, load) else 1


if __name__ == "__main__":
    sys.exit(main())
