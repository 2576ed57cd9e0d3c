"""The list of calls in a real browser: filters, search, export, and changes to many at once."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from calls.tests.browser.harness import Office, needs_chromium, office

pytestmark = [needs_chromium, pytest.mark.asyncio(loop_scope="module")]

LIST = "/admin/calls/call/"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Office, dict[str, int]]]:
    async with office(tmp_path_factory.mktemp("admin")) as desk:
        yield desk, await desk.stage("listed")


def asked(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


async def search(page: Page, words: str) -> None:
    """As staff do it: the key, the words, enter."""
    await page.keyboard.press("/")
    await expect(page.locator("#searchbar")).to_be_focused()
    await page.keyboard.type(words)
    await page.keyboard.press("Enter")
    await page.wait_for_url(lambda url: words.split()[0] in url.replace("%2B", "+").replace("+", " +"))


async def test_a_filter_stays_in_the_address_through_search_and_pages(
    desk: tuple[Office, dict[str, int]],
) -> None:
    room, ids = desk
    async with room.window(path=LIST) as window:
        page = window.page
        await expect(page.locator("#result_list tbody tr")).to_have_count(50)
        await page.locator("a", has_text=re.compile(r"^\s*Filters")).click()
        await page.locator("a[href*='ended=failed']").first.click()
        await page.wait_for_url("**ended=failed**")
        await expect(page.locator("#result_list tbody tr")).to_have_count(1)
        await search(page, "lighthouse")
        assert asked(page)["ended"] == ["failed"] and asked(page)["q"] == ["lighthouse"]
        await expect(page.locator("#result_list tbody tr")).to_have_count(1)
        await expect(page.locator("#result_list mark")).to_have_text("lighthouse")
        await page.go_back()
        assert "q" not in asked(page) and asked(page)["ended"] == ["failed"]
        await page.goto(f"{room.server.url}{LIST}?p=2")
        await expect(page.locator("#result_list tbody tr")).to_have_count(ids["calls"] - 50)


@pytest.mark.parametrize("what", ["sid", "number", "words"])
async def test_a_call_is_found_by_what_staff_know_of_it(
    desk: tuple[Office, dict[str, int]], what: str
) -> None:
    room, ids = desk
    ((sid, number),) = room.database.select(
        "SELECT call_sid, from_number FROM calls_call WHERE id = %s", ids["rare"]
    )
    async with room.window(path=LIST) as window:
        page = window.page
        await page.locator("#searchbar").fill(
            {"sid": sid, "number": number, "words": "Lighthouse keeper"}[what]
        )
        await page.keyboard.press("Enter")
        await page.wait_for_url("**q=**")
        found = page.locator("#result_list tbody tr")
        await expect(found).to_have_count(1)
        await expect(found.locator("a").first).to_have_attribute("href", f"/calls/{ids['rare']}/")
        if what == "words":
            await expect(found).to_contain_text("I am the lighthouse keeper")


async def test_what_is_filtered_is_exported_and_no_cell_is_a_formula(
    desk: tuple[Office, dict[str, int]], tmp_path: Path
) -> None:
    room, ids = desk
    ((sid,),) = room.database.select("SELECT call_sid FROM calls_call WHERE id = %s", ids["rare"])
    async with room.window(path=f"{LIST}?ended=failed") as window:
        for kind in ("CSV", "JSON"):
            async with window.page.expect_download() as coming:
                await window.page.get_by_role("link", name=kind, exact=True).click()
            file = tmp_path / kind
            await (await coming.value).save_as(file)
            if kind == "CSV":
                with file.open(newline="", encoding="utf-8-sig") as lines:
                    found = list(csv.DictReader(lines))
                assert not any(str(value).startswith(("=", "+", "-", "@")) for value in found[0].values())
            else:
                found = json.loads(file.read_text())["calls"]
            assert [row["call_sid"] for row in found] == [sid]
            assert "=cmd" in found[0]["note"]


async def test_many_calls_get_an_outcome_and_a_review(desk: tuple[Office, dict[str, int]]) -> None:
    room, ids = desk
    async with room.window(role="operator", path=f"{LIST}?ended=failed") as window:
        page = window.page
        for action, outcome in (("set_outcome", "call back"), ("mark_for_review", "")):
            await page.locator("#result_list tbody input[type=checkbox]").first.check()
            await page.locator("select[name=action]").select_option(action)
            if outcome:
                await page.get_by_label("Outcome").fill(outcome)
            await page.get_by_title("Run the selected action").click()
            await expect(page.get_by_text("1 call changed.")).to_be_visible()
        changed = room.database.select(
            "SELECT outcome, needs_review FROM calls_call WHERE id = %s", ids["rare"]
        )
        assert [(outcome, bool(review)) for outcome, review in changed] == [("call back", True)]
        await window.open(f"{LIST}{ids['rare']}/history/")
        await expect(page.locator("body")).to_contain_text("Outcome “call back”.")


async def test_rows_below_a_call_can_be_read_and_not_changed(desk: tuple[Office, dict[str, int]]) -> None:
    room, ids = desk
    async with room.window(path=f"{LIST}{ids['rare']}/change/") as window:
        await expect(window.page.locator("body")).to_contain_text("I am the lighthouse keeper")
        assert (
            await window.page.locator(
                "textarea[name^=utterances], input[name^=utterances][type=text]"
            ).count()
            == 0
        )


async def test_who_may_not_export_or_change_is_offered_neither(desk: tuple[Office, dict[str, int]]) -> None:
    room, _ = desk
    async with room.window(role="viewer", path=LIST) as window:
        await expect(window.page.get_by_role("link", name="CSV", exact=True)).to_have_count(0)
        await expect(window.page.locator("select[name=action] option[value=set_outcome]")).to_have_count(0)
        await expect(window.page.locator("#result_list")).not_to_contain_text("+1555010")
