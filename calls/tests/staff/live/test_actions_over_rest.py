"""A simulated call, a real server, and staff who end it over the REST API: nothing between is pretended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from calls.tests.live_server import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    Database,
    LiveServer,
    eventually,
    live_server,
    own_database,
)
from calls.tests.staff.live.watching import WAIT_SECONDS, log_in
from sandbox.faults import AssistantDials, CarrierApiDials
from sandbox.twilio.carrier import CallRecord, CarrierDials, StayOnTheLine
from sandbox.twilio.relay import RemoteExchange
from sandbox.twilio.rest_server import CarrierApi
from sandbox.vapi.server import Assistant

pytestmark = [pytest.mark.slow, pytest.mark.once]

PERSON = "+15550107777"
SID = "CA" + "e" * 32
ROW = "SELECT id, status, end_reason, simulated FROM calls_call WHERE call_sid = %s"


@dataclass
class Scene:
    server: LiveServer
    assistant: Assistant
    carrier_api: CarrierApi
    database: Database
    session_key: str

    @asynccontextmanager
    async def call(self, dials: CarrierDials) -> AsyncIterator[asyncio.Task[CallRecord]]:
        """A call that is connected to the assistant, carried as another process would carry it."""
        exchange = RemoteExchange(self.carrier_api.base_url, ACCOUNT_SID, AUTH_TOKEN)
        carrier = self.server.carrier(exchange=exchange)
        calling = asyncio.create_task(carrier.place_call([StayOnTheLine(60)], call_sid=SID, dials=dials))
        try:
            call = await self.assistant.call_for(SID, WAIT_SECONDS)
            await self.assistant.until(lambda: call.status == "in-progress", WAIT_SECONDS)
            await self.row(lambda rows: rows and rows[0][1] == "in-progress")
            yield calling
        finally:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)

    async def row(self, wanted: Callable[[Any], object]) -> tuple[Any, ...]:
        rows = await eventually(lambda: self.database.select(ROW, SID), wanted, WAIT_SECONDS)
        assert wanted(rows), rows
        (row,) = rows
        return tuple(row)

    async def act(self, action: str) -> tuple[int, str]:
        """What staff are told."""
        key, *_ = await self.row(bool)
        url = self.server.url
        async with aiohttp.ClientSession(cookies={"sessionid": self.session_key}) as http:
            async with http.get(f"{url}/") as page:
                token = (await page.text()).partition('data-csrf="')[2].partition('"')[0]
                cookies = {name: morsel.value for name, morsel in page.cookies.items()}
            headers = {"HX-Request": "true", "X-CSRFToken": token, "Referer": url}
            async with http.post(f"{url}/calls/{key}/{action}", headers=headers, cookies=cookies) as answer:
                return answer.status, await answer.text()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    with own_database(tmp_path / "rows") as database:
        async with (
            Assistant(dials=AssistantDials(), listen="energy", script=[]) as assistant,
            CarrierApi(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as carrier_api,
        ):
            server = await asyncio.to_thread(
                live_server, assistant.base_url, database.url, tmp_path / "journal",
                REDIS_URL="", TWILIO_BASE_URL=carrier_api.base_url, FALLBACK_NUMBER=PERSON,
            )  # fmt: skip
            key = await asyncio.to_thread(log_in, server, "staff", "view_call", "act_on_call")
            async with server:
                yield Scene(server, assistant, carrier_api, database, key)


async def test_staff_hang_up_and_the_line_is_dead(scene: Scene) -> None:
    async with scene.call(CarrierDials()) as calling:
        status, said = await scene.act("hang-up")
        assert (status, "The call was hung up." in said) == (200, True), said
        record = await asyncio.wait_for(calling, WAIT_SECONDS)
    assert (record.ended_by, record.final_status, record.dialed) == ("carrier", "completed", [])
    row = await scene.row(lambda rows: rows[0][2] and rows[0][1] == "completed")
    assert row[1:3] == ("completed", "hung-up-by-staff") and bool(row[3])
    await scene.carrier_api.until(lambda: scene.carrier_api.call(SID).is_over)


@pytest.mark.parametrize(("outcome", "heard"), [("completed", 0), ("no-answer", 1)])
async def test_staff_transfer_the_caller_to_a_person(scene: Scene, outcome: str, heard: int) -> None:
    async with scene.call(CarrierDials(dial_status=outcome)) as calling:
        status, said = await scene.act("transfer")
        assert (status, "connected to a person" in said) == (200, True), said
        record = await asyncio.wait_for(calling, WAIT_SECONDS)
    assert (record.dialed, record.final_status) == ([PERSON], "completed")
    apology = record.spoken_by_twilio[record.said_before_stream :]
    assert len(apology) == heard, "nobody there, and the caller is told so"
    row = await scene.row(lambda rows: rows[0][2] and rows[0][1] == "completed")
    assert row[1:3] == ("completed", "transferred")
    legs = [call for call in scene.carrier_api.calls.values() if call.parent_call_sid == SID]
    assert [(leg.to_number, leg.status) for leg in legs] == [(PERSON, outcome)]


async def test_what_twilio_refuses_changes_nothing(scene: Scene) -> None:
    async with scene.call(CarrierDials()) as calling:
        scene.carrier_api.dials = CarrierApiDials(rest_status=500, rest_failures=1)
        status, said = await scene.act("hang-up")
        assert (status, "trouble of its own" in said) == (502, True), said
        assert not calling.done() and scene.carrier_api.live()
        status, _ = await scene.act("hang-up")
        assert status == 200
        await asyncio.wait_for(calling, WAIT_SECONDS)
