"""Measure twenty simultaneous calls against a naive consumer: `python -m bench.calls`.

Runs the server (Daphne, with journal and database) with PCM and with mu-law, and the naive consumer of
`bench/naive.py` under the same Daphne. The runs are interleaved and repeated. Prints medians of CPU
milliseconds per call-second, their ratios within one run, added latency in each direction, memory, and the
frames lost or misread. With two or more cores, the server is pinned to one core and the load to another.
Uses loopback only, and stops by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.load import ACCOUNT, TOKEN, Assistant, Load, run

ROOT = Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")
KINDS = ("pcm_s16le", "mulaw", "naive")


@dataclass
class Measured:
    load: Load
    cpu_ms_per_call_second: float
    rss_mib: float


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def peak_rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


async def measure(kind: str, calls: int, seconds: float, folder: Path) -> Measured:
    """One run of one kind of server."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    async with Assistant(mulaw=kind == "mulaw") as assistant:
        environment = {
            **os.environ,
            "VAPI_BASE_URL": assistant.url,
            "OPENBLAS_NUM_THREADS": "1",
            "DJANGO_DEBUG": "off",
            "DJANGO_SECRET_KEY": "bench",
            "PUBLIC_URL": base,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "VAPI_API_KEY": "bench",
            "VAPI_ASSISTANT_ID": "bench",
            "VAPI_ALLOWED_HOSTS": "127.0.0.1",
            "VAPI_SOCKET_URL": "",
            "VAPI_AUDIO_FORMAT": kind if kind != "naive" else "pcm_s16le",
            "DATABASE_URL": f"sqlite:///{folder / 'bench.sqlite3'}",
            "REDIS_URL": "",
            "JOURNAL_DIR": str(folder / "journal"),
            "MAX_CONCURRENT_CALLS": str(calls + 1),
        }
        target = "bench.naive:application" if kind == "naive" else "voiceai.asgi:application"
        command = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "-v", "0", target]
        if kind != "naive":
            subprocess.run(
                [sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True
            )
        with open(folder / f"{kind}.log", "ab") as log:
            server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            if (os.cpu_count() or 1) > 1:
                os.sched_setaffinity(server.pid, {0})
            await _wait_until_listening(port, server)
            cpu_samples: list[tuple[float, float]] = []  # wall clock, CPU seconds

            def on_phase(_: str) -> None:
                cpu_samples.append((time.monotonic(), cpu_seconds(server.pid)))

            load = await run(
                base, assistant, calls=calls, seconds=seconds, ticketed=kind != "naive", on_phase=on_phase
            )
            (began, cpu_began), (ended, cpu_ended) = cpu_samples
            per_call_second = (cpu_ended - cpu_began) * 1000 / ((ended - began) * calls)
            return Measured(load, per_call_second, peak_rss_mib(server.pid))
        finally:
            server.terminate()
            server.wait(15)


async def _wait_until_listening(port: int, server: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(30):
        while True:
            if server.poll() is not None:
                raise RuntimeError("The server did not start. See its log.")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return


def percentile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


def report(results: dict[str, list[Measured]], calls: int, seconds: float) -> bool:
    """Print the table. True if every figure is within its limit."""
    table = Table(
        title=f"{calls} calls, {seconds:.0f} s, medians of {len(results['naive'])} interleaved runs"
    )
    for heading in ("server", "CPU ms/call-s", "vs naive", "to assistant p50/p99 ms", "to caller p50/p99 ms",
                    "RSS MiB", "lost", "misread"):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "server" else "right")
    naive = [m.cpu_ms_per_call_second for m in results["naive"]]
    limits = {"pcm_s16le": 0.85, "mulaw": 0.65}
    is_within_limits = True
    for kind, runs in results.items():
        ratio = statistics.median(
            m.cpu_ms_per_call_second / baseline for m, baseline in zip(runs, naive, strict=True)
        )
        up, down = (
            [latency * 1000 for m in runs for d in getattr(m.load, way) for latency in d.latencies]
            for way in ("up", "down")
        )
        lost, misread = sum(m.load.lost for m in runs), sum(m.load.misread for m in runs)
        rss = max(m.rss_mib for m in runs)
        table.add_row(
            kind,
            f"{statistics.median(m.cpu_ms_per_call_second for m in runs):.2f}",
            f"{ratio:.2f}x",
            f"{percentile(up, 0.5):.2f} / {percentile(up, 0.99):.2f}",
            f"{percentile(down, 0.5):.2f} / {percentile(down, 0.99):.2f}",
            f"{rss:.0f}",
            str(lost),
            str(misread),
        )
        if kind in limits:
            is_within_limits &= ratio <= limits[kind] and not lost and not misread and rss <= 150
    console = Console(width=130)
    console.print(table)
    console.print(
        "Limits: pcm_s16le at most 0.85x, mulaw at most 0.65x, RSS at most 150 MiB, nothing lost or misread:"
        f" {'met' if is_within_limits else 'NOT MET'}. {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}."
    )
    return is_within_limits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {1})
    results: dict[str, list[Measured]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.runs):
            for kind in KINDS:
                measured = asyncio.run(measure(kind, options.calls, options.seconds, Path(folder)))
                results[kind].append(measured)
                print(
                    f"run {number + 1}, {kind}: {measured.cpu_ms_per_call_second:.2f} ms/call-s", flush=True
                )
    return 0 if report(results, options.calls, options.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
