"""The table of faults (`make faults`): it is complete, and a few of its rows pass."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bench.faults import carrier_rows, store_rows, vapi_rows  # noqa: F401  # they fill the table
from bench.faults.row import ROWS, Findings
from calls.demo.server_process import ROOT
from sandbox.scenarios import SCENARIOS


def test_the_table_has_every_row() -> None:
    assert set(ROWS) == {f"F{number}" for number in range(1, 29)}


def test_a_figure_beyond_its_limit_is_a_failure() -> None:
    found = Findings()
    found.limit("exit after", 2.0, 2.0)
    assert (found.figures, found.failures) == (["exit after 2.00 s"], [])
    found.limit("exit after", 2.01, 2.0)
    found.limit("frames lost", 1, 0, "")
    found.expect([], "nothing was heard")
    assert found.failures == ["exit after 2.01 s", "frames lost 1", "nothing was heard"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_fault_has_a_name_and_a_sentence(name: str) -> None:
    scenario = SCENARIOS[name]
    assert scenario.name == name and name == name.lower() and " " not in name
    assert scenario.description.endswith(".")


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("number", ["F3", "F8", "F23", "F24"])
def test_the_row_passes(number: str) -> None:
    command = [sys.executable, "-m", "bench.faults", number, "--json"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout)["result"] == "pass"
