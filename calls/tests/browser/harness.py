"""Staff at a real browser before a real server, and everything that goes wrong there.

A `Window` keeps what no page may ever have: an error or warning in the console, an exception, a request
that failed or went to another host, a dialog, a violation of the content policy. Tests ask for it at their
end (`Window.complaints`), and `Office.window` does it for them.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
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

from calls.tests.live_server import Database, LiveServer, live_server, own_database
from sandbox.faults import AssistantDials
from sandbox.vapi.server import Assistant

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

WAIT_MS = 60_000.0
MOST_COMPLAINTS = 50
Role = Literal["viewer", "operator", "admin"]

# In a page of its own world nothing of ours runs: what breaks the policy is told to the test at once.
TELL = """
addEventListener("securitypolicyviolation", event =>
  window.tellTheTest(
    `${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`)
);
"""


@dataclass(frozen=True, slots=True)
class Look:
    """How a page is looked at."""

    name: str
    width: int
    scheme: Literal["light", "dark"]


LIGHT = Look("light", 1280, "light")
DARK = Look("dark", 1280, "dark")
NARROW = Look("narrow", 390, "light")
LOOKS = (LIGHT, DARK, NARROW)


@dataclass
class Window:
    """A page, and all that was wrong with it."""

    page: Page
    origin: str
    complaints: list[str] = field(default_factory=list)
    expected: set[str] = field(default_factory=set)  # addresses that are meant to be refused

    async def open(self, path: str, status: int = 200) -> None:
        if status >= 400:
            self.expected.add(self.origin + path)
        answer = await self.page.goto(self.origin + path)
        assert answer is not None and answer.status == status, f"{path}: {answer and answer.status}"

    async def until(self, seen: Callable[[], object]) -> None:
        """Waits for what no locator of the page's tells."""
        try:
            async with asyncio.timeout(WAIT_MS / 1000):
                while not seen():
                    await self.page.evaluate("new Promise(requestAnimationFrame)")
        except TimeoutError:
            pytest.fail(f"not seen in {WAIT_MS / 1000:.0f} s; complaints: {self.complaints}")

    async def too_wide(self) -> str:
        """What sticks out of the page at the right, so that all of it scrolls; empty when nothing does."""
        found = await self.page.evaluate(
            """() => {
              const root = document.scrollingElement;
              if (root.scrollWidth <= innerWidth) return "";
              const wide = [...document.querySelectorAll("body *")].filter(
                each => each.getBoundingClientRect().right > innerWidth + 0.5).slice(0, 5);
              return `${root.scrollWidth} > ${innerWidth}: ` +
                wide.map(each => `${each.tagName}.${each.className}`).join(", ");
            }"""
        )
        return str(found)

    # What the browser tells

    def listen(self) -> None:
        page = self.page
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complain(f"exception: {error}"))
        page.on("dialog", self._on_dialog)
        page.on("request", self._on_request)
        page.on("requestfailed", self._on_failure)
        page.on("response", self._on_response)

    def complain(self, what: str) -> None:
        if len(self.complaints) < MOST_COMPLAINTS:
            self.complaints.append(f"{urlsplit(self.page.url).path}: {what}")

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and message.location.get("url") not in self.expected:
            self.complain(f"console: {message.text}")

    async def _on_dialog(self, dialog: Dialog) -> None:
        self.complain(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.origin + "/", "data:", "blob:")):
            self.complain(f"asks elsewhere: {request.url}")

    def _on_failure(self, request: Request) -> None:
        # Aborted: by the page itself when one leaves it, or because the answer is a download.
        if request.failure != "net::ERR_ABORTED":
            self.complain(f"failed: {request.url} {request.failure}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400 and response.url not in self.expected:
            self.complain(f"{response.status}: {response.url}")


@dataclass(frozen=True, slots=True)
class Office:
    """A server, the stand-in for the assistant behind it, a browser, and somebody of each role."""

    server: LiveServer
    assistant: Assistant
    database: Database
    browser: Browser
    keys: dict[str, str]  # role -> session

    @asynccontextmanager
    async def window(
        self, look: Look = LIGHT, role: Role | None = "admin", *, height: int = 900, path: str = ""
    ) -> AsyncIterator[Window]:
        """A browser's window of somebody of this role; None: nobody has logged in. At its end all is well."""
        context = await self.browser.new_context(
            viewport={"width": look.width, "height": height},
            color_scheme=look.scheme,
            locale="en-GB",
            timezone_id="Europe/London",
        )
        context.set_default_timeout(WAIT_MS)
        try:
            page = await context.new_page()
            window = Window(page, self.server.url)
            await page.expose_function("tellTheTest", lambda what: window.complain(f"policy: {what}"))
            await page.add_init_script(TELL)
            window.listen()
            if role is not None:
                cookie = {"name": "sessionid", "value": self.keys[role], "url": self.server.url}
                await context.add_cookies([cookie])  # type: ignore[list-item]
            if path:
                await window.open(path)
            yield window
            assert window.complaints == []
        finally:
            await context.close()

    async def stage(self, *arguments: str) -> dict[str, int]:
        """Rows by name, as `staging.py` makes them; returns their ids."""
        printed = await asyncio.to_thread(self.server.run, "-m", "calls.tests.browser.staging", *arguments)
        found: dict[str, int] = json.loads(printed)
        return found


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def office(
    folder: Path,
    *,
    dials: AssistantDials = AssistantDials(),  # noqa: B008 - frozen
    words: Sequence[str] | None = None,
    **variables: str,
) -> AsyncIterator[Office]:
    """Debug is off, as in production: a page that goes wrong is the one that staff would see."""
    with own_database(folder / "rows") as database:
        async with Assistant(dials=dials, listen="energy", script=words) as assistant:
            settings = {"DJANGO_DEBUG": "off", "REDIS_URL": "", "VAPI_AUDIO_FORMAT": "mulaw"}
            server = await asyncio.to_thread(
                live_server, assistant.base_url, database.url, folder / "journal", **(settings | variables)
            )
            async with server, chromium() as browser:
                printed = await asyncio.to_thread(server.run, "-m", "calls.tests.browser.staging", "people")
                yield Office(server, assistant, database, browser, json.loads(printed))
                await server.stop()
