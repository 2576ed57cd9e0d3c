"""What we ask of Twilio: end a call, hand it to a person, place one, look at one; set up a number.

Twilio's own client over a transport of ours: its asynchronous one applies no timeout, and authenticates in
a way that aiohttp is about to drop.

Whatever goes wrong becomes one sentence that a page can show; Twilio's own words stay out of it, for they
name account, call and number.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import aiohttp
from django.conf import settings
from twilio.base.exceptions import TwilioException
from twilio.http import AsyncHttpClient
from twilio.http.response import Response
from twilio.rest import Client
from twilio.rest.api.v2010.account import AccountInstance
from twilio.rest.api.v2010.account.call import CallInstance
from twilio.rest.api.v2010.account.incoming_phone_number import IncomingPhoneNumberInstance
from twilio.twiml.voice_response import VoiceResponse

from calls.masking import mask_number, short_sid
from calls.vendor_errors import VendorError

log = logging.getLogger(__name__)

TWILIO = "https://api.twilio.com"
SECONDS = 5.0
DIAL_SECONDS = 20
MAX_ANSWER_BYTES = 1 << 16
OVER = "The call is already over."
OVER_CODES = (20404, 21220)  # no such call any more; not in a state that can be changed


class _Transport(AsyncHttpClient):  # type: ignore[misc]
    """One request at the configured origin, in place of the one that the client names."""

    def __init__(self, base_url: str) -> None:
        super().__init__(log, True)
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
            ) as answer,
        ):
            text = b""
            while len(text) < MAX_ANSWER_BYTES and (more := await answer.content.read(MAX_ANSWER_BYTES)):
                text += more
            return Response(answer.status, text.decode("utf-8", "replace"), answer.headers)


async def hang_up(call_sid: str) -> None:
    """End the call, whatever it is doing."""
    await _update(call_sid, status="completed")


async def transfer(call_sid: str, person: str, *, about: str = "") -> None:
    """Take the call from the assistant and dial `person`; nobody there, and the caller hears an apology.

    Whoever picks up is told first that the call is handed over, and what it is `about`.
    """
    response = VoiceResponse()
    public = settings.PUBLIC_URL
    dial = response.dial(action=f"{public}/twilio/after?dialed=1", timeout=DIAL_SECONDS)
    # Wrapped up, for addresses are written into access logs, and these are a caller's words.
    dial.number(person, url=f"{public}/twilio/whisper?{urlencode({'about': wrap(about)})}")
    await _update(call_sid, twiml=str(response))


def wrap(words: str) -> str:
    """Words as a part of an address that nobody reads in passing."""
    return base64.urlsafe_b64encode(words.encode()).decode().rstrip("=")


def unwrap(text: str) -> str:
    """The words again; empty for what is none."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        return ""


async def create_call(**facts: Any) -> str:
    """Place a call and return its CallSid. Never asked twice: a lost answer may be a call that rings."""
    call = await _ask("a new call", lambda client: client.calls.create_async(**facts))
    return str(call.sid)


async def fetch_call(call_sid: str) -> CallInstance:
    """What Twilio knows of a call: status, duration, price (None for minutes after the end), ..."""
    return await _ask(short_sid(call_sid), lambda client: client.calls(call_sid).fetch_async())


async def fetch_account() -> AccountInstance:
    """The account of our settings: its status and type."""
    return await _ask(
        "account",
        lambda client: client.api.accounts(settings.TWILIO_ACCOUNT_SID).fetch_async(),
        gone="Twilio knows no such account: check TWILIO_ACCOUNT_SID.",
    )


async def find_number(number: str) -> IncomingPhoneNumberInstance | None:
    """One of the account's numbers, as it is set up at Twilio; None when the account has no such number."""
    found = await _ask(
        mask_number(number),
        lambda client: client.incoming_phone_numbers.list_async(phone_number=number, limit=20),
    )
    # Twilio finds what a number is a part of, too.
    return next((each for each in found if each.phone_number == number), None)


async def change_number(number_sid: str, **changes: str) -> IncomingPhoneNumberInstance:
    """Set a number up; what is not named stays as it is."""
    return await _ask(
        short_sid(number_sid),
        lambda client: client.incoming_phone_numbers(number_sid).update_async(**changes),
        gone="The account has no such number any more.",
    )


async def _update(call_sid: str, **changes: str) -> None:
    await _ask(short_sid(call_sid), lambda client: client.calls(call_sid).update_async(**changes))


async def _ask(about: str, question: Callable[[Client], Awaitable[Any]], *, gone: str = OVER) -> Any:
    """One request; `about` is for the log, `gone` what a 404 means. Raises nothing but `VendorError`."""
    if not settings.TWILIO_ACCOUNT_SID or not settings.TWILIO_AUTH_TOKENS:
        raise VendorError(
            "Twilio cannot be asked: TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN are not both set."
        )
    try:
        async with asyncio.timeout(SECONDS):
            transport = _Transport(settings.TWILIO_BASE_URL)
            client = Client(
                settings.TWILIO_ACCOUNT_SID, settings.TWILIO_AUTH_TOKENS[0], http_client=transport
            )
            return await question(client)
    except TimeoutError:
        raise VendorError(
            f"Twilio did not answer within {SECONDS:.0f} seconds. It may have been done all the same.",
            may_have_happened=True,
        ) from None
    except TwilioException as error:
        raise VendorError(_sentence(about, error, gone), status=_status_of(error)) from None
    except (aiohttp.ClientConnectorError, OSError) as error:
        log.warning("%s: no connection to Twilio: %s", about, type(error).__name__)
        raise VendorError("Twilio cannot be reached from here.") from None
    except (aiohttp.ClientError, ValueError) as error:  # cut off, or no JSON: who knows what was done
        log.warning("%s: no answer from Twilio: %s", about, type(error).__name__)
        raise VendorError("Twilio's answer was cut off or unreadable.", may_have_happened=True) from None


def _status_of(error: TwilioException) -> int | None:
    """Where a list is refused, the client raises the bare answer."""
    status = getattr(error, "status", None)
    answer = error.args[1] if status is None and len(error.args) > 1 else None
    found = getattr(answer, "status_code", status)
    return found if isinstance(found, int) else None


_REFUSALS = {
    21210: "Twilio does not know the number that we would call from as one of the account's.",
    21211: "Twilio says that this is no number that can be called.",
    21212: "Twilio does not know the number that we would call from as one of the account's.",
    21219: "A trial account calls verified numbers only.",
}


def _sentence(about: str, error: TwilioException, gone: str) -> str:
    status, code = _status_of(error), getattr(error, "code", None)
    log.warning("%s: Twilio refuses: status %s, code %s", about, status, code)
    if code in _REFUSALS:
        return _REFUSALS[code]
    if code in OVER_CODES or status == 404:
        return gone
    if status in (401, 403):
        return "Twilio refuses our credentials: check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN."
    if status == 429:
        return "Twilio is asked too often at the moment. Try again in a few seconds."
    if status is not None and status >= 500:
        return f"Twilio has trouble of its own ({status}). Try again."
    return f"Twilio refuses ({code or status or 'no reason given'})."
