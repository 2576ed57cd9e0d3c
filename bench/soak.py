"""Measure what is left of calls that are over: `python -m bench.soak`.

Places 1,200 simulated calls through one `./manage.py serve`, twenty at a time, each with a greeting, a
question and an answer. Samples the memory, descriptors and threads of the media process when no call is live,
after each hundred calls. Prints the slope of the memory after the first third (limit: 1 MiB for each 1,000
calls), and how many descriptors and threads are more than after the warm-up (limit: 2 each). Uses loopback
only, and stops by itself. Exits with 1 if a limit was not met or a call failed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calls.tests.live_server import ServeProcess, make_serve_process, poll_until
from sandbox.faults import VapiFaults
from sandbox.twilio.caller import HangUp, Listen, Say, Step
from sandbox.twilio.simulator import TwilioSimulator
from sandbox.vapi.server import VapiSimulator

SCRIPT: tuple[Step, ...] = (Listen(), Say("correct"), Listen(), HangUp())
SAMPLE_CALLS = 100
MAX_SLOPE_MIB = 1.0  # for each 1,000 calls
MAX_MORE = 2  # descriptors or threads
IDLE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The media process after so many calls."""

    calls: int
    memory_mib: float  # resident
    descriptors: int
    threads: int


def take_sample(pid: int, calls: int) -> Sample:
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    memory_kb = int(status["VmRSS"].split()[0])
    descriptors = len(list((process / "fd").iterdir()))
    return Sample(calls, memory_kb / 1024, descriptors, int(status["Threads"]))


async def place_calls(twilio: TwilioSimulator, count: int, at_once: int, problems: Counter[str]) -> None:
    turns = asyncio.Semaphore(at_once)

    async def place() -> None:
        async with turns:
            record = await twilio.place_call(SCRIPT)
        if record.errors or not record.heard_segments:
            problems[str(record.errors[0].text if record.errors else "the assistant was not heard")] += 1

    await asyncio.gather(*(place() for _ in range(count)))


async def wait_until_idle(server: ServeProcess) -> None:
    """Until all calls have their end, and what their ends need has been done."""
    query = "SELECT count(*) FROM calls_call WHERE end_reason = '' OR status = 'in-progress'"
    await poll_until(lambda: server.database.select(query), lambda rows: rows == [(0,)], IDLE_SECONDS)
    await asyncio.sleep(2.0)


async def measure(calls: int, at_once: int, folder: Path) -> tuple[list[Sample], Counter[str]]:
    problems: Counter[str] = Counter()
    samples: list[Sample] = []
    faults = VapiFaults(delay_ms=(200, 600), keep_audio_seconds=0.0)
    async with VapiSimulator(listen="energy", faults=faults) as vapi:
        url = f"sqlite:///{folder / 'calls.sqlite3'}"
        server = make_serve_process(vapi.base_url, url, folder, REDIS_URL="")
        async with server:
            twilio = server.twilio_simulator()
            for done in range(SAMPLE_CALLS, calls + 1, SAMPLE_CALLS):
                await place_calls(twilio, SAMPLE_CALLS, at_once, problems)
                await wait_until_idle(server)
                sample = take_sample(server.pid, done)
                samples.append(sample)
                print(
                    f"{done:5} calls: {sample.memory_mib:.1f} MiB, {sample.descriptors} descriptors,"
                    f" {sample.threads} threads",
                    flush=True,
                )
                gc.collect()
    return samples, problems


def report(samples: list[Sample], problems: Counter[str]) -> bool:
    warm = samples[len(samples) // 3 :]
    slope = 1000 * float(np.polyfit([each.calls for each in warm], [each.memory_mib for each in warm], 1)[0])
    first, last = warm[0], warm[-1]
    more_descriptors, more_threads = last.descriptors - first.descriptors, last.threads - first.threads
    is_met = slope <= MAX_SLOPE_MIB and max(more_descriptors, more_threads) <= MAX_MORE and not problems
    for problem, count in problems.most_common(5):
        print(f"{count} calls: {problem}")
    print(
        f"{last.calls} calls: memory {slope:+.2f} MiB for each 1,000 calls after {first.calls} calls,"
        f" descriptors {more_descriptors:+d}, threads {more_threads:+d}, failed calls {problems.total()}."
        f" Limits: at most {MAX_SLOPE_MIB:.0f} MiB, {MAX_MORE} and {MAX_MORE} more, none failed:"
        f" {'met' if is_met else 'NOT MET'}."
        f" {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},"
        f" {time.strftime('%Y-%m-%d')}."
    )
    return is_met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1200, help="in hundreds (default: 1200)")
    parser.add_argument("--at-once", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples, problems = asyncio.run(measure(options.calls, options.at_once, Path(folder)))
    return 0 if report(samples, problems) else 1


if __name__ == "__main__":
    sys.exit(main())
