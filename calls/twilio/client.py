"""Twilio's REST API: end, transfer, place and fetch calls; find and update phone numbers.

It uses Twilio's own client over an HTTP transport of ours: Twilio's asynchronous transport applies no
timeout, and authenticates in a way that aiohttp is about to drop.

Every failure becomes a `VendorError` with one sentence for staff. Twilio's own messages are left out of it,
because they contain account, call and number.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from django.conf import settings
from twilio.base.exceptions import TwilioException
from twilio.http import AsyncHttpClient
from twilio.http.response import Response
from twilio.rest import Client
from twilio.rest.api.v2010.account import AccountInstance
from twilio.rest.api.v2010.account.call import CallInstance
from twilio.rest.api.v2010.account.incoming_phone_number import IncomingPhoneNumberInstance

from calls.masking import mask_number, short_sid
from calls.twilio import twiml
from calls.twilio.voices import Voice
from calls.vendor_errors import VendorError, describe_status, read_bounded, translate_errors

logger = logging.getLogger(__name__)

VENDOR = "Twilio"
TWILIO_API = "https://api.twilio.com"
REQUEST_TIMEOUT_SECONDS = 5.0
MAX_RESPONSE_BYTES = 1 << 16
CALL_IS_OVER = "The call is already over."
CALL_IS_OVER_CODES = (20404, 21220)  # no such call any more; not in a state that can be changed
ERROR_SENTENCES = {
    21210: "The number to call from does not belong to the Twilio account.",
    21211: "Twilio cannot call this number: it is not valid.",
    21212: "The number to call from does not belong to the Twilio account.",
    21219: "A trial account can call verified numbers only.",
}


class _Transport(AsyncHttpClient):  # type: ignore[misc]
    """Sends each request to the configured origin instead of the one that the client names."""

    def __init__(self, base_url: str) -> None:
        super().__init__(logger, True)
        self._base = urlsplit(base_url)

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Any = None,
        data: Any = None,
        headers: dict[str, str],
        auth: Any,
        **_: Any,
    ) -> Response:
        url = urlunsplit(urlsplit(url)._replace(scheme=self._base.scheme, netloc=self._base.netloc))
        headers = headers | {"Authorization": aiohttp.encode_basic_auth(*auth)}
        async with (
            aiohttp.ClientSession(trust_env=False) as http,
            http.request(
                method, url, params=params, data=data, headers=headers, allow_redirects=False
            ) as response,
        ):
            body = await read_bounded(response, MAX_RESPONSE_BYTES)
            return Response(response.status, body.decode("utf-8", "replace"), response.headers)


async def hang_up(call_sid: str) -> None:
    """End the call in whatever state it is."""
    await _update_call(call_sid, status="completed")


async def transfer(
    call_sid: str, number: str, *, reason: str = "", caller_id: str = "", voice: Voice = twiml.TWILIO_DEFAULT
) -> None:
    """Take the call from the assistant and dial `number`. If nobody answers, the caller hears an apology.

    The person who answers hears first that the call was transferred, and the `reason`. Their telephone shows
    `caller_id`; empty: the caller's number.
    """
    response = twiml.dial_with_whisper(settings.PUBLIC_URL, number, reason, caller_id, voice)
    await _update_call(call_sid, twiml=str(response))


async def create_call(**parameters: Any) -> str:
    """Place a call and return its CallSid. Never retried: after a lost response, the call may be ringing."""
    call = await _request("a new call", lambda client: client.calls.create_async(**parameters))
    return str(call.sid)


async def fetch_call(call_sid: str) -> CallInstance:
    """Status, duration, price and so on. The price is None until minutes after the end of the call."""
    return await _request(
        short_sid(call_sid),
        lambda client: client.calls(call_sid).fetch_async(),
        not_found="Twilio has no such call.",
    )


async def fetch_account() -> AccountInstance:
    """The configured account: its status and type."""
    return await _request(
        "account",
        lambda client: client.api.accounts(settings.TWILIO_ACCOUNT_SID).fetch_async(),
        not_found="Twilio has no such account. Check TWILIO_ACCOUNT_SID.",
    )


async def find_number(number: str) -> IncomingPhoneNumberInstance | None:
    """The configuration of one of the account's numbers; None when the account does not have the number."""
    numbers = await _request(
        mask_number(number),
        lambda client: client.incoming_phone_numbers.list_async(phone_number=number, limit=20),
    )
    # Twilio's filter matches parts of a number, too.
    return next((match for match in numbers if match.phone_number == number), None)


async def update_number(number_sid: str, **changes: str) -> IncomingPhoneNumberInstance:
    """Change the named fields of a number's configuration, and no others."""
    return await _request(
        short_sid(number_sid),
        lambda client: client.incoming_phone_numbers(number_sid).update_async(**changes),
        not_found="The account no longer has this number.",
    )


async def _update_call(call_sid: str, **changes: str) -> None:
    await _request(
        short_sid(call_sid),
        lambda client: client.calls(call_sid).update_async(**changes),
        not_found=CALL_IS_OVER,
    )


async def _request(subject: str, send: Callable[[Client], Awaitable[Any]], *, not_found: str = "") -> Any:
    """One request. Raises nothing but `VendorError`.

    `subject` is for the log; `not_found` is the sentence for a 404, and for a call in its final state.
    """
    if not settings.TWILIO_ACCOUNT_SID or not settings.TWILIO_AUTH_TOKENS:
        raise VendorError(
            "Cannot send requests to Twilio: TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN are not both set."
        )
    async with translate_errors(VENDOR, REQUEST_TIMEOUT_SECONDS, subject):
        transport = _Transport(settings.TWILIO_BASE_URL)
        client = Client(settings.TWILIO_ACCOUNT_SID, settings.TWILIO_AUTH_TOKENS[0], http_client=transport)
        try:
            return await send(client)
        except TwilioException as error:
            sentence = _describe_error(subject, error, not_found)
            raise VendorError(sentence, status=_find_status(error)) from None


def _find_status(error: TwilioException) -> int | None:
    """The HTTP status. For a list request, Twilio's client raises the bare response."""
    status = getattr(error, "status", None)
    response = error.args[1] if status is None and len(error.args) > 1 else None
    status = getattr(response, "status_code", status)
    return status if isinstance(status, int) else None


def _describe_error(subject: str, error: TwilioException, not_found: str) -> str:
    status, code = _find_status(error), getattr(error, "code", None)
    logger.warning("%s: Twilio rejected the request: status %s, code %s", subject, status, code)
    if code in ERROR_SENTENCES:
        return ERROR_SENTENCES[code]
    if not_found and (code in CALL_IS_OVER_CODES or status == 404):
        return not_found
    if status in (401, 403):
        return "Twilio rejected our credentials. Check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN."
    if status is not None and (status == 429 or status >= 500):
        return describe_status(VENDOR, status)
    return f"Twilio rejected the request ({code or status or 'no reason given'})."
