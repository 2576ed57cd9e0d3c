"""The carrier, simulated: calls a number of the server under test as Twilio would.

`place_call` posts the signed voice webhook, obeys the TwiML it gets, opens the media stream, lets a scripted
caller talk over it in real time, asks the action URL when the server ended the stream, and posts the status
callbacks. It promises to be as strict as Twilio, to come back within the call's limit, and to raise for
nothing the server does: what was wrong is in the record, by Twilio's error codes.
"""

import uuid
from collections.abc import Mapping, Sequence
from urllib.parse import urljoin

import aiohttp

from sandbox.twilio.callbacks import Number
from sandbox.twilio.caller import (
    CutIn,
    HangUp,
    Inject,
    Listen,
    Pause,
    Press,
    Say,
    StayOnTheLine,
    Step,
    Tell,
    Voice,
)
from sandbox.twilio.exchange import Exchange
from sandbox.twilio.inbound_call import PhoneCall
from sandbox.twilio.media_stream import CarrierDials
from sandbox.twilio.record import CallRecord
from sandbox.twilio.webhooks import Addresses, Webhooks

__all__ = [
    "CallRecord",
    "Carrier",
    "CarrierDials",
    "CutIn",
    "HangUp",
    "Inject",
    "Listen",
    "Pause",
    "Press",
    "Say",
    "StayOnTheLine",
    "Step",
]

CALL_SECONDS = 120.0


class Carrier:
    """One Twilio account and the numbers that lead to one server. Many calls may go on at once."""

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
        limit_s: float = CALL_SECONDS,
        exchange: Exchange | None = None,  # the REST API whose calls these are
    ) -> None:
        addresses = Addresses(base_url, public_url, media_base)
        root = addresses.public_url + "/"
        self.number = Number(
            addresses=addresses,
            account_sid=account_sid,
            auth_token=auth_token,
            voice_url=urljoin(root, voice_path.lstrip("/")),
            status_url=status_url and urljoin(root, status_url.lstrip("/")),
            extra_params=dict(extra_params or {}),
            limit_s=limit_s,
        )
        self._exchange = exchange
        self._seed = abs(rng_seed)
        self._calls = 0

    async def place_call(
        self,
        script: Sequence[Step],
        *,
        from_number: str = "+15550100134",
        to_number: str = "+15559870000",
        call_sid: str | None = None,
        dials: CarrierDials = CarrierDials(),  # noqa: B008 - frozen
        on_event: Tell | None = None,
    ) -> CallRecord:
        """A whole call, from the webhook to the last callback."""
        number = self.number
        record = CallRecord(call_sid or "CA" + uuid.uuid4().hex, number.account_sid, from_number, to_number)
        self._calls += 1
        voice = Voice(self._seed * 1009 + self._calls)
        async with aiohttp.ClientSession(trust_env=False) as session:
            webhooks = Webhooks(number.addresses, session)
            tell = on_event or _ignore
            call = PhoneCall(number, webhooks, record, voice, dials, tell, self._exchange)
            await call.run(script)
        return record


def _ignore(kind: str, data: dict[str, object]) -> None:
    """Nobody watches this call."""
