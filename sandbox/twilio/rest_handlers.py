"""The HTTP side of the stand-in for Twilio's REST API: forms in, JSON out, errors by Twilio's codes.

Each handler is one documented endpoint. What the account may do with a call or a number is decided here;
what then happens to the call is the business of whoever carries it.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from sandbox.twilio.exchange import (
    EndCall,
    ObeyTwiml,
    ObeyUrl,
    facts_from_wire,
    news_from_wire,
    order_to_wire,
)
from sandbox.twilio.outbound_call import EVENTS, request_of
from sandbox.twilio.resources import E164, STATUSES, VERSION, Call, Number, now_utc
from sandbox.twilio.rest_auth import Door, Form, Refused, error, is_right, not_found, page

if TYPE_CHECKING:
    from sandbox.twilio.rest_server import CarrierApi

MAX_TWIML = 4000
MAX_FORM_BYTES = 1 << 17
HELLO_WITHIN_S = 5.0
MAX_NEWS_BYTES = 4096
METHODS = {"GET", "POST"}
LINES_PATH = "/sandbox/lines"
CALL_URLS = ("Url", "StatusCallback", "AsyncAmdStatusCallback", "FallbackUrl")
NUMBER_URLS = {
    "VoiceUrl": "voice_url",
    "VoiceFallbackUrl": "voice_fallback_url",
    "StatusCallback": "status_callback",
}
NUMBER_METHODS = {
    "VoiceMethod": "voice_method",
    "VoiceFallbackMethod": "voice_fallback_method",
    "StatusCallbackMethod": "status_callback_method",
}


class Rest:
    def __init__(self, api: "CarrierApi") -> None:
        self._api = api
        self._door = Door(api)

    def application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_FORM_BYTES)
        router, through = application.router, self._door.through
        base = f"/{VERSION}/Accounts/{{account}}"
        router.add_get(f"{base}.json", through(self._account))
        router.add_get(f"{base}/IncomingPhoneNumbers.json", through(self._numbers))
        router.add_get(f"{base}/IncomingPhoneNumbers/{{sid}}.json", through(self._number))
        router.add_post(f"{base}/IncomingPhoneNumbers/{{sid}}.json", through(self._change_number))
        router.add_get(f"{base}/Calls.json", through(self._calls))
        router.add_post(f"{base}/Calls.json", through(self._place_call))
        router.add_get(f"{base}/Calls/{{sid}}.json", through(self._call))
        router.add_post(f"{base}/Calls/{{sid}}.json", through(self._change_call))
        router.add_get(LINES_PATH, self._line)
        router.add_route("*", "/{rest:.*}", through(self._unknown))
        return application

    async def _unknown(self, request: web.Request, form: Form) -> web.Response:
        raise not_found(request)

    # Account and numbers

    async def _account(self, request: web.Request, form: Form) -> web.Response:
        return web.json_response(self._api.account.shown())

    async def _numbers(self, request: web.Request, form: Form) -> web.Response:
        wanted = request.query.get("PhoneNumber", "").strip()
        found = [number for number in self._api.numbers.values() if wanted.lstrip("+") in number.phone_number]
        return page(request, "incoming_phone_numbers", [number.shown() for number in found])

    async def _number(self, request: web.Request, form: Form) -> web.Response:
        return web.json_response(self._number_of(request).shown())

    async def _change_number(self, request: web.Request, form: Form) -> web.Response:
        number = self._number_of(request)
        changes: dict[str, str] = {}
        for name, attribute in NUMBER_URLS.items():
            if name in form:
                if form[name] and not _is_url(form[name]):
                    raise Refused(400, 21402, f"{name} is not valid: {form[name][:200]}")
                changes[attribute] = form[name]
        for name, attribute in NUMBER_METHODS.items():
            if name in form:
                if form[name].upper() not in METHODS:
                    raise Refused(400, 21403, f"{name} is not valid: {form[name][:20]}")
                changes[attribute] = form[name].upper()
        if "FriendlyName" in form:
            changes["friendly_name"] = form["FriendlyName"][:64]
        if "VoiceApplicationSid" in form:
            changes["voice_application_sid"] = form["VoiceApplicationSid"]
        for attribute, value in changes.items():
            setattr(number, attribute, value)
        number.updated_at = now_utc()
        return web.json_response(number.shown())

    def _number_of(self, request: web.Request) -> Number:
        sid = request.match_info["sid"]
        for number in self._api.numbers.values():
            if number.sid == sid:
                return number
        raise not_found(request)

    # Calls

    async def _calls(self, request: web.Request, form: Form) -> web.Response:
        wanted = _filters(request.query)
        found = [call for call in reversed(self._api.calls.values()) if all(fits(call) for fits in wanted)]
        return page(request, "calls", [call.shown() for call in found])

    async def _call(self, request: web.Request, form: Form) -> web.Response:
        return web.json_response(self._call_of(request).shown())

    async def _place_call(self, request: web.Request, form: Form) -> web.Response:
        to, ours, twiml = form.get("To", ""), form.get("From", ""), form.get("Twiml", "")
        if not to:
            raise Refused(400, 21201, "No 'To' number is specified")
        if not ours:
            raise Refused(400, 21213, "No 'From' number is specified")
        if not E164.fullmatch(to):
            raise Refused(400, 21211, f"The 'To' number {to[:40]} is not a valid phone number")
        if not E164.fullmatch(ours):
            raise Refused(400, 21212, f"The 'From' number {ours[:40]} is not a valid phone number")
        if ours not in self._api.numbers:
            raise Refused(400, 21210, f"The source phone number provided, {ours}, is not yet verified")
        account = self._api.account
        if account.type == "Trial" and to not in account.verified:
            raise Refused(400, 21219, f"The number {to} is unverified. Trial accounts call verified numbers.")
        check_twiml(twiml)
        addresses = [form[name] for name in CALL_URLS if form.get(name)]
        if not twiml and not form.get("Url"):
            raise Refused(400, 21205, "Url parameter is required.")
        if wrong := [url for url in addresses if not _is_url(url)]:
            raise Refused(400, 21205, f"Url is not a valid URL: {wrong[0][:200]}")
        events = [str(each) for each in (await request.post()).getall("StatusCallbackEvent", [])]
        if not set(events) <= set(EVENTS):
            raise Refused(400, 21626, f"Invalid status callback event(s): {', '.join(events)[:200]}")
        if form.get("MachineDetection", "") not in ("", "Enable", "DetectMessageEnd", "none"):
            raise Refused(400, 21218, "MachineDetection is not valid")
        try:
            call = self._api.place(ours, to, request_of(form, events))
        except ValueError:
            raise Refused(400, 21218, "Timeout and TimeLimit are numbers") from None
        return web.json_response(call.shown(), status=201)

    async def _change_call(self, request: web.Request, form: Form) -> web.Response:
        call = self._call_of(request)
        call.asked.append(dict(form))
        status, text, url = form.get("Status", ""), form.get("Twiml", ""), form.get("Url", "")
        if status and status not in ("completed", "canceled"):
            raise Refused(400, 21218, f"Status is not valid: {status[:20]}")
        if text and url:
            raise Refused(400, 21218, "Url and Twiml exclude each other")
        check_twiml(text)
        method = form.get("Method", "POST").upper()
        if url and not (_is_url(url) and method in METHODS):
            raise Refused(400, 21205, f"Url is not a valid URL: {url[:200]}")
        if call.is_over:
            raise Refused(400, 21220, "Call is not in-progress. Cannot redirect.")
        if status == "completed" or (status == "canceled" and call.status in ("queued", "ringing")):
            # Whoever still rings was never spoken to.
            before = call.direction != "inbound" and call.status != "in-progress"
            self._api.order(call, EndCall("canceled" if before else "completed"))
        elif (text or url) and call.direction != "inbound" and call.status != "in-progress":
            raise Refused(400, 21220, "Call is not in-progress. Cannot redirect.")
        elif text:
            self._api.order(call, ObeyTwiml(text))
        elif url:
            self._api.order(call, ObeyUrl(url, method))
        return web.json_response(call.shown())

    def _call_of(self, request: web.Request) -> Call:
        call = self._api.calls.get(request.match_info["sid"])
        if call is None:
            raise not_found(request)
        return call

    # Calls that another process carries

    async def _line(self, request: web.Request) -> web.StreamResponse:
        """A websocket per call: its facts, then its news, and the orders for it the other way."""
        account = self._api.account
        if not is_right(request, account.sid, account.token):
            return error(401, 20003, "Authenticate")
        ws = web.WebSocketResponse(compress=False, heartbeat=10.0, timeout=2.0, max_msg_size=MAX_NEWS_BYTES)
        await ws.prepare(request)
        try:
            facts = facts_from_wire(await ws.receive_json(timeout=HELLO_WITHIN_S))
        except (TimeoutError, TypeError, ValueError):
            facts = None
        if facts is None or facts.account_sid != account.sid:
            await ws.close(code=1008)
            return ws

        def give(order: EndCall | ObeyTwiml | ObeyUrl) -> None:
            self._api.spawn(_send(ws, order_to_wire(order)))

        line = await self._api.connect(facts, give)
        await ws.send_json({"known": True})
        try:
            async for message in ws:
                if message.type != WSMsgType.TEXT:
                    break
                if (news := news_from_wire(_json(message.data))) and news.status in STATUSES:
                    line.report(news)
        finally:
            await line.close()
        return ws


async def _send(ws: web.WebSocketResponse, message: dict[str, Any]) -> None:
    if not ws.closed:
        await ws.send_json(message)


def check_twiml(text: str) -> None:
    if len(text) > MAX_TWIML:
        raise Refused(400, 32018, f"Twiml is longer than {MAX_TWIML} characters")


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _filters(query: Mapping[str, str]) -> list[Callable[[Call], bool]]:
    """One question for each parameter that was given."""
    found: list[Callable[[Call], bool]] = []
    for name, attribute in (
        ("Status", "status"),
        ("To", "to_number"),
        ("From", "from_number"),
        ("ParentCallSid", "parent_call_sid"),
    ):
        if name in query:
            found.append(_is(attribute, query[name]))
    for name, attribute in (("StartTime", "started_at"), ("EndTime", "ended_at")):
        for sign in ("", "<", ">"):
            if name + sign in query:
                found.append(_is_in_time(attribute, sign, query[name + sign]))
    return found


def _is(attribute: str, value: str) -> Callable[[Call], bool]:
    return lambda call: getattr(call, attribute) == value


def _is_in_time(attribute: str, sign: str, text: str) -> Callable[[Call], bool]:
    """Dates mean their first moment, UTC; without a sign, all of the day."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(400, 20001, f"not a date: {text[:40]}") from None
    moment = moment.replace(tzinfo=moment.tzinfo or UTC)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)

    def fits(call: Call) -> bool:
        at = getattr(call, attribute)
        if not isinstance(at, datetime):
            return False
        match sign:
            case "<":
                return at <= moment
            case ">":
                return at >= moment
            case _:
                return day <= at < day + timedelta(days=1)

    return fits


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
