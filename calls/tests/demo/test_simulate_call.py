"""`manage.py simulate_call` against a running server, with the credentials of its Twilio account."""

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
from calls.management.commands.simulate_call import _describe_answer, find_problems
from calls.tests.commands import CommandResult, InProcessCommands, command_environment, run_command_async
from calls.tests.live_server import temporary_database
from sandbox.faults import VapiFaults
from sandbox.scenarios import SCENARIOS
from sandbox.speech import audio
from sandbox.twilio.record import HeardSegment, TwilioCallRecord

pytestmark = [pytest.mark.slow, pytest.mark.once]

QUIET = Observers(lambda kind, data: None, lambda call, event: None, lambda line: None)


@pytest.fixture
async def testbed(tmp_path: Path) -> AsyncIterator[Testbed]:
    """A real server with a Vapi simulator behind it, and its own database."""
    with temporary_database(tmp_path / "rows") as database:
        variables = {"DATABASE_URL": database.url, "JOURNAL_DIR": str(tmp_path / "journal")}
        scenario = Scenario(fast=True, listen="energy", environment=variables)
        async with start_testbed(scenario, reserve_port(), QUIET) as testbed:
            yield testbed


def make_settings(testbed: Testbed) -> dict[str, str]:
    return {
        "PUBLIC_URL": testbed.server.url,
        "TWILIO_ACCOUNT_SID": testbed.account_sid,
        "TWILIO_AUTH_TOKEN": testbed.auth_token,
    }


async def simulate(testbed: Testbed, *arguments: str) -> CommandResult:
    return await run_command_async(
        command_environment(), "simulate_call", *arguments, **make_settings(testbed)
    )


async def test_a_fault_is_set_for_the_call_and_reset_after_it(testbed: Testbed) -> None:
    vapi = testbed.vapi
    variables = {"VAPI_BASE_URL": vapi.base_url, "VAPI_API_KEY": vapi.api_key}
    faults = vapi.faults
    result = await run_command_async(
        command_environment(), "simulate_call", "--fault", "vapi-answers-503",
        **make_settings(testbed) | variables,
    )  # fmt: skip
    assert result.code == 0, result
    assert result.contains("With the fault vapi-answers-503: ")
    assert vapi.faults == VapiFaults() and vapi.faults is not faults
    assert [status for _, status, _ in vapi.rejected_requests] == [503, 503]


@pytest.fixture
def commands(django_db_blocker: DjangoDbBlocker) -> InProcessCommands:
    return InProcessCommands(django_db_blocker)


async def simulate_in_process(
    commands: InProcessCommands, *arguments: str, **variables: str
) -> CommandResult:
    return await commands.run(command_environment(**variables), "simulate_call", *arguments)


@pytest.fixture
def question_wav(tmp_path: Path) -> Path:
    """A short question, at a sample rate that telephones do not use."""
    path = tmp_path / "question.wav"
    clip = audio.load_clips()["correct"].pcm_8k
    audio.write_wav(path, audio.resample(clip, 8_000, 22_050), 22_050)
    return path


@pytest.mark.timeout(200)
async def test_it_plays_a_wav_file_listens_and_saves_what_it_heard(
    testbed: Testbed, question_wav: Path, tmp_path: Path
) -> None:
    heard = tmp_path / "new-folder" / "heard.wav"
    arguments = ["--wav", str(question_wav), "--listen-seconds", "3", "--save-heard", str(heard)]
    arguments += ["--to", "+15559870042", "--from", "+15550100199"]
    # The server's address may differ from its public URL, as behind a proxy or in a container.
    port = testbed.server.port
    result = await simulate(testbed, *arguments, "--url", f"http://localhost:{port}")
    assert result.code == 0, str(result)
    assert "webhook /twilio/voice 200" in result.stdout and "media socket open" in result.stdout
    assert "“question.wav”: answered after" in result.stdout, result.stdout
    assert str(heard) in result.stdout
    pcm, rate = audio.read_wav(heard)
    assert rate == 8_000 and len(audio.loud_windows(pcm)) > 100
    call = testbed.vapi.calls[-1]
    assert len(call.utterances) == 1 and call.ended_at is not None


