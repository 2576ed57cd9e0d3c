"""The checks detect bugs: a call for each injected bug, and the check that must fail."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TypeAlias

import pytest

from calls.demo.server_process import ROOT
from calls.tests.commands import command_environment
from calls.tests.demo.injected_bugs import BUGS
from calls.tests.live_server import COMMAND_TIMEOUT_SECONDS, temporary_database

pytestmark = [pytest.mark.slow, pytest.mark.once]

DETECTED_BY = {
    "drop": "frames_to_assistant",
    "swap": "frames_to_assistant",
    "repeat": "frames_to_assistant",
    "wrong_stream_sid": "wire",
    "no_clear": "barge_in",
    "late_audio": "latency",
    "noise_for_speech": "frames_to_assistant",
    "lost_transcript": "transcript",
    "turns_by_vapi": "latency",
}
# Bugs that no other check may detect, except checks of timing: on a busy machine they may fail as well.
DETECTED_ONCE = {"swap", "no_clear", "lost_transcript", "turns_by_vapi"}
TIMING_CHECKS = {"barge_in", "latency", "transit"}

FailedChecks: TypeAlias = dict[str, dict[str, str]]  # by bug: name and detail of each failed check


@pytest.fixture(scope="module")
def failed_checks(tmp_path_factory: pytest.TempPathFactory) -> FailedChecks:
    folder = tmp_path_factory.mktemp("bugs")
    with temporary_database(folder) as database:
        process = subprocess.run(
            [sys.executable, "-m", "calls.tests.demo.calls_with_bugs"],
            cwd=ROOT,
            env=command_environment(DATABASE_URL=database.url, JOURNAL_DIR=str(folder / "journal")),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_SECONDS,
            check=False,
        )
    assert process.returncode == 0, process.stderr[-4000:]
    result: FailedChecks = json.loads(process.stdout)
    return result


def test_every_bug_is_covered() -> None:
    assert set(DETECTED_BY) == set(BUGS)


@pytest.mark.parametrize("name", DETECTED_BY)
def test_the_checks_detect_the_bug(failed_checks: FailedChecks, name: str) -> None:
    failed = failed_checks[name]
    assert DETECTED_BY[name] in failed, failed
    if name in DETECTED_ONCE:
        assert set(failed) - TIMING_CHECKS <= {DETECTED_BY[name]}, failed


def test_a_call_without_a_bug_passes(failed_checks: FailedChecks) -> None:
    assert set(failed_checks["none"]) <= TIMING_CHECKS, failed_checks["none"]
