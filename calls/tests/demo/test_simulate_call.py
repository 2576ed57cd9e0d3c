"""A simulated call into a running server, from a command line that knows no more than Twilio does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from calls.demo.runner import Audience, Stage, Wishes, stage
from calls.demo.server import free_port
from calls.management.commands.simulate_call import failures
from calls.tests.commands import Printed, Shell
from calls.tests.demo.demo_runs import Ran, environment, manage_async
from calls.tests.live_server import own_database
from sandbox.speech import audio
from sandbox.twilio.carrier import CallRecord
from sandbox.twilio.record import HeardSegment

pytestmark = [pytest.mark.slow, pytest.mark.once]

QUIET = Audience(lambda kind, data: None, lambda call, what: None, lambda line: None)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Stage]:
    """A real server with a stand-in for Vapi behind it, and a database of its own."""
    with own_database(tmp_path / "rows") as database:
        variables = {"DATABASE_URL": database.url, "JOURNAL_DIR": str(tmp_path / "journal")}
        wishes = Wishes(fast=True, listen="energy", environment=variables)
        async with stage(wishes, free_port(), QUIET) as on:
            yield on


def known(on: Stage) -> dict[str, str]:
    return {
        "PUBLIC_URL": on.server.url,
        "TWILIO_ACCOUNT_SID": on.account_sid,
        "TWILIO_AUTH_TOKEN": on.auth_token,
    }


async def simulate(on: Stage, *arguments: str) -> Ran:
    return await manage_async("simulate_call", *arguments, **known(on))


@pytest.fixture
def shell(django_db_blocker: DjangoDbBlocker) -> Shell:
    return Shell(django_db_blocker)


async def simulate_here(shell: Shell, *arguments: str, **variables: str) -> Printed:
    return await shell.run(environment(variables), "simulate_call", *arguments)


@pytest.fixture
def question(tmp_path: Path) -> Path:
    """A short question, at a rate that no telephone has."""
    path = tmp_path / "question.wav"
    clip = audio.load_clips()["correct"].pcm_8k
    audio.write_wav(path, audio.resample(clip, 8_000, 22_050), 22_050)
    return path


@pytest.mark.timeout(200)
async def test_it_plays_a_wav_file_listens_and_keeps_what_it_heard(
    running: Stage, question: Path, tmp_path: Path
) -> None:
    heard = tmp_path / "kept" / "heard.wav"
    arguments = ["--wav", str(question), "--listen-seconds", "3", "--save-heard", str(heard)]
    arguments += ["--to", "+15559870042", "--from", "+15550100199"]
    # Where the server is and what it calls itself may differ, as behind a proxy or in a container.
    port = running.server.port
    ran = await simulate(running, *arguments, "--url", f"http://localhost:{port}")
    assert ran.code == 0, str(ran)
    assert "webhook /twilio/voice 200" in ran.stdout and "media socket up" in ran.stdout
    assert "“question.wav”: answered after" in ran.stdout, ran.stdout
    assert str(heard) in ran.stdout
    pcm, rate = audio.read_wav(heard)
    assert rate == 8_000 and len(audio.loud_windows(pcm)) > 100
    call = running.assistant.calls[-1]
    assert len(call.utterances) == 1 and call.ended_at is not None


@pytest.mark.timeout(200)
async def test_it_fails_when_the_server_refuses_the_signature(
    running: Stage, question: Path, shell: Shell
) -> None:
    variables = known(running) | {"TWILIO_AUTH_TOKEN": "another"}
    ran = await simulate_here(shell, "--wav", str(question), **variables)
    assert ran.code == 1
    assert "/twilio/voice answered 403" in ran.err and "never started" in ran.err
    assert len(running.assistant.calls) == 0


async def test_it_fails_when_no_server_is_there(shell: Shell) -> None:
    ran = await simulate_here(shell, "--url", f"http://127.0.0.1:{free_port()}")
    assert ran.code == 1 and "no answer from /twilio/voice" in ran.err


async def test_it_says_what_is_wrong_with_a_file(shell: Shell, tmp_path: Path) -> None:
    missing = await simulate_here(shell, "--wav", str(tmp_path / "none.wav"))
    assert missing.code == 1 and "none.wav" in missing.err
    empty = tmp_path / "empty.wav"
    audio.write_wav(empty, audio.line_noise(1, 0), 8_000)
    ran = await simulate_here(shell, "--wav", str(empty))
    assert ran.code == 1 and "is empty" in ran.err


def test_it_calls_a_conversation_a_success_and_nothing_else() -> None:
    def record() -> CallRecord:
        made = CallRecord("CA1", "AC1", "+15550100134", "+15559870000", started_at=1.0)
        made.heard_segments = [HeardSegment(2.0, 3.0)]
        return made

    assert failures(record()) == []
    patient = record()
    patient.trouble(0, "Listen waited 8 s in vain")
    assert failures(patient) == []
    silent = record()
    silent.heard_segments = []
    assert failures(silent) == ["The caller never heard the assistant."]
    broken = record()
    broken.trouble(31951, "media for another stream")
    assert failures(broken) == ["31951: media for another stream"]
    told = record()
    told.spoken_by_twilio, told.said_before_stream = ["An AI speaks."], 1
    assert failures(told) == []
    sorry = record()
    sorry.spoken_by_twilio = ["We are sorry."]
    assert failures(sorry) == ["The caller heard an announcement in place of the assistant."]
