"""Cross-site scripting attempts are shown as text, on every page, in a real browser.

Each string is in every field that can hold foreign text: caller name and number, transcript, event kinds and
data, Vapi's reason and report, summaries, notes, labels. On each page nothing may execute, open a dialog,
leave an element behind or violate the content security policy (`Window`), and the text must be readable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from calls.tests.browser.harness import Site, Window, running_site
from calls.tests.browser.injection import BREAKOUTS, STRINGS, TAG
from calls.tests.chromium import needs_chromium

pytestmark = [needs_chromium, pytest.mark.asyncio(loop_scope="module")]

LISTS = ("call", "utterance", "turn", "callevent", "phonenumber", "auditentry")
BROKE_OUT = "() => 'pwned' in window || document.querySelector('[id=pwned], [name=pwned]') !== null"
# All readable text: expanded and collapsed, and the values of fields.
READ = """() => {
  document.querySelectorAll(".calls details").forEach(each => each.open = true);
  const fields = [...document.querySelectorAll("input, textarea")].map(each => each.value);
  return [document.body.innerText, ...fields].join("\\n").replace(/\\s+/g, " ");
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(tmp_path_factory.mktemp("injection"), rows="injection") as site:
        yield site


async def test_there_are_forty_strings_that_fit_the_shortest_field() -> None:
    assert len(set(STRINGS)) == 40
    assert max(map(len, STRINGS)) <= 64


async def read_page(window: Window, path: str) -> str:
    await window.open(path)
    text = str(await window.page.evaluate(READ))
    assert not await window.page.evaluate(BROKE_OUT), f"a string executed on {path}"
    return text


def normalize(text: str) -> str:
    """As `READ` returns it: browsers treat a byte order mark as whitespace."""
    return " ".join(text.replace("\ufeff", " ").split())


def missing(strings: tuple[str, ...], text: str) -> list[str]:
    return [each for each in strings if normalize(each) not in text]


async def test_each_call_page_escapes_its_string(site: Site) -> None:
    async with site.window() as window:
        for number, string in enumerate(STRINGS):
            pk = site.ids[str(number)]
            page = await read_page(window, f"/calls/{pk}/")
            assert missing((string, f"{TAG} {string}"), page) == []
            # Name, reason, summary, outcome, note, two utterances, kind, data, counter, label, audit log.
            assert page.count(normalize(string)) >= 10, f"{string} on /calls/{pk}/"
            # There the fields of Django's own forms escape it, all in the same way.
            if string in BREAKOUTS or number % 4 == 0:
                assert missing((string,), await read_page(window, f"/admin/calls/call/{pk}/change/")) == []


async def test_the_lists_escape_them(site: Site) -> None:
    async with site.window() as window:
        for name in LISTS:
            await read_page(window, f"/admin/calls/{name}/")
        assert missing(STRINGS, await read_page(window, "/calls/")) == []
        assert missing(STRINGS, await read_page(window, "/admin/calls/phonenumber/")) == []
        assert missing(STRINGS, await read_page(window, f"/calls/?q={TAG}")) == []
        await read_page(window, f"/admin/calls/call/{site.ids['strange']}/delete/")  # shows the shortened sid
        for page in ("change", "history"):
            text = await read_page(window, f"/admin/calls/call/{site.ids['strange']}/{page}/")
            assert missing(STRINGS[:1], text) == []
        assert "Unknown end reason" in await read_page(window, f"/calls/{site.ids['strange']}/")


async def test_the_dashboard_and_its_live_updates_escape_them(
    site: Site,
) -> None:
    live_strings = STRINGS[1::2]
    async with site.window(height=4000) as window:
        assert missing(live_strings, await read_page(window, "/")) == []
        # After an update over the socket, which live.js inserts.
        state = window.page.locator("[data-live-word]")
        await state.get_by_text("Live", exact=True).wait_for()
        text = str(await window.page.evaluate(READ))
        assert missing(live_strings, text) == []
        assert not await window.page.evaluate(BROKE_OUT)


async def test_the_pages_of_a_viewer_escape_them(site: Site) -> None:
    async with site.window(role="viewer") as window:
        for path in ("/", "/calls/", f"/calls/{site.ids['0']}/", f"/calls/{site.ids['strange']}/"):
            await read_page(window, path)
