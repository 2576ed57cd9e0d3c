"""The live board in a real browser, at a real server, while a real call runs."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.async_api import ConsoleMessage, Page, WebSocketRoute, async_playwright, expect

from calls.tests.live_server import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    Database,
    LiveServer,
    eventually,
    live_server,
    own_database,
)
from calls.tests.staff.live.watching import WAIT_SECONDS, log_in
from sandbox.faults import AssistantDials, CarrierApiDials
from sandbox.twilio.carrier import Listen, Pause, Say, Step
from sandbox.twilio.rest_server import CarrierApi
from sandbox.vapi.server import Assistant

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.once,
]

SID = "CA" + "d" * 32
WORDS = [f"these are words number {number}" for number in range(1, 50)]
SCRIPT: list[Step] = [step for _ in range(20) for step in (Say("correct"), Listen(timeout=8), Pause(300))]
PERSON = "+15550107777"
HASTE_MS = WAIT_SECONDS * 1000


@dataclass
class Desk:
    """A member of staff before the dashboard, and all that they look at."""

    page: Page
    server: LiveServer
    assistant: Assistant
    database: Database
    twilio: CarrierApi
    socket_is_down: bool = False
    complaints: list[str] = field(default_factory=list)

    def said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    async def route(self, socket: WebSocketRoute) -> None:
        if self.socket_is_down:
            await socket.close(code=1011)
        else:
            socket.connect_to_server()

    @asynccontextmanager
    async def call(self) -> AsyncIterator[asyncio.Task[object]]:
        calling: asyncio.Task[object] = asyncio.create_task(self._call())
        try:
            yield calling
        finally:
            calling.cancel()

    async def _call(self) -> object:
        return await self.server.carrier(exchange=self.twilio).place_call(SCRIPT, call_sid=SID)

    async def state(self, word: str) -> None:
        await expect(self.page.locator("[data-live-word]")).to_have_text(word, timeout=HASTE_MS)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with own_database(tmp_path / "rows") as database:
        yield database


@pytest.fixture
async def twilio() -> AsyncIterator[CarrierApi]:
    async with CarrierApi(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as api:
        yield api


@pytest.fixture
async def desk(database: Database, twilio: CarrierApi, tmp_path: Path) -> AsyncIterator[Desk]:
    dials = AssistantDials(delay_ms=(200, 300))
    async with Assistant(dials=dials, listen="energy", script=WORDS) as assistant:
        server = await asyncio.to_thread(
            live_server, assistant.base_url, database.url, tmp_path / "journal",
            REDIS_URL="", VAPI_AUDIO_FORMAT="mulaw", TWILIO_BASE_URL=twilio.base_url, FALLBACK_NUMBER=PERSON,
        )  # fmt: skip
        async with server, async_playwright() as playwright:
            key = await asyncio.to_thread(log_in, server, "staff", "view_call", "act_on_call")
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            context = await browser.new_context()
            await context.add_cookies([{"name": "sessionid", "value": key, "url": server.url}])
            page = await context.new_page()
            desk = Desk(page, server, assistant, database, twilio)
            page.on("console", desk.said)
            page.on("pageerror", lambda error: desk.complaints.append(str(error)))
            await page.route_web_socket("**/live*", desk.route)
            yield desk
            await browser.close()
            await server.stop()


async def test_staff_watch_a_call_speak_into_it_and_end_it(desk: Desk) -> None:
    page = desk.page
    await page.goto(desk.server.url)
    await desk.state("live")
    await expect(page.get_by_text("Nobody is on the line.")).to_be_visible()
    async with desk.call() as calling:
        row = page.locator(".live-row")
        await expect(row).to_be_visible(timeout=HASTE_MS)
        await expect(page.locator("#live-lines")).to_contain_text("1 of 50", timeout=HASTE_MS)
        await expect(row.locator(".live-words")).to_contain_text(WORDS[0], timeout=HASTE_MS)
        call = await desk.assistant.call_for(SID, WAIT_SECONDS)

        # What is open and typed stays, while the words above it change.
        await row.locator("summary").first.click()
        await page.get_by_label("Say this to the caller").fill("One moment")
        before = await row.locator(".live-words").inner_text()
        box = await row.bounding_box()
        await expect(row.locator(".live-words")).not_to_have_text(before, timeout=HASTE_MS)
        await expect(page.get_by_label("Say this to the caller")).to_be_focused()
        await page.keyboard.type(" please.")
        await expect(page.get_by_label("Say this to the caller")).to_have_value("One moment please.")
        assert await row.bounding_box() == box, "nothing moves while words come"

        await page.get_by_role("button", name="Say it").click()
        result = page.locator("[data-live-result]")
        await expect(result).to_contain_text("The assistant was told to say it.", timeout=HASTE_MS)
        await desk.assistant.until(
            lambda: any("One moment please." in str(text) for _, text in call.texts_received), WAIT_SECONDS
        )

        # A refusal is told, and changes nothing.
        await row.locator("summary").first.click()
        await row.get_by_text("Send to a human").click()
        desk.twilio.dials = CarrierApiDials(rest_status=500)
        await row.get_by_role("button", name="Send to").click()
        await expect(result).to_contain_text("Twilio has trouble of its own", timeout=HASTE_MS)
        desk.complaints.clear()  # the browser's own line about the 502

        desk.twilio.dials = CarrierApiDials()
        await row.get_by_text("Hang up", exact=True).click()
        await row.get_by_role("button", name="Hang up now").click()
        await expect(result).to_contain_text("The call was hung up.", timeout=HASTE_MS)
        await asyncio.wait_for(calling, WAIT_SECONDS)  # the line is dead
        await expect(page.get_by_text("Nobody is on the line.")).to_be_visible(timeout=HASTE_MS)
        rows = await eventually(
            lambda: desk.database.select("SELECT end_reason FROM calls_call WHERE call_sid = %s", SID),
            lambda rows: rows[0][0],
            WAIT_SECONDS,
        )
        assert rows == [("hung-up-by-staff",)]
    assert desk.complaints == []


async def test_a_page_whose_socket_is_down_polls_and_recovers_by_itself(desk: Desk) -> None:
    desk.socket_is_down = True
    page = desk.page
    await page.goto(desk.server.url)
    await desk.state("every 5 s")
    async with desk.call():
        await expect(page.locator(".live-row")).to_be_visible(timeout=HASTE_MS)
        desk.socket_is_down = False
        await desk.state("live")
        await expect(page.locator(".live-words")).to_contain_text(WORDS[0], timeout=HASTE_MS)

        # The call's own page lives in the same way.
        await page.locator(".live-row a").first.click()
        await desk.state("live")
        said = page.locator("#call-body .said")
        count = await said.count()
        await expect(said.nth(count + 1)).to_be_visible(timeout=HASTE_MS)
    assert desk.complaints == []


async def test_a_call_that_ends_under_an_open_form_stays_until_the_form_is_closed(desk: Desk) -> None:
    page = desk.page
    await page.goto(desk.server.url)
    async with desk.call():
        row = page.locator(".live-row")
        await expect(row.locator(".live-words")).to_contain_text(WORDS[0], timeout=HASTE_MS)
        await row.locator("summary").first.click()
        await page.get_by_label("Say this to the caller").fill("Are you still")
    await expect(row.locator(".live-floor")).to_have_text("the call is over", timeout=HASTE_MS)
    await expect(page.get_by_label("Say this to the caller")).to_have_value("Are you still")
    await row.locator("summary").first.click()
    await expect(row).to_have_count(0, timeout=HASTE_MS)
    assert desk.complaints == []


async def test_a_server_that_is_gone_is_told_and_found_again(desk: Desk) -> None:
    page = desk.page
    await page.goto(desk.server.url)
    await desk.state("live")
    await desk.server.stop()
    await desk.state("not connected")
    async with desk.server:
        await desk.state("live")
