"""Measure what attacks add to the audio latency of running calls: `python -m bench.attacks`.

Runs ten calls through `./manage.py serve`, which may open 1,024 files, and attacks it in turn with each kind
of request of `bench/attackers.py`: normal operation and the attack alternate. Prints the added one-way audio
latency in both, what the attack adds to its p99 (limit: 5 ms), and the frames lost (limit: none). Uses
loopback only, and stops by itself. Exits with 1 if a limit was not met or the machine was too busy to tell.
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

from rich.console import Console
from rich.table import Table

from bench.attackers import ATTACKS
from bench.disturbance import WAYS, DisturbanceCycle
from bench.load import ACCOUNT, TOKEN, Assistant, Load, run
from calls.tests.live_server import ServeProcess, make_serve_process
from calls.tests.staff.live.live_socket_client import log_in

MAX_ADDED_MS = 5.0
BUSY_MS = 20.0  # a normal p99 longer than a frame means that the machine is too busy to measure
SEEDED_CALLS = "5000"


@asynccontextmanager
async def attack(name: str, server: ServeProcess, session_key: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.attackers", name,
        "--url", server.url, "--pages-url", server.pages_url, "--session-key", session_key,
    )  # fmt: skip
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def measure(
    name: str, calls: int, repeats: int, seconds: float, audio_format: str, folder: Path
) -> tuple[DisturbanceCycle, Load]:
    async with Assistant(mulaw=audio_format == "mulaw") as assistant:
        server = make_serve_process(
            assistant.url, f"sqlite:///{folder / 'calls.sqlite3'}", folder,
            VAPI_AUDIO_FORMAT=audio_format, TWILIO_ACCOUNT_SID=ACCOUNT, TWILIO_AUTH_TOKEN=TOKEN,
            MAX_CONCURRENT_CALLS=str(calls + 1), OPENBLAS_NUM_THREADS="1", REDIS_URL="",
        )  # fmt: skip
        server.run("manage.py", "seed_calls", "--calls", SEEDED_CALLS, "--beside")
        key = log_in(server, f"staff-{time.monotonic_ns()}", "view_call", "view_numbers")
        async with server:
            if (os.cpu_count() or 1) > 1:  # the pages' process may use both
                for task in Path(f"/proc/{server.pid}/task").iterdir():
                    os.sched_setaffinity(int(task.name), {0})
            cycle = DisturbanceCycle(
                assistant, lambda: attack(name, server, key), repeats=repeats, period_seconds=seconds
            )
            load = await run(
                server.url, assistant,
                calls=calls, seconds=cycle.seconds, ticketed=True, on_phase=cycle.on_phase,
            )  # fmt: skip
            await cycle.wait()
        return cycle, load


def report(results: dict[str, tuple[DisturbanceCycle, Load]], calls: int) -> bool:
    table = Table(title=f"{calls} calls on serve, added one-way audio latency in ms")
    for heading in ("attack", "direction", "normal p50", "normal p99", "attacked p99", "difference", "lost"):
        table.add_column(heading, justify="left" if heading in ("attack", "direction") else "right")
    is_within_limits, is_busy = True, False
    for name, (cycle, load) in results.items():
        for way in WAYS:
            found = cycle.figures(way)
            lost = cycle.lost + load.misread
            is_within_limits &= found.added_p99 <= MAX_ADDED_MS and not lost
            is_busy |= found.normal_p99 > BUSY_MS
            figures = (found.normal_p50, found.normal_p99, found.disturbed_p99)
            table.add_row(
                name, way, *(f"{figure:.2f}" for figure in figures), f"{found.added_p99:+.2f}", str(lost)
            )
    verdict = "machine too busy to measure" if is_busy else "met" if is_within_limits else "NOT MET"
    console = Console(width=110)
    console.print(table)
    console.print(
        f"Limits: p99 at most {MAX_ADDED_MS:.0f} ms more under attack, no frame lost or misread: {verdict}."
        f" {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},"
        f" {time.strftime('%Y-%m-%d')}."
    )
    return is_within_limits and not is_busy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="ATTACK", help=f"{', '.join(ATTACKS)} (default: all)")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each period (default: 8)")
    parser.add_argument("--format", choices=("pcm_s16le", "mulaw"), default="pcm_s16le")
    options = parser.parse_args()
    if unknown := set(options.names) - set(ATTACKS):
        parser.error(f"there is no attack {', '.join(sorted(unknown))}")
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {1})
    results = {}
    for name in options.names or ATTACKS:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = asyncio.run(
                measure(name, options.calls, options.repeats, options.seconds, options.format, Path(folder))
            )
        print(f"{name}: measured", flush=True)
    return 0 if report(results, options.calls) else 1


if __name__ == "__main__":
    sys.exit(main())
