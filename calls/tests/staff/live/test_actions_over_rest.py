"""Actions on a simulated call, end to end: page, server, Twilio REST simulator, call."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from calls.tests.live_server import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    Database,
    LiveServer,
    make_server,
    poll_until,
    temporary_database,
)
from calls.tests.staff.live.live_socket_client import WAIT_SECONDS, log_in
from sandbox.faults import TwilioFaults, TwilioRestFaults, VapiFaults
from sandbox.twilio.caller import WaitForHangup
from sandbox.twilio.record import TwilioCallRecord
from sandbox.twilio.registry_client import RemoteCallRegistry
from sandbox.twilio.rest.server import TwilioRestSimulator
from sandbox.vapi.server import VapiSimulator

pytestmark = [pytest.mark.slow, pytest.mark.once, pytest.mark.asyncio(loop_scope="module")]

FALLBACK = "+15550107777"
ROW = "SELECT id, status, end_reason, simulated FROM calls_call WHERE call_sid = %s"


@dataclass(frozen=True, slots=True)
class ActionTestbed:
    server: LiveServer
    assistant: VapiSimulator
    twilio_rest: TwilioRestSimulator
    database: Database
    session_key: str
    call_sid: str = ""

    @asynccontextmanager
    async def place_call(self, faults: TwilioFaults) -> AsyncIterator[asyncio.Task[TwilioCallRecord]]:
        """A call that is connected to the assistant. Its simulator is outside the server process."""
        registry = RemoteCallRegistry(self.twilio_rest.base_url, ACCOUNT_SID, AUTH_TOKEN)
        simulator = self.server.twilio_simulator(registry=registry)
        call_task = asyncio.create_task(
            simulator.place_call([WaitForHangup(60)], call_sid=self.call_sid, faults=faults)
        )
        try:
            call = await self.assistant.call_for(self.call_sid, WAIT_SECONDS)
            await self.assistant.until(lambda: call.status == "in-progress", WAIT_SECONDS)
            await self.wait_for_row(lambda rows: rows and rows[0][1] == "in-progress")
            yield call_task
        finally:
            call_task.cancel()
            await asyncio.gather(call_task, return_exceptions=True)

    async def wait_for_row(self, is_done: Callable[[Any], object]) -> tuple[Any, ...]:
        rows = await poll_until(lambda: self.database.select(ROW, self.call_sid), is_done, WAIT_SECONDS)
        assert is_done(rows), rows
        (row,) = rows
        return tuple(row)

    async def act(self, action: str) -> tuple[int, str]:
        """Send the action as the page does. Returns status and HTML."""
        key, *_ = await self.wait_for_row(bool)
        url = self.server.url
        async with aiohttp.ClientSession(cookies={"sessionid": self.session_key}) as http:
            async with http.get(f"{url}/") as page:
                token = (await page.text()).partition('data-csrf="')[2].partition('"')[0]
                cookies = {name: morsel.value for name, morsel in page.cookies.items()}
            headers = {"HX-Request": "true", "X-CSRFToken": token, "Referer": url}
            async with http.post(f"{url}/calls/{key}/{action}", headers=headers, cookies=cookies) as response:
                return response.status, await response.text()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_testbed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ActionTestbed]:
    folder = tmp_path_factory.mktemp("actions")
    with temporary_database(folder / "rows") as database:
        async with (
            VapiSimulator(faults=VapiFaults(), listen="energy", script=[]) as assistant,
            TwilioRestSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as twilio_rest,
        ):
            server = await asyncio.to_thread(
                make_server, assistant.base_url, database.url, folder / "journal",
                REDIS_URL="", TWILIO_BASE_URL=twilio_rest.base_url, FALLBACK_NUMBER=FALLBACK,
            )  # fmt: skip
            key = await asyncio.to_thread(log_in, server, "staff", "view_call", "act_on_call")
            async with server:
                yield ActionTestbed(server, assistant, twilio_rest, database, key)


@pytest.fixture
def testbed(shared_testbed: ActionTestbed) -> ActionTestbed:
    """The shared server, with a call of its own."""
    return replace(shared_testbed, call_sid="CA" + uuid.uuid4().hex)


async def test_hanging_up_ends_the_call(testbed: ActionTestbed) -> None:
    async with testbed.place_call(TwilioFaults()) as call_task:
        status, html = await testbed.act("hang-up")
        assert (status, "Call ended." in html) == (200, True), html
        record = await asyncio.wait_for(call_task, WAIT_SECONDS)
    assert (record.ended_by, record.final_status, record.dialed) == ("rest-api", "completed", [])
    row = await testbed.wait_for_row(lambda rows: rows[0][2] and rows[0][1] == "completed")
    assert row[1:3] == ("completed", "hung-up-by-staff") and bool(row[3])
    await testbed.twilio_rest.until(lambda: testbed.twilio_rest.call(testbed.call_sid).is_over)


@pytest.mark.parametrize(("outcome", "apologies"), [("completed", 0), ("no-answer", 1)])
async def test_transfer_dials_the_fallback_number(
    testbed: ActionTestbed, outcome: str, apologies: int
) -> None:
    async with testbed.place_call(TwilioFaults(dial_status=outcome)) as call_task:
        status, html = await testbed.act("transfer")
        assert (status, "Transferring the call" in html) == (200, True), html
        record = await asyncio.wait_for(call_task, WAIT_SECONDS)
    assert (record.dialed, record.final_status) == ([FALLBACK], "completed")
    spoken = record.spoken_by_twilio[record.spoken_before_stream :]
    assert len(spoken) == apologies, "without an answer the caller hears an apology"
    row = await testbed.wait_for_row(lambda rows: rows[0][2] and rows[0][1] == "completed")
    assert row[1:3] == ("completed", "transferred")
    legs = [call for call in testbed.twilio_rest.calls.values() if call.parent_call_sid == testbed.call_sid]
    assert [(leg.to_number, leg.status) for leg in legs] == [(FALLBACK, outcome)]


async def test_a_request_that_twilio_rejects_changes_nothing(testbed: ActionTestbed) -> None:
    async with testbed.place_call(TwilioFaults()) as call_task:
        testbed.twilio_rest.faults = TwilioRestFaults(rest_status=500, rest_failures=1)
        status, html = await testbed.act("hang-up")
        assert (status, "failed with status" in html) == (502, True), html
        assert not call_task.done() and testbed.twilio_rest.active_calls()
        status, _ = await testbed.act("hang-up")
        assert status == 200
        await asyncio.wait_for(call_task, WAIT_SECONDS)
