"""Who may come in: signatures against the published vectors, tickets, capacity, routes."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from django.http import QueryDict
from twilio.request_validator import RequestValidator

from bridge import admission as door
from bridge.admission import TICKET_SECONDS, Admission, Offer, TicketError
from bridge.config import BridgeConfig
from bridge.end_reason_cache import EndReasonCache
from bridge.opening_hours import OpeningHours, parse_hours
from bridge.routes import Route

CALL, ACCOUNT = "CA00000000000000000000000000000001", "AC00000000000000000000000000000001"


class Clock:
    """Both clocks of the door."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admission(
    clock: Clock | None = None, *, end_reasons: EndReasonCache | None = None, **settings: Any
) -> Admission:
    config = BridgeConfig(**{"ticket_secret": "s3cret", "twilio_account_sid": ACCOUNT, **settings})
    clock = clock or Clock()
    return Admission(config, end_reason_cache=end_reasons, clock=clock, wall=clock)


# Signatures

DOC_FORM = {
    "CallSid": "CA1234567890ABCDE", "Caller": "+14158675310", "Digits": "1234",
    "From": "+14158675310", "To": "+18005551212",
}  # fmt: skip
TEST_FORM = {
    "CallSid": "CA1234567890ABCDE", "Digits": "1234", "From": "+14158675309",
    "To": "+18005551212", "Caller": "+14158675309",
}  # fmt: skip


