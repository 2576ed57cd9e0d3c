"""One phone call, as Twilio runs it: webhook, TwiML, stream, action, callbacks.

TwiML is obeyed document by document. `<Connect>` blocks until the stream is over. When the caller hung up,
nothing more is executed and only the status callback follows. When the server closed the socket, or the
network did, the call is still there: the action URL is asked, or the next verb runs.
"""

import asyncio
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from time import monotonic
from typing import Literal
from urllib.parse import urljoin, urlsplit

from bridge.sandbox import twiml
from bridge.sandbox.caller import Step, Tell, Voice
from bridge.sandbox.handshake import HandshakeFailed, open_socket
from bridge.sandbox.record import CallRecord
from bridge.sandbox.stream import CarrierDials, MediaStream
from bridge.sandbox.webhooks import Addresses, Answer, Webhooks, sign, signed_form

MAX_DOCUMENTS = 10
XML_TYPES = {"text/xml", "application/xml"}
WRONG_TOKEN = "not-the-token-of-this-account"


@dataclass(frozen=True, slots=True)
class Number:
    """A telephone number as configured at the carrier."""

    addresses: Addresses
    account_sid: str
    auth_token: str  # empty: nothing is signed
    voice_url: str
    status_url: str | None
    extra_params: Mapping[str, str]
    limit_s: float


