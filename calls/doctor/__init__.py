"""The doctor: checks whether calls can come in, and says how to fix what is wrong.

Each area has a module of checks. No check changes anything. All checks run concurrently, each with a
deadline; a check that depends on a red one is skipped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import aiohttp

from calls.doctor import host, public_url, settings, symptoms, twilio, vapi
from calls.doctor.check import Check, Finding, Result, red, skipped

logger = logging.getLogger(__name__)

CHECK_TIMEOUT_SECONDS = 9.0
RUN_TIMEOUT_SECONDS = 18.0
CHECKS: tuple[Check, ...] = (
    *settings.CHECKS, *public_url.CHECKS, *twilio.CHECKS, *vapi.CHECKS, *host.CHECKS,
)  # fmt: skip
NAMES = tuple(check.name for check in CHECKS)


async def run_checks(names: Iterable[str] = ()) -> list[Result]:
    """Run all checks, or those named. What these depend on runs too, and is not among the results."""
    checks = {check.name: check for check in CHECKS}
    reported = list(names) or list(NAMES)
    tasks: dict[str, asyncio.Task[Finding]] = {}

    def start(name: str) -> asyncio.Task[Finding]:
        if name not in tasks:
            check = checks[name]
            dependencies = [start(dependency) for dependency in check.depends_on]
            tasks[name] = asyncio.create_task(_run(check, dependencies))
        return tasks[name]

    for name in reported:
        start(name)
    _, unfinished = await asyncio.wait(tasks.values(), timeout=RUN_TIMEOUT_SECONDS)
    for task in unfinished:
        task.cancel()
    results = []
    for name in reported:
        finding = (
            red("The check took too long.", f"Run it alone: `./manage.py doctor --only {name}`.")
            if tasks[name] in unfinished
            else tasks[name].result()
        )
        titles = symptoms.find_symptoms(name) if _explains_symptoms(finding) else ()
        results.append(Result(checks[name], finding, titles))
    return results


async def _run(check: Check, dependencies: list[asyncio.Task[Finding]]) -> Finding:
    findings = [await task for task in dependencies]
    levels = [finding.level for finding in findings]
    if "red" in levels:
        first_red = check.depends_on[levels.index("red")]
        return skipped(f"Not checked: {first_red} is red.", f"Fix {first_red} first.")
    if any(finding.was_skipped for finding in findings):
        return skipped("Not checked: a check it depends on was not run.", "Fix the red checks first.")
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            return await check.run()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return red(
            f"No response ({type(error).__name__}).",
            "Check that the other side is running and that requests reach it.",
        )
    except Exception:
        # A bug in one check must not hide the results of the others.
        logger.exception("doctor: %s failed", check.name)
        return red("The check itself failed. The log has the traceback.", "Report it as a bug, with the log.")


def _explains_symptoms(finding: Finding) -> bool:
    """Whether somebody may notice this finding. Nothing is known about a skipped check."""
    return finding.level != "green" and not finding.was_skipped
