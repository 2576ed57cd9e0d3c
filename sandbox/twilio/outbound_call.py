"""An outbound call, created over the REST API: it rings, it is answered or not, then it runs like any call.

The callee follows a script, as callers do. Answering machine detection, if requested, either delays the
first TwiML request and adds `AnsweredBy` to it, or runs in the background and sends a callback of its own.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import aiohttp

from sandbox.faults import TwilioFaults, TwilioRestFaults
from sandbox.twilio import twiml
from sandbox.twilio.call_registry import CallDetails, CallRegistry, EndCall, StatusUpdate
from sandbox.twilio.callbacks import NumberConfig
from sandbox.twilio.caller import CallerAudio, Listen, Say, Step, WaitForHangup
from sandbox.twilio.phone_call import PhoneCall
from sandbox.twilio.record import TwilioCallRecord
from sandbox.twilio.webhook_client import UrlResolver, WebhookClient

STATUS_CALLBACK_EVENTS = ("initiated", "ringing", "answered", "completed")
RING_TIMEOUT_SECONDS = 60.0  # Twilio's default for `Timeout`
CALL_SECONDS = 600.0

CALLEE_SCRIPT: tuple[Step, ...] = (
    Listen(timeout_seconds=10.0),
    Say("opening_hours"),
    Listen(timeout_seconds=10.0),
    Say("goodbye"),
    WaitForHangup(timeout_seconds=20.0),
)


@dataclass(frozen=True, slots=True)
class CallRequest:
    """The parameters of `POST Calls.json`."""

    twiml: str
    url: str
    method: str
    status_url: str
    status_method: str
    status_events: frozenset[str]
    ring_limit_seconds: float
    call_limit_seconds: float
    detection: str  # "", Enable or DetectMessageEnd
    detection_is_async: bool
    detection_url: str
    detection_method: str


def parse_call_request(form: Mapping[str, str], events: Sequence[str]) -> CallRequest:
    """The parameters with Twilio's defaults. Raises `ValueError` if Timeout or TimeLimit is not a number."""
    return CallRequest(
        twiml=form.get("Twiml", ""),
        url=form.get("Url", ""),
        method=form.get("Method", "POST").upper(),
        status_url=form.get("StatusCallback", ""),
        status_method=form.get("StatusCallbackMethod", "POST").upper(),
        status_events=frozenset(events) or frozenset({"completed"}),
        ring_limit_seconds=min(float(form.get("Timeout", RING_TIMEOUT_SECONDS)), 600.0),
        call_limit_seconds=min(float(form.get("TimeLimit", CALL_SECONDS)), CALL_SECONDS),
        detection="" if form.get("SendDigits") else form.get("MachineDetection", ""),
        detection_is_async=form.get("AsyncAmd", "").lower() == "true",
        detection_url=form.get("AsyncAmdStatusCallback", ""),
        detection_method=form.get("AsyncAmdStatusCallbackMethod", "POST").upper(),
    )


class OutboundCall(PhoneCall):
    direction = "outbound-api"

    def __init__(self, request: CallRequest, rest_faults: TwilioRestFaults, *args: Any) -> None:
        super().__init__(*args)
        self._request = request
        self._rest_faults = rest_faults
        self._answered = False

    async def _open(self) -> list[twiml.Verb] | None:
        request, rest_faults, callbacks = self._request, self._rest_faults, self._callbacks
        if rest_faults.never_rings:
            await self._wait(self._seconds_left())
            # A queued call that is canceled sends no callback.
            self._sends_final_callback, self._final_status = False, "canceled"
            return None
        callbacks.send_status("initiated", "initiated")
        self._report(StatusUpdate("ringing"))
        callbacks.send_status("ringing", "ringing")
        await self._wait(min(rest_faults.ring_seconds, request.ring_limit_seconds))
        if self._command is not None:
            if not isinstance(self._command, EndCall):
                self._command = EndCall("canceled")  # a ringing call can only be canceled
            return None
        is_in_time = rest_faults.ring_seconds <= request.ring_limit_seconds
        outcome = rest_faults.outcome if is_in_time else "no-answer"
        if outcome != "answered":
            self._final_status = outcome
            return None
        self._answered_at, self._answered = monotonic(), True
        self._report(StatusUpdate("in-progress"))
        callbacks.send_status("answered", "in-progress")
        if request.detection and request.detection_is_async:
            self._background_task = asyncio.create_task(self._detect_in_background())
        elif request.detection:
            await self._wait(rest_faults.detection_seconds)
            self._set_answered_by()
        if self._command is not None:
            return None
        if request.twiml:
            return self._set_final_status(self._twiml.parse(request.twiml, "the TwiML of the request"))
        return await self._fetch(request.url, request.method, {"CallStatus": "in-progress"})

    async def _detect_in_background(self) -> None:
        await asyncio.sleep(self._rest_faults.detection_seconds)
        self._set_answered_by()
        if url := self._request.detection_url:
            params = {
                "CallSid": self._record.call_sid,
                "AccountSid": self._record.account_sid,
                "AnsweredBy": self._rest_faults.answered_by,
                "MachineDetectionDuration": str(round(self._rest_faults.detection_seconds * 1000)),
            }
            self._callbacks.send(url, params, self._request.detection_method)

    def _set_answered_by(self) -> None:
        answered_by = self._rest_faults.answered_by
        self._callbacks.extra_params["AnsweredBy"] = answered_by
        self._report(StatusUpdate("in-progress", answered_by=answered_by))


async def place_outbound_call(
    details: CallDetails,
    request: CallRequest,
    *,
    url_resolver: UrlResolver,
    auth_token: str,
    registry: CallRegistry,
    rest_faults: TwilioRestFaults,
    faults: TwilioFaults,
    script: Sequence[Step],
    seed: int,
) -> TwilioCallRecord:
    """Run the whole call, from the first ring to the last callback."""
    record = TwilioCallRecord(details.sid, details.account_sid, details.from_number, details.to_number)
    number = NumberConfig(
        url_resolver=url_resolver,
        account_sid=details.account_sid,
        auth_token=auth_token,
        voice_url=request.url,
        status_url=request.status_url or None,
        extra_params={},
        limit_seconds=request.call_limit_seconds,
        status_method=request.status_method,
        status_events=request.status_events,
    )
    async with aiohttp.ClientSession(trust_env=False) as session:
        webhooks = WebhookClient(url_resolver, session)
        args = (number, webhooks, record, CallerAudio(seed), faults, _ignore_event, registry)
        await OutboundCall(request, rest_faults, *args).run(script)
    return record


def _ignore_event(kind: str, data: dict[str, object]) -> None:
    """Ignored: the REST API simulator reports the status of its calls instead."""
