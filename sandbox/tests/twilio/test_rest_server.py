"""The stand-in for Twilio's REST API, asked by Twilio's own client over loopback."""

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

from sandbox.faults import CarrierApiDials
from sandbox.tests.twilio.test_carrier import PUBLIC, FarSide, far_side
from sandbox.twilio.caller import HangUp, Pause, StayOnTheLine
from sandbox.twilio.carrier import CallRecord, Carrier
from sandbox.twilio.exchange import (
    CallFacts,
    EndCall,
    Exchange,
    News,
    NoExchange,
    ObeyTwiml,
    ObeyUrl,
    Order,
    facts_from_wire,
    news_from_wire,
    order_from_wire,
    order_to_wire,
    to_wire,
)
from sandbox.twilio.media_stream import CarrierDials
from sandbox.twilio.relay import LINES_PATH, RemoteExchange
from sandbox.twilio.resources import DEMO_URL, Call
from sandbox.twilio.rest_server import ACCOUNT_SID, AUTH_TOKEN, NUMBER, CarrierApi
from sandbox.twilio.webhooks import sign

__all__ = ["far_side"]  # a fixture

CALLER = "+15550100134"
PERSON = "+15550107777"
SID = "CA" + "a" * 32
DIAL = f'<Response><Dial action="{PUBLIC}/twilio/after?dialed=1">{PERSON}</Dial></Response>'

Ask = Callable[[Client], Any]


@pytest.fixture
async def api() -> AsyncIterator[CarrierApi]:
    async with CarrierApi() as api:
        yield api


async def ask(api: CarrierApi, question: Ask, *, token: str = AUTH_TOKEN, seconds: float = 5.0) -> Any:
    """What Twilio's own client gets for an answer."""
    client = Client(ACCOUNT_SID, token, http_client=TwilioHttpClient(timeout=seconds))
    client.api.base_url = api.base_url
    return await asyncio.to_thread(question, client)


async def refusal(api: CarrierApi, question: Ask, **options: Any) -> tuple[int, int | None]:
    with pytest.raises(TwilioException) as raised:
        await ask(api, question, **options)
    if isinstance(raised.value, TwilioRestException):
        return raised.value.status, raised.value.code
    answer = json.loads(raised.value.args[1].text)  # a list that is refused raises the response itself
    return answer["status"], answer["code"]


def update(sid: str = SID, **changes: Any) -> Ask:
    return lambda client: client.calls(sid).update(**changes)


def entered(api: CarrierApi, sid: str = SID, **changes: Any) -> Call:
    facts = {"account_sid": ACCOUNT_SID, "from_number": CALLER, "to_number": NUMBER, "status": "in-progress"}
    return api.enter(Call(sid, **(facts | changes)))


# The door


async def test_who_has_another_token_is_refused_in_twilios_shape(api: CarrierApi) -> None:
    assert await refusal(api, lambda client: client.calls.list(), token="wrong") == (401, 20003)
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


async def test_what_is_not_there_is_not_found(api: CarrierApi) -> None:
    for question in (
        lambda client: client.calls("CA" + "0" * 32).fetch(),
        lambda client: client.calls("CA" + "0" * 32).update(status="completed"),
        lambda client: client.incoming_phone_numbers("PN" + "0" * 32).fetch(),
        lambda client: client.api.accounts("AC" + "0" * 32).fetch(),
        lambda client: client.messages.list(),
    ):
        assert await refusal(api, question) == (404, 20404)


async def test_an_account_is_shown_and_a_suspended_one_does_nothing(api: CarrierApi) -> None:
    account = await ask(api, lambda client: client.api.accounts(ACCOUNT_SID).fetch())
    assert (account.sid, account.status, account.type) == (ACCOUNT_SID, "active", "Full")
    api.account.status, api.account.type = "suspended", "Trial"
    account = await ask(api, lambda client: client.api.accounts(ACCOUNT_SID).fetch())
    assert (account.status, account.type) == ("suspended", "Trial")
    entered(api)
    assert await refusal(api, update(status="completed")) == (403, 20005)


