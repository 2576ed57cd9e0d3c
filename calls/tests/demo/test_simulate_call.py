"""`manage.py simulate_call` against a running server, with the settings that Twilio knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pytest_django import DjangoDbBlocker

from calls.demo.runner import Observers, Testbed, start_testbed
from calls.demo.scenario import Scenario
from calls.demo.server_process import reserve_port
from calls.management.commands.simulate_call import failures
from calls.tests.commands import Printed, Shell
from calls.tests.demo.demo_runs import CommandResult, environment, manage_async
from calls.tests.live_server import own_database
from sandbox.speech import audio
from sandbox.twilio.record import HeardSegment, TwilioCallRecord

pytestmark = [pytest.mark.slow, pytest.mark.once]

QUIET = Observers(lambda kind, data: None, lambda call, what: None, lambda line: None)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Testbed]:
    """A real server with a Vapi simulator behind it, and its own database."""
    with own_database(tmp_path / "rows") as database:
        variables = {"DATABASE_URL": database.url, "JOURNAL_DIR": str(tmp_path / "journal")}
        scenario = Scenario(fast=True, listen="energy", environment=variables)
        async with start_testbed(scenario, reserve_port(), QUIET) as testbed:
            yield testbed


def settings_of(testbed: Testbed) -> dict[str, str]:
    return {
        "PUBLIC_URL": testbed.server.url,
        "TWILIO_ACCOUNT_SID": testbed.account_sid,
        "TWILIO_AUTH_TOKEN": testbed.auth_token,
    }


async def simulate(testbed: Testbed, *arguments: str) -> CommandResult:
    return await manage_async("simulate_call", *arguments, **settings_of(testbed))


@pytest.fixture
def shell(django_db_blocker: DjangoDbBlocker) -> Shell:
    return Shell(django_db_blocker)


async def simulate_in_process(shell: Shell, *arguments: str, **variables: str) -> Printed:
    return await shell.run(environment(variables), "simulate_call", *arguments)


@pytest.fixture
def question(tmp_path: Path) -> Path:
    """A short question, at a sample rate that telephones do not use."""
    path = tmp_path / "question.wav"
    clip = audio.load_clips()["correct"].pcm_8k
    audio.write_wav(path, audio.resample(clip, 8_000, 22_050), 22_050)
    return path


@pytest.mark.timeout(200)
async def test_it_plays_a_wav_file_listens_and_saves_what_it_heard(
    running: Testbed, question: Path, tmp_path: Path
) -> None:
    heard = tmp_path / "new-folder" / "heard.wav"
    arguments = ["--wav", str(question), "--listen-seconds", "3", "--save-heard", str(heard)]
    arguments += ["--to", "+15559870042", "--from", "+15550100199"]
    # The server's address may differ from its public URL, as behind a proxy or in a container.
    port = running.server.port
    ran = await simulate(running, *arguments, "--url", f"http://localhost:{port}")
    assert ran.code == 0, str(ran)
    assert "webhook /twilio/voice 200" in ran.stdout and "media socket open" in ran.stdout
    assert "“question.wav”: answered after" in ran.stdout, ran.stdout
    assert str(heard) in ran.stdout
    pcm, rate = audio.read_wav(heard)
    assert rate == 8_000 and len(audio.loud_windows(pcm)) > 100
    call = running.vapi.calls[-1]
    assert len(call.utterances) == 1 and call.ended_at is not None


@pytest.mark.timeout(200)
async def test_it_fails_when_the_server_refuses_the_signature(
    running: Testbed, question: Path, shell: Shell
) -> None:
    variables = settings_of(running) | {"TWILIO_AUTH_TOKEN": "another"}
    ran = await simulate_in_process(shell, "--wav", str(question), **variables)
    assert ran.code == 1
    assert "/twilio/voice responded with 403" in ran.err and "never started" in ran.err
    assert len(running.vapi.calls) == 0


async def test_it_fails_when_the_server_is_unreachable(shell: Shell) -> None:
    ran = await simulate_in_process(shell, "--url", f"http://127.0.0.1:{reserve_port()}")
    assert ran.code == 1 and "no response from /twilio/voice" in ran.err


async def test_it_reports_a_missing_or_empty_file(shell: Shell, tmp_path: Path) -> None:
    missing = await simulate_in_process(shell, "--wav", str(tmp_path / "none.wav"))
    assert missing.code == 1 and "none.wav" in missing.err
    empty = tmp_path / "empty.wav"
    audio.write_wav(empty, audio.line_noise(1, 0), 8_000)
    ran = await simulate_in_process(shell, "--wav", str(empty))
    assert ran.code == 1 and "is empty" in ran.err


@pytest.mark.parametrize(
    ("subtype", "format", "seconds", "says"),
    [
        ("PCM_24", "WAV", 1, "no response from /twilio/voice"),  # the file was read
        ("FLOAT", "WAV", 1, "no response from /twilio/voice"),
        ("ULAW", "WAV", 1, "no response from /twilio/voice"),
        ("ALAW", "WAV", 1, "no response from /twilio/voice"),
        ("PCM_16", "WAVEX", 1, "no response from /twilio/voice"),
        ("PCM_U8", "WAV", 601, "is 601 s long; the maximum is 10 minutes"),
        ("PCM_16", "FLAC", 1, "is not a WAV file"),
    ],
)
async def test_it_plays_every_kind_of_wav_file_and_refuses_others(
    shell: Shell, tmp_path: Path, subtype: str, format: str, seconds: int, says: str
) -> None:
    path = tmp_path / "some.wav"
    soundfile.write(str(path), np.zeros((seconds * 8_000, 2)), 8_000, subtype=subtype, format=format)
    ran = await simulate_in_process(shell, "--wav", str(path), "--url", f"http://127.0.0.1:{reserve_port()}")
    assert ran.code == 1 and says in ran.err, ran.err
    assert "no response" in says or "\n" not in ran.err.strip()


def test_only_a_call_without_problems_is_a_success() -> None:
    def record() -> TwilioCallRecord:
        call = TwilioCallRecord("CA1", "AC1", "+15550100134", "+15559870000", started_at=1.0)
        call.heard_segments = [HeardSegment(2.0, 3.0)]
        return call

    assert failures(record()) == []
    with_timeout = record()
    with_timeout.add_error(0, "Listen timed out after 8 s")
    assert failures(with_timeout) == []
    silent = record()
    silent.heard_segments = []
    assert failures(silent) == ["The caller never heard the assistant."]
    broken = record()
    broken.add_error(31951, "media for another stream")
    assert failures(broken) == ["31951: media for another stream"]
    with_disclosure = record()
    with_disclosure.spoken_by_twilio, with_disclosure.spoken_before_stream = ["An AI speaks."], 1
    assert failures(with_disclosure) == []
    with_apology = record()
    with_apology.spoken_by_twilio = ["We are sorry."]
    assert failures(with_apology) == ["The caller heard an announcement instead of the assistant."]
