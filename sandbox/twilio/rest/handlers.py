"""HTTP handlers of the Twilio REST API simulator: forms in, JSON out, Twilio's error codes.

Each handler is one documented endpoint, except `_register_call`, which is the sandbox's own. It decides
whether a change to a call or a number is allowed; the process that runs the call then executes it.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from sandbox.twilio.call_registry import (
    REGISTRY_PATH,
    Command,
    EndCall,
    FetchTwiml,
    RunTwiml,
    command_to_json,
    details_from_json,
    status_update_from_json,
)
from sandbox.twilio.outbound_call import STATUS_CALLBACK_EVENTS, parse_call_request
from sandbox.twilio.rest.account_state import AccountState
from sandbox.twilio.rest.middleware import (
    Form,
    RestError,
    RestMiddleware,
    error_response,
    has_valid_credentials,
    list_response,
    not_found,
)
from sandbox.twilio.rest.resources import E164, STATUSES, VERSION, Call, IncomingPhoneNumber, now_utc

MAX_TWIML_CHARACTERS = 4000
MAX_FORM_BYTES = 1 << 17
DETAILS_TIMEOUT_SECONDS = 5.0
MAX_UPDATE_BYTES = 4096
METHODS = {"GET", "POST"}
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


class RestHandlers:
    def __init__(self, state: AccountState) -> None:
        self._state = state

    def application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_FORM_BYTES)
        router, wrap = application.router, RestMiddleware(self._state).wrap
        base = f"/{VERSION}/Accounts/{{account}}"
        router.add_get(f"{base}.json", wrap(self._get_account))
        router.add_get(f"{base}/IncomingPhoneNumbers.json", wrap(self._list_numbers))
        router.add_get(f"{base}/IncomingPhoneNumbers/{{sid}}.json", wrap(self._get_number))
        router.add_post(f"{base}/IncomingPhoneNumbers/{{sid}}.json", wrap(self._update_number))
        router.add_get(f"{base}/Calls.json", wrap(self._list_calls))
        router.add_post(f"{base}/Calls.json", wrap(self._create_call))
        router.add_get(f"{base}/Calls/{{sid}}.json", wrap(self._get_call))
        router.add_post(f"{base}/Calls/{{sid}}.json", wrap(self._update_call))
        router.add_get(REGISTRY_PATH, self._register_call)
        router.add_route("*", "/{rest:.*}", wrap(self._not_found))
        return application

    async def _not_found(self, request: web.Request, form: Form) -> web.Response:
        raise not_found(request)

    # Account and numbers

    async def _get_account(self, request: web.Request, form: Form) -> web.Response:
        return web.json_response(self._state.account.to_json())

    async def _list_numbers(self, request: web.Request, form: Form) -> web.Response:
        digits = request.query.get("PhoneNumber", "").strip().lstrip("+")
        numbers = [number for number in self._state.numbers.values() if digits in number.phone_number]
        return list_response(request, "incoming_phone_numbers", [number.to_json() for number in numbers])

    async def _get_number(self, request: web.Request, form: Form) -> web.Response:
        return web.json_response(self._number_of(request).to_json())

    async def _update_number(self, request: web.Request, form: Form) -> web.Response:
        number = self._number_of(request)
        changes: dict[str, str] = {}
        for name, attribute in NUMBER_URLS.items():
            if name in form:
                if form[name] and not _is_url(form[name]):
                    raise RestError(400, 21402, f"{name} is not valid: {form[name][:200]}")
                changes[attribute] = form[name]
        for name, attribute in NUMBER_METHODS.items():
            if name in form:
                if form[name].upper() not in METHODS:
                    raise RestError(400, 21403, f"{name} is not valid: {form[name][:20]}")
                changes[attribute] = form[name].upper()
        if "FriendlyName" in form:
            changes["friendly_name"] = form["FriendlyName"][:64]
        if "VoiceApplicationSid" in form:
            changes["voice_application_sid"] = form["VoiceApplicationSid"]
        for attribute, value in changes.items():
            setattr(number, attribute, value)
        number.updated_at = now_utc()
        return web.json_response(number.to_json())

    def _number_of(self, request: web.Request) -> IncomingPhoneNumber:
        sid = request.match_info["sid"]
        for number in self._state.numbers.values():
            if number.sid == sid:
                return number
        raise not_found(request)

    # Calls

    async def _list_calls(self, request: web.Request, form: Form) -> web.Response:
        filters = _filters(request.query)
        newest_first = reversed(self._state.calls.values())
        calls = [call.to_json() for call in newest_first if all(matches(call) for matches in filters)]
        return list_response(request, "calls", calls)

    async def _get_call(self, request: web.Request, form: Form) -> web.Response:
        return web.json_response(self._call_of(request).to_json())

    async def _create_call(self, request: web.Request, form: Form) -> web.Response:
        to, from_number, twiml = form.get("To", ""), form.get("From", ""), form.get("Twiml", "")
        if not to:
            raise RestError(400, 21201, "No 'To' number is specified")
        if not from_number:
            raise RestError(400, 21213, "No 'From' number is specified")
        if not E164.fullmatch(to):
            raise RestError(400, 21211, f"The 'To' number {to[:40]} is not a valid phone number")
        if not E164.fullmatch(from_number):
            raise RestError(400, 21212, f"The 'From' number {from_number[:40]} is not a valid phone number")
        if from_number not in self._state.numbers:
            message = f"The source phone number provided, {from_number}, is not yet verified"
            raise RestError(400, 21210, message)
        account = self._state.account
        if account.type == "Trial" and to not in account.verified:
            message = f"The number {to} is unverified. Trial accounts may only call verified numbers."
            raise RestError(400, 21219, message)
        _check_twiml(twiml)
        urls = [form[name] for name in CALL_URLS if form.get(name)]
        if not twiml and not form.get("Url"):
            raise RestError(400, 21205, "Url parameter is required.")
        if invalid_urls := [url for url in urls if not _is_url(url)]:
            raise RestError(400, 21205, f"Url is not a valid URL: {invalid_urls[0][:200]}")
        events = [str(event) for event in (await request.post()).getall("StatusCallbackEvent", [])]
        if not set(events) <= set(STATUS_CALLBACK_EVENTS):
            raise RestError(400, 21626, f"Invalid status callback event(s): {', '.join(events)[:200]}")
        if form.get("MachineDetection", "") not in ("", "Enable", "DetectMessageEnd", "none"):
            raise RestError(400, 21218, "MachineDetection is not valid")
        try:
            call = self._state.place_call(from_number, to, parse_call_request(form, events))
        except ValueError:
            raise RestError(400, 21218, "Timeout and TimeLimit must be numbers") from None
        return web.json_response(call.to_json(), status=201)

    async def _update_call(self, request: web.Request, form: Form) -> web.Response:
        call = self._call_of(request)
        call.update_forms.append(dict(form))
        status, text, url = form.get("Status", ""), form.get("Twiml", ""), form.get("Url", "")
        if status and status not in ("completed", "canceled"):
            raise RestError(400, 21218, f"Status is not valid: {status[:20]}")
        if text and url:
            raise RestError(400, 21218, "Url and Twiml cannot be used together")
        _check_twiml(text)
        method = form.get("Method", "POST").upper()
        if url and not (_is_url(url) and method in METHODS):
            raise RestError(400, 21205, f"Url is not a valid URL: {url[:200]}")
        if call.is_over:
            raise RestError(400, 21220, "Call is not in-progress. Cannot redirect.")
        if status == "completed" or (status == "canceled" and call.status in ("queued", "ringing")):
            # An outbound call that was not answered yet becomes `canceled`.
            unanswered = call.direction != "inbound" and call.status != "in-progress"
            self._state.send_command(call, EndCall("canceled" if unanswered else "completed"))
        elif (text or url) and call.direction != "inbound" and call.status != "in-progress":
            raise RestError(400, 21220, "Call is not in-progress. Cannot redirect.")
        elif text:
            self._state.send_command(call, RunTwiml(text))
        elif url:
            self._state.send_command(call, FetchTwiml(url, method))
        return web.json_response(call.to_json())

    def _call_of(self, request: web.Request) -> Call:
        call = self._state.calls.get(request.match_info["sid"])
        if call is None:
            raise not_found(request)
        return call

    # Calls that run in another process

    async def _register_call(self, request: web.Request) -> web.StreamResponse:
        """A websocket for one call: its details, then status updates; commands in the other direction."""
        account = self._state.account
        if not has_valid_credentials(request, account.sid, account.token):
            return error_response(401, 20003, "Authenticate")
        ws = web.WebSocketResponse(compress=False, heartbeat=10.0, timeout=2.0, max_msg_size=MAX_UPDATE_BYTES)
        await ws.prepare(request)
        try:
            details = details_from_json(await ws.receive_json(timeout=DETAILS_TIMEOUT_SECONDS))
        except (TimeoutError, TypeError, ValueError):
            details = None
        if details is None or details.account_sid != account.sid:
            await ws.close(code=1008)
            return ws

        def on_command(command: Command) -> None:
            self._state.spawn(_send(ws, command_to_json(command)))

        connection = await self._state.connect(details, on_command)
        await ws.send_json({"registered": True})
        try:
            async for message in ws:
                if message.type != WSMsgType.TEXT:
                    break
                update = status_update_from_json(_parse_json(message.data))
                if update is not None and update.status in STATUSES:
                    connection.report(update)
        finally:
            await connection.close()
        return ws


async def _send(ws: web.WebSocketResponse, message: dict[str, Any]) -> None:
    if not ws.closed:
        await ws.send_json(message)


def _check_twiml(text: str) -> None:
    if len(text) > MAX_TWIML_CHARACTERS:
        raise RestError(400, 32018, f"Twiml is longer than {MAX_TWIML_CHARACTERS} characters")


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _filters(query: Mapping[str, str]) -> list[Callable[[Call], bool]]:
    """One predicate for each filter in the query."""
    filters: list[Callable[[Call], bool]] = []
    for name, attribute in (
        ("Status", "status"),
        ("To", "to_number"),
        ("From", "from_number"),
        ("ParentCallSid", "parent_call_sid"),
    ):
        if name in query:
            filters.append(_equals(attribute, query[name]))
    for name, attribute in (("StartTime", "started_at"), ("EndTime", "ended_at")):
        for sign in ("", "<", ">"):
            if name + sign in query:
                filters.append(_is_in_time_range(attribute, sign, query[name + sign]))
    return filters


def _equals(attribute: str, value: str) -> Callable[[Call], bool]:
    return lambda call: getattr(call, attribute) == value


def _is_in_time_range(attribute: str, sign: str, text: str) -> Callable[[Call], bool]:
    """A date means midnight UTC. Without a sign the filter matches the whole day."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise RestError(400, 20001, f"{text[:40]} is not a date") from None
    moment = moment.replace(tzinfo=moment.tzinfo or UTC)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)

    def matches(call: Call) -> bool:
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

    return matches


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
