"""The pages of `serve`, which a second process serves: separate from calls, and up to date without Redis."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from calls.tests.live_server import ServeProcess, make_serve_process, poll_until, temporary_database
from calls.tests.staff.live.live_socket_client import log_in, open_socket
from sandbox.vapi.server import VapiSimulator
from voiceai.tests.test_serve import (
    WAIT_SECONDS,
    check_call,
    make_script,
    wait_for_drain,
    wait_for_live_calls,
)

pytestmark = [pytest.mark.slow, pytest.mark.once, pytest.mark.asyncio(loop_scope="module")]

LOGINS = 40
SEARCHES = 60


@pytest.fixture(scope="module")
def database_url(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> Iterator[str]:
    with django_db_blocker.unblock(), temporary_database(tmp_path_factory.mktemp("rows")) as database:
        yield database.url


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServeProcess]:
    async with VapiSimulator() as vapi:
        folder = tmp_path_factory.mktemp("pages")
        process = make_serve_process(vapi.base_url, database_url, folder, REDIS_URL="", DRAIN_SECONDS="30")
        async with process:
            await wait_for_pages(process)
            yield process


async def wait_for_pages(server: ServeProcess) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while await get_status(server.pages_url + "/admin/login/") != 200:
            await asyncio.sleep(0.1)


async def get_status(url: str) -> int:
    """The status of a page; 0 if nothing listens there."""
    try:
        async with aiohttp.ClientSession(trust_env=False) as http, http.get(url) as response:
            return response.status
    except aiohttp.ClientConnectionError:
        return 0


def find_pages_pid(server: ServeProcess) -> int | None:
    """The process of the pages, if it runs."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == server.pid and b"voiceai.server.pages" in (path / "cmdline").read_bytes():
                return int(path.name)
    return None


async def test_each_port_serves_its_paths_only(server: ServeProcess) -> None:
    for path, on_media, on_pages in (
        ("/readyz", 200, 404),
        ("/twilio/voice", 403, 404),
        ("/admin/login/", 404, 200),
        ("/calls/", 404, 200),  # redirected to the login
    ):
        assert await get_status(server.url + path) == on_media, path
        assert await get_status(server.pages_url + path) == on_pages, path


async def log_in_at_once(server: ServeProcess) -> None:
    """Each hashes a password."""
    cookies = aiohttp.CookieJar(unsafe=True)  # of an address, not a name
    async with aiohttp.ClientSession(trust_env=False, cookie_jar=cookies) as http:
        url = server.pages_url + "/admin/login/"
        async with http.get(url) as response:
            token = (await response.text()).partition('name="csrfmiddlewaretoken" value="')[2][:64]

        async def log_in() -> int:
            form = {"username": "nobody", "password": "wrong", "csrfmiddlewaretoken": token}
            async with http.post(url, data=form, headers={"Referer": url}) as response:
                return response.status

        assert set(await asyncio.gather(*(log_in() for _ in range(LOGINS)))) <= {200, 429}


async def search_at_once(server: ServeProcess) -> None:
    key = await asyncio.to_thread(log_in, server, "searcher", "view_call", "view_numbers")
    async with aiohttp.ClientSession(trust_env=False, cookies={"sessionid": key}) as http:

        async def search(number: int) -> int:
            async with http.get(f"{server.pages_url}/calls/?q=word{number}") as response:
                await response.read()
                return response.status

        assert set(await asyncio.gather(*map(search, range(SEARCHES)))) == {200}


async def kill_pages(server: ServeProcess) -> None:
    pid = await asyncio.to_thread(find_pages_pid, server)
    assert pid is not None
    os.kill(pid, signal.SIGTERM)  # ignored: a service manager may send it to all processes
    assert await get_status(server.pages_url + "/admin/login/") == 200
    os.kill(pid, signal.SIGKILL)
    await poll_until(lambda: find_pages_pid(server), lambda new: new not in (None, pid), WAIT_SECONDS)
    await wait_for_pages(server)


@pytest.mark.parametrize("load", [log_in_at_once, search_at_once, kill_pages])
async def test_pages_do_not_disturb_a_call(server: ServeProcess, load: Any) -> None:
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(server.twilio_simulator().place_call(make_script(2.0)))
        await asyncio.sleep(0)
        await load(server)
    await check_call(server, call.result())


async def test_the_board_follows_a_call_without_redis(server: ServeProcess) -> None:
    key = await asyncio.to_thread(log_in, server, "staff", "view_call")
    call = asyncio.create_task(server.twilio_simulator().place_call(make_script(8.0)))
    try:
        async with open_socket(server, key) as page:
            await page.until(lambda html: 'class="live-row"' in html)
            # Who speaks is in a live note only, not in the database.
            for floor in ("Assistant speaking", "Caller speaking"):
                await page.until(lambda html, floor=floor: floor in html)  # type: ignore[misc]
    finally:
        call.cancel()


async def test_the_pages_stay_until_the_drain_is_over(tmp_path: Path, django_db_blocker: Any) -> None:
    with django_db_blocker.unblock(), temporary_database(tmp_path) as database:
        async with VapiSimulator() as vapi:
            server = make_serve_process(
                vapi.base_url, database.url, tmp_path, REDIS_URL="", DRAIN_SECONDS="30"
            )
            async with server:
                await wait_for_pages(server)
                call = asyncio.create_task(server.twilio_simulator().place_call(make_script(2.0)))
                await wait_for_live_calls(database, 1)
                server.send_signal()
                await wait_for_drain(server)
                assert await get_status(server.pages_url + "/admin/login/") == 200
                await check_call(server, await call)
                assert await server.wait_for_exit() == 0
                assert await get_status(server.pages_url + "/admin/login/") == 0


async def test_the_pages_end_with_a_killed_server(tmp_path: Path, django_db_blocker: Any) -> None:
    with django_db_blocker.unblock(), temporary_database(tmp_path) as database:
        server = make_serve_process("http://127.0.0.1:1", database.url, tmp_path, REDIS_URL="")
        await server.start()
        await wait_for_pages(server)
        pid = find_pages_pid(server)
        await server.kill()
    assert pid is not None
    await poll_until(lambda: Path(f"/proc/{pid}").exists(), lambda exists: not exists, WAIT_SECONDS)
    assert not Path(f"/proc/{pid}").exists()
