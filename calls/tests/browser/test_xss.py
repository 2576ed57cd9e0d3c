"""Payloads for cross-site scripting are shown as text, on every page, in a real browser.

Each payload is in every field that can hold untrusted text: caller name and number, transcript, event kinds
and data, Vapi's reason and report, summaries, notes, labels. On each page no payload may execute, open a
dialog, add an element or violate the content security policy (`Window`), and the text must be readable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from calls.tests.browser.harness import BrowserTestbed, Window, start_browser_testbed
from calls.tests.browser.xss_payloads import BREAKOUTS, PAYLOADS, TAG
from calls.tests.chromium import needs_chromium

pytestmark = [needs_chromium, pytest.mark.asyncio(loop_scope="module")]

LISTS = ("call", "utterance", "turn", "callevent", "phonenumber", "auditentry")
WAS_EXECUTED = "() => 'pwned' in window || document.querySelector('[id=pwned], [name=pwned]') !== null"
# All readable text: expanded and collapsed, and the values of fields.
READ = """() => {
  document.querySelectorAll(".calls details").forEach(each => each.open = true);
  const fields = [...document.querySelectorAll("input, textarea")].map(each => each.value);
  return [document.body.innerText, ...fields].join("\\n").replace(/\\s+/g, " ");
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def testbed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserTestbed]:
    async with start_browser_testbed(tmp_path_factory.mktemp("xss"), fixture="create_xss_rows") as testbed:
        yield testbed


async def test_there_are_forty_payloads_that_fit_the_shortest_field() -> None:
    assert len(set(PAYLOADS)) == 40
    assert max(map(len, PAYLOADS)) <= 64


async def read_page(window: Window, path: str) -> str:
    await window.open(path)
    text = str(await window.page.evaluate(READ))
    assert not await window.page.evaluate(WAS_EXECUTED), f"a payload was executed on {path}"
    return text


def normalize(text: str) -> str:
    """As `READ` returns it: browsers treat a byte order mark as whitespace."""
    return " ".join(text.replace("\ufeff", " ").split())


def find_missing(payloads: tuple[str, ...], text: str) -> list[str]:
    return [each for each in payloads if normalize(each) not in text]


async def test_each_call_page_escapes_its_payload(testbed: BrowserTestbed) -> None:
    async with testbed.open_window() as window:
        for number, payload in enumerate(PAYLOADS):
            pk = testbed.ids[str(number)]
            page = await read_page(window, f"/calls/{pk}/")
            assert find_missing((payload, f"{TAG} {payload}"), page) == []
            # Name, reason, summary, outcome, note, two utterances, kind, data, counter, label, audit log.
            assert page.count(normalize(payload)) >= 10, f"{payload} on /calls/{pk}/"
            # All fields of the admin form are escaped by the same code of Django, so a sample is enough.
            if payload in BREAKOUTS or number % 4 == 0:
                assert (
                    find_missing((payload,), await read_page(window, f"/admin/calls/call/{pk}/change/")) == []
                )


async def test_the_admin_lists_escape_every_payload(testbed: BrowserTestbed) -> None:
    async with testbed.open_window() as window:
        for name in LISTS:
            await read_page(window, f"/admin/calls/{name}/")
        assert find_missing(PAYLOADS, await read_page(window, "/calls/")) == []
        assert find_missing(PAYLOADS, await read_page(window, "/admin/calls/phonenumber/")) == []
        assert find_missing(PAYLOADS, await read_page(window, f"/calls/?q={TAG}")) == []
        path = f"/admin/calls/call/{testbed.ids['unknown-end-reason']}"
        await read_page(window, f"{path}/delete/")  # shows the shortened sid
        for page in ("change", "history"):
            text = await read_page(window, f"{path}/{page}/")
            assert find_missing(PAYLOADS[:1], text) == []
        assert "Unknown end reason" in await read_page(window, f"/calls/{testbed.ids['unknown-end-reason']}/")


async def test_the_dashboard_and_its_live_updates_escape_every_payload(
    testbed: BrowserTestbed,
) -> None:
    live_payloads = PAYLOADS[1::2]
    async with testbed.open_window(height=4000) as window:
        assert find_missing(live_payloads, await read_page(window, "/")) == []
        # After an update over the socket, which live.js inserts.
        state = window.page.locator("[data-live-word]")
        await state.get_by_text("Live", exact=True).wait_for()
        text = str(await window.page.evaluate(READ))
        assert find_missing(live_payloads, text) == []
        assert not await window.page.evaluate(WAS_EXECUTED)


async def test_the_pages_of_a_viewer_escape_every_payload(testbed: BrowserTestbed) -> None:
    async with testbed.open_window(role="viewer") as window:
        for path in (
            "/",
            "/calls/",
            f"/calls/{testbed.ids['0']}/",
            f"/calls/{testbed.ids['unknown-end-reason']}/",
        ):
            await read_page(window, path)
