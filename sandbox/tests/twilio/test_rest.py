"""The Twilio REST API simulator, called with Twilio's own client over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import aiohttp
import pytest
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from sandbox.faults import TwilioFaults, TwilioRestFaults
from sandbox.tests.twilio.test_simulator import PUBLIC, FakeServer, fake_server
from sandbox.twilio.call_registry import (
    REGISTRY_PATH,
    CallDetails,
    CallRegistry,
    Command,
    EndCall,
    FetchTwiml,
    RegistryUnavailable,
    RunTwiml,
    StatusUpdate,
    command_from_json,
    command_to_json,
    details_from_json,
    status_update_from_json,
    to_json,
)
from sandbox.twilio.caller import HangUp, Pause, WaitForHangup
from sandbox.twilio.record import TwilioCallRecord
from sandbox.twilio.registry_client import RemoteCallRegistry
from sandbox.twilio.rest.resources import DEMO_URL, Call
from sandbox.twilio.rest.server import ACCOUNT_SID, AUTH_TOKEN, NUMBER, TwilioRestSimulator
from sandbox.twilio.simulator import TwilioSimulator
from sandbox.twilio.webhook_client import sign

__all__ = ["fake_server"]  # fixture

CALLER = "+15550100134"
PERSON = "+15550107777"
SID = "CA" + "a" * 32
DIAL = f'<Response><Dial action="{PUBLIC}/twilio/after?dialed=1">{PERSON}</Dial></Response>'

ClientCall = Callable[[Client], Any]


@pytest.fixture
async def api() -> AsyncIterator[TwilioRestSimulator]:
    async with TwilioRestSimulator() as api:
        yield api


async def call_api(
    api: TwilioRestSimulator, send: ClientCall, *, token: str = AUTH_TOKEN, timeout_seconds: float = 5.0
) -> Any:
    """Call the simulator with Twilio's own client."""
    client = Client(ACCOUNT_SID, token, http_client=TwilioHttpClient(timeout=timeout_seconds))
    client.api.base_url = api.base_url
    return await asyncio.to_thread(send, client)


async def call_and_get_error(
    api: TwilioRestSimulator, send: ClientCall, **options: Any
) -> tuple[int, int | None]:
    with pytest.raises(TwilioException) as raised:
        await call_api(api, send, **options)
    if isinstance(raised.value, TwilioRestException):
        return raised.value.status, raised.value.code
    answer = json.loads(raised.value.args[1].text)  # list requests raise with the response itself
    return answer["status"], answer["code"]


def update(sid: str = SID, **changes: Any) -> ClientCall:
    return lambda client: client.calls(sid).update(**changes)


def add_call(api: TwilioRestSimulator, sid: str = SID, **changes: Any) -> Call:
    facts = {"account_sid": ACCOUNT_SID, "from_number": CALLER, "to_number": NUMBER, "status": "in-progress"}
    return api.add_call(Call(sid, **(facts | changes)))


# Authentication and faults


async def test_a_wrong_token_is_rejected_in_twilios_error_format(api: TwilioRestSimulator) -> None:
    assert await call_and_get_error(api, lambda client: client.calls.list(), token="wrong") == (401, 20003)
    async with aiohttp.ClientSession() as http, http.get(f"{api.base_url}/2010-04-01/Accounts.json") as got:
        assert (got.status, await got.json()) == (
            401,
            {
                "code": 20003,
                "message": "Authenticate",
                "more_info": "https://www.twilio.com/docs/errors/20003",
                "status": 401,
            },
        )


async def test_unknown_resources_are_not_found(api: TwilioRestSimulator) -> None:
    for send in (
        lambda client: client.calls("CA" + "0" * 32).fetch(),
        lambda client: client.calls("CA" + "0" * 32).update(status="completed"),
        lambda client: client.incoming_phone_numbers("PN" + "0" * 32).fetch(),
        lambda client: client.api.accounts("AC" + "0" * 32).fetch(),
        lambda client: client.messages.list(),
    ):
        assert await call_and_get_error(api, send) == (404, 20404)


