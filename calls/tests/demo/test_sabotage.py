"""The checks fail when they must: a server for each sabotage, and the check that must detect it."""

from __future__ import annotations

import pytest

from calls.tests.demo.demo_runs import manage
from calls.tests.demo.sabotage import SABOTAGES

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
# Sabotages so specific that no other check may fail. Checks of timing are excluded: on a busy machine they
# may fail as well.
SPECIFIC = {"swap", "no_clear", "lost_transcript", "turns_by_vapi"}
TIMING_CHECKS = {"barge_in", "latency", "transit"}


def test_every_sabotage_is_covered() -> None:
    assert set(DETECTED_BY) == set(SABOTAGES)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", DETECTED_BY)
def test_the_checks_detect_the_sabotage(name: str) -> None:
    asgi = "calls.tests.demo.sabotaged_asgi:application"
    ran = manage(
        "demo", "--once", "--json", "--fast", "--listen", "energy", "--asgi", asgi, VOICEAI_SABOTAGE=name
    )
    assert ran.code == 1, str(ran)
    assert DETECTED_BY[name] in ran.failed, str(ran)
    if name in SPECIFIC:
        assert set(ran.failed) - TIMING_CHECKS <= {DETECTED_BY[name]}, str(ran)
