"""`make shots`: screenshots of the staff pages in `docs/shots/`, in light, dark and narrow viewports.

The calls run between the two simulators and a separate server; the history behind them comes from
`seed_calls` with a fixed seed. Only times differ from one run to the next.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from calls.demo.server_process import ROOT
from calls.tests.browser.harness import VIEWPORTS, BrowserTestbed, create_fixtures, start_browser_testbed
from calls.tests.chromium import CHROMIUM
from calls.tests.live_server import poll_until
from sandbox.faults import VapiFaults
from sandbox.twilio.caller import BargeIn, HangUp, Listen, Press, Say, Step, WaitForHangup

FOLDER = ROOT / "docs" / "shots"
SEED_OPTIONS = ("--calls", "9000", "--days", "30", "--numbers", "3", "--force")
HEIGHT, MAX_HEIGHT = 900, 1800
WAIT_SECONDS = 20.0
FALLBACK = "+15550107777"
FAULTS = VapiFaults(delay_ms=(700, 1600))

GOOD: Sequence[Step] = (
    Listen(), Say("move_appointment"), Listen(), Press("42#"), Listen(), Say("correct"),
    BargeIn("talk_to_person", after_ms=1400), Listen(), Say("goodbye"), Listen(), HangUp(),
)  # fmt: skip
TEXTS = (
    "I need to move my appointment.", "Yes, that is correct.", "Stop, I want to talk to a person.",
    "Thank you, goodbye.",
)  # fmt: skip
# The caller and script of each of the three live calls.
LIVE: Sequence[tuple[str, Sequence[Step]]] = (
    ("+15550100134", (Listen(), Say("opening_hours"), Listen(), Say("correct"), WaitForHangup(60))),
    ("+442079460011", (Listen(), Say("move_appointment"), Listen(), WaitForHangup(60))),
    ("+15550107781", (Listen(), WaitForHangup(60))),
)


async def main() -> int:
    if CHROMIUM is None:
        print("Chromium is not installed; on Debian: apt install chromium-headless-shell", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with start_browser_testbed(
            Path(folder), faults=FAULTS, texts=TEXTS, FALLBACK_NUMBER=FALLBACK
        ) as testbed:
            await asyncio.to_thread(testbed.server.run, "manage.py", "seed_calls", *SEED_OPTIONS)
            good = await _place_call(testbed, GOOD)
            testbed.assistant.faults = replace(FAULTS, rest_status=401)
            failed = await _place_call(testbed, (WaitForHangup(20),))
            testbed.assistant.faults = FAULTS
            await _take_screenshots(testbed, "dashboard", "/")
            await _take_screenshots(testbed, "call-good", f"/calls/{good}/")
            await _take_screenshots(testbed, "call-failed", f"/calls/{failed}/")
            await _take_screenshots(testbed, "calls", "/calls/")
            async with _keep_three_calls_live(testbed):
                await _take_screenshots(testbed, "dashboard-live", "/")
    return 0


async def _place_call(testbed: BrowserTestbed, script: Sequence[Step]) -> int:
    """Place a call; returns its id once it has ended and its report, if any, has arrived."""
    record = await testbed.server.twilio_simulator(rng_seed=3).place_call(script)
    query = "SELECT id FROM calls_call WHERE call_sid = %s AND ended_at IS NOT NULL AND (reported_at IS NOT"
    query += " NULL OR answered_at IS NULL)"
    rows = await poll_until(lambda: testbed.database.select(query, record.call_sid), bool, WAIT_SECONDS)
    await create_fixtures(testbed.server, "mark_as_real")
    return int(rows[0][0])


@asynccontextmanager
async def _keep_three_calls_live(testbed: BrowserTestbed) -> AsyncIterator[None]:
    """Until the block ends, three calls are live."""
    calls = [
        asyncio.create_task(
            testbed.server.twilio_simulator(rng_seed=number).place_call(script, from_number=caller)
        )
        for number, (caller, script) in enumerate(LIVE)
    ]
    try:
        # Until all of them have eight utterances, the last of which is the second response.
        query = "SELECT count(*) FROM calls_utterance u JOIN calls_call c ON c.id = u.call_id"
        query += " WHERE c.status = 'in-progress'"
        await poll_until(lambda: testbed.database.select(query), lambda rows: rows >= [(8,)], WAIT_SECONDS)
        await create_fixtures(testbed.server, "mark_as_real")
        yield
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def _take_screenshots(testbed: BrowserTestbed, name: str, path: str) -> None:
    """One page in every viewport, from the top to `MAX_HEIGHT`."""
    for viewport in VIEWPORTS:
        async with testbed.open_window(viewport, height=HEIGHT, path=path) as window:
            if name.endswith("live"):
                await window.page.locator("[data-live-word]", has_text="Live").wait_for()
            # Resize to the page's height, so that a sticky footer is at the end of the screenshot.
            height = int(await window.page.evaluate("document.scrollingElement.scrollHeight"))
            await window.page.set_viewport_size({"width": viewport.width, "height": min(height, MAX_HEIGHT)})
            file = FOLDER / f"{name}-{viewport.name}.png"
            await window.page.screenshot(path=file)
            print(file.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
