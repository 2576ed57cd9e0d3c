"""Stages the faults F1 to F28 and prints a line for each: `python -m bench.faults [ROW ...]`, `make faults`.

Each row runs in a process of its own, which starts a server (`./manage.py serve`) with both simulators on
loopback and stops it. Some rows start a PostgreSQL or a Redis. Two run at the same time, because most of them
wait. Exits with 1 if a row fails. A row that this machine cannot stage says why.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.faults import carrier_rows, store_rows, vapi_rows  # noqa: F401  # they fill the table
from bench.faults.row import ROWS, CannotStage, Findings, Row

AT_ONCE = 2
ROW_TIMEOUT_SECONDS = 240.0
PASS, FAIL, NOT_STAGED = "pass", "FAIL", "not staged"


@dataclass(frozen=True, slots=True)
class Result:
    row: str
    name: str
    target: str
    got: str
    result: str
    seconds: float


async def stage(row: Row) -> Result:
    """Stage a row in this process."""
    found, started_at, result = Findings(), time.monotonic(), PASS
    try:
        with tempfile.TemporaryDirectory() as folder:
            async with asyncio.timeout(ROW_TIMEOUT_SECONDS):
                await row.stage(Path(folder), found)
    except CannotStage as reason:
        result, found = NOT_STAGED, Findings([str(reason)])
    except Exception as error:  # a row that breaks is no pass
        found.failures.append(f"{type(error).__name__}: {error}"[:300])
        traceback.print_exc()
    result = FAIL if found.failures else result
    seconds = round(time.monotonic() - started_at, 1)
    return Result(
        row.number, row.name, row.target, "; ".join([*found.failures, *found.figures]), result, seconds
    )


async def stage_in_process(row: Row) -> Result:
    """Stage a row in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.faults", row.number, "--stage", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    try:
        return Result(**json.loads(output))
    except (ValueError, TypeError):
        got = f"its process ended with code {process.returncode}"
        return Result(row.number, row.name, row.target, got, FAIL, 0.0)


async def stage_all(names: list[str], *, as_json: bool) -> bool:
    turns, results, started_at = asyncio.Semaphore(AT_ONCE), Counter[str](), time.monotonic()

    async def take_turn(row: Row) -> None:
        async with turns:
            found = await stage_in_process(row)
        results[found.result] += 1
        if as_json:
            print(json.dumps(asdict(found)), flush=True)
        else:
            print(f"{found.row:4} {found.result:10} {found.name} ({found.seconds} s)")
            print(f"     target: {found.target}\n     got: {found.got}", flush=True)

    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(take_turn(ROWS[name]))
    if not as_json:
        print(
            f"{results[PASS]} passed, {results[FAIL]} failed, {results[NOT_STAGED]} not staged, in"
            f" {time.monotonic() - started_at:.0f} s. {platform.machine()}, {os.cpu_count()} cores,"
            f" Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}."
        )
    return not results[FAIL]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="such as F4 (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each row")
    parser.add_argument("--stage", action="store_true", help=argparse.SUPPRESS)  # one row, in this process
    options = parser.parse_args()
    names = [name.upper() for name in options.rows] or sorted(ROWS, key=lambda name: int(name[1:]))
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"there is no row {', '.join(unknown)}")
    if options.stage:
        print(json.dumps(asdict(asyncio.run(stage(ROWS[names[0]])))))
        return 0
    return 0 if asyncio.run(stage_all(names, as_json=options.json)) else 1


if __name__ == "__main__":
    sys.exit(main())
