"""The list of calls in a real browser: filters, search, export, and bulk actions in the admin."""

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

from calls.tests.browser.harness import BrowserTestbed, start_browser_testbed
from calls.tests.chromium import needs_chromium

pytestmark = [needs_chromium, pytest.mark.asyncio(loop_scope="module")]

LIST, ADMIN_LIST = "/calls/", "/admin/calls/call/"
ROWS = ".call-table tbody tr"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def testbed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserTestbed]:
    async with start_browser_testbed(tmp_path_factory.mktemp("admin"), fixture="create_list_rows") as testbed:
        yield testbed


def parse_query(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


async def search(page: Page, text: str) -> None:
    """Press `/`, type the text, press Enter."""
    await page.keyboard.press("/")
    await expect(page.locator("input[name=q]")).to_be_focused()
    await page.keyboard.type(text)
    await page.keyboard.press("Enter")
    await page.wait_for_url(lambda url: text.split()[0] in url.replace("%2B", "+").replace("+", " +"))


async def test_a_filter_stays_in_the_url_through_search_and_paging(
    testbed: BrowserTestbed,
) -> None:
    async with testbed.open_window(path=LIST) as window:
        page = window.page
        await expect(page.locator(ROWS)).to_have_count(50)
        await page.locator("summary", has_text=re.compile(r"^Status$")).click()
        await page.get_by_role("link", name="Failed (any reason)").click()
        await page.wait_for_url("**ended=failed**")
        await expect(page.locator(ROWS)).to_have_count(1)
        await search(page, "lighthouse")
        assert parse_query(page)["ended"] == ["failed"] and parse_query(page)["q"] == ["lighthouse"]
        await expect(page.locator(ROWS)).to_have_count(1)
        await expect(page.locator(".call-table mark")).to_have_text("lighthouse")
        await page.go_back()
        assert "q" not in parse_query(page) and parse_query(page)["ended"] == ["failed"]
        await page.goto(f"{testbed.server.url}{LIST}?page=2")
        await expect(page.locator(ROWS)).to_have_count(testbed.ids["calls"] - 50)


@pytest.mark.parametrize("key", ["sid", "number", "text"])
async def test_a_call_is_found_by_sid_number_and_text(testbed: BrowserTestbed, key: str) -> None:
    ((sid, number),) = testbed.database.select(
        "SELECT call_sid, from_number FROM calls_call WHERE id = %s", testbed.ids["rare"]
    )
    async with testbed.open_window(path=LIST) as window:
        page = window.page
        await page.locator("input[name=q]").fill(
            {"sid": sid, "number": number, "text": "Lighthouse keeper"}[key]
        )
        await page.keyboard.press("Enter")
        await page.wait_for_url("**q=**")
        rows = page.locator(ROWS)
        await expect(rows).to_have_count(1)
        await expect(rows.locator("a").first).to_have_attribute(
            "href", re.compile(rf"^/calls/{testbed.ids['rare']}/\?list=q")
        )
        if key == "text":
            await expect(rows).to_contain_text("I am the lighthouse keeper")


async def test_the_export_follows_the_filters_and_escapes_formulas(
    testbed: BrowserTestbed, tmp_path: Path
) -> None:
    ((sid,),) = testbed.database.select("SELECT call_sid FROM calls_call WHERE id = %s", testbed.ids["rare"])
    async with testbed.open_window(path=f"{LIST}?ended=failed") as window:
        await window.page.locator("summary", has_text="Export").click()
        for kind in ("CSV", "JSON"):
            async with window.page.expect_download() as download:
                await window.page.get_by_role("link", name=kind, exact=True).click()
            file = tmp_path / kind
            await (await download.value).save_as(file)
            if kind == "CSV":
                with file.open(newline="", encoding="utf-8-sig") as lines:
                    exported = list(csv.DictReader(lines))
                assert not any(str(value).startswith(("=", "+", "-", "@")) for value in exported[0].values())
            else:
                exported = json.loads(file.read_text())["calls"]
            assert [row["call_sid"] for row in exported] == [sid]
            assert "=cmd" in exported[0]["note"]


async def test_actions_set_an_outcome_and_mark_for_review(testbed: BrowserTestbed) -> None:
    async with testbed.open_window(role="operator", path=f"{ADMIN_LIST}?ended=failed") as window:
        page = window.page
        for action, outcome in (("set_outcome", "call back"), ("mark_for_review", "")):
            await page.locator("#result_list tbody input[type=checkbox]").first.check()
            await page.locator("select[name=action]").select_option(action)
            if outcome:
                await page.get_by_label("Outcome").fill(outcome)
            await page.get_by_title("Run the selected action").click()
            await expect(page.get_by_text("1 call changed.")).to_be_visible()
        rows = testbed.database.select(
            "SELECT outcome, needs_review FROM calls_call WHERE id = %s", testbed.ids["rare"]
        )
        assert [(outcome, bool(review)) for outcome, review in rows] == [("call back", True)]
        await window.open(f"{ADMIN_LIST}{testbed.ids['rare']}/history/")
        await expect(page.locator("body")).to_contain_text("Outcome “call back”.")


async def test_the_rows_of_a_call_are_read_only(testbed: BrowserTestbed) -> None:
    async with testbed.open_window(path=f"{ADMIN_LIST}{testbed.ids['rare']}/change/") as window:
        await expect(window.page.locator("body")).to_contain_text("I am the lighthouse keeper")
        assert (
            await window.page.locator(
                "textarea[name^=utterances], input[name^=utterances][type=text]"
            ).count()
            == 0
        )


async def test_viewers_see_no_export_and_no_actions(testbed: BrowserTestbed) -> None:
    async with testbed.open_window(role="viewer", path=LIST) as window:
        await expect(window.page.get_by_role("link", name="CSV", exact=True)).to_have_count(0)
        await expect(window.page.locator(ROWS).first).not_to_contain_text("+1555010")
        await window.open(ADMIN_LIST)
        await expect(window.page.locator("select[name=action] option[value=set_outcome]")).to_have_count(0)
        await expect(window.page.locator("#result_list")).not_to_contain_text("+1555010")