async def test_a_suspended_account_can_be_read_but_not_used(api: TwilioRestSimulator) -> None:
    account = await call_api(api, lambda client: client.api.accounts(ACCOUNT_SID).fetch())
    assert (account.sid, account.status, account.type) == (ACCOUNT_SID, "active", "Full")
    api.account.status, api.account.type = "suspended", "Trial"
    account = await call_api(api, lambda client: client.api.accounts(ACCOUNT_SID).fetch())
    assert (account.status, account.type) == ("suspended", "Trial")
    add_call(api)
    assert await call_and_get_error(api, update(status="completed")) == (403, 20005)


@pytest.mark.parametrize(("status", "code"), [(401, 20003), (429, 20429), (500, 20500), (418, 20001)])
async def test_faults_apply_only_to_the_chosen_path_and_number_of_requests(
    api: TwilioRestSimulator, status: int, code: int
) -> None:
    api.faults = TwilioRestFaults(rest_status=status, rest_failures=1, rest_path_contains="/Calls")
    await call_api(api, lambda client: client.api.accounts(ACCOUNT_SID).fetch())
    assert await call_and_get_error(api, lambda client: client.calls.list()) == (status, code)
    assert await call_api(api, lambda client: client.calls.list()) == []
    assert [request.status for request in api.received_requests] == [200, status, 200]


async def test_it_can_hang_send_html_and_cut_the_response(api: TwilioRestSimulator) -> None:
    call = add_call(api)
    url = f"{api.base_url}/2010-04-01/Accounts/{ACCOUNT_SID}/Calls/{SID}.json"
    auth = {"Authorization": aiohttp.encode_basic_auth(ACCOUNT_SID, AUTH_TOKEN)}
    async with aiohttp.ClientSession(headers=auth) as http:
        api.faults = TwilioRestFaults(rest_html=True)
        async with http.get(url) as got:
            assert got.status == 200 and "Bad gateway" in await got.text()
        api.faults = TwilioRestFaults(rest_hang=True)
        with pytest.raises(TimeoutError):
            await http.get(url, timeout=aiohttp.ClientTimeout(total=0.2))
        api.faults = TwilioRestFaults(rest_truncate=True)
        with pytest.raises(aiohttp.ClientError):
            async with http.post(url, data={"Status": "completed"}) as got:
                await got.read()
        assert call.status == "completed", "the request was processed"


# Numbers


async def test_a_number_is_listed_and_updated(api: TwilioRestSimulator) -> None:
    api.numbers[PERSON] = replace(api.numbers[NUMBER], phone_number=PERSON, sid="PN" + "7" * 32)
    (number,) = await call_api(api, lambda client: client.incoming_phone_numbers.list(phone_number=NUMBER))
    assert (number.phone_number, number.voice_url, number.voice_method) == (NUMBER, DEMO_URL, "POST")
    changed = await call_api(
        api,
        lambda client: client.incoming_phone_numbers(number.sid).update(
            voice_url=f"{PUBLIC}/twilio/voice",
            voice_method="GET",
            voice_fallback_url=f"{PUBLIC}/fallback",
            voice_fallback_method="POST",
            status_callback=f"{PUBLIC}/twilio/status",
            status_callback_method="POST",
            friendly_name="Front desk",
            voice_application_sid="",
        ),
    )
    fetched = await call_api(api, lambda client: client.incoming_phone_numbers(number.sid).fetch())
    for resource in (changed, fetched):
        assert (resource.voice_url, resource.voice_method) == (f"{PUBLIC}/twilio/voice", "GET")
        assert (resource.voice_fallback_url, resource.status_callback) == (
            f"{PUBLIC}/fallback",
            f"{PUBLIC}/twilio/status",
        )
        assert resource.friendly_name == "Front desk" and resource.capabilities["voice"]
    assert len(await call_api(api, lambda client: client.incoming_phone_numbers.list())) == 2
    assert await call_api(api, lambda client: client.incoming_phone_numbers.list(phone_number="+4930")) == []


def change_number(client: Client, *, sid: str, **changes: str) -> Any:
    return client.incoming_phone_numbers(sid).update(**changes)


