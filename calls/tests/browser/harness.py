"""A real server with a real browser, for tests of the staff pages.

A `Window` collects what no page may have: errors and warnings in the console, exceptions, requests that fail
or go to another host, dialogs, violations of the content security policy. At its end,
`BrowserTestbed.open_window` asserts that there are none.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    Response,
    async_playwright,
)

from calls.tests.chromium import launch_chromium
from calls.tests.live_server import Database, LiveServer, make_server, temporary_database
from sandbox.faults import VapiFaults
from sandbox.vapi.server import VapiSimulator

WAIT_MS = 60_000.0
MAX_ERRORS = 50
Role = Literal["viewer", "operator", "admin"]

# Reports violations of the content security policy to the test.
REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", event =>
  window.reportViolation(
    `${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`)
);
"""


@dataclass(frozen=True, slots=True)
class Viewport:
    """Window width and color scheme."""

    name: str
    width: int
    scheme: Literal["light", "dark"]


LIGHT = Viewport("light", 1280, "light")
DARK = Viewport("dark", 1280, "dark")
NARROW = Viewport("narrow", 390, "light")
NARROW_DARK = Viewport("narrow-dark", 390, "dark")
VIEWPORTS = (LIGHT, DARK, NARROW, NARROW_DARK)


@dataclass
class Window:
    """A browser page and the errors on it."""

    page: Page
    origin: str
    errors: list[str] = field(default_factory=list)
    expected: set[str] = field(default_factory=set)  # URLs that should return an error status

    async def open(self, path: str, status: int = 200) -> None:
        if status >= 400:
            self.expected.add(self.origin + path)
        response = await self.page.goto(self.origin + path)
        assert response is not None and response.status == status, f"{path}: {response and response.status}"

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition that a locator cannot express."""
        try:
            async with asyncio.timeout(WAIT_MS / 1000):
                while not condition():
                    await self.page.evaluate("new Promise(requestAnimationFrame)")
        except TimeoutError:
            pytest.fail(f"not true within {WAIT_MS / 1000:.0f} s; errors: {self.errors}")

    async def find_overflow(self) -> str:
        """Elements that make the page scroll sideways; empty if none do."""
        overflow = await self.page.evaluate(
            """() => {
              const root = document.scrollingElement;
              if (root.scrollWidth <= innerWidth) return "";
              const wide = [...document.querySelectorAll("body *")].filter(
                each => each.getBoundingClientRect().right > innerWidth + 0.5).slice(0, 5);
              return `${root.scrollWidth} > ${innerWidth}: ` +
                wide.map(each => `${each.tagName}.${each.className}`).join(", ");
            }"""
        )
        return str(overflow)

    # Browser events

    def listen(self) -> None:
        page = self.page
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.add_error(f"exception: {error}"))
        page.on("dialog", self._on_dialog)
        page.on("request", self._on_request)
        page.on("requestfailed", self._on_failure)
        page.on("response", self._on_response)

    def add_error(self, error: str) -> None:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(f"{urlsplit(self.page.url).path}: {error}")

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and message.location.get("url") not in self.expected:
            self.add_error(f"console: {message.text}")

    async def _on_dialog(self, dialog: Dialog) -> None:
        self.add_error(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.origin + "/", "data:", "blob:")):
            self.add_error(f"request to another host: {request.url}")

    def _on_failure(self, request: Request) -> None:
        # Aborted: the page was left, or the response is a download.
        if request.failure != "net::ERR_ABORTED":
            self.add_error(f"failed: {request.url} {request.failure}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400 and response.url not in self.expected:
            self.add_error(f"{response.status}: {response.url}")


@dataclass(frozen=True, slots=True)
class BrowserTestbed:
    """A server, the Vapi simulator, a browser, and a session for each role."""

    server: LiveServer
    assistant: VapiSimulator
    database: Database
    browser: Browser
    session_keys: dict[str, str]  # by role
    ids: dict[str, int]  # of the rows of the fixture, by name

    @asynccontextmanager
    async def open_window(
        self,
        viewport: Viewport = LIGHT,
        role: Role | None = "admin",
        *,
        height: int = 900,
        path: str = "",
        scripts: bool = True,
    ) -> AsyncIterator[Window]:
        """A window of a user with this role; None: logged out. Asserts at the end that it had no errors."""
        context = await self.browser.new_context(
            viewport={"width": viewport.width, "height": height},
            color_scheme=viewport.scheme,
            java_script_enabled=scripts,
            locale="en-GB",
            timezone_id="Europe/London",
        )
        context.set_default_timeout(WAIT_MS)
        try:
            page = await context.new_page()
            window = Window(page, self.server.url)
            await page.expose_function(
                "reportViolation", lambda violation: window.add_error(f"policy: {violation}")
            )
            await page.add_init_script(REPORT_VIOLATIONS)
            window.listen()
            if role is not None:
                cookie = {"name": "sessionid", "value": self.session_keys[role], "url": self.server.url}
                await context.add_cookies([cookie])  # type: ignore[list-item]
            if path:
                await window.open(path)
            yield window
            assert window.errors == []
        finally:
            await context.close()


async def create_fixtures(server: LiveServer, *names: str) -> list[dict[str, Any]]:
    """Run functions of `fixtures.py` in the environment of the server; returns what each returns."""
    output = await asyncio.to_thread(server.run, "-m", "calls.tests.browser.fixtures", *names)
    return [json.loads(line) for line in output.splitlines()]


@asynccontextmanager
async def open_chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await launch_chromium(playwright)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def start_browser_testbed(
    folder: Path,
    *,
    faults: VapiFaults = VapiFaults(),  # noqa: B008 - frozen
    texts: Sequence[str] | None = None,
    fixture: str | None = None,
    **variables: str,
) -> AsyncIterator[BrowserTestbed]:
    """A testbed with a user for each role, and with the rows of a function of `fixtures.py`.

    `texts` are what the simulated assistant understands, in order.

    Debug is off, as in production, so that error pages are those that users see.
    """
    with temporary_database(folder / "rows") as database:
        async with VapiSimulator(faults=faults, listen="energy", script=texts) as assistant:
            settings = {"DJANGO_DEBUG": "off", "REDIS_URL": "", "VAPI_AUDIO_FORMAT": "mulaw"}
            server = await asyncio.to_thread(
                make_server, assistant.base_url, database.url, folder / "journal", **(settings | variables)
            )
            async with server, open_chromium() as browser:
                session_keys, *ids = await create_fixtures(
                    server, "create_users", *([fixture] if fixture else [])
                )
                yield BrowserTestbed(server, assistant, database, browser, session_keys, *(ids or [{}]))
                await server.stop()
