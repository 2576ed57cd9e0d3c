"""The live board of a real server during calls: permissions, delay, and a frozen Redis.

A frozen Redis may delay pages, but no audio and no rows.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from calls.demo.loop_lag import measure_loop_lag
from calls.staff.live import consumer
from calls.tests.live_server import Database, LiveServer, make_server, poll_until, temporary_database
from calls.tests.staff.live.live_socket_client import WAIT_SECONDS, FreezableProxy, log_in, open_socket
from sandbox.faults import VapiFaults
from sandbox.twilio.caller import Listen, Pause, Say, Step
from sandbox.vapi.server import VapiSimulator

pytestmark = pytest.mark.slow

TEXTS = [f"these are words number {number}" for number in range(1, 50)]
ANY_TEXT = "these are words number"  # a row shows the last two utterances only
SCRIPT: list[Step] = [
    step for _ in range(12) for step in (Say("correct"), Listen(timeout_seconds=8), Pause(300))
]
REDIS = os.environ.get("TEST_REDIS_URL", "")
FROZEN_SECONDS = 6.0
MAX_DELAY_SECONDS = 1.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with temporary_database(tmp_path / "rows") as database:
        yield database


async def make_board_server(
    assistant: VapiSimulator, database: Database, folder: Path, **variables: str
) -> LiveServer:
    variables = {"REDIS_URL": "", "VAPI_AUDIO_FORMAT": "mulaw"} | variables
    return await asyncio.to_thread(
        make_server, assistant.base_url, database.url, folder / "journal", **variables
    )


def make_assistant() -> VapiSimulator:
    return VapiSimulator(faults=VapiFaults(delay_ms=(200, 300)), listen="energy", script=TEXTS)


async def get_rejection_status(server: LiveServer, key: str, path: str = "/live", origin: str = "") -> int:
    with pytest.raises(InvalidStatus) as error:
        async with open_socket(server, key, path, origin):
            pass
    return error.value.response.status_code


async def test_staff_with_permission_follow_a_live_call(database: Database, tmp_path: Path) -> None:
    call_sid = "CA" + uuid.uuid4().hex
    async with (
        make_assistant() as assistant,
        await make_board_server(assistant, database, tmp_path) as server,
    ):
        staff = await asyncio.to_thread(log_in, server, "staff", "view_call")
        without_permission = await asyncio.to_thread(log_in, server, "guest")
        assert await get_rejection_status(server, "") == 403
        assert await get_rejection_status(server, "x" * 32) == 403
        assert await get_rejection_status(server, without_permission) == 403
        assert await get_rejection_status(server, staff, origin="https://evil.example") == 403
        assert await get_rejection_status(server, staff, "/live?call=1") == 403

        async with open_socket(server, staff) as page:
            await page.until(lambda html: "No live calls" in html)
            call_task = asyncio.create_task(server.twilio_simulator().place_call(SCRIPT, call_sid=call_sid))
            try:
                update = await page.until(lambda html: 'class="live-row"' in html)
                assert "+15550100134" not in update.html and "+1 555 …0134" in update.html
                for floor in ("Assistant speaking", "Caller speaking"):
                    await page.until(lambda html, floor=floor: floor in html)  # type: ignore[misc]
                call = await assistant.call_for(call_sid, WAIT_SECONDS)
                for _ in range(3):
                    count = len(call.transcripts)
                    async with measure_loop_lag() as lag:
                        await assistant.until(lambda count=count: len(call.transcripts) > count, WAIT_SECONDS)  # type: ignore[misc]
                        sent_at, _, text = call.transcripts[-1]
                        update = await page.until(lambda html, text=text: text in html)  # type: ignore[misc]
                    # Writer, publisher, consumer and this test may each wait for a processor.
                    max_delay_seconds = (
                        MAX_DELAY_SECONDS + consumer.MIN_INTERVAL_SECONDS + 4 * lag.max_ms / 1000
                    )
                    assert update.at - sent_at < max_delay_seconds
                answered = await page.until(lambda html: re.search(r"Response .*\d\.\d\d s", html))
                number = re.search(r'id="live-(\d+)"', answered.html)
                assert number is not None
                async with open_socket(server, staff, f"/live?call={number[1]}") as detail:
                    body = await detail.until(lambda html: 'id="call-body"' in html)
                    assert TEXTS[0] in body.html
                    before = body.html.count('class="said"')
                    await detail.until(lambda html: html.count('class="said"') > before)
            finally:
                call_task.cancel()
            await page.until(lambda html: "No live calls" in html)


@pytest.mark.skipif(not REDIS, reason="needs a Redis: set TEST_REDIS_URL")
async def test_a_frozen_redis_loses_no_row_and_no_frame(database: Database, tmp_path: Path) -> None:
    call_sid = "CA" + uuid.uuid4().hex  # Redis keeps the calls of an earlier run for a while
    async with (
        FreezableProxy(REDIS) as proxy,
        make_assistant() as assistant,
        await make_board_server(assistant, database, tmp_path, REDIS_URL=proxy.url) as server,
    ):
        staff = await asyncio.to_thread(log_in, server, "staff", "view_call")
        call_task = asyncio.create_task(server.twilio_simulator().place_call(SCRIPT, call_sid=call_sid))
        try:
            call = await assistant.call_for(call_sid, WAIT_SECONDS)
            async with open_socket(server, staff) as page:
                await page.until(lambda html: ANY_TEXT in html)
                proxy.freeze()
                frozen_until = time.monotonic() + FROZEN_SECONDS
                code = asyncio.create_task(page.wait_for_close())
                while time.monotonic() < frozen_until:
                    count = len(call.transcripts)
                    await assistant.until(lambda count=count: len(call.transcripts) > count, WAIT_SECONDS)  # type: ignore[misc]
                    sent = [(speaker, text) for _, speaker, text in call.transcripts]
                    rows = await poll_until(
                        lambda: database.select_utterances(call_sid),
                        lambda rows, sent=sent: len(rows) >= len(sent),  # type: ignore[misc]
                        WAIT_SECONDS,  # Redis is frozen during this wait
                    )
                    assert rows[: len(sent)] == sent
                assert await code == consumer.CLOSE_TRY_LATER, "the page must poll"
            proxy.thaw()
            async with open_socket(server, staff) as page:
                await page.until(lambda html: 'class="live-row"' in html)
                count = len(call.transcripts)
                # The next update may show later utterances instead.
                await page.until(lambda html: any(text in html for *_, text in call.transcripts[count:]))
        finally:
            call_task.cancel()
        ((dropped, end_reason),) = await poll_until(
            lambda: database.select(
                "SELECT frames_dropped, end_reason FROM calls_call WHERE call_sid = %s", call_sid
            ),
            lambda rows: rows[0][1],
            WAIT_SECONDS,
        )
        assert (dropped, end_reason) == (0, "stream-lost")  # the test cancels the call