@pytest.mark.timeout(200)
async def test_it_fails_when_the_server_refuses_the_signature(
    testbed: Testbed, question_wav: Path, commands: InProcessCommands
) -> None:
    variables = make_settings(testbed) | {"TWILIO_AUTH_TOKEN": "another"}
    result = await simulate_in_process(commands, "--wav", str(question_wav), **variables)
    assert result.code == 1
    assert "/twilio/voice responded with 403" in result.stderr and "never started" in result.stderr
    assert len(testbed.vapi.calls) == 0


async def test_it_fails_when_the_server_is_unreachable(commands: InProcessCommands) -> None:
    result = await simulate_in_process(commands, "--url", f"http://127.0.0.1:{reserve_port()}")
    assert result.code == 1 and "no response from /twilio/voice" in result.stderr


async def test_it_reports_a_missing_or_empty_file(commands: InProcessCommands, tmp_path: Path) -> None:
    missing = await simulate_in_process(commands, "--wav", str(tmp_path / "none.wav"))
    assert missing.code == 1 and "none.wav" in missing.stderr
    empty = tmp_path / "empty.wav"
    audio.write_wav(empty, audio.line_noise(1, 0), 8_000)
    result = await simulate_in_process(commands, "--wav", str(empty))
    assert result.code == 1 and "is empty" in result.stderr


@pytest.mark.parametrize(
    ("subtype", "format", "seconds", "output"),
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
    commands: InProcessCommands, tmp_path: Path, subtype: str, format: str, seconds: int, output: str
) -> None:
    path = tmp_path / "some.wav"
    soundfile.write(str(path), np.zeros((seconds * 8_000, 2)), 8_000, subtype=subtype, format=format)
    url = f"http://127.0.0.1:{reserve_port()}"
    result = await simulate_in_process(commands, "--wav", str(path), "--url", url)
    assert result.code == 1 and output in result.stderr, result
    assert "no response" in output or "\n" not in result.stderr.strip()


@pytest.mark.parametrize(
    ("ended_at", "text"),
    [
        (1.5, "answered after 0.50 s"), (2.5, "answered after 1.50 s"), (4.5, "no answer"),
        (None, "the call ended before it did"),
    ],
)  # fmt: skip
def test_it_says_whether_an_utterance_was_answered(ended_at: float | None, text: str) -> None:
    call = TwilioCallRecord("CA1", "AC1", "+15550100134", "+15559870000", started_at=1.0)
    call.heard_segments = [HeardSegment(2.0, 3.0), HeardSegment(4.0, 5.0)]
    assert _describe_answer(call, ended_at) == text


def test_only_a_call_without_problems_is_a_success() -> None:
    def record() -> TwilioCallRecord:
        call = TwilioCallRecord("CA1", "AC1", "+15550100134", "+15559870000", started_at=1.0)
        call.heard_segments = [HeardSegment(2.0, 3.0)]
        return call

    assert find_problems(record()) == []
    with_timeout = record()
    with_timeout.add_error(0, "Listen timed out after 8 s")
    assert find_problems(with_timeout) == []
    silent = record()
    silent.heard_segments = []
    assert find_problems(silent) == ["The caller never heard the assistant."]
    broken = record()
    broken.add_error(31951, "media for another stream")
    assert find_problems(broken) == ["31951: media for another stream"]
    with_disclosure = record()
    with_disclosure.spoken_by_twilio, with_disclosure.spoken_before_stream = ["An AI speaks."], 1
    assert find_problems(with_disclosure) == []
    with_apology = record()
    with_apology.spoken_by_twilio = ["We are sorry."]
    assert find_problems(with_apology) == ["The caller heard an announcement instead of the assistant."]


async def test_the_faults_are_listed(commands: InProcessCommands) -> None:
    result = await simulate_in_process(commands, "--list-faults")
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(SCENARIOS)


@pytest.mark.parametrize(
    "variables",
    [
        {"VAPI_BASE_URL": "https://api.vapi.ai"},
        {"VAPI_BASE_URL": "http://127.0.0.1:1"},
        {"VAPI_SOCKET_URL": "ws://127.0.0.1:1/"},
    ],
)
async def test_a_fault_of_vapi_needs_the_simulator(
    commands: InProcessCommands, variables: dict[str, str]
) -> None:
    result = await simulate_in_process(commands, "--fault", "vapi-floods", **variables)
    assert result.code == 1 and result.contains("VAPI_BASE_URL must be the address that")
