"""Simulates Twilio: places calls to a server, the product under test.

`place_call` posts the signed voice webhook, executes the TwiML of the response, opens the media stream,
performs the caller's script in real time, requests the action URL when the server ended the stream, and
posts the status callbacks. It is as strict as Twilio, returns within the call's limit, and never raises for
what the server does: mistakes are in the record, with Twilio's error codes.
"""

import uuid
from collections.abc import Mapping, Sequence
from urllib.parse import urljoin

import aiohttp

from sandbox.faults import TwilioFaults
from sandbox.twilio.call_registry import CallRegistry
from sandbox.twilio.callbacks import NumberConfig
from sandbox.twilio.caller import CallerAudio, OnCallerEvent, Step
from sandbox.twilio.phone_call import PhoneCall
from sandbox.twilio.record import TwilioCallRecord
from sandbox.twilio.webhook_client import UrlResolver, WebhookClient

CALL_SECONDS = 120.0


class TwilioSimulator:
    """One Twilio account and the numbers that are routed to one server. Calls may run concurrently."""

    def __init__(
        self,
        base_url: str,
        *,
        public_url: str | None = None,
        account_sid: str,
        auth_token: str,
        media_base: str | None = None,
        rng_seed: int = 0,
        extra_params: Mapping[str, str] | None = None,
        voice_path: str = "/twilio/voice",
        status_url: str | None = "/twilio/status",  # None: the number has no status callback
        limit_seconds: float = CALL_SECONDS,
        registry: CallRegistry | None = None,  # the REST API that knows these calls
    ) -> None:
        url_resolver = UrlResolver(base_url, public_url, media_base)
        root = url_resolver.public_url + "/"
        self.number = NumberConfig(
            url_resolver=url_resolver,
            account_sid=account_sid,
            auth_token=auth_token,
            voice_url=urljoin(root, voice_path.lstrip("/")),
            status_url=status_url and urljoin(root, status_url.lstrip("/")),
            extra_params=dict(extra_params or {}),
            limit_seconds=limit_seconds,
        )
        self._registry = registry
        self._seed = abs(rng_seed)
        self._call_count = 0

    async def place_call(
        self,
        script: Sequence[Step],
        *,
        from_number: str = "+15550100134",
        to_number: str = "+15559870000",
        call_sid: str | None = None,
        faults: TwilioFaults = TwilioFaults(),  # noqa: B008 - frozen
        on_event: OnCallerEvent | None = None,
    ) -> TwilioCallRecord:
        """Run a whole call, from the webhook to the last callback."""
        number = self.number
        call_sid = call_sid or "CA" + uuid.uuid4().hex
        record = TwilioCallRecord(call_sid, number.account_sid, from_number, to_number)
        self._call_count += 1
        audio = CallerAudio(self._seed * 1009 + self._call_count)
        async with aiohttp.ClientSession(trust_env=False) as session:
            webhooks = WebhookClient(number.url_resolver, session)
            call = PhoneCall(
                number, webhooks, record, audio, faults, on_event or _ignore_event, self._registry
            )
            await call.run(script)
        return record


def _ignore_event(kind: str, data: dict[str, object]) -> None:
    """Used when the caller of `place_call` passes no `on_event`."""