class PhoneCall:
    def __init__(
        self,
        number: Number,
        webhooks: Webhooks,
        record: CallRecord,
        voice: Voice,
        dials: CarrierDials,
        tell: Tell,
    ) -> None:
        self._number = number
        self._webhooks = webhooks
        self._record = record
        self._voice = voice
        self._dials = dials
        self._tell = tell
        self._began = monotonic()
        self._url = number.voice_url  # of the document being obeyed
        self._hung_up = False
        self._final_status = "completed"
        self._callbacks: list[asyncio.Task[None]] = []

    async def run(self, script: Sequence[Step]) -> None:
        document = await self._fetch(self._url, "POST", {"CallStatus": "ringing"})
        while document is not None:
            document = await self._obey_all(document, script)
        record = self._record
        record.ended_by = record.ended_by or "server"
        record.final_status = self._final_status
        if self._number.status_url:
            seconds = math.ceil(monotonic() - self._began)
            self._call_back(
                self._number.status_url,
                {
                    "CallStatus": self._final_status,
                    "CallDuration": str(seconds),
                    "Duration": str(math.ceil(seconds / 60)),
                    "Timestamp": format_datetime(datetime.now(UTC)),
                    "CallbackSource": "call-progress-events",
                    "SequenceNumber": "0",
                },
            )
        await asyncio.gather(*self._callbacks)

    # TwiML

    async def _obey_all(self, document: list[twiml.Verb], script: Sequence[Step]) -> list[twiml.Verb] | None:
        """The verbs in order. Returns the document that takes over, or None when the call is over."""
        for verb in document:
            if self._left_s() <= 0:
                self._record.trouble(0, f"the call reached its limit of {self._number.limit_s:.0f} s")
                return None
            match verb:
                case twiml.ConnectVerb(stream, action, method):
                    await self._stream(stream, script)
                    if self._hung_up:
                        return None
                    if action:
                        return await self._fetch(action, method, {"CallStatus": "in-progress"})
                case twiml.SayVerb(text):
                    self._record.spoken_by_twilio.append(text)
                    self._tell("said-by-twilio", {"text": text})
                case twiml.DialVerb(number, action, method):
                    self._record.dialed.append(number)
                    self._tell("dialed", {"number": number})
                    if action:
                        return await self._fetch(action, method, self._dial_outcome())
                case twiml.PauseVerb(seconds):
                    await asyncio.sleep(min(seconds, max(0.0, self._left_s())))
                case twiml.RedirectVerb(url, method):
                    return await self._fetch(url, method, {"CallStatus": "in-progress"})
                case twiml.RejectVerb(reason):
                    self._final_status = "busy" if reason == "busy" else "no-answer"
                    return None
                case twiml.HangupVerb():
                    return None
        return None

    async def _fetch(self, url: str, method: str, more: Mapping[str, str]) -> list[twiml.Verb] | None:
        record = self._record
        if len(record.twiml) >= MAX_DOCUMENTS:
            record.trouble(11215, "too many documents in one call")
            return None
        self._url = urljoin(self._url, url)
        answer = await self._webhooks.send(
            self._url, self._params(more), method=method, token=self._token("webhooks")
        )
        if record.webhook_ms is None:
            record.webhook_status, record.webhook_ms = answer.status, answer.took_ms
        path = urlsplit(self._url).path
        self._tell("webhook", {"path": path, "status": answer.status, "ms": round(answer.took_ms)})
        try:
            verbs, warnings = self._read(answer, path)
        except twiml.TwimlError as error:
            record.trouble(error.code, str(error))
            self._final_status = "failed" if not record.twiml else "completed"
            return None
        record.twiml.append(answer.text)
        for warning in warnings:
            record.trouble(warning.code, str(warning))
        return verbs

    def _read(self, answer: Answer, path: str) -> tuple[list[twiml.Verb], list[twiml.TwimlError]]:
        if answer.status is None:
            raise twiml.TwimlError(11205, f"no answer from {path}: {answer.problem}")
        if answer.status != 200:
            raise twiml.TwimlError(11200, f"{path} answered {answer.status}")
        if answer.content_type not in XML_TYPES:
            raise twiml.TwimlError(12300, f"{path} answered with {answer.content_type}")
        return twiml.parse(answer.text)

    # The media stream

    async def _stream(self, noun: twiml.Stream, script: Sequence[Step]) -> None:
        record = self._record
        record.params = dict(noun.params)
        if not self._is_valid(noun.url):
            return
        token = self._token("stream")
        signature = sign(token, signed_form(noun.url)) if token else ""
        try:
            ws = await open_socket(noun.url, self._number.addresses.real(noun.url, media=True), signature)
        except (HandshakeFailed, PermissionError) as error:
            record.trouble(error.code if isinstance(error, HandshakeFailed) else 31902, str(error))
            self._call_back_stream(noun, "stream-error", error=str(error))
            return
        stream = MediaStream(ws, record, self._voice, self._dials, self._tell)
        self._tell("connected", {"stream_sid": record.stream_sid})
        self._call_back_stream(noun, "stream-started")
        record.ended_by = await stream.run(script, max(0.0, self._left_s()))
        self._hung_up = record.ended_by == "caller"
        self._call_back_stream(noun, "stream-stopped")

    def _is_valid(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            usable = bool(parts.hostname and parts.port != 0)
        except ValueError:
            usable = False
        if not usable:
            self._record.trouble(31923, "the stream's url is malformed")
        elif parts.scheme != "wss" and not (
            parts.scheme == "ws" and self._number.addresses.may_be_plain(url)
        ):
            self._record.trouble(31922, f"the stream's scheme is {parts.scheme}, not wss")
        elif parts.query:
            self._record.trouble(31920, "the stream's url has a query string")
        else:
            return True
        return False

    # What is sent along

    def _params(self, more: Mapping[str, str]) -> dict[str, str]:
        record = self._record
        return {
            "CallSid": record.call_sid,
            "AccountSid": record.account_sid,
            "From": record.from_number,
            "To": record.to_number,
            "Caller": record.from_number,
            "Called": record.to_number,
            "Direction": "inbound",
            "ApiVersion": "2010-04-01",
            "FromCountry": "US",
            "ToCountry": "US",
            "CallToken": '{"parentCallInfoToken":"simulated"}',
            "StirVerstat": "No-TN-Validation",
            "VoiceaiSimulated": "true",
            **self._number.extra_params,
            **more,
        }

    def _dial_outcome(self) -> dict[str, str]:
        return {
            "CallStatus": "in-progress",
            "DialCallStatus": self._dials.dial_status,
            "DialCallSid": "CA" + uuid.uuid4().hex,
            "DialCallDuration": "1" if self._dials.dial_status == "completed" else "0",
        }

    def _token(self, where: Literal["webhooks", "stream"]) -> str:
        if self._dials.signature_faults in ("everywhere", where):
            if self._dials.skip_signature:
                return ""
            if self._dials.bad_signature:
                return WRONG_TOKEN
        return self._number.auth_token

    def _left_s(self) -> float:
        return self._number.limit_s - (monotonic() - self._began)

    # Callbacks: beside the call, waited for at its end

    def _call_back_stream(self, noun: twiml.Stream, event: str, *, error: str = "") -> None:
        if not noun.status_callback:
            return
        params = {
            "AccountSid": self._record.account_sid,
            "CallSid": self._record.call_sid,
            "StreamSid": self._record.stream_sid,
            "StreamName": noun.name or self._record.stream_sid,
            "StreamEvent": event,
            "Timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        if error:
            params["StreamError"] = error
        url = urljoin(self._url, noun.status_callback)
        self._callbacks.append(
            asyncio.create_task(self._send_callback(url, params, noun.status_callback_method))
        )

    def _call_back(self, url: str, more: Mapping[str, str]) -> None:
        self._callbacks.append(asyncio.create_task(self._send_callback(url, self._params(more), "POST")))

    async def _send_callback(self, url: str, params: Mapping[str, str], method: str) -> None:
        answer = await self._webhooks.send(url, params, method=method, token=self._token("webhooks"))
        path = urlsplit(url).path
        self._record.callbacks.append((path, answer.status))
        if answer.status == 204 or (answer.status == 200 and answer.content_type in XML_TYPES):
            return
        what = answer.problem if answer.status is None else f"{answer.status} {answer.content_type}"
        self._record.trouble(11200, f"callback {path}: {what}")