@pytest.mark.parametrize(("status", "code"), [(401, 20003), (429, 20429), (500, 20500), (418, 20001)])
async def test_it_fails_as_told_and_only_where_and_as_often_as_told(
    api: CarrierApi, status: int, code: int
) -> None:
    api.dials = CarrierApiDials(rest_status=status, rest_failures=1, rest_only="/Calls")
    await ask(api, lambda client: client.api.accounts(ACCOUNT_SID).fetch())
    assert await refusal(api, lambda client: client.calls.list()) == (status, code)
    assert await ask(api, lambda client: client.calls.list()) == []
    assert [asked.status for asked in api.asked] == [200, status, 200]


async def test_it_hangs_talks_garbage_and_breaks_off(api: CarrierApi) -> None:
    call = entered(api)
    url = f"{api.base_url}/2010-04-01/Accounts/{ACCOUNT_SID}/Calls/{SID}.json"
    auth = {"Authorization": aiohttp.encode_basic_auth(ACCOUNT_SID, AUTH_TOKEN)}
    async with aiohttp.ClientSession(headers=auth) as http:
        api.dials = CarrierApiDials(rest_garbage=True)
        async with http.get(url) as got:
            assert got.status == 200 and "Bad gateway" in await got.text()
        api.dials = CarrierApiDials(rest_hang=True)
        with pytest.raises(TimeoutError):
            await http.get(url, timeout=aiohttp.ClientTimeout(total=0.2))
        api.dials = CarrierApiDials(rest_cut=True)
        with pytest.raises(aiohttp.ClientError):
            async with http.post(url, data={"Status": "completed"}) as got:
                await got.read()
        assert call.status == "completed", "it was done all the same"


# Numbers


