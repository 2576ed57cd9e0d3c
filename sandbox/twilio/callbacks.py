"""What the carrier tells the server about one call: the parameters of each request, and the callbacks.

Callbacks go beside the call, in order of their numbers but in no order of arrival, and are waited for at
its end.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal
from urllib.parse import urlsplit

from sandbox.twilio.media_stream import CarrierDials
from sandbox.twilio.record import CallRecord
from sandbox.twilio.webhooks import Addresses, Webhooks

XML_TYPES = {"text/xml", "application/xml"}
WRONG_TOKEN = "not-the-token-of-this-account"
SIP_CODES = {"completed": "200", "busy": "486", "no-answer": "487", "canceled": "487", "failed": "404"}


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
    status_method: str = "POST"
    status_events: frozenset[str] = frozenset({"completed"})


class Notices:
    def __init__(
        self,
        number: Number,
        webhooks: Webhooks,
        record: CallRecord,
        dials: CarrierDials,
        direction: str = "inbound",
    ) -> None:
        self._number = number
        self._webhooks = webhooks
        self._record = record
        self._dials = dials
        self._direction = direction
        self._sequence = 0
        self._sent: list[asyncio.Task[None]] = []
        self.always: dict[str, str] = {}  # what has become known on the way, such as AnsweredBy

    def params(self, more: Mapping[str, str]) -> dict[str, str]:
        record = self._record
        return {
            "CallSid": record.call_sid,
            "AccountSid": record.account_sid,
            "From": record.from_number,
            "To": record.to_number,
            "Caller": record.from_number,
            "Called": record.to_number,
            "Direction": self._direction,
            "ApiVersion": "2010-04-01",
            "FromCountry": "US",
            "ToCountry": "US",
            "CallToken": '{"parentCallInfoToken":"simulated"}',
            "StirVerstat": "No-TN-Validation",
            "VoiceaiSimulated": "true",
            **self._number.extra_params,
            **self.always,
            **more,
        }

    def child_params(self, sid: str, number: str) -> dict[str, str]:
        """Of the leg to a person who was dialled, whose first request is the whisper's."""
        ours = self._record.to_number if self._direction == "inbound" else self._record.from_number
        return {
            "CallSid": sid,
            "ParentCallSid": self._record.call_sid,
            "AccountSid": self._record.account_sid,
            "From": ours,
            "To": number,
            "Caller": ours,
            "Called": number,
            "Direction": "outbound-dial",
            "CallStatus": "in-progress",
            "ApiVersion": "2010-04-01",
            "VoiceaiSimulated": "true",
        }

    @staticmethod
    def dial_outcome(child_sid: str, status: str, seconds: int) -> dict[str, str]:
        return {
            "CallStatus": "in-progress",
            "DialCallStatus": status,
            "DialCallSid": child_sid,
            "DialCallDuration": str(seconds),
        }

    def token(self, where: Literal["webhooks", "stream"]) -> str:
        if self._dials.signature_faults in ("everywhere", where):
            if self._dials.skip_signature:
                return ""
            if self._dials.bad_signature:
                return WRONG_TOKEN
        return self._number.auth_token

    # Callbacks

    def of_status(self, event: str, status: str, seconds: int | None = None) -> None:
        """`event` is what was subscribed to; `completed` covers every status in which a call can end."""
        if not self._number.status_url or event not in self._number.status_events:
            return
        more = {
            "CallStatus": status,
            "Timestamp": format_datetime(datetime.now(UTC)),
            "CallbackSource": "call-progress-events",
            "SequenceNumber": str(self._sequence),
        }
        self._sequence += 1
        if seconds is not None:
            more |= {"CallDuration": str(seconds), "Duration": str(math.ceil(seconds / 60))}
        if event == "completed" and self._direction != "inbound":
            more["SipResponseCode"] = SIP_CODES.get(status, "500")
        self.send(self._number.status_url, self.params(more), self._number.status_method)

    def of_stream(self, url: str, method: str, name: str, event: str, error: str = "") -> None:
        params = {
            "AccountSid": self._record.account_sid,
            "CallSid": self._record.call_sid,
            "StreamSid": self._record.stream_sid,
            "StreamName": name or self._record.stream_sid,
            "StreamEvent": event,
            "Timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        if error:
            params["StreamError"] = error
        self.send(url, params, method)

    def send(self, url: str, params: Mapping[str, str], method: str) -> None:
        self._sent.append(asyncio.create_task(self._send(url, params, method)))

    async def all_sent(self) -> None:
        await asyncio.gather(*self._sent)

    async def _send(self, url: str, params: Mapping[str, str], method: str) -> None:
        path = urlsplit(url).path
        try:
            answer = await self._webhooks.send(url, params, method=method, token=self.token("webhooks"))
        except (PermissionError, ValueError) as error:
            self._record.trouble(11200, f"callback {path}: {error}")
            return
        self._record.callbacks.append((path, answer.status))
        if answer.status == 204 or (answer.status == 200 and answer.content_type in XML_TYPES):
            return
        what = answer.problem if answer.status is None else f"{answer.status} {answer.content_type}"
        self._record.trouble(11200, f"callback {path}: {what}")
