"""Every staff page in a real browser: light, dark and narrow, without errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from calls.tests.browser.fixtures import PASSWORD
from calls.tests.browser.harness import (
    DARK,
    LIGHT,
    NARROW,
    NARROW_DARK,
    BrowserTestbed,
    Viewport,
    Window,
    start_browser_testbed,
)
from calls.tests.chromium import needs_chromium

pytestmark = [needs_chromium, pytest.mark.asyncio(loop_scope="module")]

CALL_PAGES = ("good", "failed", "live", "empty")
LISTS = (
    "calls/call", "calls/utterance", "calls/turn", "calls/callevent", "calls/phonenumber",
    "calls/auditentry", "auth/user", "auth/group",
)  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def testbed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserTestbed]:
    async with start_browser_testbed(tmp_path_factory.mktemp("pages"), fixture="create_page_rows") as testbed:
        yield testbed


def list_paths(ids: dict[str, int]) -> list[str]:
    dashboards = ["/", "/?range=7d", "/?range=30d", "/?since=2026-01-01&until=2026-02-01", "/?since=nonsense"]
    calls = [f"/calls/{ids[name]}/" for name in CALL_PAGES]
    lists = [f"/admin/{name}/" for name in LISTS]
    searched = [
        "/calls/",
        "/calls/?q=thursday&range=7d&sort=-slowest",
        "/calls/?ended=failed",
        "/calls/?q=nobody&since=nonsense",
        "/admin/calls/call/?q=thursday&ended=failed",
    ]
    rows = [
        f"/admin/calls/call/{ids['good']}/change/", f"/admin/calls/call/{ids['good']}/history/",
        f"/admin/calls/call/{ids['good']}/delete/", f"/admin/calls/utterance/{ids['utterance']}/change/",
        f"/admin/calls/turn/{ids['turn']}/change/", f"/admin/calls/callevent/{ids['event']}/change/",
        f"/admin/calls/phonenumber/{ids['number']}/change/", "/admin/calls/phonenumber/add/",
        f"/admin/auth/user/{ids['user']}/change/", "/admin/auth/user/add/",
    ]  # fmt: skip
    return [*dashboards, *calls, "/set-up", "/admin/", "/admin/password_change/", *lists, *searched, *rows]


# Each width and each color scheme once.
WIDE_AND_NARROW = pytest.mark.parametrize("viewport", [LIGHT, NARROW_DARK], ids=["light", "narrow-dark"])


@WIDE_AND_NARROW
async def test_every_page_opens_without_errors(testbed: BrowserTestbed, viewport: Viewport) -> None:
    overflowing = {}
    async with testbed.open_window(viewport) as window:
        for path in list_paths(testbed.ids):
            await window.open(path)
            if overflow := await window.find_overflow():
                overflowing[path] = overflow
    if viewport is NARROW_DARK:
        assert overflowing == {}


@WIDE_AND_NARROW
async def test_403_and_404_are_pages(testbed: BrowserTestbed, viewport: Viewport) -> None:
    async with testbed.open_window(viewport, "viewer") as window:
        for path, status in (("/calls/999999/", 404), ("/nowhere/", 404), ("/admin/auth/user/", 403)):
            await window.open(path, status)
            assert await window.find_overflow() == ""
            await expect(window.page.get_by_role("link", name="Dashboard").first).to_be_attached()


async def test_login_redirects_to_the_requested_page(
    testbed: BrowserTestbed,
) -> None:
    async with testbed.open_window(NARROW, None) as window:
        page = window.page
        await window.open(f"/calls/{testbed.ids['good']}/")
        assert await window.find_overflow() == ""
        await page.get_by_label("Username").fill("viewer")
        await page.get_by_label("Password").fill("not the password")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Please enter the correct username and password")).to_be_visible()
        await page.get_by_label("Password").fill(PASSWORD)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/calls/{testbed.ids['good']}/")
        await expect(page.get_by_text("Thursday afternoon.")).to_be_visible()


@pytest.mark.parametrize("viewport", [LIGHT, DARK], ids=["light", "dark"])
async def test_every_text_has_enough_contrast(testbed: BrowserTestbed, viewport: Viewport) -> None:
    """WCAG AA: 4.5 to 1, or 3 to 1 for large text."""
    low_contrast: dict[str, list[str]] = {}
    async with testbed.open_window(viewport) as window:
        for path in (
            "/",
            *(f"/calls/{testbed.ids[name]}/" for name in CALL_PAGES),
            "/calls/?q=thursday&direction=inbound",
        ):
            await window.open(path)
            await window.page.evaluate(
                "document.querySelectorAll('.calls details').forEach(each => each.open = true)"
            )
            if elements := await window.page.evaluate(CONTRAST):
                low_contrast[path] = elements
    assert low_contrast == {}


# CSS colors come in many notations. A canvas turns them into numbers.
CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = color => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const blend = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3]));
  const background = element => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) {
      layers.push(rgba(getComputedStyle(each).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reverse().reduce((below, layer) => blend(layer, below), [255, 255, 255]);
  };
  const luminance = color => {
    const [r, g, b] = color.map(value => value / 255).map(
      value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const lowContrast = new Set();
  for (const element of document.querySelectorAll(".calls *, #result_list *, .list-foot *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    const style = getComputedStyle(element), back = background(element);
    const [a, b] = [luminance(blend(rgba(style.color), back)), luminance(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5))
      lowContrast.add(`${ratio.toFixed(2)} ${element.tagName}.${element.className} `
        + element.textContent.trim().slice(0, 40));
  }
  return [...lowContrast].slice(0, 20);
}"""


