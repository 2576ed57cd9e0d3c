"""A server that is killed in mid-call takes no word with it.

What counts as said is what the stand-in for the assistant has sent; what counts as kept is a row, once
another server has started on the same journal and database.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from calls.tests.live_server import Database, LiveServer, eventually, live_server, own_database
from sandbox.faults import AssistantDials
from sandbox.speech import audio
from sandbox.twilio.carrier import CutIn, Say, Step
from sandbox.vapi.server import Assistant

pytestmark = pytest.mark.slow

GRACE_SECONDS = 1.0  # between a word and the kill, for the word to reach the server and its journal
BEFORE_THE_KILL = (1.2, 2.8)  # seconds after the call's first final
WAIT_SECONDS = 15.0

YES_SAMPLES = 4_000  # half a second


REAP = """
import sys
from datetime import timedelta
import django
django.setup()
from django.db import transaction
from calls import rows
from calls.models import Call
lease_until = Call.objects.get(call_sid=sys.argv[1]).lease_until
for seconds in (-1, 1):
    with transaction.atomic():
        print(sys.argv[1] in rows.reap(lease_until + timedelta(seconds=seconds)))
"""

Words = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Killed:
    """A call whose server was killed under it."""

    call_sid: str
    sent: Words  # every final that left the assistant
    owed: int  # how many of them must be rows


def chatter() -> list[Step]:
    """Caller and assistant fall into each other's word, so that there are finals of both all the time."""
    yes = audio.load_clips()["correct"].pcm_8k[:YES_SAMPLES]
    return [Say(yes), *(CutIn(yes, after_ms=350) for _ in range(20))]


async def call_and_kill(server: LiveServer, assistant: Assistant, call_sid: str, after_s: float) -> Killed:
    calling = asyncio.create_task(server.carrier().place_call(chatter(), call_sid=call_sid))
    try:
        call = await assistant.call_for(call_sid, WAIT_SECONDS)
        await assistant.until(lambda: call.transcripts, WAIT_SECONDS)
        await asyncio.sleep(after_s)  # the moment is the point: nothing is waited for
        killed_at = time.monotonic()
        await server.kill()
        async with asyncio.timeout(WAIT_SECONDS):
            record = await calling
    finally:
        calling.cancel()
    assert record.ended_by == "lost"
    owed = sum(sent_at < killed_at - GRACE_SECONDS for sent_at, _, _ in call.transcripts)
    return Killed(call_sid, [(speaker, words) for _, speaker, words in call.transcripts], owed)


async def check_rows(database: Database, killed: Killed) -> None:
    rows = await eventually(
        lambda: database.utterances(killed.call_sid), lambda rows: len(rows) >= killed.owed, WAIT_SECONDS
    )
    assert rows[: killed.owed] == killed.sent[: killed.owed]
    # What was said in the last second may be there or not, but nothing else may.
    assert rows == killed.sent[: len(rows)]


async def kill_and_restart(database: Database, folder: Path, *, kills: int, locked: bool, seed: int) -> None:
    """Some kills, each followed by a start; with `locked` the words are in the journal alone until then."""
    rng = random.Random(seed)
    dials = AssistantDials(greets=False, delay_ms=(200, 250))
    script = [f"these are words number {number}" for number in range(1, 50)]
    killed: list[Killed] = []
    async with Assistant(seed=seed, dials=dials, listen="energy", script=script) as assistant:
        server = await asyncio.to_thread(live_server, assistant.base_url, database.url, folder / "journal")
        for number in range(kills):
            async with server:
                if killed:
                    await check_rows(database, killed[-1])
                call_sid = f"CA{seed:016x}{number:016x}"
                with database.write_locked() if locked else nullcontext():
                    after_s = rng.uniform(*BEFORE_THE_KILL)
                    killed.append(await call_and_kill(server, assistant, call_sid, after_s))
                    assert not locked or database.utterances(call_sid) == []
        async with server:
            await check_rows(database, killed[-1])
    assert all(each.owed for each in killed), "a kill before the first word proves nothing"

    reaped = await asyncio.to_thread(server.run, "-c", REAP, killed[-1].call_sid)
    assert reaped.split() == ["False", "True"]
    ends = database.select("SELECT status, end_reason, ended_by FROM calls_call")
    assert ends == [("failed", "worker-lost", "us")] * kills


async def test_ten_kills_in_mid_call_lose_no_word_and_the_calls_are_ended(tmp_path: Path) -> None:
    """Two servers by turns of five, one of which has a database that takes nothing while it lives."""
    with own_database(tmp_path / "free") as free, own_database(tmp_path / "locked") as locked:
        async with asyncio.TaskGroup() as both:
            both.create_task(kill_and_restart(free, tmp_path / "free", kills=5, locked=False, seed=41))
            both.create_task(kill_and_restart(locked, tmp_path / "locked", kills=5, locked=True, seed=42))
