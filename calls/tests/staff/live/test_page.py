"""The live board in a real browser, with a real server and a running call."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, WebSocketRoute, async_playwright, expect

from calls.tests.chromium import launch_chromium, needs_chromium
from calls.tests.live_server import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    Database,
    LiveServer,
    make_server,
    poll_until,
    temporary_database,
)
from calls.tests.staff.live.live_socket_client import WAIT_SECONDS, log_in
from sandbox.faults import TwilioRestFaults, VapiFaults
from sandbox.twilio.caller import Listen, Pause, Say, Step
from sandbox.twilio.rest.server import TwilioRestSimulator
from sandbox.vapi.server import VapiSimulator

pytestmark = [
    needs_chromium,
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.once,
    pytest.mark.asyncio(loop_scope="module"),
]

TEXTS = [f"these are words number {number}" for number in range(1, 50)]
ANY_TEXT = re.compile(r"these are words number \d+")  # a row shows the last two utterances only
SCRIPT: list[Step] = [
    step for _ in range(20) for step in (Say("correct"), Listen(timeout_seconds=8), Pause(300))
]
FALLBACK = "+15550107777"
TIMEOUT_MS = WAIT_SECONDS * 1000


@dataclass
class LivePage:
    """A browser page with the server, simulators and database behind it."""

    page: Page
    server: LiveServer
    assistant: VapiSimulator
    database: Database
    twilio: TwilioRestSimulator
    socket_is_down: bool = False
    errors: list[str] = field(default_factory=list)
    call_sid: str = field(default_factory=lambda: "CA" + uuid.uuid4().hex)

    def on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    async def route(self, socket: WebSocketRoute) -> None:
        if self.socket_is_down:
            await socket.close(code=1011)
        else:
            socket.connect_to_server()

    @asynccontextmanager
    async def place_call(self) -> AsyncIterator[asyncio.Task[object]]:
        call_task: asyncio.Task[object] = asyncio.create_task(self._place_call())
        try:
            yield call_task
        finally:
            call_task.cancel()

    async def _place_call(self) -> object:
        return await self.server.twilio_simulator(registry=self.twilio).place_call(
            SCRIPT, call_sid=self.call_sid
        )

    async def expect_state(self, text: str) -> None:
        await expect(self.page.locator("[data-live-word]")).to_have_text(text, timeout=TIMEOUT_MS)


@dataclass(frozen=True, slots=True)
class LiveTestbed:
    """A server with both simulators, a browser, and the session of a staff user; shared by the tests."""

    server: LiveServer
    assistant: VapiSimulator
    database: Database
    twilio: TwilioRestSimulator
    browser: Browser
    session_key: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def testbed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveTestbed]:
    folder = tmp_path_factory.mktemp("live")
    faults = VapiFaults(delay_ms=(200, 300))
    with temporary_database(folder / "rows") as database:
        async with (
            VapiSimulator(faults=faults, listen="energy", script=TEXTS) as assistant,
            TwilioRestSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as twilio,
        ):
            server = await asyncio.to_thread(
                make_server, assistant.base_url, database.url, folder / "journal",
                REDIS_URL="", VAPI_AUDIO_FORMAT="mulaw", TWILIO_BASE_URL=twilio.base_url,
                FALLBACK_NUMBER=FALLBACK,
            )  # fmt: skip
            async with server, async_playwright() as playwright:
                key = await asyncio.to_thread(log_in, server, "staff", "view_call", "act_on_call")
                browser = await launch_chromium(playwright)
                yield LiveTestbed(server, assistant, database, twilio, browser, key)
                await browser.close()
                await server.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def live_page(testbed: LiveTestbed) -> AsyncIterator[LivePage]:
    context = await testbed.browser.new_context()
    await context.add_cookies(
        [{"name": "sessionid", "value": testbed.session_key, "url": testbed.server.url}]
    )
    page = await context.new_page()
    live_page = LivePage(page, testbed.server, testbed.assistant, testbed.database, testbed.twilio)
    page.on("console", live_page.on_console)
    page.on("pageerror", lambda error: live_page.errors.append(str(error)))
    await page.route_web_socket("**/live*", live_page.route)
    yield live_page
    await context.close()


async def test_staff_follow_a_call_send_a_message_and_hang_up(live_page: LivePage) -> None:
    page = live_page.page
    await page.goto(live_page.server.url)
    await live_page.expect_state("Live")
    await expect(page.get_by_text("No live calls")).to_be_visible()
    async with live_page.place_call() as call_task:
        row = page.locator(".live-row")
        await expect(row).to_be_visible(timeout=TIMEOUT_MS)
        await expect(page.locator("#live-lines")).to_contain_text("1 of 50", timeout=TIMEOUT_MS)
        await expect(row.locator(".live-words")).to_contain_text(ANY_TEXT, timeout=TIMEOUT_MS)
        call = await live_page.assistant.call_for(live_page.call_sid, WAIT_SECONDS)

        # An open menu and typed text survive updates of the transcript.
        await row.locator("summary").first.click()
        await page.get_by_label("Message for the assistant to say").fill("One moment")
        before = await row.locator(".live-words").inner_text()
        box = await row.bounding_box()
        await expect(row.locator(".live-words")).not_to_have_text(before, timeout=TIMEOUT_MS)
        await expect(page.get_by_label("Message for the assistant to say")).to_be_focused()
        await page.keyboard.type(" please.")
        await expect(page.get_by_label("Message for the assistant to say")).to_have_value(
            "One moment please."
        )
        assert await row.bounding_box() == box, "the layout shifted"

        await page.get_by_role("button", name="Say", exact=True).click()
        result = page.locator("[data-live-result]")
        await expect(result).to_contain_text("Message sent to the assistant.", timeout=TIMEOUT_MS)
        await live_page.assistant.until(
            lambda: any("One moment please." in str(text) for _, text in call.messages_received), WAIT_SECONDS
        )

        # A rejection is shown and changes nothing.
        await row.locator("summary").first.click()
        await row.get_by_text("Transfer", exact=True).click()
        live_page.twilio.faults = TwilioRestFaults(rest_status=500)
        await row.get_by_role("button", name="Transfer to").click()
        await expect(result).to_contain_text("Twilio failed with status", timeout=TIMEOUT_MS)
        live_page.errors.clear()  # the browser logs the 502

        live_page.twilio.faults = TwilioRestFaults()
        await row.get_by_text("Hang up", exact=True).click()
        await row.get_by_role("button", name="Hang up now").click()
        await expect(result).to_contain_text("Call ended.", timeout=TIMEOUT_MS)
        await asyncio.wait_for(call_task, WAIT_SECONDS)
        await expect(page.get_by_text("No live calls")).to_be_visible(timeout=TIMEOUT_MS)
        rows = await poll_until(
            lambda: live_page.database.select(
                "SELECT end_reason FROM calls_call WHERE call_sid = %s", live_page.call_sid
            ),
            lambda rows: rows[0][0],
            WAIT_SECONDS,
        )
        assert rows == [("hung-up-by-staff",)]
    assert live_page.errors == []


async def test_a_page_without_a_socket_polls_and_reconnects(live_page: LivePage) -> None:
    live_page.socket_is_down = True
    page = live_page.page
    await page.goto(live_page.server.url)
    await live_page.expect_state("Updates every 5 s")
    async with live_page.place_call():
        await expect(page.locator(".live-row")).to_be_visible(timeout=TIMEOUT_MS)
        live_page.socket_is_down = False
        await live_page.expect_state("Live")
        await expect(page.locator(".live-words")).to_contain_text(ANY_TEXT, timeout=TIMEOUT_MS)

        # The call's page updates the same way.
        await page.locator(".live-row a").first.click()
        await live_page.expect_state("Live")
        utterances = page.locator("#call-body .said")
        count = await utterances.count()
        await expect(utterances.nth(count + 1)).to_be_visible(timeout=TIMEOUT_MS)
    assert live_page.errors == []


async def test_the_menu_closes_with_escape_and_with_the_call(live_page: LivePage) -> None:
    page = live_page.page
    await page.goto(live_page.server.url)
    async with live_page.place_call():
        row = page.locator(".live-row")
        await expect(row.locator(".live-words")).to_contain_text(ANY_TEXT, timeout=TIMEOUT_MS)
        assert await page.title() == "(1) Dashboard · voiceai"
        message = page.get_by_label("Message for the assistant to say")
        await row.locator("summary").first.click()
        await message.fill("Are you")
        await page.keyboard.press("Escape")
        await expect(message).to_be_hidden()
        await expect(row.locator("summary").first).to_be_focused()
        await row.locator("summary").first.click()
        await message.fill("Are you still")
        setup = page.get_by_text("Setup: required settings")
        box = await setup.bounding_box()
    await expect(row.locator(".live-floor")).to_have_text("Call ended", timeout=TIMEOUT_MS)
    await expect(message).to_have_count(0)
    await expect(row).to_have_count(0, timeout=TIMEOUT_MS)
    assert await setup.bounding_box() == box, "what is below the board stays where it was"
    assert await page.title() == "Dashboard · voiceai"
    assert live_page.errors == []


async def test_the_page_reports_a_lost_server_and_reconnects(live_page: LivePage) -> None:
    page = live_page.page
    await page.goto(live_page.server.url)
    await live_page.expect_state("Live")
    await live_page.server.stop()
    await live_page.expect_state("Disconnected")
    await live_page.server.start()
    await live_page.expect_state("Live")
