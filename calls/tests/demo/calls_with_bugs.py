"""Places a call for each injected bug, and one without a bug, against one server.

    python -m calls.tests.demo.calls_with_bugs

Prints one JSON object: for each bug the failed checks, with their details. The database is the one of
`DATABASE_URL`; it must have its tables.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace

import django

django.setup()

from calls.demo.assertions import run_checks
from calls.demo.runner import Observers, Testbed, run_call, start_testbed
from calls.demo.scenario import Scenario
from calls.demo.server_process import reserve_port
from calls.tests.demo.injected_bugs import CALLERS

NO_BUG = "none"
# More calls at once would be late on a busy machine, and fail checks for that reason.
MAX_CONCURRENT = 3


async def place_calls() -> dict[str, dict[str, str]]:
    scenario = Scenario(fast=True, listen="energy", asgi="calls.tests.demo.asgi_with_bugs:application")
    observers = Observers(
        on_twilio_event=lambda kind, data: None,
        on_vapi_event=lambda call, kind: None,
        on_log_line=lambda line: print(line, file=sys.stderr, flush=True),
    )
    callers = {name: number for number, name in CALLERS.items()} | {NO_BUG: scenario.caller}
    failed: dict[str, dict[str, str]] = {}
    slots = asyncio.Semaphore(MAX_CONCURRENT)

    async def place_call(testbed: Testbed, name: str, caller: str) -> None:
        async with slots:
            artifacts = await run_call(testbed, replace(scenario, caller=caller), observers)
        failed[name] = {check.name: check.detail for check in run_checks(artifacts) if not check.passed}

    async with start_testbed(scenario, reserve_port(), observers) as testbed, asyncio.TaskGroup() as calls:
        for name, caller in callers.items():
            calls.create_task(place_call(testbed, name, caller))
    return failed


if __name__ == "__main__":
    print(json.dumps(asyncio.run(place_calls())))
