"""Webhook parameters and status callbacks of one call.

Callbacks are sent in the background: their sequence numbers ascend, but they may arrive in any order. The
call waits for all of them at its end.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal
from urllib.parse import urlsplit

from sandbox.faults import TwilioFaults
from sandbox.twilio.record import TwilioCallRecord
from sandbox.twilio.webhook_client import UrlResolver, WebhookClient

XML_TYPES = {"text/xml", "application/xml"}
WRONG_TOKEN = "not-the-token-of-this-account"
SIP_CODES = {"completed": "200", "busy": "486", "no-answer": "487", "canceled": "487", "failed": "404"}


@dataclass(frozen=True, slots=True)
class NumberConfig:
    """The webhook configuration that a call uses."""

    url_resolver: UrlResolver
    account_sid: str
    auth_token: str  # empty: requests are not signed
    voice_url: str
    status_url: str | None
    extra_params: Mapping[str, str]
    limit_seconds: float
    status_method: str = "POST"
    status_events: frozenset[str] = frozenset({"completed"})


class Callbacks:
    def __init__(
        self,
        number: NumberConfig,
        webhooks: WebhookClient,
        record: TwilioCallRecord,
        faults: TwilioFaults,
        direction: str = "inbound",
    ) -> None:
        self._number = number
        self._webhooks = webhooks
        self._record = record
        self._faults = faults
        self._direction = direction
        self._sequence = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.extra_params: dict[str, str] = {}  # learned during the call, such as AnsweredBy

    def request_params(self, changes: Mapping[str, str]) -> dict[str, str]:
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
            **self.extra_params,
            **changes,
        }

    def child_call_params(self, sid: str, number: str) -> dict[str, str]:
        """Parameters of the child call that `<Dial>` creates; its first request is for `<Number url>`."""
        inbound = self._direction == "inbound"
        account_number = self._record.to_number if inbound else self._record.from_number
        return {
            "CallSid": sid,
            "ParentCallSid": self._record.call_sid,
            "AccountSid": self._record.account_sid,
            "From": account_number,
            "To": number,
            "Caller": account_number,
            "Called": number,
            "Direction": "outbound-dial",
            "CallStatus": "in-progress",
            "ApiVersion": "2010-04-01",
            "VoiceaiSimulated": "true",
        }

    @staticmethod
    def dial_action_params(child_sid: str, status: str, seconds: int) -> dict[str, str]:
        return {
            "CallStatus": "in-progress",
            "DialCallStatus": status,
            "DialCallSid": child_sid,
            "DialCallDuration": str(seconds),
        }

    def signing_token(self, target: Literal["webhooks", "stream"]) -> str:
        if self._faults.signature_faults in ("everywhere", target):
            if self._faults.skip_signature:
                return ""
            if self._faults.bad_signature:
                return WRONG_TOKEN
        return self._number.auth_token

    def send_status(self, event: str, status: str, seconds: int | None = None) -> None:
        """Status callback. The subscribed event `completed` covers every status in which a call can end."""
        if not self._number.status_url or event not in self._number.status_events:
            return
        changes = {
            "CallStatus": status,
            "Timestamp": format_datetime(datetime.now(UTC)),
            "CallbackSource": "call-progress-events",
            "SequenceNumber": str(self._sequence),
        }
        self._sequence += 1
        if seconds is not None:
            changes |= {"CallDuration": str(seconds), "Duration": str(math.ceil(seconds / 60))}
        if event == "completed" and self._direction != "inbound":
            changes["SipResponseCode"] = SIP_CODES.get(status, "500")
        self.send(self._number.status_url, self.request_params(changes), self._number.status_method)

    def send_stream_status(self, url: str, method: str, name: str, event: str, error: str = "") -> None:
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
        self._tasks.append(asyncio.create_task(self._send(url, params, method)))

    async def wait_until_sent(self) -> None:
        await asyncio.gather(*self._tasks)

    async def _send(self, url: str, params: Mapping[str, str], method: str) -> None:
        path = urlsplit(url).path
        try:
            token = self.signing_token("webhooks")
            response = await self._webhooks.send(url, params, method=method, token=token)
        except (PermissionError, ValueError) as error:
            self._record.add_error(11200, f"callback {path}: {error}")
            return
        self._record.callbacks.append((path, response.status))
        if response.status == 204 or (response.status == 200 and response.content_type in XML_TYPES):
            return
        problem = (
            response.problem if response.status is None else f"{response.status} {response.content_type}"
        )
        self._record.add_error(11200, f"callback {path}: {problem}")
