"""The verdict says no: one server for each breakage, and the check that must name it."""

from __future__ import annotations

import pytest

from calls.tests.demo.demo_runs import manage
from calls.tests.demo.sabotage import SABOTAGES

pytestmark = [pytest.mark.slow, pytest.mark.once]

NAMED_BY = {
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
# What is broken so finely that nothing else may look broken. Checks by the clock are left out of that: on
# a busy machine a server that is late is late whatever else is wrong with it.
ALONE = {"swap", "no_clear", "lost_transcript", "turns_by_vapi"}
BY_THE_CLOCK = {"barge_in", "latency", "transit"}


def test_it_has_a_row_for_each_breakage() -> None:
    assert set(NAMED_BY) == set(SABOTAGES)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMED_BY)
def test_it_names_what_is_broken(name: str) -> None:
    asgi = "calls.tests.demo.sabotaged_asgi:application"
    ran = manage(
        "demo", "--once", "--json", "--fast", "--listen", "energy", "--asgi", asgi, VOICEAI_SABOTAGE=name
    )
    assert ran.code == 1, str(ran)
    assert NAMED_BY[name] in ran.failed, str(ran)
    if name in ALONE:
        assert set(ran.failed) - BY_THE_CLOCK <= {NAMED_BY[name]}, str(ran)