ERRORS = {
    "console: a message": "console.error('a message')",
    "exception: a bug": "setTimeout(() => { throw new Error('a bug') })",
    "dialog: hello": "setTimeout(() => alert('hello'))",
    "policy: script-src-elem inline": "document.body.append(Object.assign(document.createElement('script'),"
    " {textContent: '1'}))",
    "policy: connect-src http://elsewhere.invalid/": "fetch('http://elsewhere.invalid/').catch(() => 0)",
    "404: ": "fetch('/nowhere').catch(() => 0)",
}


def has_error(window: Window, error: str) -> bool:
    return any(error in each for each in window.errors)


async def test_the_harness_detects_every_kind_of_error(testbed: BrowserTestbed) -> None:
    async with testbed.open_window(NARROW, path="/") as window:
        for error, script in ERRORS.items():
            await window.page.evaluate(f"() => {{ {script} }}")
            await window.wait_until(partial(has_error, window, error))
            window.errors.clear()
        await window.page.evaluate("document.querySelector('.calls h2').style.minWidth = '900px'")
        assert "H2" in await window.find_overflow()
        await window.page.evaluate("document.querySelector('.calls h2').style.color = '#999'")
        assert any("H2" in each for each in await window.page.evaluate(CONTRAST))
        window.errors.clear()


COVERED = """() => {
  const texts = [...document.querySelectorAll("#main, #content, main, .calls, form, table, h1")];
  const covering = [...document.querySelectorAll("body *")].filter(each => {
    const style = getComputedStyle(each), box = each.getBoundingClientRect();
    return ["fixed", "absolute"].includes(style.position) && style.visibility == "visible"
      && box.width * box.height > innerWidth * innerHeight / 4;
  });
  return [texts.some(each => each.getClientRects().length),
          covering.map(each => `${each.tagName}#${each.id}.${each.className}`)];
}"""


@pytest.mark.parametrize("viewport", [LIGHT, NARROW], ids=["light", "narrow"])
async def test_every_page_is_readable_without_javascript(testbed: BrowserTestbed, viewport: Viewport) -> None:
    async with testbed.open_window(viewport, scripts=False) as window:
        for path in list_paths(testbed.ids):
            await window.open(path)
            is_visible, covering = await window.page.evaluate(COVERED)
            assert is_visible and covering == [], path


# The names of two landmarks of the admin theme's scroll bars, and of icons in Django's own selection widget.
NOT_OURS = ("landmark-unique", "aria-prohibited-attr")


@pytest.mark.parametrize("viewport", [LIGHT, NARROW_DARK], ids=["light", "narrow-dark"])
async def test_axe_finds_no_violation(testbed: BrowserTestbed, viewport: Viewport) -> None:
    options = {"resultTypes": ["violations"], "rules": {name: {"enabled": False} for name in NOT_OURS}}
    violations: dict[str, dict[str, list[str]]] = {}
    async with testbed.open_window(viewport) as window:
        for path in list_paths(testbed.ids):
            await window.open(path)
            result = await Axe().run(window.page, options=options)
            for violation in result.response["violations"]:
                nodes = [str(node["target"]) for node in violation["nodes"]]
                violations.setdefault(path, {})[violation["id"]] = nodes[:4]
    assert violations == {}
