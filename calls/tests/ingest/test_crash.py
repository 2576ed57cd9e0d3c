"""A server that is killed during a call loses no utterance.

The expected utterances are the transcripts that the Vapi simulator has sent. They must be in the database
once another server has started with the same journal and database.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from calls.tests.live_server import Database, LiveServer, make_server, poll_until, temporary_database
from sandbox.faults import VapiFaults
from sandbox.speech import audio
from sandbox.twilio.caller import BargeIn, Say, Step
from sandbox.vapi.server import VapiSimulator

pytestmark = pytest.mark.slow

GRACE_SECONDS = 1.0  # in which a transcript reaches the server and its journal
KILL_AFTER_SECONDS = (1.2, 2.8)  # after the first final transcript of the call
WAIT_SECONDS = 15.0

YES_SAMPLES = 4_000  # half a second

# Prints whether the reaper ends the call a second before and a second after the end of its lease.
REAP = """
import sys
from datetime import timedelta
import django
django.setup()
from django.db import transaction
from calls.ingest import upsert
from calls.models import Call
lease_until = Call.objects.get(call_sid=sys.argv[1]).lease_until
for seconds in (-1, 1):
    with transaction.atomic():
        print(sys.argv[1] in upsert.reap(lease_until + timedelta(seconds=seconds)))
"""

Transcript = list[tuple[str, str]]  # speaker, text


@dataclass(frozen=True, slots=True)
class KilledCall:
    """A call whose server was killed."""

    call_sid: str
    sent: Transcript  # every final transcript that the simulator sent
    expected_count: int  # how many of them must be in the database


def make_script() -> list[Step]:
    """Caller and assistant interrupt each other, so that final transcripts of both arrive continuously."""
    yes = audio.load_clips()["correct"].pcm_8k[:YES_SAMPLES]
    return [Say(yes), *(BargeIn(yes, after_ms=350) for _ in range(20))]


async def call_and_kill(
    server: LiveServer, assistant: VapiSimulator, call_sid: str, kill_after_seconds: float
) -> KilledCall:
    call_task = asyncio.create_task(server.twilio_simulator().place_call(make_script(), call_sid=call_sid))
    try:
        call = await assistant.call_for(call_sid, WAIT_SECONDS)
        await assistant.until(lambda: call.transcripts, WAIT_SECONDS)
        await asyncio.sleep(kill_after_seconds)
        killed_at = time.monotonic()
        await server.kill()
        async with asyncio.timeout(WAIT_SECONDS):
            record = await call_task
    finally:
        call_task.cancel()
    assert record.ended_by == "lost"
    expected_count = sum(sent_at < killed_at - GRACE_SECONDS for sent_at, _, _ in call.transcripts)
    return KilledCall(call_sid, [(speaker, text) for _, speaker, text in call.transcripts], expected_count)


async def check_rows(database: Database, killed: KilledCall) -> None:
    rows = await poll_until(
        lambda: database.select_utterances(killed.call_sid),
        lambda rows: len(rows) >= killed.expected_count,
        WAIT_SECONDS,
    )
    assert rows[: killed.expected_count] == killed.sent[: killed.expected_count]
    # Only utterances of the last second may be missing.
    assert rows == killed.sent[: len(rows)]


async def kill_and_restart(database: Database, folder: Path, *, kills: int, locked: bool, seed: int) -> None:
    """Kill and restart several times. With `locked`, the database cannot be written before the restart."""
    rng = random.Random(seed)
    faults = VapiFaults(greets=False, delay_ms=(200, 250))
    script = [f"these are words number {number}" for number in range(1, 50)]
    killed: list[KilledCall] = []
    async with VapiSimulator(seed=seed, faults=faults, listen="energy", script=script) as assistant:
        server = await asyncio.to_thread(make_server, assistant.base_url, database.url, folder / "journal")
        for number in range(kills):
            async with server:
                if killed:
                    await check_rows(database, killed[-1])
                call_sid = f"CA{seed:016x}{number:016x}"
                with database.lock_writes() if locked else nullcontext():
                    kill_after_seconds = rng.uniform(*KILL_AFTER_SECONDS)
                    killed.append(await call_and_kill(server, assistant, call_sid, kill_after_seconds))
                    assert not locked or database.select_utterances(call_sid) == []
        async with server:
            await check_rows(database, killed[-1])
    assert all(each.expected_count for each in killed), "a server was killed before its first transcript"

    reaped = await asyncio.to_thread(server.run, "-c", REAP, killed[-1].call_sid)
    assert reaped.split() == ["False", "True"]
    ends = database.select("SELECT status, end_reason, ended_by FROM calls_call")
    assert ends == [("failed", "worker-lost", "us")] * kills


async def test_ten_kills_during_calls_lose_no_utterance_and_end_the_calls(tmp_path: Path) -> None:
    """Two servers, five kills each. The database of one is locked while the server runs."""
    with temporary_database(tmp_path / "free") as free, temporary_database(tmp_path / "locked") as locked:
        async with asyncio.TaskGroup() as both:
            both.create_task(kill_and_restart(free, tmp_path / "free", kills=5, locked=False, seed=41))
            both.create_task(kill_and_restart(locked, tmp_path / "locked", kills=5, locked=True, seed=42))