async def test_a_number_is_found_and_its_addresses_are_changed(api: CarrierApi) -> None:
    api.numbers[PERSON] = replace(api.numbers[NUMBER], phone_number=PERSON, sid="PN" + "7" * 32)
    (number,) = await ask(api, lambda client: client.incoming_phone_numbers.list(phone_number=NUMBER))
    assert (number.phone_number, number.voice_url, number.voice_method) == (NUMBER, DEMO_URL, "POST")
    changed = await ask(
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
    fetched = await ask(api, lambda client: client.incoming_phone_numbers(number.sid).fetch())
    for each in (changed, fetched):
        assert (each.voice_url, each.voice_method) == (f"{PUBLIC}/twilio/voice", "GET")
        assert (each.voice_fallback_url, each.status_callback) == (
            f"{PUBLIC}/fallback",
            f"{PUBLIC}/twilio/status",
        )
        assert each.friendly_name == "Front desk" and each.capabilities["voice"]
    assert len(await ask(api, lambda client: client.incoming_phone_numbers.list())) == 2
    assert await ask(api, lambda client: client.incoming_phone_numbers.list(phone_number="+4930")) == []


def change_number(client: Client, *, sid: str, **changes: str) -> Any:
    return client.incoming_phone_numbers(sid).update(**changes)


async def test_a_number_takes_neither_a_wrong_address_nor_a_wrong_method(api: CarrierApi) -> None:
    sid = api.numbers[NUMBER].sid
    for changes, code in (
        ({"voice_url": "not a url"}, 21402),
        ({"status_callback": "http://[broken"}, 21402),
        ({"voice_method": "PUT"}, 21403),
    ):
        change = partial(change_number, sid=sid, **changes)
        assert await refusal(api, change) == (400, code)
    assert api.numbers[NUMBER].voice_url == DEMO_URL
    cleared = await ask(api, lambda client: client.incoming_phone_numbers(sid).update(voice_url=""))
    assert cleared.voice_url == ""


# The book of calls


async def test_a_call_is_shown_as_twilio_shows_it_and_its_price_comes_late(api: CarrierApi) -> None:
    call = entered(api, started_at=datetime(2026, 8, 18, 9, 30, tzinfo=UTC))
    shown = await ask(api, lambda client: client.calls(SID).fetch())
    assert (shown.status, shown.direction, shown._from, shown.to) == (
        "in-progress",
        "inbound",
        CALLER,
        NUMBER,
    )
    assert shown.start_time == datetime(2026, 8, 18, 9, 30, tzinfo=UTC)
    assert (shown.end_time, shown.duration, shown.price, shown.answered_by) == (None, None, None, None)
    assert call.shown()["start_time"] == "Tue, 18 Aug 2026 09:30:00 +0000"
    api.moved(call, News("completed", 61))
    over = await ask(api, lambda client: client.calls(SID).fetch())
    assert (over.status, over.duration, over.price, over.price_unit) == ("completed", "61", None, "USD")
    api.bill(SID)
    billed = await ask(api, lambda client: client.calls(SID).fetch())
    assert billed.price == "-0.01700", "61 s are two minutes"
    api.bill(SID, "-0.04000")
    assert call.price == Decimal("-0.04")
    api.moved(call, News("failed"))
    assert call.status == "completed", "a terminal status stays"


async def test_a_bill_comes_by_itself_when_it_is_told_to(api: CarrierApi) -> None:
    api.dials = CarrierApiDials(price_after_s=0.01)
    call = entered(api, direction="outbound-api")
    api.moved(call, News("completed", 60))
    assert call.price is None
    await api.until(lambda: call.price is not None)
    assert call.shown()["price"] == "-0.01400"
    unanswered = entered(api, "CA" + "b" * 32, status="ringing")
    api.moved(unanswered, News("busy"))
    await api.until(lambda: unanswered.price is not None)
    assert (unanswered.shown()["price"], unanswered.shown()["duration"]) == ("0.00000", None)


async def test_calls_are_listed_newest_first_by_page_and_by_filter(api: CarrierApi) -> None:
    day = datetime(2026, 11, 20, 12, tzinfo=UTC)
    for number in range(7):
        entered(
            api,
            f"CA{number:032d}",
            started_at=day + timedelta(days=number),
            status="completed" if number % 2 else "in-progress",
            to_number=PERSON if number == 6 else NUMBER,
        )

    async def listed(**filters: Any) -> list[int]:
        found = await ask(api, lambda client: client.calls.list(**filters))
        return [int(call.sid[2:]) for call in found]

    assert await listed(page_size=3) == [6, 5, 4, 3, 2, 1, 0]
    assert await listed(page_size=3, limit=4) == [6, 5, 4, 3]
    assert await listed(status="completed") == [5, 3, 1]
    assert await listed(to=PERSON) == [6] and await listed(from_=PERSON) == []
    assert await listed(start_time_after=day + timedelta(days=5)) == [6, 5]
    assert await listed(start_time_before=day + timedelta(days=1)) == [1, 0]
    assert await listed(start_time=day + timedelta(days=2, hours=3)) == [2]
    assert await listed(end_time_after=day) == []
    assert await refusal(api, lambda client: client.calls.list(start_time="yesterday")) == (400, 20001)
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


async def test_what_cannot_be_done_to_a_call_is_refused(api: CarrierApi) -> None:
    call = entered(api)
    for changes, code in (
        ({"status": "busy"}, 21218),
        ({"twiml": "<Response/>", "url": PUBLIC}, 21218),
        ({"twiml": "x" * 4001}, 32018),
        ({"url": "nowhere"}, 21205),
        ({"url": PUBLIC, "method": "PUT"}, 21205),
    ):
        assert await refusal(api, update(**changes)) == (400, code)
    unchanged = await ask(api, update(status="canceled"))
    assert unchanged.status == "in-progress", "only what still rings can be canceled"
    done = await ask(api, update(status="completed"))
    assert done.status == "completed" and call.is_over, "nobody carries it: it just ends"
    for changes in ({"status": "completed"}, {"twiml": "<Response/>"}):
        assert await refusal(api, update(**changes)) == (400, 21220)
    entered(api, status="ringing", direction="outbound-api")
    assert await refusal(api, update(twiml="<Response/>")) == (400, 21220)


# Calls that the simulated carrier carries, here or in another process


@pytest.fixture(params=["here", "relayed"])
def exchange(request: pytest.FixtureRequest, api: CarrierApi) -> Exchange:
    if request.param == "here":
        return api
    return RemoteExchange(api.base_url, ACCOUNT_SID, AUTH_TOKEN)


@contextlib.asynccontextmanager
async def call_of(
    side: FarSide, exchange: Exchange, *, dials: CarrierDials | None = None
) -> AsyncIterator[asyncio.Task[CallRecord]]:
    carrier = Carrier(
        side.base_url,
        public_url=PUBLIC,
        account_sid=ACCOUNT_SID,
        auth_token=AUTH_TOKEN,
        limit_s=10,
        exchange=exchange,
    )
    side.refuse_unsigned = False
    calling = asyncio.create_task(
        carrier.place_call([StayOnTheLine(8)], call_sid=SID, to_number=NUMBER, dials=dials or CarrierDials())
    )
    try:
        yield calling
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)


