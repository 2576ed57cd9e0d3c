"""From the dashboard, one or two clicks lead to a call's transcript, slowest turn and cost.

The call is placed between the two simulators and a real server. Every value on the pages is compared with
the row it comes from.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from decimal import ROUND_HALF_UP, Decimal

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from calls.tests.browser.harness import BrowserTestbed, start_browser_testbed
from calls.tests.chromium import needs_chromium
from calls.tests.live_server import poll_until
from sandbox.faults import VapiFaults
from sandbox.twilio.caller import BargeIn, HangUp, Listen, Press, Say

pytestmark = [needs_chromium, pytest.mark.asyncio(loop_scope="module")]

SCRIPT = (
    Listen(), Say("opening_hours"), Listen(), Press("42#"), Listen(), Say("correct"),
    BargeIn("talk_to_person", after_ms=900), Listen(), HangUp(),
)  # fmt: skip
FAULTS = VapiFaults(delay_ms=(300, 600))
CALL = (
    "SELECT id, call_sid, end_reason, turn_count, p50_latency_ms, worst_latency_ms,"
    " vapi_cost + stream_price, from_number FROM calls_call"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def testbed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserTestbed]:
    """A server after one call, with its report."""
    async with start_browser_testbed(tmp_path_factory.mktemp("story"), faults=FAULTS) as testbed:
        record = await testbed.server.twilio_simulator(rng_seed=3).place_call(SCRIPT)
        assert record.heard_segments
        is_reported = "SELECT turn_count FROM calls_call WHERE turn_count > 0 AND vapi_cost IS NOT NULL"
        await poll_until(lambda: testbed.database.select(is_reported), bool, 20)
        yield testbed


def format_seconds(ms: int) -> str:
    return f"{(ms + 5) // 10 / 100:.2f} s"


async def open_from_dashboard(page: Page, pk: int) -> None:
    """Click the row of the call."""
    await page.locator(f'a[href="/calls/{pk}/"]').first.click()
    await page.wait_for_url(f"**/calls/{pk}/")


async def test_the_dashboard_shows_the_call_and_its_metrics(testbed: BrowserTestbed) -> None:
    ((pk, _, _, turns, p50, worst, cost, number),) = testbed.database.select(CALL)
    latencies = [row[0] for row in testbed.database.select("SELECT response_latency_ms FROM calls_turn")]
    answered = [each for each in latencies if each is not None]
    async with testbed.open_window(path="/") as window:
        row = window.page.locator("tr", has=window.page.locator(f'a[href="/calls/{pk}/"]'))
        for value in (
            number,
            format_seconds(p50),
            format_seconds(worst),
            format_dollars(cost),
            "Caller hung up",
        ):
            await expect(row).to_contain_text(value)
        figures = window.page.locator("dl.figures")
        await expect(figures).to_contain_text(f"{len(answered)} turns")
        await expect(figures).to_contain_text(format_dollars(cost))
        assert (turns, worst) == (len(latencies), max(answered))


async def test_one_click_leads_to_the_transcript(testbed: BrowserTestbed) -> None:
    ((pk, sid, *_),) = testbed.database.select(CALL)
    async with testbed.open_window(path="/") as window:
        await open_from_dashboard(window.page, pk)
        lines = window.page.locator("ol.transcript li.line")
        utterances = testbed.database.select_utterances(sid)
        assert len(utterances) >= 6
        await expect(lines).to_have_count(len(utterances))
        for line, (speaker, text) in zip(await lines.all(), utterances, strict=True):
            await expect(line.locator(".who")).to_have_text(speaker.capitalize())
            shown = " ".join((await line.locator(".said").inner_text()).split())
            assert shown.startswith(text), (shown, text)


async def test_two_clicks_lead_to_the_slowest_turn_and_its_parts(testbed: BrowserTestbed) -> None:
    ((pk, *_),) = testbed.database.select(CALL)
    ((number, t0, endpointed, t1, t2, t3, latency, overhead),) = testbed.database.select(
        "SELECT number, end_of_speech_ms, endpointed_ms, first_audio_ms, sent_ms, heard_ms,"
        " response_latency_ms, bridge_overhead_us FROM calls_turn WHERE response_latency_ms IS NOT NULL"
        " ORDER BY response_latency_ms DESC LIMIT 1"
    )
    async with testbed.open_window(path="/") as window:
        await open_from_dashboard(window.page, pk)
        link = re.compile(rf"urn {number}\b.*{format_seconds(latency)}")
        await window.page.get_by_role("link", name=link).click()
        await window.page.wait_for_url(f"**/calls/{pk}/#turn-{number}")
        row = window.page.locator(f"#turn-{number}")
        await expect(row).to_be_in_viewport()
        await expect(row).to_contain_text(format_seconds(latency))
        await window.page.locator("#turns summary").click()
        turn = window.page.locator("#turns tbody tr").nth(number - 1)
        await expect(turn).to_contain_text(f"{overhead} µs")
        await expect(turn).to_contain_text("slowest")
        label = str(await row.locator("svg").get_attribute("aria-label"))
        parts = {name: int(ms) for name, ms in re.findall(r"([a-z ]+?) (\d+) ms", label.split("(")[1])}
        measured = {
            "endpointing": endpointed - t0, "model and voice": t1 - endpointed,
            "bridge": t2 - t1, "phone line": t3 - t2,
        }  # fmt: skip
        assert {name.strip(): ms for name, ms in parts.items()} == measured


async def test_one_click_leads_to_the_cost(testbed: BrowserTestbed) -> None:
    ((pk, *_, cost, _),) = testbed.database.select(CALL)
    async with testbed.open_window(path="/") as window:
        await open_from_dashboard(window.page, pk)
        await expect(window.page.locator(".cost")).to_have_text(format_dollars(cost))
        ((stream, vapi),) = testbed.database.select("SELECT stream_price, vapi_cost FROM calls_call")
        costs = f"media stream {format_dollars(stream)}, Vapi {format_dollars(vapi)}"
        await expect(window.page.locator(".head")).to_contain_text(costs)


async def test_a_note_is_saved(testbed: BrowserTestbed) -> None:
    ((pk, *_),) = testbed.database.select(CALL)
    async with testbed.open_window(path=f"/calls/{pk}/") as window:
        await window.page.get_by_label("Outcome").fill("booked")
        await window.page.get_by_label("Needs review").check()
        await window.page.get_by_role("button", name="Save").click()
        await expect(window.page.get_by_text("Changes saved.")).to_be_visible()
        rows = await asyncio.to_thread(
            testbed.database.select, "SELECT outcome, needs_review FROM calls_call WHERE id = %s", pk
        )
        assert [(outcome, bool(review)) for outcome, review in rows] == [("booked", True)]


def format_dollars(amount: object) -> str:
    """An amount of a cent or more, as pages show it: three decimals under ten cents, halves rounded up."""
    rounded = Decimal(str(amount)).quantize(Decimal("0.00001"))
    step = Decimal("0.001") if 0 < rounded < Decimal("0.1") else Decimal("0.01")
    return f"${rounded.quantize(step, ROUND_HALF_UP)}"