async def test_a_number_rejects_an_invalid_url_and_an_invalid_method(api: TwilioRestSimulator) -> None:
    sid = api.numbers[NUMBER].sid
    for changes, code in (
        ({"voice_url": "not a url"}, 21402),
        ({"status_callback": "http://[broken"}, 21402),
        ({"voice_method": "PUT"}, 21403),
    ):
        change = partial(change_number, sid=sid, **changes)
        assert await call_and_get_error(api, change) == (400, code)
    assert api.numbers[NUMBER].voice_url == DEMO_URL
    cleared = await call_api(api, lambda client: client.incoming_phone_numbers(sid).update(voice_url=""))
    assert cleared.voice_url == ""


# Calls


async def test_a_call_has_twilios_format_and_its_price_comes_later(api: TwilioRestSimulator) -> None:
    call = add_call(api, started_at=datetime(2026, 8, 18, 9, 30, tzinfo=UTC))
    fetched = await call_api(api, lambda client: client.calls(SID).fetch())
    assert (fetched.status, fetched.direction, fetched._from, fetched.to) == (
        "in-progress",
        "inbound",
        CALLER,
        NUMBER,
    )
    assert fetched.start_time == datetime(2026, 8, 18, 9, 30, tzinfo=UTC)
    assert (fetched.end_time, fetched.duration, fetched.price, fetched.answered_by) == (
        None,
        None,
        None,
        None,
    )
    assert call.to_json()["start_time"] == "Tue, 18 Aug 2026 09:30:00 +0000"
    api.update_status(call, StatusUpdate("completed", 61))
    ended_call = await call_api(api, lambda client: client.calls(SID).fetch())
    assert (ended_call.status, ended_call.duration, ended_call.price, ended_call.price_unit) == (
        "completed",
        "61",
        None,
        "USD",
    )
    api.set_price(SID)
    billed = await call_api(api, lambda client: client.calls(SID).fetch())
    assert billed.price == "-0.01700", "61 s are two started minutes"
    api.set_price(SID, "-0.04000")
    assert call.price == Decimal("-0.04")
    api.update_status(call, StatusUpdate("failed"))
    assert call.status == "completed", "a terminal status never changes"


async def test_the_price_is_set_after_the_configured_delay(api: TwilioRestSimulator) -> None:
    api.faults = TwilioRestFaults(price_delay_seconds=0.01)
    call = add_call(api, direction="outbound-api")
    api.update_status(call, StatusUpdate("completed", 60))
    assert call.price is None
    await api.until(lambda: call.price is not None)
    assert call.to_json()["price"] == "-0.01400"
    unanswered = add_call(api, "CA" + "b" * 32, status="ringing")
    api.update_status(unanswered, StatusUpdate("busy"))
    await api.until(lambda: unanswered.price is not None)
    assert (unanswered.to_json()["price"], unanswered.to_json()["duration"]) == ("0.00000", None)


async def test_calls_are_listed_newest_first_with_pages_and_filters(api: TwilioRestSimulator) -> None:
    day = datetime(2026, 11, 20, 12, tzinfo=UTC)
    for number in range(7):
        add_call(
            api,
            f"CA{number:032d}",
            started_at=day + timedelta(days=number),
            status="completed" if number % 2 else "in-progress",
            to_number=PERSON if number == 6 else NUMBER,
        )

    async def list_ids(**filters: Any) -> list[int]:
        calls = await call_api(api, lambda client: client.calls.list(**filters))
        return [int(call.sid[2:]) for call in calls]

    assert await list_ids(page_size=3) == [6, 5, 4, 3, 2, 1, 0]
    assert await list_ids(page_size=3, limit=4) == [6, 5, 4, 3]
    assert await list_ids(status="completed") == [5, 3, 1]
    assert await list_ids(to=PERSON) == [6] and await list_ids(from_=PERSON) == []
    assert await list_ids(start_time_after=day + timedelta(days=5)) == [6, 5]
    assert await list_ids(start_time_before=day + timedelta(days=1)) == [1, 0]
    assert await list_ids(start_time=day + timedelta(days=2, hours=3)) == [2]
    assert await list_ids(end_time_after=day) == []
    assert await call_and_get_error(api, lambda client: client.calls.list(start_time="yesterday")) == (
        400,
        20001,
    )
    url = f"{api.base_url}/2010-04-01/Accounts/{ACCOUNT_SID}/Calls.json?PageSize=3&Page=1&Status=completed"
    auth = {"Authorization": aiohttp.encode_basic_auth(ACCOUNT_SID, AUTH_TOKEN)}
    async with aiohttp.ClientSession(headers=auth) as http:
        async with http.get(url) as got:
            page = await got.json()
        assert (page["calls"], page["next_page_uri"], page["page"]) == ([], None, 1)
        assert "Page=0" in page["previous_page_uri"] and "Status=completed" in page["previous_page_uri"]
        async with http.get(f"{url}x&PageSize=x") as got:
            assert got.status == 200
        async with http.get(url.replace("PageSize=3", "PageSize=x")) as got:
            assert got.status == 400


