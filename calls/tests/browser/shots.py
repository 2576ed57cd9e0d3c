"""`make shots`: the staff pages as pictures, in `docs/shots/`, in light, dark and narrow.

The calls are real ones between the two stand-ins and a server of its own; the history behind them is made
up by `seed_calls`, from a seed. Only what a clock shows differs from one run to the next.
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
from calls.tests.browser.harness import CHROMIUM, LOOKS, Look, Office, office
from calls.tests.live_server import eventually
from sandbox.faults import VapiFaults
from sandbox.twilio.caller import CutIn, HangUp, Listen, Press, Say, Step, WaitForHangup

FOLDER = ROOT / "docs" / "shots"
MADE_UP = ("--calls", "9000", "--days", "30", "--numbers", "3", "--force")
HEIGHT, MOST_HIGH = 900, 1800
WAIT_SECONDS = 20.0
PERSON = "+15550107777"
NARROW_DARK = Look("narrow-dark", 390, "dark")
DIALS = VapiFaults(delay_ms=(700, 1600))

GOOD: Sequence[Step] = (
    Listen(), Say("move_appointment"), Listen(), Press("42#"), Listen(), Say("correct"),
    CutIn("talk_to_person", after_ms=1400), Listen(), Say("goodbye"), Listen(), HangUp(),
)  # fmt: skip
WORDS = (
    "I need to move my appointment.", "Yes, that is correct.", "Stop, I want to talk to a person.",
    "Thank you, goodbye.",
)  # fmt: skip
# Where each of the three live calls stands when the picture is taken.
LIVE: Sequence[tuple[str, Sequence[Step]]] = (
    ("+15550100134", (Listen(), Say("opening_hours"), Listen(), Say("correct"), WaitForHangup(60))),
    ("+442079460011", (Listen(), Say("move_appointment"), Listen(), WaitForHangup(60))),
    ("+15550107781", (Listen(), WaitForHangup(60))),
)


async def main() -> int:
    if CHROMIUM is None:
        print("Chromium is not installed; on Debian: apt install chromium", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with office(Path(folder), faults=DIALS, words=WORDS, FALLBACK_NUMBER=PERSON) as desk:
            await asyncio.to_thread(desk.server.run, "manage.py", "seed_calls", *MADE_UP)
            good = await _placed(desk, GOOD)
            desk.assistant.faults = replace(DIALS, rest_status=401)
            failed = await _placed(desk, (WaitForHangup(20),))
            desk.assistant.faults = DIALS
            await _take(desk, "dashboard", "/")
            await _take(desk, "call-good", f"/calls/{good}/")
            await _take(desk, "call-failed", f"/calls/{failed}/")
            await _take(desk, "calls", "/admin/calls/call/")
            async with _three_live_calls(desk):
                await _take(desk, "dashboard-live", "/")
    return 0


async def _placed(desk: Office, script: Sequence[Step]) -> int:
    """The id of a call that is over, and whose report has come if one comes."""
    record = await desk.server.twilio_simulator(rng_seed=3).place_call(script)
    query = "SELECT id FROM calls_call WHERE call_sid = %s AND ended_at IS NOT NULL AND (reported_at IS NOT"
    query += " NULL OR answered_at IS NULL)"
    rows = await eventually(lambda: desk.database.select(query, record.call_sid), bool, WAIT_SECONDS)
    await desk.stage("as_real")
    return int(rows[0][0])


@asynccontextmanager
async def _three_live_calls(desk: Office) -> AsyncIterator[None]:
    """They go on until the pictures are taken."""
    calls = [
        asyncio.create_task(
            desk.server.twilio_simulator(rng_seed=number).place_call(script, from_number=caller)
        )
        for number, (caller, script) in enumerate(LIVE)
    ]
    try:
        # Until the last of them hears its second answer.
        query = "SELECT count(*) FROM calls_utterance u JOIN calls_call c ON c.id = u.call_id"
        query += " WHERE c.status = 'in-progress'"
        await eventually(lambda: desk.database.select(query), lambda rows: rows >= [(8,)], WAIT_SECONDS)
        await desk.stage("as_real")
        yield
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def _take(desk: Office, name: str, path: str) -> None:
    """One page in every look, from its top down to where the pictures would be too long."""
    for look in (*LOOKS, NARROW_DARK):
        async with desk.window(look, height=HEIGHT, path=path) as window:
            if name.endswith("live"):
                await window.page.locator("[data-live-word]", has_text="Live").wait_for()
            # As if the window were as high as the page: what sticks to its foot is then at the foot.
            high = int(await window.page.evaluate("document.scrollingElement.scrollHeight"))
            await window.page.set_viewport_size({"width": look.width, "height": min(high, MOST_HIGH)})
            file = FOLDER / f"{name}-{look.name}.png"
            await window.page.screenshot(path=file)
            print(file.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
