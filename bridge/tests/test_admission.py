"""Admission: signatures against Twilio's published examples, tickets, capacity and routes."""

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

from bridge import admission as admission_module
from bridge.admission import (
    MAX_TICKET_SECONDS,
    SERVED_CALL_SECONDS,
    TICKET_SECONDS,
    Admission,
    Claim,
    Offer,
    TicketError,
)
from bridge.call_cache import CallCache
from bridge.config import BridgeConfig
from bridge.opening_hours import OpeningHours, parse_hours
from bridge.routes import Route

CALL, ACCOUNT = "CA00000000000000000000000000000001", "AC00000000000000000000000000000001"


class Clock:
    """The monotonic clock and the wall clock of `Admission`."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_admission(
    clock: Clock | None = None, *, call_cache: CallCache | None = None, **settings: Any
) -> Admission:
    config = BridgeConfig(**{"ticket_secret": "s3cret", "twilio_account_sid": ACCOUNT, **settings})
    clock = clock or Clock()
    return Admission(config, call_cache=call_cache, clock=clock, wall_clock=clock)


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
def test_it_accepts_the_published_webhook_signatures(
    public_url: str, form: dict[str, str], signature: str
) -> None:
    admission = make_admission(public_url=public_url, twilio_auth_tokens=("12345",))
    assert admission.verify_request("/myapp.php?foo=1&bar=2", form, signature)
    query_dict = QueryDict(mutable=True)
    query_dict.update(form)
    assert admission.verify_request("/myapp.php?foo=1&bar=2", query_dict, signature)


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
def test_it_rejects_a_webhook_with_any_other_signature(
    path: str, form: dict[str, str], signature: str
) -> None:
    admission = make_admission(public_url="https://example.com", twilio_auth_tokens=("12345",))
    assert not admission.verify_request(path, form, signature)


SPELLINGS = [
    ("https://voice.example.com", "https://Voice.Example.com"),
    ("https://voice.example.com", "https://voice.example.com:443"),
    ("https://xn--mnchen-3ya.example", "https://münchen.example"),
]


@pytest.mark.parametrize(("normalized", "written"), SPELLINGS)
def test_it_accepts_a_signature_for_either_spelling_of_the_public_url(normalized: str, written: str) -> None:
    """Twilio signs the address that its console has, which may be the one in PUBLIC_URL or ours."""
    admission = make_admission(
        public_url=normalized, public_url_spellings=(written,), twilio_auth_tokens=("12345",)
    )
    sign = RequestValidator("12345").compute_signature
    for origin in (normalized, written):
        assert admission.verify_request("/twilio/voice", DOC_FORM, sign(f"{origin}/twilio/voice", DOC_FORM))
        socket = f"wss{origin.removeprefix('https')}/media-stream"
        assert admission.verify_handshake("/media-stream", sign(socket, {}))
    for origin in ("https://other.example.com", "http://voice.example.com"):
        assert not admission.verify_request("/twilio/voice", {}, sign(f"{origin}/twilio/voice", {}))


def test_a_json_body_is_verified_by_its_hash() -> None:
    body = '{"a":1}'
    digest = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    path = f"/twilio/events?bodySHA256={digest}"
    signature = RequestValidator("12345").compute_signature("https://example.com" + path, {})
    admission = make_admission(public_url="https://example.com", twilio_auth_tokens=("12345",))
    assert admission.verify_request(path, body, signature)
    assert not admission.verify_request(path, body + " ", signature)


@pytest.mark.parametrize(
    ("path", "signature", "good"),
    [
        ("/media/twilio", "wTO781gKV917KMoEvxUI++TwZGA=", True),
        ("/media/twilio", "+MVF25tGNgmV05ZJBq0ETLs6nPU=", True),
        ("/media/twilio/", "+MVF25tGNgmV05ZJBq0ETLs6nPU=", True),
        ("/media/twilio/", "wTO781gKV917KMoEvxUI++TwZGA=", True),
        ("/media/twilio", "5t87oS3/obuvX1VDgemHct0Q53c=", False),  # signed over the https URL
        ("/media/other", "wTO781gKV917KMoEvxUI++TwZGA=", False),
        ("/media/twilio", "", False),
    ],
)
def test_a_handshake_is_signed_over_the_wss_url_with_or_without_a_slash(
    path: str, signature: str, good: bool
) -> None:
    admission = make_admission(public_url="https://bridge.example.com", twilio_auth_tokens=("12345",))
    assert admission.verify_handshake(path, signature) is good


def test_both_tokens_are_accepted_during_rotation() -> None:
    admission = make_admission(public_url="https://bridge.example.com", twilio_auth_tokens=("new", "12345"))
    assert admission.verify_handshake("/media/twilio", "wTO781gKV917KMoEvxUI++TwZGA=")


def test_without_a_token_everything_is_rejected() -> None:
    admission = make_admission()
    assert not admission.verify_request("/twilio/voice", {}, "")
    assert not admission.verify_handshake("/media-stream", "")


def test_in_debug_without_a_token_everything_is_accepted_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    admission = make_admission(allow_unsigned=True)
    assert admission.verify_request("/twilio/voice", {}, "")
    assert admission.verify_handshake("/media-stream", "")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_in_debug_with_a_token_signatures_are_checked() -> None:
    admission = make_admission(allow_unsigned=True, twilio_auth_tokens=("12345",))
    assert not admission.verify_request("/twilio/voice", {}, "")
    assert not admission.verify_handshake("/media-stream", "")


# Tickets


async def claim(admission: Admission, offer: Offer, call: str = CALL, account: str = ACCOUNT) -> Claim:
    return await admission.claim(offer.ticket, offer.route_id, call, account)


async def refusal_of(admission: Admission, offer: Offer, call: str = CALL, account: str = ACCOUNT) -> str:
    with pytest.raises(TicketError) as error:
        await claim(admission, offer, call, account)
    return str(error.value)


async def test_a_valid_ticket_gives_the_route_and_the_caller() -> None:
    admission = make_admission()
    admission.replace_routes([Route("18f0", "+15559870000", "assistant-1")])
    offer = admission.offer(CALL, ACCOUNT, "+15559870000", "+15551230000")
    assert offer.refused == ""
    claimed = await claim(admission, offer)
    assert (claimed.route.assistant_id, claimed.caller) == ("assistant-1", "+15551230000")
    assert admission.live_call_sids() == [CALL]


async def test_a_ticket_is_valid_once() -> None:
    admission = make_admission()
    offer = admission.offer(CALL, ACCOUNT, "+1")
    await claim(admission, offer)
    admission.release(CALL)
    assert await refusal_of(admission, offer) == "served"


async def test_a_second_stream_of_a_live_call_is_refused() -> None:
    admission = make_admission()
    first, second = admission.offer(CALL, ACCOUNT, "+1"), admission.offer(CALL, ACCOUNT, "+1")
    await claim(admission, first)
    assert await refusal_of(admission, second) == "second-stream"
    assert admission.live_calls == 1


async def test_a_ticket_is_bound_to_one_call_of_one_account() -> None:
    admission = make_admission()
    offer = admission.offer(CALL, ACCOUNT, "+1")
    assert await refusal_of(admission, offer, call="CA2") == "other-call"
    assert await refusal_of(admission, offer, call="CÄ") == "other-call"
    assert await refusal_of(admission, offer, account="AC2") == "other-account"
    assert admission.live_calls == 0


async def test_a_ticket_of_a_foreign_account_is_refused() -> None:
    admission = make_admission()
    assert await refusal_of(admission, admission.offer(CALL, "AC2", "+1"), account="AC2") == "foreign-account"
    anyone = make_admission(twilio_account_sid="")
    await claim(anyone, anyone.offer(CALL, "AC2", "+1"), account="AC2")


async def test_a_ticket_expires_after_a_minute(clock: Clock) -> None:
    admission = make_admission(clock)
    offer = admission.offer(CALL, ACCOUNT, "+1")
    clock.now += TICKET_SECONDS
    assert await refusal_of(admission, offer) == "expired"


@pytest.mark.parametrize(
    ("notice", "spoken_seconds"),
    [
        # Seconds that the ticket must outlast: an assumed speed of a voice, not a measured one.
        ({"greeting": "Welcome to our practice. " * 40}, 75),
        (
            {"greeting": "We are open from 8 to 18. " * 20, "disclosure": "You are speaking to an AI. " * 20},
            80,
        ),
        ({"greeting": "欢迎致电我们的诊所。" * 100}, 250),
        ({"greeting": "ようこそ" * 100}, 90),
        ({"greeting": "안녕하세요 " * 100}, 110),
        ({"disclosure": "+1 555 010 0134 " * 20}, 110),
    ],
)
async def test_a_ticket_and_its_place_last_as_long_as_twilio_speaks(
    clock: Clock, notice: dict[str, str], spoken_seconds: float
) -> None:
    admission = make_admission(clock, max_concurrent_calls=1)
    admission.replace_routes([Route("1", "+1", **notice)])  # type: ignore[arg-type]
    offer = admission.offer(CALL, ACCOUNT, "+1")
    clock.now += spoken_seconds + TICKET_SECONDS - 1
    assert admission.count_free_places() == 0
    await claim(admission, offer)
    assert admission.live_calls == 1


async def test_a_ticket_does_not_last_longer_than_the_limit(clock: Clock) -> None:
    admission = make_admission(clock)
    admission.replace_routes([Route("1", "+1", greeting="9" * 100_000)])
    offer = admission.offer(CALL, ACCOUNT, "+1")
    clock.now += MAX_TICKET_SECONDS
    assert await refusal_of(admission, offer) == "expired"


async def test_a_used_ticket_is_known_as_long_as_it_could_be_used_again(clock: Clock) -> None:
    admission = make_admission(clock)
    admission.replace_routes([Route("1", "+1", greeting="9" * 100_000)])
    offer = admission.offer(CALL, ACCOUNT, "+1")
    await claim(admission, offer)
    admission.release(CALL)
    clock.now += MAX_TICKET_SECONDS - 1
    assert await refusal_of(admission, offer) == "served"
    assert SERVED_CALL_SECONDS > MAX_TICKET_SECONDS


def test_places_of_short_and_long_notices_are_free_again_when_they_expire(clock: Clock) -> None:
    admission = make_admission(clock, max_concurrent_calls=2)
    admission.replace_routes([Route("1", "+1", greeting="word " * 200)])
    admission.offer("CA1", ACCOUNT, "+1")
    admission.offer("CA2", ACCOUNT, "+2")
    clock.now += TICKET_SECONDS
    assert admission.count_free_places() == 1


@pytest.mark.parametrize(
    ("caller", "told"),
    [
        ("+15550100134", "+15550100134"),
        ("client:" + "\N{TELEPHONE RECEIVER}" * 33, "client:" + "\N{TELEPHONE RECEIVER}" * 14),
        ("client:" + "\u00fc" * 200, "client:" + "\u00fc" * 28),
        ("sip:" + "x" * 60, "sip:" + "x" * 60),
        ("sip:" + "x" * 500, "sip:" + "x" * 60),
        ("client:" + "\x00" * 60, "client:"),
        ('client:"' + "\\" * 60, 'client:"' + "\\" * 56),
        ("client:\ud800\u202e7", "client:7"),
    ],
)
async def test_a_ticket_fits_into_a_parameter_whoever_calls(caller: str, told: str) -> None:
    admission = make_admission()
    offer = admission.offer("CA" + "f" * 62, ACCOUNT, "+1", caller)
    assert len("ticket") + len(offer.ticket) <= 500
    claimed = await claim(admission, offer, "CA" + "f" * 62)
    assert claimed.caller == told


def test_a_call_that_ends_during_the_greeting_frees_its_place() -> None:
    admission = make_admission(max_concurrent_calls=1)
    admission.offer(CALL, ACCOUNT, "+1")
    admission.cancel_offer(CALL)
    admission.cancel_offer("CA9")
    assert admission.count_free_places() == 1


@pytest.mark.parametrize(
    "ticket", ["x", ".", "x.y", "é.é", "\ud800.x", "x.\ud800", "e30.x", "." * 1000, "e30"]
)
async def test_a_malformed_ticket_is_refused_as_forged(ticket: str) -> None:
    assert await refusal_of(make_admission(), Offer(ticket)) == "forged"


async def test_an_empty_ticket_is_refused_as_missing() -> None:
    assert await refusal_of(make_admission(), Offer("")) == "missing"


async def test_a_modified_ticket_is_refused_as_forged() -> None:
    admission = make_admission()
    body, _, signature = admission.offer(CALL, ACCOUNT, "+1").ticket.partition(".")
    payload = json.loads(base64.urlsafe_b64decode(body))
    changed = base64.urlsafe_b64encode(json.dumps({**payload, "call": "CA2"}).encode()).decode()
    assert await refusal_of(admission, Offer(f"{changed}.{signature}"), call="CA2") == "forged"


async def test_a_ticket_signed_with_another_secret_is_refused_as_forged() -> None:
    offer = make_admission(ticket_secret="other").offer(CALL, ACCOUNT, "+1")
    assert await refusal_of(make_admission(), offer) == "forged"


async def test_a_ticket_is_accepted_by_another_worker_with_the_same_secret() -> None:
    offer = make_admission().offer(CALL, ACCOUNT, "+1")
    await claim(make_admission(), offer)


class FakeSharedCache:
    """The cache that all workers share."""

    def __init__(self) -> None:
        self.values: set[str] = set()
        self.requested = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def get(self, name: str) -> Any:
        return None

    async def set(self, name: str, value: str, *, ex: int, nx: bool = False) -> Any:
        self.requested.set()
        await self.may_answer.wait()
        if name in self.values:
            return None
        self.values.add(name)
        return True


async def test_a_ticket_is_valid_once_for_all_workers() -> None:
    cache = FakeSharedCache()
    first, second = (
        make_admission(call_cache=CallCache(cache)),
        make_admission(call_cache=CallCache(cache)),
    )
    offer = first.offer(CALL, ACCOUNT, "+1")
    await claim(first, offer)
    assert await refusal_of(second, offer) == "served-elsewhere"
    assert second.live_calls == 0


async def test_without_the_shared_cache_a_worker_accepts_its_own_tickets_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = FakeSharedCache()
    cache.may_answer.clear()
    monkeypatch.setattr("bridge.call_cache.SHARED_SECONDS", 0.01)
    first, second = (make_admission(call_cache=CallCache(cache)) for _ in range(2))
    offer = first.offer(CALL, ACCOUNT, "+1")
    assert await refusal_of(second, offer) == "served-elsewhere"
    assert second.live_calls == 0
    await claim(first, offer)
    assert await refusal_of(first, offer) == "second-stream"


async def test_a_call_that_had_its_stream_gets_no_second_ticket(clock: Clock) -> None:
    admission = make_admission(clock)
    first, second = admission.offer(CALL, ACCOUNT, ""), admission.offer(CALL, ACCOUNT, "")
    assert first.ticket and second.ticket, "Twilio repeats a webhook whose response it did not get"
    await claim(admission, first)
    assert admission.offer(CALL, ACCOUNT, "") == Offer(is_repeated=True)
    admission.release(CALL)
    assert admission.offer(CALL, ACCOUNT, "").is_repeated
    with pytest.raises(TicketError, match="served"):
        await claim(admission, second)
    clock.now += SERVED_CALL_SECONDS
    assert admission.offer(CALL, ACCOUNT, "").ticket


async def test_a_call_that_is_over_gets_no_ticket(clock: Clock) -> None:
    admission = make_admission(clock)
    admission.offer(CALL, ACCOUNT, "")
    admission.cancel_offer(CALL)
    assert admission.offer(CALL, ACCOUNT, "").is_repeated
    assert admission.taken_places == 0


async def test_the_memory_of_served_calls_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "MAX_SERVED_CALLS", 3)
    admission = make_admission()
    for number in range(5):
        admission.cancel_offer(f"CA{number}")
    assert [admission.offer(f"CA{number}", ACCOUNT, "").is_repeated for number in range(5)] == [
        False, False, True, True, True,
    ]  # fmt: skip


async def test_a_cancelled_claim_does_not_keep_its_place() -> None:
    cache = FakeSharedCache()
    cache.may_answer.clear()
    admission = make_admission(call_cache=CallCache(cache))
    claim_task = asyncio.create_task(claim(admission, admission.offer(CALL, ACCOUNT, "+1")))
    async with asyncio.timeout(2):
        await cache.requested.wait()
    assert admission.live_calls == 1, "the place is taken while the shared cache is queried"
    claim_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claim_task
    assert admission.live_calls == 0


async def test_a_cancelled_claim_uses_the_ticket() -> None:
    """Whether the shared cache has stored the claim is not known."""
    cache = FakeSharedCache()
    cache.may_answer.clear()
    admission = make_admission(call_cache=CallCache(cache))
    offer = admission.offer(CALL, ACCOUNT, "+1")
    claim_task = asyncio.create_task(claim(admission, offer))
    async with asyncio.timeout(2):
        await cache.requested.wait()
    claim_task.cancel()
    await asyncio.gather(claim_task, return_exceptions=True)
    assert await refusal_of(admission, offer) == "served"


async def test_served_calls_are_forgotten_after_their_tickets_have_expired(clock: Clock) -> None:
    admission = make_admission(clock)
    await claim(admission, admission.offer(CALL, ACCOUNT, "+1"))
    clock.now += SERVED_CALL_SECONDS
    await claim(admission, admission.offer("CA2", ACCOUNT, "+1"), "CA2")
    assert len(admission._served) == 1


def test_the_repr_of_an_offer_does_not_contain_the_ticket() -> None:
    offer = make_admission().offer(CALL, ACCOUNT, "+1")
    assert offer.ticket not in repr(offer)


def test_a_ticket_fits_into_a_twiml_parameter() -> None:
    offer = make_admission().offer(CALL, ACCOUNT, "+15559870000", "sip:" + "x" * 500)
    assert len("ticket" + offer.ticket) < 500


# Capacity


async def test_streams_and_tickets_take_places(clock: Clock) -> None:
    admission = make_admission(clock, max_concurrent_calls=2)
    await claim(admission, admission.offer(CALL, ACCOUNT, "+1"))
    assert admission.count_free_places() == 1
    admission.offer("CA2", ACCOUNT, "+1")
    assert not admission.accepting
    assert admission.offer("CA3", ACCOUNT, "+1").refused == "at-capacity"


async def test_a_place_is_free_again_when_a_call_ends_or_a_ticket_expires(clock: Clock) -> None:
    admission = make_admission(clock, max_concurrent_calls=2)
    await claim(admission, admission.offer(CALL, ACCOUNT, "+1"))
    admission.offer("CA2", ACCOUNT, "+1")
    admission.release(CALL)
    assert admission.count_free_places() == 1
    clock.now += TICKET_SECONDS
    assert admission.count_free_places() == 2


def test_a_second_offer_for_the_same_call_takes_no_second_place() -> None:
    admission = make_admission(max_concurrent_calls=1)
    assert admission.offer(CALL, ACCOUNT, "+1").refused == ""
    assert admission.offer(CALL, ACCOUNT, "+1").refused == ""


async def test_a_live_call_gets_a_new_offer_at_capacity() -> None:
    admission = make_admission(max_concurrent_calls=1)
    await claim(admission, admission.offer(CALL, ACCOUNT, "+1"))
    assert admission.offer(CALL, ACCOUNT, "+1").refused == ""


LIMITED_ROUTE = Route("1", "+1", max_concurrent_calls=1)


async def test_a_number_can_have_its_own_limit(clock: Clock) -> None:
    admission = make_admission(clock)
    admission.replace_routes([LIMITED_ROUTE, Route("2", "+2")])
    assert admission.offer(CALL, ACCOUNT, "+1").refused == ""
    assert admission.offer("CA2", ACCOUNT, "+1").refused == "at-capacity", "a reserved place counts"
    clock.now += TICKET_SECONDS
    offer = admission.offer("CA2", ACCOUNT, "+1")
    await claim(admission, offer, "CA2")
    assert admission.offer("CA3", ACCOUNT, "+1").refused == "at-capacity", "a live stream counts"
    assert admission.offer("CA2", ACCOUNT, "+1").refused == "", "the same call costs no second place"
    assert (
        admission.offer("CA3", ACCOUNT, "+2").refused == admission.offer("CA4", ACCOUNT, "+3").refused == ""
    )
    admission.release("CA2")
    clock.now += TICKET_SECONDS
    assert admission.offer("CA3", ACCOUNT, "+1").refused == ""


def test_a_numbers_limit_does_not_raise_the_limit_of_the_process() -> None:
    admission = make_admission(max_concurrent_calls=1)
    admission.replace_routes([replace(LIMITED_ROUTE, max_concurrent_calls=5)])
    admission.offer(CALL, ACCOUNT, "+3")
    assert admission.offer("CA2", ACCOUNT, "+1").refused == "at-capacity"


def test_a_smaller_limit_refuses_new_calls_only() -> None:
    admission = make_admission()
    for call in (CALL, "CA2"):
        admission.offer(call, ACCOUNT, "+1")
    admission.replace_routes([replace(LIMITED_ROUTE, max_concurrent_calls=0)])
    assert admission.offer("CA3", ACCOUNT, "+1").refused == "at-capacity"
    admission.replace_routes([replace(LIMITED_ROUTE, max_concurrent_calls=None)])
    assert admission.offer("CA3", ACCOUNT, "+1").refused == ""


def test_outside_its_hours_a_number_refuses_inbound_calls_only(clock: Clock) -> None:
    clock.now = datetime(2026, 11, 23, 18, tzinfo=UTC).timestamp()  # a Monday
    admission = make_admission(clock)
    hours = OpeningHours(parse_hours("Mon-Fri 08:00-18:00"), UTC)
    admission.replace_routes([Route("1", "+1", hours=hours)])
    offer = admission.offer(CALL, ACCOUNT, "+1")
    assert (offer.route_id, offer.refused, offer.ticket) == ("1", "out-of-hours", "")
    assert admission.count_free_places() == admission.config.max_concurrent_calls
    assert admission.offer(CALL, ACCOUNT, "+1", inbound=False).refused == ""
    clock.now -= 1
    assert admission.offer(CALL, ACCOUNT, "+1").refused == ""


def test_out_of_hours_takes_precedence_over_draining(clock: Clock) -> None:
    admission = make_admission(clock)
    admission.stopping = True
    admission.replace_routes([Route("1", "+1", hours=OpeningHours((), UTC))])
    assert admission.offer(CALL, ACCOUNT, "+1").refused == "out-of-hours"


def test_a_draining_server_refuses_calls() -> None:
    admission = make_admission()
    admission.stopping = True
    assert not admission.accepting
    assert admission.offer(CALL, ACCOUNT, "+1").refused == "draining"


# Routes


def test_routes_are_found_by_number_and_by_id_in_the_latest_snapshot() -> None:
    admission = make_admission()
    admission.replace_routes([Route("1", "+1", "a"), Route("2", "+2", "b")])
    assert (admission.route_for("+2").id, admission.route("1").assistant_id) == ("2", "a")
    assert admission.route_for("+3") == admission.route("3") == Route()
    admission.replace_routes([])
    assert admission.route_for("+2") == Route()