async def test_invalid_updates_of_a_call_are_rejected(api: TwilioRestSimulator) -> None:
    call = add_call(api)
    for changes, code in (
        ({"status": "busy"}, 21218),
        ({"twiml": "<Response/>", "url": PUBLIC}, 21218),
        ({"twiml": "x" * 4001}, 32018),
        ({"url": "nowhere"}, 21205),
        ({"url": PUBLIC, "method": "PUT"}, 21205),
    ):
        assert await call_and_get_error(api, update(**changes)) == (400, code)
    unchanged = await call_api(api, update(status="canceled"))
    assert unchanged.status == "in-progress", "only a ringing call can be canceled"
    done = await call_api(api, update(status="completed"))
    assert done.status == "completed" and call.is_over, "no process runs it: it just ends"
    for changes in ({"status": "completed"}, {"twiml": "<Response/>"}):
        assert await call_and_get_error(api, update(**changes)) == (400, 21220)
    add_call(api, status="ringing", direction="outbound-api")
    assert await call_and_get_error(api, update(twiml="<Response/>")) == (400, 21220)


# Calls that the simulator runs, in this process or in another one


@pytest.fixture(params=["local", "remote"])
def registry(request: pytest.FixtureRequest, api: TwilioRestSimulator) -> CallRegistry:
    if request.param == "local":
        return api
    return RemoteCallRegistry(api.base_url, ACCOUNT_SID, AUTH_TOKEN)


@contextlib.asynccontextmanager
async def call_of(
    fake: FakeServer, registry: CallRegistry, *, faults: TwilioFaults | None = None
) -> AsyncIterator[asyncio.Task[TwilioCallRecord]]:
    simulator = TwilioSimulator(
        fake.base_url,
        public_url=PUBLIC,
        account_sid=ACCOUNT_SID,
        auth_token=AUTH_TOKEN,
        limit_seconds=10,
        registry=registry,
    )
    fake.refuse_unsigned = False
    calling = asyncio.create_task(
        simulator.place_call(
            [WaitForHangup(8)], call_sid=SID, to_number=NUMBER, faults=faults or TwilioFaults()
        )
    )
    try:
        yield calling
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)


def is_streaming(api: TwilioRestSimulator, fake: FakeServer) -> Callable[[], object]:
    return lambda: SID in api.calls and api.call(SID).status == "in-progress" and fake.socket is not None