def streaming(api: CarrierApi, side: FarSide) -> Callable[[], object]:
    return lambda: SID in api.calls and api.call(SID).status == "in-progress" and side.socket is not None


async def met(api: CarrierApi, condition: Callable[[], object]) -> None:
    """The far side has no noticeboard of its own: look often, with a deadline."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_hanging_up_ends_the_stream_with_stop_and_the_call_with_a_callback(
    api: CarrierApi, exchange: Exchange, far_side: FarSide
) -> None:
    async with call_of(far_side, exchange) as calling:
        await met(api, streaming(api, far_side))
        answer = await ask(api, update(status="completed"))
        assert answer.sid == SID
        record = await asyncio.wait_for(calling, 5)
    assert (record.ended_by, record.final_status, record.errors) == ("carrier", "completed", [])
    assert far_side.socket is not None and far_side.socket.received[-1]["event"] == "stop"
    assert far_side.params("/twilio/after") == [], "nobody is asked what comes next"
    (status,) = far_side.params("/twilio/status")
    assert (status["CallStatus"], status["SequenceNumber"]) == ("completed", "0")
    await api.until(lambda: api.call(SID).is_over)
    assert (api.call(SID).status, api.call(SID).direction) == ("completed", "inbound")
    assert api.call(SID).duration == int(status["CallDuration"]) == 1
    assert api.call(SID).phone_number_sid == api.numbers[NUMBER].sid
    assert await refusal(api, update(status="completed")) == (400, 21220)


async def test_new_twiml_takes_the_call_from_the_stream_and_its_dial_asks_the_action(
    api: CarrierApi, exchange: Exchange, far_side: FarSide
) -> None:
    far_side.documents["/twilio/whisper"] = "<Response><Say>A caller for you.</Say></Response>"
    twiml = (
        f'<Response><Say>One moment.</Say><Dial action="{PUBLIC}/twilio/after?dialed=1">'
        f'<Number url="{PUBLIC}/twilio/whisper">{PERSON}</Number></Dial></Response>'
    )
    dials = CarrierDials(dial_status="completed", dial_s=0.05)
    async with call_of(far_side, exchange, dials=dials) as calling:
        await met(api, streaming(api, far_side))
        await ask(api, update(twiml=twiml))
        record = await asyncio.wait_for(calling, 5)
    assert far_side.socket is not None and far_side.socket.received[-1]["event"] == "stop"
    assert (record.spoken_by_twilio, record.dialed) == (["One moment."], [PERSON])
    assert record.whispered == ["A caller for you."]
    (after,) = far_side.params("/twilio/after")
    assert (after["DialCallStatus"], after["DialCallDuration"], after["CallStatus"]) == (
        "completed",
        "1",
        "in-progress",
    )
    (whisper,) = far_side.params("/twilio/whisper")
    assert (whisper["ParentCallSid"], whisper["Direction"], whisper["To"]) == (SID, "outbound-dial", PERSON)
    legs = await ask(api, lambda client: client.calls.list(parent_call_sid=SID))
    assert [(leg.sid, leg.status, leg.duration) for leg in legs] == [(after["DialCallSid"], "completed", "1")]
    await api.until(lambda: api.call(SID).is_over)


async def test_a_person_who_does_not_answer_is_told_to_the_action(
    api: CarrierApi, exchange: Exchange, far_side: FarSide
) -> None:
    async with call_of(far_side, exchange, dials=CarrierDials(dial_status="no-answer")) as calling:
        await met(api, streaming(api, far_side))
        await ask(api, update(twiml=DIAL))
        await asyncio.wait_for(calling, 5)
    (after,) = far_side.params("/twilio/after")
    assert (after["DialCallStatus"], after["DialCallDuration"]) == ("no-answer", "0")


async def test_a_call_can_be_sent_to_an_address_and_ended_in_the_middle_of_a_dial(
    api: CarrierApi, exchange: Exchange, far_side: FarSide
) -> None:
    far_side.documents["/elsewhere"] = f"<Response><Dial>{PERSON}</Dial><Say>Too late.</Say></Response>"
    async with call_of(far_side, exchange, dials=CarrierDials(dial_s=8)) as calling:
        await met(api, streaming(api, far_side))
        await ask(api, update(url=f"{PUBLIC}/elsewhere"))
        await api.until(lambda: any(call.direction == "outbound-dial" for call in api.live()))
        await ask(api, update(status="completed"))
        record = await asyncio.wait_for(calling, 5)
    assert (record.dialed, record.spoken_by_twilio, record.ended_by) == ([PERSON], [], "carrier")
    await api.until(lambda: api.live() == [])


async def test_a_rejected_call_never_was_in_progress(
    api: CarrierApi, exchange: Exchange, far_side: FarSide
) -> None:
    far_side.documents["/twilio/voice"] = "<Response><Reject reason='busy'/></Response>"
    async with call_of(far_side, exchange) as calling:
        await asyncio.wait_for(calling, 5)
    await api.until(lambda: api.call(SID).is_over)
    assert (api.call(SID).status, api.call(SID).started_at) == ("busy", None)


async def test_a_carrier_that_is_gone_leaves_no_live_call(api: CarrierApi, far_side: FarSide) -> None:
    exchange = RemoteExchange(api.base_url, ACCOUNT_SID, AUTH_TOKEN)
    async with call_of(far_side, exchange) as calling:
        await met(api, streaming(api, far_side))
        calling.cancel()
        await api.until(lambda: api.call(SID).is_over)


async def test_without_the_api_a_call_goes_on_and_says_so(far_side: FarSide) -> None:
    async def hang_up(socket: Any) -> None:
        await socket.next("start")

    far_side.handler = hang_up
    for exchange in (
        RemoteExchange("http://127.0.0.1:1", ACCOUNT_SID, AUTH_TOKEN),
        RemoteExchange(far_side.base_url, ACCOUNT_SID, AUTH_TOKEN),  # somebody else
    ):
        async with call_of(far_side, exchange) as calling:
            record = await asyncio.wait_for(calling, 5)
        assert (record.ended_by, [error.code for error in record.errors]) == ("server", [0])
        assert "does not know this call" in record.errors[0].text


async def test_a_relay_needs_the_accounts_token_and_its_own_account(api: CarrierApi) -> None:
    facts = CallFacts(SID, ACCOUNT_SID, CALLER, NUMBER)

    def never(order: Order) -> None:
        raise AssertionError(order)

    for token, account in (("wrong", ACCOUNT_SID), (AUTH_TOKEN, "AC" + "0" * 32)):
        with pytest.raises(NoExchange):
            relay = RemoteExchange(api.base_url, ACCOUNT_SID, token)
            await relay.connect(replace(facts, account_sid=account), never)
    assert not api.calls


async def test_nonsense_on_the_relay_is_passed_over(api: CarrierApi) -> None:
    auth = {"Authorization": aiohttp.encode_basic_auth(ACCOUNT_SID, AUTH_TOKEN)}
    async with (
        aiohttp.ClientSession(headers=auth) as http,
        http.ws_connect(api.base_url + LINES_PATH) as ws,
    ):
        await ws.send_json(to_wire(CallFacts(SID, ACCOUNT_SID, CALLER, NUMBER)))
        assert await ws.receive_json() == {"known": True}
        for text in ("{", "[]", '{"status":1}', json.dumps(to_wire(News("dreaming")))):
            await ws.send_str(text)
        await ws.send_json(to_wire(News("in-progress")))
        await api.until(lambda: api.call(SID).status == "in-progress")
        await ask(api, update(url=f"{PUBLIC}/x", method="GET"))
        assert await ws.receive_json() == {"order": "url", "url": f"{PUBLIC}/x", "method": "GET"}
    await api.until(lambda: api.call(SID).is_over)
    async with aiohttp.ClientSession(headers=auth) as http:
        for text in ("{", '{"sid":"CA1"}', "[]", '{"sid":"CA1","more":"x"}'):
            async with http.ws_connect(api.base_url + LINES_PATH) as ws:
                await ws.send_str(text)
                assert (await ws.receive()).data == 1008


@pytest.mark.parametrize("order", [EndCall("canceled"), ObeyTwiml("<Response/>"), ObeyUrl(PUBLIC, "GET")])
def test_an_order_survives_the_wire(order: Order) -> None:
    assert order_from_wire(order_to_wire(order)) == order


def test_the_wire_knows_what_it_knows() -> None:
    facts, news = CallFacts("CA1", "AC1", CALLER, NUMBER), News("completed", 3, "human")
    assert (facts_from_wire(to_wire(facts)), news_from_wire(to_wire(news))) == (facts, news)
    assert order_from_wire({"order": "dance"}) is None and news_from_wire({}) is None


# Calls that the account places


@pytest.fixture
async def calling_out(far_side: FarSide) -> AsyncIterator[CarrierApi]:
    dials = CarrierApiDials(ring_s=0.02, detection_s=0.02)
    far_side.refuse_unsigned = False
    api = CarrierApi(server_url=far_side.base_url, public_url=PUBLIC, dials=dials)
    api.script = [Pause(20), HangUp()]
    async with api:
        yield api


EVERYTHING = ["initiated", "ringing", "answered", "completed"]
PLACE: dict[str, Any] = {
    "to": PERSON,
    "from_": NUMBER,
    "url": f"{PUBLIC}/twilio/voice",
    "status_callback": f"{PUBLIC}/twilio/status",
    "status_callback_event": EVERYTHING,
}


def place(form: dict[str, Any]) -> Ask:
    return lambda client: client.calls.create(**form)


async def placed(api: CarrierApi, **changes: Any) -> Call:
    answer = await ask(api, place(PLACE | changes))
    assert (answer.status, answer.direction, answer.to) == ("queued", "outbound-api", PERSON)
    return api.call(answer.sid)


async def over(api: CarrierApi, call: Call) -> CallRecord:
    await api.until(lambda: any(record.call_sid == call.sid for record in api.records))
    assert call.is_over
    return next(record for record in api.records if record.call_sid == call.sid)


async def test_a_call_is_placed_answered_and_streamed_and_each_step_called_back(
    calling_out: CarrierApi, far_side: FarSide
) -> None:
    call = await placed(calling_out)
    record = await over(calling_out, call)
    assert (record.errors, record.ended_by, call.status) == ([], "caller", "completed")
    assert far_side.socket is not None and far_side.socket.received[-1]["event"] == "stop"
    (voice,) = far_side.params("/twilio/voice")
    assert (voice["Direction"], voice["CallStatus"], voice["From"], voice["To"]) == (
        "outbound-api",
        "in-progress",
        NUMBER,
        PERSON,
    )
    assert "AnsweredBy" not in voice
    told = sorted(far_side.params("/twilio/status"), key=lambda form: int(form["SequenceNumber"]))
    assert [form["CallStatus"] for form in told] == ["initiated", "ringing", "in-progress", "completed"]
    assert (told[-1]["CallDuration"], told[-1]["SipResponseCode"]) == ("1", "200")
    assert "CallDuration" not in told[0]
    assert call.started_at is not None and call.duration == 1


async def test_requests_of_a_placed_call_are_signed(calling_out: CarrierApi, far_side: FarSide) -> None:
    await over(calling_out, await placed(calling_out))
    for path, form, request in far_side.requests:
        expected = sign(AUTH_TOKEN, PUBLIC + request.raw_path, form)
        assert request.headers["X-Twilio-Signature"] == expected, path


async def test_a_placed_call_obeys_the_twiml_it_was_given(calling_out: CarrierApi, far_side: FarSide) -> None:
    call = await placed(calling_out, url=None, twiml="<Response><Say>Hello.</Say></Response>")
    record = await over(calling_out, call)
    assert record.spoken_by_twilio == ["Hello."] and far_side.params("/twilio/voice") == []


@pytest.mark.parametrize(("outcome", "sip"), [("busy", "486"), ("no-answer", "487"), ("failed", "404")])
async def test_who_does_not_answer_is_called_back_and_costs_no_time(
    calling_out: CarrierApi, far_side: FarSide, outcome: str, sip: str
) -> None:
    calling_out.dials = CarrierApiDials(ring_s=0.02, outcome=outcome)
    call = await placed(calling_out, status_callback_event=["completed"])
    await over(calling_out, call)
    (told,) = far_side.params("/twilio/status")
    assert (told["CallStatus"], told["SipResponseCode"], told["SequenceNumber"]) == (outcome, sip, "0")
    assert "CallDuration" not in told and far_side.params("/twilio/voice") == []
    assert (call.status, call.duration, call.started_at) == (outcome, None, None)


async def test_a_call_rings_no_longer_than_its_timeout(calling_out: CarrierApi) -> None:
    calling_out.dials = CarrierApiDials(ring_s=30)
    call = await placed(calling_out, timeout=0)
    await over(calling_out, call)
    assert call.status == "no-answer"


@pytest.mark.parametrize("status", ["canceled", "completed"])
async def test_a_ringing_call_can_be_canceled(
    calling_out: CarrierApi, far_side: FarSide, status: str
) -> None:
    calling_out.dials = CarrierApiDials(ring_s=8)
    call = await placed(calling_out)
    await calling_out.until(lambda: call.status == "ringing")
    await ask(calling_out, update(call.sid, status=status))
    await over(calling_out, call)
    assert call.status == "canceled" and far_side.params("/twilio/voice") == []
    assert "canceled" in {form["CallStatus"] for form in far_side.params("/twilio/status")}


async def test_a_queued_call_is_canceled_without_a_callback(
    calling_out: CarrierApi, far_side: FarSide
) -> None:
    calling_out.dials = CarrierApiDials(api_never_rings=True)
    call = await placed(calling_out)
    await ask(calling_out, update(call.sid, status="canceled"))
    await over(calling_out, call)
    assert call.status == "canceled" and far_side.requests == []


async def test_machine_detection_delays_the_twiml_and_rides_on_its_request(
    calling_out: CarrierApi, far_side: FarSide
) -> None:
    calling_out.dials = replace(calling_out.dials, answered_by="machine_end_beep")
    call = await placed(calling_out, machine_detection="DetectMessageEnd")
    await over(calling_out, call)
    (voice,) = far_side.params("/twilio/voice")
    assert voice["AnsweredBy"] == call.answered_by == "machine_end_beep"
    shown = await ask(calling_out, lambda client: client.calls(call.sid).fetch())
    assert shown.answered_by == "machine_end_beep"


async def test_detection_beside_the_call_is_called_back(calling_out: CarrierApi, far_side: FarSide) -> None:
    calling_out.dials = replace(calling_out.dials, answered_by="machine_start")
    calling_out.script = [StayOnTheLine(8)]
    call = await placed(
        calling_out,
        machine_detection="Enable",
        async_amd="true",
        async_amd_status_callback=f"{PUBLIC}/twilio/amd",
    )
    await met(calling_out, lambda: far_side.params("/twilio/amd"))
    (told,) = far_side.params("/twilio/amd")
    assert told == {
        "CallSid": call.sid,
        "AccountSid": ACCOUNT_SID,
        "AnsweredBy": "machine_start",
        "MachineDetectionDuration": "20",
    }
    (voice,) = far_side.params("/twilio/voice")
    assert "AnsweredBy" not in voice, "the conversation had begun"
    await ask(calling_out, update(call.sid, status="completed"))
    await over(calling_out, call)


async def test_what_cannot_be_called_is_refused(calling_out: CarrierApi) -> None:
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
        assert await refusal(calling_out, place(PLACE | changes)) == (400, code)
    calling_out.account.type = "Trial"
    assert await refusal(calling_out, place(PLACE)) == (400, 21219)
    assert not calling_out.calls


async def test_nobody_outside_is_ever_called(far_side: FarSide) -> None:
    async with CarrierApi(dials=CarrierApiDials(ring_s=0)) as api:
        call = await placed(api, url="https://elsewhere.example.com/voice")
        record = await over(api, call)
    assert call.status == "failed" and set(record.error_codes) == {11205, 11200}
