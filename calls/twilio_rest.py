"""What staff ask of Twilio about a live call: end it, or hand it to a person.

Twilio's own client over a transport of ours: its asynchronous one applies no timeout, and authenticates in
a way that aiohttp is about to drop.

Whatever goes wrong becomes one sentence that a page can show; Twilio's own words stay out of it, for they
name account and call.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from django.conf import settings
from twilio.base.exceptions import TwilioException
from twilio.http import AsyncHttpClient
from twilio.http.response import Response
from twilio.rest import Client
from twilio.twiml.voice_response import VoiceResponse

from calls.masking import short_sid

log = logging.getLogger(__name__)

SECONDS = 5.0
DIAL_SECONDS = 20
MAX_ANSWER_BYTES = 1 << 16
OVER_CODES = (20404, 21220)  # no such call any more; not in a state that can be changed


class NotDone(Exception):
    """It was not done, or nobody can tell; the message is a sentence for staff."""

    def __init__(self, sentence: str, *, maybe: bool = False) -> None:
        super().__init__(sentence)
        self.maybe = maybe  # it may have been done all the same


class _Transport(AsyncHttpClient):  # type: ignore[misc]
    """One request at the configured origin, in place of the one that the client names."""

    def __init__(self, base_url: str) -> None:
        super().__init__(log, True)
        self._base = urlsplit(base_url)

    async def request(
        self, method: str, url: str, *, data: Any, headers: dict[str, str], auth: Any, **_: Any
    ) -> Response:
        url = urlunsplit(urlsplit(url)._replace(scheme=self._base.scheme, netloc=self._base.netloc))
        headers = headers | {"Authorization": aiohttp.encode_basic_auth(*auth)}
        async with (
            aiohttp.ClientSession(trust_env=False) as http,
            http.request(method, url, data=data, headers=headers, allow_redirects=False) as answer,
        ):
            text = b""
            while len(text) < MAX_ANSWER_BYTES and (more := await answer.content.read(MAX_ANSWER_BYTES)):
                text += more
            return Response(answer.status, text.decode("utf-8", "replace"), answer.headers)


async def hang_up(call_sid: str) -> None:
    """End the call, whatever it is doing."""
    await _update(call_sid, status="completed")


async def transfer(call_sid: str, person: str) -> None:
    """Take the call from the assistant and dial `person`; nobody there, and the caller hears an apology."""
    response = VoiceResponse()
    after = f"{settings.PUBLIC_URL}/twilio/after?dialed=1"
    response.dial(person, action=after, timeout=DIAL_SECONDS)
    await _update(call_sid, twiml=str(response))


async def _update(call_sid: str, **changes: str) -> None:
    if not settings.TWILIO_ACCOUNT_SID or not settings.TWILIO_AUTH_TOKENS:
        raise NotDone("Twilio cannot be asked: TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN are not both set.")
    try:
        async with asyncio.timeout(SECONDS):
            transport = _Transport(settings.TWILIO_BASE_URL)
            client = Client(
                settings.TWILIO_ACCOUNT_SID, settings.TWILIO_AUTH_TOKENS[0], http_client=transport
            )
            await client.calls(call_sid).update_async(**changes)
    except TimeoutError:
        raise NotDone(
            f"Twilio did not answer within {SECONDS:.0f} seconds. It may have been done all the same.",
            maybe=True,
        ) from None
    except TwilioException as error:
        raise NotDone(_sentence(call_sid, error)) from None
    except (aiohttp.ClientConnectorError, OSError) as error:
        log.warning("%s: no connection to Twilio: %s", short_sid(call_sid), type(error).__name__)
        raise NotDone("Twilio cannot be reached from here.") from None
    except (aiohttp.ClientError, ValueError) as error:  # cut off, or no JSON: who knows what was done
        log.warning("%s: no answer from Twilio: %s", short_sid(call_sid), type(error).__name__)
        raise NotDone("Twilio's answer was cut off or unreadable.", maybe=True) from None


def _sentence(call_sid: str, error: TwilioException) -> str:
    status, code = getattr(error, "status", None), getattr(error, "code", None)
    log.warning("%s: Twilio refuses: status %s, code %s", short_sid(call_sid), status, code)
    if code in OVER_CODES or status == 404:
        return "The call is already over."
    if status in (401, 403):
        return "Twilio refuses our credentials: check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN."
    if status == 429:
        return "Twilio is asked too often at the moment. Try again in a few seconds."
    if isinstance(status, int) and status >= 500:
        return f"Twilio has trouble of its own ({status}). Try again."
    return f"Twilio refuses ({code or status or 'no reason given'})."
