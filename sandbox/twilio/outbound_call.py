"""A call that the account places: it rings, somebody or something answers, and then it is a call like others.

The person who answers is a script, as the callers of `carrier` are. Machine detection, where it was asked
for, either delays the first TwiML and rides on its request (`AnsweredBy`), or goes on beside the call and
reports to an address of its own.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import aiohttp

from sandbox.faults import CarrierApiDials
from sandbox.twilio import twiml
from sandbox.twilio.callbacks import Number
from sandbox.twilio.caller import Listen, Say, StayOnTheLine, Step, Voice
from sandbox.twilio.exchange import CallFacts, EndCall, Exchange, News
from sandbox.twilio.inbound_call import PhoneCall
from sandbox.twilio.media_stream import CarrierDials
from sandbox.twilio.record import CallRecord
from sandbox.twilio.webhooks import Addresses, Answer, Webhooks

EVENTS = ("initiated", "ringing", "answered", "completed")
RING_SECONDS = 60.0  # Twilio's own, where `Timeout` is not given
CALL_SECONDS = 600.0

SOMEBODY: tuple[Step, ...] = (
    Listen(timeout=10.0),
    Say("opening_hours"),
    Listen(timeout=10.0),
    Say("goodbye"),
    StayOnTheLine(timeout=20.0),
)


@dataclass(frozen=True, slots=True)
class Request:
    """What `POST Calls.json` asked for."""

    twiml: str
    url: str
    method: str
    status_url: str
    status_method: str
    status_events: frozenset[str]
    ring_limit_s: float
    call_limit_s: float
    detection: str  # "", Enable or DetectMessageEnd
    detection_is_async: bool
    detection_url: str
    detection_method: str


def request_of(form: Mapping[str, str], events: Sequence[str]) -> Request:
    """The parameters with Twilio's defaults. Raises `ValueError` for a number that is none."""
    return Request(
        twiml=form.get("Twiml", ""),
        url=form.get("Url", ""),
        method=form.get("Method", "POST").upper(),
        status_url=form.get("StatusCallback", ""),
        status_method=form.get("StatusCallbackMethod", "POST").upper(),
        status_events=frozenset(events) or frozenset({"completed"}),
        ring_limit_s=min(float(form.get("Timeout", RING_SECONDS)), 600.0),
        call_limit_s=min(float(form.get("TimeLimit", CALL_SECONDS)), CALL_SECONDS),
        detection="" if form.get("SendDigits") else form.get("MachineDetection", ""),
        detection_is_async=form.get("AsyncAmd", "").lower() == "true",
        detection_url=form.get("AsyncAmdStatusCallback", ""),
        detection_method=form.get("AsyncAmdStatusCallbackMethod", "POST").upper(),
    )


class OutgoingCall(PhoneCall):
    direction = "outbound-api"

    def __init__(self, request: Request, people: CarrierApiDials, *rest: Any) -> None:
        super().__init__(*rest)
        self._request = request
        self._people = people
        self._answered = False

    async def _open(self) -> list[twiml.Verb] | None:
        request, people, notices = self._request, self._people, self._notices
        if people.api_never_rings:
            await self._wait(self._left_s())
            self._silent, self._final_status = True, "canceled"  # out of the queue without a callback
            return None
        notices.of_status("initiated", "initiated")
        self._report(News("ringing"))
        notices.of_status("ringing", "ringing")
        await self._wait(min(people.ring_s, request.ring_limit_s))
        if self._order is not None:
            if not isinstance(self._order, EndCall):
                self._order = EndCall("canceled")  # the API lets nothing else through while it rings
            return None
        outcome = people.outcome if people.ring_s <= request.ring_limit_s else "no-answer"
        if outcome != "answered":
            self._final_status = outcome
            return None
        self._began, self._answered = monotonic(), True
        self._report(News("in-progress"))
        notices.of_status("answered", "in-progress")
        if request.detection and request.detection_is_async:
            self._aside = asyncio.create_task(self._detect_aside())
        elif request.detection:
            await self._wait(people.detection_s)
            self._detected()
        if self._order is not None:
            return None
        if request.twiml:
            answer = Answer(200, request.twiml, "text/xml", 0.0)
            return self._document(answer, "the TwiML of the request")
        return await self._fetch(request.url, request.method, {"CallStatus": "in-progress"})

    async def _detect_aside(self) -> None:
        await asyncio.sleep(self._people.detection_s)
        self._detected()
        if url := self._request.detection_url:
            facts = {
                "CallSid": self._record.call_sid,
                "AccountSid": self._record.account_sid,
                "AnsweredBy": self._people.answered_by,
                "MachineDetectionDuration": str(round(self._people.detection_s * 1000)),
            }
            self._notices.send(url, facts, self._request.detection_method)

    def _detected(self) -> None:
        who = self._people.answered_by
        self._notices.always["AnsweredBy"] = who
        self._report(News("in-progress", answered_by=who))


async def place(
    facts: CallFacts,
    request: Request,
    *,
    addresses: Addresses,
    auth_token: str,
    exchange: Exchange,
    people: CarrierApiDials,
    dials: CarrierDials,
    script: Sequence[Step],
    seed: int,
) -> CallRecord:
    """The whole call, from the first ring to the last callback."""
    record = CallRecord(facts.sid, facts.account_sid, facts.from_number, facts.to_number)
    number = Number(
        addresses=addresses,
        account_sid=facts.account_sid,
        auth_token=auth_token,
        voice_url=request.url,
        status_url=request.status_url or None,
        extra_params={},
        limit_s=request.call_limit_s,
        status_method=request.status_method,
        status_events=request.status_events,
    )
    async with aiohttp.ClientSession(trust_env=False) as session:
        webhooks = Webhooks(addresses, session)
        rest = (number, webhooks, record, Voice(seed), dials, _ignore, exchange)
        call = OutgoingCall(request, people, *rest)
        await call.run(script)
    return record


def _ignore(kind: str, data: dict[str, object]) -> None:
    """The book of calls tells all that there is to know."""
