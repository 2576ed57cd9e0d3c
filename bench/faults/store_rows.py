"""Rows F13 to F19: the database, Redis and the disk fail while a call goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import psycopg

from bench.faults.rig import Outcome, Rig, speak_for, start_rig
from bench.faults.row import CannotStage, Findings, row
from calls.demo.server_process import HOST, reserve_port
from calls.tests.live_server import Cluster, find_postgres_programs, poll_until

CALL_SECONDS = 12.0
ROWS_SECONDS = 10.0  # until all rows are there, after the fault
MAX_WEBHOOK_MS = 500.0
SPOOL_KIB = 1024

Fault = Callable[[], AbstractAsyncContextManager[None]]


@contextmanager
def start_cluster() -> Iterator[Cluster]:
    if (programs := find_postgres_programs()) is None:
        raise CannotStage("PostgreSQL's programs are not installed")
    with Cluster(programs) as cluster:
        yield cluster


async def call_during(rig: Rig, found: Findings, fault: Fault) -> None:
    """A call before, into and after the fault; another one begins while it lasts."""
    twilio = rig.server.twilio_simulator()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(twilio.place_call(speak_for(CALL_SECONDS)))
        await rig.vapi.until(lambda: rig.vapi.calls and rig.vapi.calls[-1].answers, 20.0)
        async with fault():
            second = tasks.create_task(twilio.place_call(speak_for(1.0)))
            await second
        healed_at = time.monotonic()
    for name, record in (("the call", first.result()), ("a new call", second.result())):
        outcome = await rig.read(record)
        check_call(found, name, outcome)
        (call,) = outcome.vapi_calls
        said = [(speaker, text) for _, speaker, text in call.transcripts]
        stored = await poll_until(
            lambda sid=record.call_sid: rig.database.select_utterances(sid),  # type: ignore[misc]
            lambda rows, said=said: rows == said,  # type: ignore[misc]
            ROWS_SECONDS,
        )
        found.expect(stored == said, f"{name}: {len(stored)} of {len(said)} utterances")
    found.limit("rows after", time.monotonic() - healed_at, CALL_SECONDS + ROWS_SECONDS)


def check_call(found: Findings, name: str, outcome: Outcome) -> None:
    found.expect(outcome.end_reason == "caller-hung-up", f"{name}: ended as {outcome.end_reason}")
    dropped = outcome.frames_dropped + outcome.record.frames_dropped
    found.limit(f"{name}: frames lost", dropped, 0, "")
    found.limit(f"{name}: webhook", outcome.record.webhook_ms or 0.0, MAX_WEBHOOK_MS, "ms")
    found.expect(outcome.record.heard_segments, f"{name}: the assistant was not heard")


@row(
    "F13",
    "PostgreSQL freezes for 8 s",
    "no frame lost, webhook 500 ms, all rows 10 s after it (p99: bench.frozen)",
)
async def freeze_database(folder: Path, found: Findings) -> None:
    with start_cluster() as cluster:

        @asynccontextmanager
        async def frozen() -> AsyncIterator[None]:
            cluster.freeze()
            try:
                yield
                await asyncio.sleep(4.0)
            finally:
                cluster.thaw()

        async with start_rig(folder, cluster.database.url) as rig:
            await call_during(rig, found, frozen)


@row("F14", "PostgreSQL is stopped and started", "the same, and /readyz stays 200")
async def stop_database(folder: Path, found: Findings) -> None:
    with start_cluster() as cluster:

        @asynccontextmanager
        async def stopped() -> AsyncIterator[None]:
            with cluster.stopped():
                yield
                found.expect(await is_ready(rig), "/readyz is not 200")

        async with start_rig(folder, cluster.database.url) as rig:
            await call_during(rig, found, stopped)


async def is_ready(rig: Rig) -> bool:
    reader, writer = await asyncio.open_connection(HOST, rig.server.port)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    status = await reader.readline()
    writer.close()
    return b" 200 " in status


@row("F15", "A table is locked", "no frame lost, webhook 500 ms, all rows 10 s after it")
async def lock_table(folder: Path, found: Findings) -> None:
    with start_cluster() as cluster:
        async with start_rig(folder, cluster.database.url) as rig:
            await call_during(rig, found, lambda: locked(rig))


@asynccontextmanager
async def locked(rig: Rig) -> AsyncIterator[None]:
    with rig.database.lock_writes():
        yield


@row("F16", "PostgreSQL has no free connection", "no frame lost, webhook 500 ms, all rows 10 s after it")
async def use_all_connections(folder: Path, found: Findings) -> None:
    with start_cluster() as cluster:

        @asynccontextmanager
        async def full() -> AsyncIterator[None]:
            with contextlib.ExitStack() as held:
                with contextlib.suppress(psycopg.OperationalError):
                    while True:
                        held.enter_context(psycopg.connect(cluster.database.url, connect_timeout=3))
                yield

        async with start_rig(folder, cluster.database.url) as rig:
            await call_during(rig, found, full)


@row("F17", "SQLite is locked", "no frame lost, webhook 500 ms, all rows 10 s after it")
async def lock_sqlite(folder: Path, found: Findings) -> None:
    async with start_rig(folder) as rig:
        await call_during(rig, found, lambda: locked(rig))


class Redis:
    """A Redis of its own. It can be frozen and killed."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise CannotStage("redis-server is not installed")
        self._command = [program, "--bind", HOST, "--save", "", "--appendonly", "no", "--dir", str(folder)]
        self.port = reserve_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        command = [*self._command, "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def send(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@row("F18", "Redis freezes, and is killed", "no frame lost, new calls are accepted, webhook 500 ms")
async def break_redis(folder: Path, found: Findings) -> None:
    redis = Redis(folder)
    redis.start()

    @asynccontextmanager
    async def frozen() -> AsyncIterator[None]:
        redis.send(signal.SIGSTOP)
        try:
            yield
        finally:
            redis.send(signal.SIGCONT)

    @asynccontextmanager
    async def killed() -> AsyncIterator[None]:
        redis.stop()
        try:
            yield
        finally:
            redis.start()

    try:
        async with start_rig(folder / "rig", REDIS_URL=redis.url) as rig:
            await call_during(rig, found, frozen)
            await call_during(rig, found, killed)
    finally:
        redis.stop()


def fill(file: Path) -> None:
    """Write until the disk has no space left."""
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY)
    try:
        with contextlib.suppress(OSError):
            while os.write(descriptor, b"x" * 4096):
                pass
    finally:
        os.close(descriptor)


@row("F19", "The spool's disk is full", "calls go on and lose no frame; what is lost is counted; it recovers")
async def fill_disk(folder: Path, found: Findings) -> None:
    disk = folder / "disk"
    disk.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={SPOOL_KIB}k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(options, capture_output=True).returncode != 0:
        raise CannotStage("a small disk (tmpfs) cannot be mounted: it needs root")
    try:
        async with start_rig(folder, JOURNAL_DIR=str(disk / "journal")) as rig:
            filler = disk / "filler"
            with rig.database.lock_writes():  # so that the spool keeps its lines
                fill(filler)
                record = await rig.server.twilio_simulator().place_call(speak_for(3.0))
                filler.unlink()
            found.limit("frames lost", record.frames_dropped, 0, "")
            found.expect(record.heard_segments, "the assistant was not heard")
            found.expect(any("journal" in line for line in rig.server.lines), "the log says nothing about it")
            outcome = await rig.call(script=speak_for(1.0))
            check_call(found, "the next call", outcome)
    finally:
        subprocess.run(["umount", str(disk)], check=False)
