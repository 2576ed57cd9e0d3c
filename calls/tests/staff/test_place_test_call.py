"""The “Place test call” button: the simulator calls this server, and the call appears live."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from django.test import RequestFactory, SimpleTestCase, TestCase, override_settings
from django.urls import reverse
from pytest_django import DjangoDbBlocker

from calls.demo.runner import Observers, Testbed, start_testbed
from calls.demo.scenario import Scenario
from calls.demo.server_process import reserve_port
from calls.staff.place_test_call import _free_slots, _local_url, _run_simulator, is_billable
from calls.tests.builders import make_call, make_staff
from calls.tests.commands import InProcessCommands, command_environment
from calls.tests.live_server import temporary_database

QUIET = Observers(lambda kind, data: None, lambda call, event: None, lambda line: None)
PASSWORD = "correct-horse-battery"
CSRF_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


@pytest.fixture
async def testbed(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> AsyncIterator[Testbed]:
    """A real server with the Vapi simulator, and a superuser."""
    with temporary_database(tmp_path / "rows") as database:
        variables = {"DATABASE_URL": database.url, "JOURNAL_DIR": str(tmp_path / "journal")}
        superuser = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD, "DJANGO_SUPERUSER_EMAIL": "ops@example.com"}
        arguments = ("createsuperuser", "--noinput", "--username", "ops")
        environment = command_environment(**variables, **superuser)
        result = await InProcessCommands(django_db_blocker).run(environment, *arguments)
        assert result.code == 0, result
        scenario = Scenario(fast=True, listen="energy", environment=variables)
        async with start_testbed(scenario, reserve_port(), QUIET) as testbed:
            yield testbed


async def get_csrf_token(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as response:
        token = CSRF_TOKEN.search(await response.text())
        assert response.status == 200 and token
        return token[1]


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(200)
async def test_the_call_and_its_transcript_appear_on_the_live_board(testbed: Testbed) -> None:
    url = testbed.server.url
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        form = {"username": "ops", "password": PASSWORD, "next": "/"}
        form["csrfmiddlewaretoken"] = await get_csrf_token(session, f"{url}/admin/login/")
        async with session.post(f"{url}/admin/login/", data=form) as response:
            assert response.status == 200 and str(response.url) == f"{url}/"
        token = await get_csrf_token(session, f"{url}/")
        async with session.ws_connect(url.replace("http", "ws") + "/live", origin=url) as board:
            first = await board.receive_str(timeout=10)
            assert "No live calls" in first
            async with session.post(f"{url}/test-call", data={"csrfmiddlewaretoken": token}) as response:
                assert "/test-call/CA" in str(response.url), "the call's page comes next"
                started = str(response.url)
            shown: set[str] = set()
            expected = {
                "simulated",
                "Assistant speaking",
                'id="said-',
                "Caller speaking",
                "Response <span",
            }
            html = ""
            try:
                async with asyncio.timeout(60):
                    while shown != expected:
                        html = await board.receive_str()
                        shown |= {text for text in expected if text in html}
            except TimeoutError:
                pytest.fail(f"never shown: {expected - shown}; the last update: {html}")
            async with asyncio.timeout(90):
                while "No live calls" not in await board.receive_str():
                    pass
        async with session.get(started) as response:
            assert re.fullmatch(rf"{url}/calls/\d+/", str(response.url))
        async with session.get(f"{url}/") as response:
            page = await response.text()
    assert "Showing simulated calls" in page and "simulated</span>" in page


class LocalUrlTests(SimpleTestCase):
    def test_the_simulator_calls_the_address_that_this_server_listens_on(self) -> None:
        request = RequestFactory().post("/test-call")
        self.assertEqual(_local_url(request), "http://127.0.0.1:8000")
        for server, address in (
            (["127.0.0.1", 8123], "http://127.0.0.1:8123"),
            (["0.0.0.0", 80], "http://127.0.0.1:80"),
            (["::1", 8000], "http://[::1]:8000"),
        ):
            request.scope = {"server": server}  # type: ignore[attr-defined]
            self.assertEqual(_local_url(request), address)
        # The pages have a port of their own.
        request.scope = {"server": ("::1", 8001), "media_server": ("127.0.0.1", 8000)}  # type: ignore[attr-defined]
        self.assertEqual(_local_url(request), "http://127.0.0.1:8000")

    def test_only_calls_to_vapi_are_billable(self) -> None:
        for url, costs in (("https://api.vapi.ai", True), ("http://127.0.0.1:9100", False)):
            with override_settings(VAPI_BASE_URL=url, VAPI_SOCKET_URL=""):
                self.assertEqual(is_billable(), costs)


class StartedTests(TestCase):
    """The page between the button and the call's page."""

    def test_it_waits_then_leads_to_the_call_or_says_that_none_arrived(self) -> None:
        self.client.force_login(make_staff("view_call"))
        url = reverse("test_call_started", args=["CA" + "1" * 32])
        for at, text in (
            (f"?at={int(time.time())}", "Placing the test call"),
            (f"?at={int(time.time()) - 60}", "The test call has not arrived"),
            ("?at=x", "Placing the test call"),
            ("", "Placing the test call"),
        ):
            self.assertContains(self.client.get(url + at), text)
        call = make_call(call_sid="CA" + "1" * 32)
        self.assertRedirects(self.client.get(url), call.get_absolute_url())

    @pytest.mark.slow
    def test_it_says_why_the_simulator_failed(self) -> None:
        self.client.force_login(make_staff("view_call"))
        call_sid = "CA" + "2" * 32
        _free_slots.acquire()
        _run_simulator("http://127.0.0.1:1", call_sid)
        page = self.client.get(reverse("test_call_started", args=[call_sid]))
        self.assertContains(page, "The simulator reported: ")
        self.assertContains(page, "The media stream never started.")
