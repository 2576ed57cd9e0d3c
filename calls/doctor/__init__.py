"""What stands between this server and its first call: one question each, asked over the wire.

Nothing is changed by asking. Every question has a deadline and all are asked at once, but for those that
are pointless while another is red.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import aiohttp

from calls.doctor import (
    host as machine,
)
from calls.doctor import (
    public_url as door,
)
from calls.doctor import (
    settings as configured,
)
from calls.doctor import (
    symptoms,
)
from calls.doctor import (
    twilio as carrier,
)
from calls.doctor import (
    vapi as vapi,
)
from calls.doctor.check import Answer, Check, Finding, amber, red

log = logging.getLogger(__name__)

CHECK_SECONDS = 9.0
NOT_LOOKED = "Not looked at"
RUN_SECONDS = 18.0
CHECKS: tuple[Check, ...] = (
    *configured.CHECKS, *door.CHECKS, *carrier.CHECKS, *vapi.CHECKS, *machine.CHECKS,
)  # fmt: skip
NAMES = tuple(check.name for check in CHECKS)


async def examine(only: Iterable[str] = ()) -> list[Answer]:
    """All checks, or those named; what these come after is asked too, and not shown."""
    by_name = {check.name: check for check in CHECKS}
    shown = list(only) or list(NAMES)
    tasks: dict[str, asyncio.Task[Finding]] = {}

    def asked(name: str) -> asyncio.Task[Finding]:
        if name not in tasks:
            check = by_name[name]
            tasks[name] = asyncio.create_task(_ask(check, [asked(each) for each in check.after]))
        return tasks[name]

    for name in shown:
        asked(name)
    _, late = await asyncio.wait(tasks.values(), timeout=RUN_SECONDS)
    for task in late:
        task.cancel()
    answers = []
    for name in shown:
        found = red("No answer came in time.", "Ask for this check alone.") if tasks[name] in late else (
            tasks[name].result()
        )  # fmt: skip
        answers.append(Answer(by_name[name], found, symptoms.of_check(name) if _explains(found) else ()))
    return answers


async def _ask(check: Check, before: list[asyncio.Task[Finding]]) -> Finding:
    found = [await task for task in before]
    levels = [each.level for each in found]
    if "red" in levels:
        first = check.after[levels.index("red")]
        return amber(f"{NOT_LOOKED}: {first} is red.", f"Put {first} right first.")
    if any(each.seen.startswith(NOT_LOOKED) for each in found):
        return amber(f"{NOT_LOOKED}: what it builds on was not.", "Put the red ones right first.")
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check.run()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return red(f"No answer: {type(error).__name__}.", "Check that the far end is up and passes requests.")
    except Exception:
        # One broken question must not cost the answers to all others.
        log.exception("doctor: %s broke", check.name)
        return red("The check itself broke; the log says how.", "Report it, with the log.")


def _explains(found: Finding) -> bool:
    """Whether somebody may notice what was found: not of what nobody looked at."""
    return found.level != "green" and not found.seen.startswith(NOT_LOOKED)