async def wait_for(api: TwilioRestSimulator, condition: Callable[[], object]) -> None:
    """The fake server does not notify of changes: poll, with a deadline."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_status_completed_ends_the_stream_with_stop_and_the_call_with_a_callback(
    api: TwilioRestSimulator, registry: CallRegistry, fake_server: FakeServer
) -> None:
    async with call_of(fake_server, registry) as calling:
        await wait_for(api, is_streaming(api, fake_server))
        answer = await call_api(api, update(status="completed"))
        assert answer.sid == SID
        record = await asyncio.wait_for(calling, 5)
    assert (record.ended_by, record.final_status, record.errors) == ("rest-api", "completed", [])
    assert fake_server.socket is not None and fake_server.socket.received[-1]["event"] == "stop"
    assert fake_server.params("/twilio/after") == [], "the action URL is not requested"
    (status,) = fake_server.params("/twilio/status")
    assert (status["CallStatus"], status["SequenceNumber"]) == ("completed", "0")
    await api.until(lambda: api.call(SID).is_over)
    assert (api.call(SID).status, api.call(SID).direction) == ("completed", "inbound")
    assert api.call(SID).duration == int(status["CallDuration"]) == 1
    assert api.call(SID).phone_number_sid == api.numbers[NUMBER].sid
    assert await call_and_get_error(api, update(status="completed")) == (400, 21220)


async def test_new_twiml_ends_the_stream_and_its_dial_requests_the_action_url(
    api: TwilioRestSimulator, registry: CallRegistry, fake_server: FakeServer
) -> None:
    fake_server.documents["/twilio/whisper"] = "<Response><Say>A caller for you.</Say></Response>"
    twiml = (
        f'<Response><Say>One moment.</Say><Dial action="{PUBLIC}/twilio/after?dialed=1">'
        f'<Number url="{PUBLIC}/twilio/whisper">{PERSON}</Number></Dial></Response>'
    )
    faults = TwilioFaults(dial_status="completed", dial_talk_seconds=0.05)
    async with call_of(fake_server, registry, faults=faults) as calling:
        await wait_for(api, is_streaming(api, fake_server))
        await call_api(api, update(twiml=twiml))
        record = await asyncio.wait_for(calling, 5)
    assert fake_server.socket is not None and fake_server.socket.received[-1]["event"] == "stop"
    assert (record.spoken_by_twilio, record.dialed) == (["One moment."], [PERSON])
    assert record.whispered == ["A caller for you."]
    (after,) = fake_server.params("/twilio/after")
    assert (after["DialCallStatus"], after["DialCallDuration"], after["CallStatus"]) == (
        "completed",
        "1",
        "in-progress",
    )
    (whisper,) = fake_server.params("/twilio/whisper")
    assert (whisper["ParentCallSid"], whisper["Direction"], whisper["To"]) == (SID, "outbound-dial", PERSON)
    legs = await call_api(api, lambda client: client.calls.list(parent_call_sid=SID))
    assert [(leg.sid, leg.status, leg.duration) for leg in legs] == [(after["DialCallSid"], "completed", "1")]
    await api.until(lambda: api.call(SID).is_over)


async def test_a_dialed_party_that_does_not_answer_is_reported_to_the_action_url(
    api: TwilioRestSimulator, registry: CallRegistry, fake_server: FakeServer
) -> None:
    async with call_of(fake_server, registry, faults=TwilioFaults(dial_status="no-answer")) as calling:
        await wait_for(api, is_streaming(api, fake_server))
        await call_api(api, update(twiml=DIAL))
        await asyncio.wait_for(calling, 5)
    (after,) = fake_server.params("/twilio/after")
    assert (after["DialCallStatus"], after["DialCallDuration"]) == ("no-answer", "0")


async def test_a_call_can_be_redirected_to_a_url_and_ended_during_a_dial(
    api: TwilioRestSimulator, registry: CallRegistry, fake_server: FakeServer
) -> None:
    fake_server.documents["/elsewhere"] = f"<Response><Dial>{PERSON}</Dial><Say>Too late.</Say></Response>"
    async with call_of(fake_server, registry, faults=TwilioFaults(dial_talk_seconds=8)) as calling:
        await wait_for(api, is_streaming(api, fake_server))
        await call_api(api, update(url=f"{PUBLIC}/elsewhere"))
        await api.until(lambda: any(call.direction == "outbound-dial" for call in api.active_calls()))
        await call_api(api, update(status="completed"))
        record = await asyncio.wait_for(calling, 5)
    assert (record.dialed, record.spoken_by_twilio, record.ended_by) == ([PERSON], [], "rest-api")
    await api.until(lambda: api.active_calls() == [])


async def test_a_rejected_call_is_never_in_progress(
    api: TwilioRestSimulator, registry: CallRegistry, fake_server: FakeServer
) -> None:
    fake_server.documents["/twilio/voice"] = "<Response><Reject reason='busy'/></Response>"
    async with call_of(fake_server, registry) as calling:
        await asyncio.wait_for(calling, 5)
    await api.until(lambda: api.call(SID).is_over)
    assert (api.call(SID).status, api.call(SID).started_at) == ("busy", None)


async def test_a_lost_connection_leaves_no_active_call(
    api: TwilioRestSimulator, fake_server: FakeServer
) -> None:
    registry = RemoteCallRegistry(api.base_url, ACCOUNT_SID, AUTH_TOKEN)
    async with call_of(fake_server, registry) as calling:
        await wait_for(api, is_streaming(api, fake_server))
        calling.cancel()
        await api.until(lambda: api.call(SID).is_over)


async def test_without_the_registry_a_call_continues_and_records_an_error(fake_server: FakeServer) -> None:
    async def hang_up(socket: Any) -> None:
        await socket.read_until("start")

    fake_server.handler = hang_up
    for registry in (
        RemoteCallRegistry("http://127.0.0.1:1", ACCOUNT_SID, AUTH_TOKEN),
        RemoteCallRegistry(fake_server.base_url, ACCOUNT_SID, AUTH_TOKEN),  # not a registry
    ):
        async with call_of(fake_server, registry) as calling:
            record = await asyncio.wait_for(calling, 5)
        assert (record.ended_by, [error.code for error in record.errors]) == ("server", [0])
        assert "does not know this call" in record.errors[0].text


async def test_the_registry_requires_the_accounts_sid_and_token(api: TwilioRestSimulator) -> None:
    details = CallDetails(SID, ACCOUNT_SID, CALLER, NUMBER)

    def fail(command: Command) -> None:
        raise AssertionError(command)

    for token, account in (("wrong", ACCOUNT_SID), (AUTH_TOKEN, "AC" + "0" * 32)):
        with pytest.raises(RegistryUnavailable):
            registry = RemoteCallRegistry(api.base_url, ACCOUNT_SID, token)
            await registry.connect(replace(details, account_sid=account), fail)
    assert not api.calls


async def test_the_registry_ignores_invalid_messages(api: TwilioRestSimulator) -> None:
    auth = {"Authorization": aiohttp.encode_basic_auth(ACCOUNT_SID, AUTH_TOKEN)}
    async with (
        aiohttp.ClientSession(headers=auth) as http,
        http.ws_connect(api.base_url + REGISTRY_PATH) as ws,
    ):
        await ws.send_json(to_json(CallDetails(SID, ACCOUNT_SID, CALLER, NUMBER)))
        assert await ws.receive_json() == {"registered": True}
        for text in ("{", "[]", '{"status":1}', json.dumps(to_json(StatusUpdate("dreaming")))):
            await ws.send_str(text)
        await ws.send_json(to_json(StatusUpdate("in-progress")))
        await api.until(lambda: api.call(SID).status == "in-progress")
        await call_api(api, update(url=f"{PUBLIC}/x", method="GET"))
        assert await ws.receive_json() == {"command": "url", "url": f"{PUBLIC}/x", "method": "GET"}
    await api.until(lambda: api.call(SID).is_over)
    async with aiohttp.ClientSession(headers=auth) as http:
        for text in ("{", '{"sid":"CA1"}', "[]", '{"sid":"CA1","more":"x"}'):
            async with http.ws_connect(api.base_url + REGISTRY_PATH) as ws:
                await ws.send_str(text)
                assert (await ws.receive()).data == 1008


@pytest.mark.parametrize("command", [EndCall("canceled"), RunTwiml("<Response/>"), FetchTwiml(PUBLIC, "GET")])
def test_a_command_survives_serialization(command: Command) -> None:
    assert command_from_json(command_to_json(command)) == command


def test_details_and_status_updates_survive_serialization() -> None:
    details, update = CallDetails("CA1", "AC1", CALLER, NUMBER), StatusUpdate("completed", 3, "human")
    assert (details_from_json(to_json(details)), status_update_from_json(to_json(update))) == (
        details,
        update,
    )
    assert command_from_json({"command": "dance"}) is None and status_update_from_json({}) is None


# Outbound calls


@pytest.fixture
async def outbound_api(fake_server: FakeServer) -> AsyncIterator[TwilioRestSimulator]:
    faults = TwilioRestFaults(ring_seconds=0.02, detection_seconds=0.02)
    fake_server.refuse_unsigned = False
    api = TwilioRestSimulator(server_url=fake_server.base_url, public_url=PUBLIC, faults=faults)
    api.callee_script = [Pause(20), HangUp()]
    async with api:
        yield api


ALL_EVENTS = ["initiated", "ringing", "answered", "completed"]
CALL_FORM: dict[str, Any] = {
    "to": PERSON,
    "from_": NUMBER,
    "url": f"{PUBLIC}/twilio/voice",
    "status_callback": f"{PUBLIC}/twilio/status",
    "status_callback_event": ALL_EVENTS,
}


def place_call(form: dict[str, Any]) -> ClientCall:
    return lambda client: client.calls.create(**form)


async def place_and_get(api: TwilioRestSimulator, **changes: Any) -> Call:
    answer = await call_api(api, place_call(CALL_FORM | changes))
    assert (answer.status, answer.direction, answer.to) == ("queued", "outbound-api", PERSON)
    return api.call(answer.sid)


async def wait_until_ended(api: TwilioRestSimulator, call: Call) -> TwilioCallRecord:
    await api.until(lambda: any(record.call_sid == call.sid for record in api.records))
    assert call.is_over
    return next(record for record in api.records if record.call_sid == call.sid)


async def test_an_outbound_call_is_answered_streamed_and_sends_all_status_callbacks(
    outbound_api: TwilioRestSimulator, fake_server: FakeServer
) -> None:
    call = await place_and_get(outbound_api)
    record = await wait_until_ended(outbound_api, call)
    assert (record.errors, record.ended_by, call.status) == ([], "caller", "completed")
    assert fake_server.socket is not None and fake_server.socket.received[-1]["event"] == "stop"
    (voice,) = fake_server.params("/twilio/voice")
    assert (voice["Direction"], voice["CallStatus"], voice["From"], voice["To"]) == (
        "outbound-api",
        "in-progress",
        NUMBER,
        PERSON,
    )
    assert "AnsweredBy" not in voice
    callbacks = sorted(fake_server.params("/twilio/status"), key=lambda form: int(form["SequenceNumber"]))
    assert [form["CallStatus"] for form in callbacks] == ["initiated", "ringing", "in-progress", "completed"]
    assert (callbacks[-1]["CallDuration"], callbacks[-1]["SipResponseCode"]) == ("1", "200")
    assert "CallDuration" not in callbacks[0]
    assert call.started_at is not None and call.duration == 1


async def test_requests_of_an_outbound_call_are_signed(
    outbound_api: TwilioRestSimulator, fake_server: FakeServer
) -> None:
    await wait_until_ended(outbound_api, await place_and_get(outbound_api))
    for path, form, request in fake_server.requests:
        expected = sign(AUTH_TOKEN, PUBLIC + request.raw_path, form)
        assert request.headers["X-Twilio-Signature"] == expected, path


async def test_an_outbound_call_executes_the_twiml_of_the_request(
    outbound_api: TwilioRestSimulator, fake_server: FakeServer
) -> None:
    call = await place_and_get(outbound_api, url=None, twiml="<Response><Say>Hello.</Say></Response>")
    record = await wait_until_ended(outbound_api, call)
    assert record.spoken_by_twilio == ["Hello."] and fake_server.params("/twilio/voice") == []


@pytest.mark.parametrize(("outcome", "sip"), [("busy", "486"), ("no-answer", "487"), ("failed", "404")])
async def test_an_unanswered_call_sends_a_callback_and_has_no_duration(
    outbound_api: TwilioRestSimulator, fake_server: FakeServer, outcome: str, sip: str
) -> None:
    outbound_api.faults = TwilioRestFaults(ring_seconds=0.02, outcome=outcome)
    call = await place_and_get(outbound_api, status_callback_event=["completed"])
    await wait_until_ended(outbound_api, call)
    (callback,) = fake_server.params("/twilio/status")
    assert (callback["CallStatus"], callback["SipResponseCode"], callback["SequenceNumber"]) == (
        outcome,
        sip,
        "0",
    )
    assert "CallDuration" not in callback and fake_server.params("/twilio/voice") == []
    assert (call.status, call.duration, call.started_at) == (outcome, None, None)


async def test_a_call_rings_no_longer_than_its_timeout(outbound_api: TwilioRestSimulator) -> None:
    outbound_api.faults = TwilioRestFaults(ring_seconds=30)
    call = await place_and_get(outbound_api, timeout=0)
    await wait_until_ended(outbound_api, call)
    assert call.status == "no-answer"


@pytest.mark.parametrize("status", ["canceled", "completed"])
async def test_a_ringing_call_can_be_canceled(
    outbound_api: TwilioRestSimulator, fake_server: FakeServer, status: str
) -> None:
    outbound_api.faults = TwilioRestFaults(ring_seconds=8)
    call = await place_and_get(outbound_api)
    await outbound_api.until(lambda: call.status == "ringing")
    await call_api(outbound_api, update(call.sid, status=status))
    await wait_until_ended(outbound_api, call)
    assert call.status == "canceled" and fake_server.params("/twilio/voice") == []
    assert "canceled" in {form["CallStatus"] for form in fake_server.params("/twilio/status")}


async def test_a_queued_call_is_canceled_without_a_callback(
    outbound_api: TwilioRestSimulator, fake_server: FakeServer
) -> None:
    outbound_api.faults = TwilioRestFaults(never_rings=True)
    call = await place_and_get(outbound_api)
    await call_api(outbound_api, update(call.sid, status="canceled"))
    await wait_until_ended(outbound_api, call)
    assert call.status == "canceled" and fake_server.requests == []


async def test_machine_detection_delays_the_twiml_request_and_adds_answered_by(
    outbound_api: TwilioRestSimulator, fake_server: FakeServer
) -> None:
    outbound_api.faults = replace(outbound_api.faults, answered_by="machine_end_beep")
    call = await place_and_get(outbound_api, machine_detection="DetectMessageEnd")
    await wait_until_ended(outbound_api, call)
    (voice,) = fake_server.params("/twilio/voice")
    assert voice["AnsweredBy"] == call.answered_by == "machine_end_beep"
    fetched = await call_api(outbound_api, lambda client: client.calls(call.sid).fetch())
    assert fetched.answered_by == "machine_end_beep"


async def test_asynchronous_machine_detection_sends_a_callback(
    outbound_api: TwilioRestSimulator, fake_server: FakeServer
) -> None:
    outbound_api.faults = replace(outbound_api.faults, answered_by="machine_start")
    outbound_api.callee_script = [WaitForHangup(8)]
    call = await place_and_get(
        outbound_api,
        machine_detection="Enable",
        async_amd="true",
        async_amd_status_callback=f"{PUBLIC}/twilio/amd",
    )
    await wait_for(outbound_api, lambda: fake_server.params("/twilio/amd"))
    (callback,) = fake_server.params("/twilio/amd")
    assert callback == {
        "CallSid": call.sid,
        "AccountSid": ACCOUNT_SID,
        "AnsweredBy": "machine_start",
        "MachineDetectionDuration": "20",
    }
    (voice,) = fake_server.params("/twilio/voice")
    assert "AnsweredBy" not in voice, "detection ended after the first TwiML request"
    await call_api(outbound_api, update(call.sid, status="completed"))
    await wait_until_ended(outbound_api, call)


async def test_invalid_requests_for_a_call_are_rejected(outbound_api: TwilioRestSimulator) -> None:
    for changes, code in (
        ({"to": "hello"}, 21211),
        ({"to": ""}, 21201),
        ({"from_": "+15550009999"}, 21210),
        ({"from_": "me"}, 21212),
        ({"from_": ""}, 21213),
        ({"url": None}, 21205),
        ({"url": "nowhere"}, 21205),
        ({"status_callback": "ftp://x"}, 21205),
        ({"url": None, "twiml": "x" * 4001}, 32018),
        ({"status_callback_event": ["dancing"]}, 21626),
        ({"machine_detection": "Maybe"}, 21218),
        ({"timeout": "long"}, 21218),
    ):
        assert await call_and_get_error(outbound_api, place_call(CALL_FORM | changes)) == (400, code)
    outbound_api.account.type = "Trial"
    assert await call_and_get_error(outbound_api, place_call(CALL_FORM)) == (400, 21219)
    assert not outbound_api.calls


async def test_no_host_outside_loopback_is_requested(fake_server: FakeServer) -> None:
    async with TwilioRestSimulator(faults=TwilioRestFaults(ring_seconds=0)) as api:
        call = await place_and_get(api, url="https://elsewhere.example.com/voice")
        record = await wait_until_ended(api, call)
    assert call.status == "failed" and set(record.error_codes) == {11205, 11200}
