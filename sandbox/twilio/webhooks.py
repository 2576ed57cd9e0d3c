"""The carrier's web side: signed requests to the server's webhooks, and where its addresses really lead.

The server calls itself by its public origin (`https://bridge.example.com`); the simulation reaches it at
`base_url`. Signatures and the Host header are those of the public one. No request goes anywhere
but to the server under test or to loopback.
"""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from urllib.parse import urlencode, urlsplit, urlunsplit

import aiohttp
from yarl import URL

WEBHOOK_SECONDS = 15.0
CONNECT_SECONDS = 5.0
MAX_ANSWER_BYTES = 65_536
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
SECURE = {"https", "wss"}


def sign(auth_token: str, url: str, params: Mapping[str, str] | None = None) -> str:
    """`X-Twilio-Signature`: HMAC-SHA1 over the URL and the sorted form, each name followed by its value."""
    text = url + "".join(name + params[name] for name in sorted(params)) if params else url
    return base64.b64encode(hmac.new(auth_token.encode(), text.encode(), hashlib.sha1).digest()).decode()


def signed_form(url: str) -> str:
    """The URL as Twilio signs it: over https and wss without user, password and port."""
    parts = urlsplit(url)
    if parts.scheme not in SECURE:
        return url
    host = parts.hostname or ""
    return urlunsplit(parts._replace(netloc=f"[{host}]" if ":" in host else host))


def origin(url: str) -> tuple[bool, str, int | None]:
    parts = urlsplit(url)
    secure = parts.scheme in SECURE
    return secure, parts.hostname or "", parts.port or (443 if secure else 80)


class Addresses:
    """Which socket stands behind a URL that the server gave us."""

    def __init__(self, base_url: str, public_url: str | None = None, media_base: str | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self.public_url = (public_url or base_url).rstrip("/")
        self.media_base = (media_base or base_url).rstrip("/")

    def real(self, url: str, *, media: bool = False) -> str:
        """The URL to connect to. Raises `PermissionError` when it is neither the server's nor on loopback."""
        base = self.media_base if media else self.base_url
        if origin(url) in (origin(self.public_url), origin(base)):
            parts, target = urlsplit(url), urlsplit(base)
            return urlunsplit(parts._replace(scheme=target.scheme, netloc=target.netloc))
        if urlsplit(url).hostname in LOOPBACK:
            return url
        raise PermissionError(f"the simulation does not connect to {urlsplit(url).hostname}")

    def may_be_plain(self, url: str) -> bool:
        """Whether ws instead of wss is in order: on loopback, and where the public origin itself is http."""
        ours = origin(url) in (origin(self.public_url), origin(self.base_url), origin(self.media_base))
        return ours or urlsplit(url).hostname in LOOPBACK


@dataclass(frozen=True, slots=True)
class Answer:
    status: int | None  # None: there was no answer
    text: str
    content_type: str
    took_ms: float
    problem: str = ""  # why there was none


class Webhooks:
    """Sends what Twilio sends. Never raises for what the server does; the answer says what happened."""

    def __init__(self, addresses: Addresses, session: aiohttp.ClientSession) -> None:
        self._addresses = addresses
        self._session = session

    async def send(self, url: str, params: Mapping[str, str], *, method: str, token: str) -> Answer:
        """One request, signed with the token; an empty token signs nothing."""
        form: Mapping[str, str] | None = params
        if method == "GET":
            parts = urlsplit(url)
            url = urlunsplit(parts._replace(query="&".join(filter(None, [parts.query, urlencode(params)]))))
            form = None
        headers = {"Host": urlsplit(url).netloc.rpartition("@")[2], "User-Agent": "TwilioProxy/1.1"}
        if token:
            headers["X-Twilio-Signature"] = sign(token, signed_form(url), form)
        began = monotonic()
        try:
            async with (
                asyncio.timeout(WEBHOOK_SECONDS),
                self._session.request(
                    method,
                    # As it is: whoever re-quotes a URL after signing it has signed another one.
                    URL(self._addresses.real(url), encoded=True),
                    data=form,
                    headers=headers,
                    # The product never redirects: a redirect breaks signatures.
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=WEBHOOK_SECONDS, connect=CONNECT_SECONDS),
                ) as response,
            ):
                body = await response.content.read(MAX_ANSWER_BYTES)
                while not response.content.at_eof() and len(body) < MAX_ANSWER_BYTES:
                    body += await response.content.read(MAX_ANSWER_BYTES)
                took_ms = (monotonic() - began) * 1000
                return Answer(
                    response.status, body.decode("utf-8", "replace"), response.content_type, took_ms
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = f"{type(error).__name__}: {error}"
            return Answer(None, "", "", (monotonic() - began) * 1000, problem)
