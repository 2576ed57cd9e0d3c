"""Forty strings that try to be more than text stay text, on every page, in a real browser.

Each string stands wherever somebody else's words may come to stand: caller's name and number, what was said,
kinds and data of events, Vapi's reasons and report, summaries, notes, labels. On each page nothing may run,
open a dialog, leave an element behind, or break the content policy (`Window`), and the words must be there
to be read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from calls.tests.browser.harness import Office, Window, needs_chromium, office
from calls.tests.browser.injection import STRINGS, TAG

pytestmark = [needs_chromium, pytest.mark.asyncio(loop_scope="module")]

LISTS = ("call", "utterance", "turn", "callevent", "phonenumber", "auditentry")
BROKE_OUT = "() => 'pwned' in window || document.querySelector('[id=pwned], [name=pwned]') !== null"
# What can be read: all text, folded or not, and what stands in fields.
READ = """() => {
  document.querySelectorAll(".calls details").forEach(each => each.open = true);
  const fields = [...document.querySelectorAll("input, textarea")].map(each => each.value);
  return [document.body.innerText, ...fields].join("\\n").replace(/\\s+/g, " ");
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Office, dict[str, int]]]:
    async with office(tmp_path_factory.mktemp("injection")) as desk:
        yield desk, await desk.stage("injection")


async def test_there_are_forty_and_each_fits_into_the_shortest_field() -> None:
    assert len(set(STRINGS)) == 40
    assert max(map(len, STRINGS)) <= 64


async def read(window: Window, path: str) -> str:
    await window.open(path)
    text = str(await window.page.evaluate(READ))
    assert not await window.page.evaluate(BROKE_OUT), f"something broke out on {path}"
    return text


def folded(text: str) -> str:
    """As `READ` gives it: a browser takes a byte order mark for a blank."""
    return " ".join(text.replace("\ufeff", " ").split())


def missing(strings: tuple[str, ...], text: str) -> list[str]:
    return [each for each in strings if folded(each) not in text]


@pytest.mark.timeout(900)  # eighty pages
async def test_each_call_shows_its_string_as_text(desk: tuple[Office, dict[str, int]]) -> None:
    room, ids = desk
    async with room.window() as window:
        for number, string in enumerate(STRINGS):
            pk = ids[str(number)]
            page = await read(window, f"/calls/{pk}/")
            assert missing((string, f"{TAG} {string}"), page) == []
            # Name, reason, summary, outcome, note, two utterances, kind, data, counter, label, what was done.
            assert page.count(folded(string)) >= 10, f"{string} on /calls/{pk}/"
            assert missing((string,), await read(window, f"/admin/calls/call/{pk}/change/")) == []


async def test_the_lists_show_them_as_text(desk: tuple[Office, dict[str, int]]) -> None:
    room, ids = desk
    async with room.window() as window:
        for name in LISTS:
            await read(window, f"/admin/calls/{name}/")
        assert missing(STRINGS, await read(window, "/admin/calls/call/")) == []
        assert missing(STRINGS, await read(window, "/admin/calls/phonenumber/")) == []
        assert missing(STRINGS, await read(window, f"/admin/calls/call/?q={TAG}")) == []
        await read(window, f"/admin/calls/call/{ids['strange']}/delete/")  # names it by its shortened sid
        for page in ("change", "history"):
            text = await read(window, f"/admin/calls/call/{ids['strange']}/{page}/")
            assert missing(STRINGS[:1], text) == []
        assert "no words for" in await read(window, f"/calls/{ids['strange']}/")


async def test_the_dashboard_shows_them_as_text_also_as_they_come(
    desk: tuple[Office, dict[str, int]],
) -> None:
    room, _ = desk
    on_the_line = STRINGS[1::2]
    async with room.window(height=4000) as window:
        assert missing(on_the_line, await read(window, "/")) == []
        # What the socket brings is put into the page by our own script.
        state = window.page.locator("[data-live-word]")
        await state.get_by_text("live", exact=True).wait_for()
        text = str(await window.page.evaluate(READ))
        assert missing(on_the_line, text) == []
        assert not await window.page.evaluate(BROKE_OUT)


async def test_a_viewer_meets_them_as_text_too(desk: tuple[Office, dict[str, int]]) -> None:
    room, ids = desk
    async with room.window(role="viewer") as window:
        for path in ("/", "/admin/calls/call/", f"/calls/{ids['0']}/", f"/calls/{ids['strange']}/"):
            await read(window, path)