@pytest.mark.parametrize(
    ("public_url", "form", "signature"),
    [
        ("https://example.com", DOC_FORM, "L/OH5YylLD5NRKLltdqwSvS0BnU="),
        ("https://mycompany.com", TEST_FORM, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
    ],
)
def test_it_accepts_the_published_webhook_vectors(
    public_url: str, form: dict[str, str], signature: str
) -> None:
    gate = admission(public_url=public_url, twilio_auth_tokens=("12345",))
    assert gate.verify_request("/myapp.php?foo=1&bar=2", form, signature)
    posted = QueryDict(mutable=True)
    posted.update(form)
    assert gate.verify_request("/myapp.php?foo=1&bar=2", posted, signature)


@pytest.mark.parametrize(
    ("path", "form", "signature"),
    [
        ("/myapp.php?foo=1&bar=2", DOC_FORM, ""),
        ("/myapp.php?foo=1&bar=2", DOC_FORM, "L/OH5YylLD5NRKLltdqwSvS0BnX="),
        ("/myapp.php?foo=1&bar=2", DOC_FORM, "é"),
        ("/myapp.php?bar=2&foo=1", DOC_FORM, "L/OH5YylLD5NRKLltdqwSvS0BnU="),
        ("/myapp.php?foo=1&bar=2", {**DOC_FORM, "Extra": "1"}, "L/OH5YylLD5NRKLltdqwSvS0BnU="),
        ("/myapp.php?foo=1&bar=2", {**DOC_FORM, "To": "+1"}, "L/OH5YylLD5NRKLltdqwSvS0BnU="),
        ("/myapp.php?foo=1&bar=2", {}, "L/OH5YylLD5NRKLltdqwSvS0BnU="),
    ],
)
def test_it_refuses_every_other_webhook(path: str, form: dict[str, str], signature: str) -> None:
    gate = admission(public_url="https://example.com", twilio_auth_tokens=("12345",))
    assert not gate.verify_request(path, form, signature)


def test_a_json_body_is_covered_by_its_hash() -> None:
    body = '{"a":1}'
    digest = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    path = f"/twilio/events?bodySHA256={digest}"
    signature = RequestValidator("12345").compute_signature("https://example.com" + path, {})
    gate = admission(public_url="https://example.com", twilio_auth_tokens=("12345",))
    assert gate.verify_request(path, body, signature)
    assert not gate.verify_request(path, body + " ", signature)


@pytest.mark.parametrize(
    ("path", "signature", "good"),
    [
        ("/media/twilio", "wTO781gKV917KMoEvxUI++TwZGA=", True),
        ("/media/twilio", "+MVF25tGNgmV05ZJBq0ETLs6nPU=", True),
        ("/media/twilio/", "+MVF25tGNgmV05ZJBq0ETLs6nPU=", True),
        ("/media/twilio/", "wTO781gKV917KMoEvxUI++TwZGA=", True),
        ("/media/twilio", "5t87oS3/obuvX1VDgemHct0Q53c=", False),  # the https spelling
        ("/media/other", "wTO781gKV917KMoEvxUI++TwZGA=", False),
        ("/media/twilio", "", False),
    ],
)
def test_a_handshake_is_signed_over_the_wss_url(path: str, signature: str, good: bool) -> None:
    gate = admission(public_url="https://bridge.example.com", twilio_auth_tokens=("12345",))
    assert gate.verify_handshake(path, signature) is good


def test_while_a_token_is_rotated_both_are_good() -> None:
    gate = admission(public_url="https://bridge.example.com", twilio_auth_tokens=("new", "12345"))
    assert gate.verify_handshake("/media/twilio", "wTO781gKV917KMoEvxUI++TwZGA=")


def test_without_a_token_everything_is_refused() -> None:
    gate = admission()
    assert not gate.verify_request("/twilio/voice", {}, "")
    assert not gate.verify_handshake("/media-stream", "")


def test_in_debug_without_a_token_there_is_one_loud_warning(caplog: pytest.LogCaptureFixture) -> None:
    gate = admission(allow_unsigned=True)
    assert gate.verify_request("/twilio/voice", {}, "")
    assert gate.verify_handshake("/media-stream", "")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_debug_does_not_skip_signatures_when_there_is_a_token() -> None:
    gate = admission(allow_unsigned=True, twilio_auth_tokens=("12345",))
    assert not gate.verify_request("/twilio/voice", {}, "")
    assert not gate.verify_handshake("/media-stream", "")


# Tickets


async def claim(gate: Admission, offer: Offer, call: str = CALL, account: str = ACCOUNT) -> door.Claim:
    return await gate.claim(offer.ticket, offer.route_id, call, account)


async def why_refused(gate: Admission, offer: Offer, call: str = CALL, account: str = ACCOUNT) -> str:
    with pytest.raises(TicketError) as refusal:
        await claim(gate, offer, call, account)
    return str(refusal.value)


async def test_a_good_ticket_tells_the_route_and_the_caller() -> None:
    gate = admission()
    gate.replace_routes([Route("18f0", "+15559870000", "assistant-1")])
    offer = gate.offer(CALL, ACCOUNT, "+15559870000", "+15551230000")
    assert offer.refused == ""
    good = await claim(gate, offer)
    assert (good.route.assistant_id, good.caller) == ("assistant-1", "+15551230000")
    assert gate.live_call_sids() == [CALL]


async def test_a_ticket_is_good_once() -> None:
    gate = admission()
    offer = gate.offer(CALL, ACCOUNT, "+1")
    await claim(gate, offer)
    gate.release(CALL)
    assert await why_refused(gate, offer) == "spent"


async def test_a_second_stream_of_a_live_call_is_refused_and_the_first_untouched() -> None:
    gate = admission()
    first, second = gate.offer(CALL, ACCOUNT, "+1"), gate.offer(CALL, ACCOUNT, "+1")
    await claim(gate, first)
    assert await why_refused(gate, second) == "second-stream"
    assert gate.live_calls == 1


async def test_a_ticket_belongs_to_one_call_of_one_account() -> None:
    gate = admission()
    offer = gate.offer(CALL, ACCOUNT, "+1")
    assert await why_refused(gate, offer, call="CA2") == "other-call"
    assert await why_refused(gate, offer, call="CÄ") == "other-call"
    assert await why_refused(gate, offer, account="AC2") == "other-account"
    assert gate.live_calls == 0


async def test_an_account_that_is_not_ours_is_refused() -> None:
    gate = admission()
    assert await why_refused(gate, gate.offer(CALL, "AC2", "+1"), account="AC2") == "foreign-account"
    anyone = admission(twilio_account_sid="")
    await claim(anyone, anyone.offer(CALL, "AC2", "+1"), account="AC2")


async def test_a_ticket_is_good_for_a_minute(clock: Clock) -> None:
    gate = admission(clock)
    offer = gate.offer(CALL, ACCOUNT, "+1")
    clock.now += TICKET_SECONDS
    assert await why_refused(gate, offer) == "expired"


@pytest.mark.parametrize(
    "ticket", ["x", ".", "x.y", "é.é", "\ud800.x", "x.\ud800", "e30.x", "." * 1000, "e30"]
)
async def test_a_made_up_ticket_is_forged(ticket: str) -> None:
    assert await why_refused(admission(), Offer(ticket)) == "forged"


async def test_no_ticket_is_no_ticket() -> None:
    assert await why_refused(admission(), Offer("")) == "missing"


async def test_a_ticket_that_was_changed_is_forged() -> None:
    gate = admission()
    body, _, signature = gate.offer(CALL, ACCOUNT, "+1").ticket.partition(".")
    facts = json.loads(base64.urlsafe_b64decode(body))
    changed = base64.urlsafe_b64encode(json.dumps({**facts, "call": "CA2"}).encode()).decode()
    assert await why_refused(gate, Offer(f"{changed}.{signature}"), call="CA2") == "forged"


async def test_another_secrets_ticket_is_forged() -> None:
    offer = admission(ticket_secret="other").offer(CALL, ACCOUNT, "+1")
    assert await why_refused(admission(), offer) == "forged"


async def test_another_worker_with_the_same_secret_honours_it() -> None:
    offer = admission().offer(CALL, ACCOUNT, "+1")
    await claim(admission(), offer)


class Shared:
    """The cache of all workers."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    async def get(self, name: str) -> Any:
        return None

    async def set(self, name: str, value: str, *, ex: int, nx: bool = False) -> Any:
        self.asked.set()
        await self.answers.wait()
        if name in self.held:
            return None
        self.held.add(name)
        return True


async def test_a_ticket_is_good_once_among_all_workers() -> None:
    shared = Shared()
    here, there = admission(end_reasons=EndReasonCache(shared)), admission(end_reasons=EndReasonCache(shared))
    offer = here.offer(CALL, ACCOUNT, "+1")
    await claim(here, offer)
    assert await why_refused(there, offer) == "spent-elsewhere"
    assert there.live_calls == 0


async def test_a_claim_that_is_cancelled_costs_no_place() -> None:
    shared = Shared()
    shared.answers.clear()
    gate = admission(end_reasons=EndReasonCache(shared))
    claiming = asyncio.create_task(claim(gate, gate.offer(CALL, ACCOUNT, "+1")))
    async with asyncio.timeout(2):
        await shared.asked.wait()
    assert gate.live_calls == 1, "nobody may come between while the cache is asked"
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    assert gate.live_calls == 0


async def test_spent_tickets_are_forgotten_once_they_are_worthless(clock: Clock) -> None:
    gate = admission(clock)
    await claim(gate, gate.offer(CALL, ACCOUNT, "+1"))
    clock.now += 2 * TICKET_SECONDS
    await claim(gate, gate.offer("CA2", ACCOUNT, "+1"), "CA2")
    assert len(gate._used) == 1


async def test_a_memory_full_of_spent_tickets_trusts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_USED_TICKETS", 1)
    gate = admission()
    await claim(gate, gate.offer(CALL, ACCOUNT, "+1"))
    assert await why_refused(gate, gate.offer("CA2", ACCOUNT, "+1"), "CA2") == "spent"


def test_a_ticket_is_not_in_an_offers_repr() -> None:
    offer = admission().offer(CALL, ACCOUNT, "+1")
    assert offer.ticket not in repr(offer)


def test_a_ticket_fits_into_a_parameter() -> None:
    offer = admission().offer(CALL, ACCOUNT, "+15559870000", "sip:" + "x" * 500)
    assert len("ticket" + offer.ticket) < 500


# Capacity


async def test_streams_and_tickets_take_places(clock: Clock) -> None:
    gate = admission(clock, max_concurrent_calls=2)
    await claim(gate, gate.offer(CALL, ACCOUNT, "+1"))
    assert gate.free_places == 1
    gate.offer("CA2", ACCOUNT, "+1")
    assert not gate.accepting
    assert gate.offer("CA3", ACCOUNT, "+1").refused == "at-capacity"


async def test_a_place_is_free_again_when_a_call_leaves_or_a_ticket_expires(clock: Clock) -> None:
    gate = admission(clock, max_concurrent_calls=2)
    await claim(gate, gate.offer(CALL, ACCOUNT, "+1"))
    gate.offer("CA2", ACCOUNT, "+1")
    gate.release(CALL)
    assert gate.free_places == 1
    clock.now += TICKET_SECONDS
    assert gate.free_places == 2


def test_asking_again_for_the_same_call_takes_no_second_place() -> None:
    gate = admission(max_concurrent_calls=1)
    assert gate.offer(CALL, ACCOUNT, "+1").refused == ""
    assert gate.offer(CALL, ACCOUNT, "+1").refused == ""


async def test_a_live_call_may_ask_again_at_capacity() -> None:
    gate = admission(max_concurrent_calls=1)
    await claim(gate, gate.offer(CALL, ACCOUNT, "+1"))
    assert gate.offer(CALL, ACCOUNT, "+1").refused == ""


LINE = Route("1", "+1", max_concurrent_calls=1)


async def test_a_number_has_a_limit_of_its_own(clock: Clock) -> None:
    gate = admission(clock)
    gate.replace_routes([LINE, Route("2", "+2")])
    assert gate.offer(CALL, ACCOUNT, "+1").refused == ""
    assert gate.offer("CA2", ACCOUNT, "+1").refused == "at-capacity", "a promise counts"
    clock.now += TICKET_SECONDS
    offer = gate.offer("CA2", ACCOUNT, "+1")
    await claim(gate, offer, "CA2")
    assert gate.offer("CA3", ACCOUNT, "+1").refused == "at-capacity", "a stream counts"
    assert gate.offer("CA2", ACCOUNT, "+1").refused == "", "the same call costs no second place"
    assert gate.offer("CA3", ACCOUNT, "+2").refused == gate.offer("CA4", ACCOUNT, "+3").refused == ""
    gate.release("CA2")
    clock.now += TICKET_SECONDS
    assert gate.offer("CA3", ACCOUNT, "+1").refused == ""


def test_a_numbers_limit_makes_no_more_room_than_there_is() -> None:
    gate = admission(max_concurrent_calls=1)
    gate.replace_routes([replace(LINE, max_concurrent_calls=5)])
    gate.offer(CALL, ACCOUNT, "+3")
    assert gate.offer("CA2", ACCOUNT, "+1").refused == "at-capacity"


def test_calls_that_are_on_outlast_a_smaller_limit() -> None:
    gate = admission()
    for call in (CALL, "CA2"):
        gate.offer(call, ACCOUNT, "+1")
    gate.replace_routes([replace(LINE, max_concurrent_calls=0)])
    assert gate.offer("CA3", ACCOUNT, "+1").refused == "at-capacity"
    gate.replace_routes([replace(LINE, max_concurrent_calls=None)])
    assert gate.offer("CA3", ACCOUNT, "+1").refused == ""


def test_outside_its_hours_a_number_takes_no_calls_but_places_them(clock: Clock) -> None:
    clock.now = datetime(2026, 11, 23, 18, tzinfo=UTC).timestamp()  # a Monday
    gate = admission(clock)
    hours = OpeningHours(parse_hours("Mon-Fri 08:00-18:00"), UTC)
    gate.replace_routes([Route("1", "+1", hours=hours)])
    offer = gate.offer(CALL, ACCOUNT, "+1")
    assert (offer.route_id, offer.refused, offer.ticket) == ("1", "out-of-hours", "")
    assert gate.free_places == gate.config.max_concurrent_calls
    assert gate.offer(CALL, ACCOUNT, "+1", inbound=False).refused == ""
    clock.now -= 1
    assert gate.offer(CALL, ACCOUNT, "+1").refused == ""


def test_a_number_that_is_closed_says_so_also_while_we_restart(clock: Clock) -> None:
    gate = admission(clock)
    gate.draining = True
    gate.replace_routes([Route("1", "+1", hours=OpeningHours((), UTC))])
    assert gate.offer(CALL, ACCOUNT, "+1").refused == "out-of-hours"


def test_a_draining_server_takes_no_more_calls() -> None:
    gate = admission()
    gate.draining = True
    assert not gate.accepting
    assert gate.offer(CALL, ACCOUNT, "+1").refused == "draining"


# Routes


def test_numbers_lead_where_the_snapshot_says() -> None:
    gate = admission()
    gate.replace_routes([Route("1", "+1", "a"), Route("2", "+2", "b")])
    assert (gate.route_for("+2").id, gate.route("1").assistant_id) == ("2", "a")
    assert gate.route_for("+3") == gate.route("3") == Route()
    gate.replace_routes([])
    assert gate.route_for("+2") == Route()
