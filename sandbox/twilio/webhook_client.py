"""Twilio's HTTP client for webhooks: signed requests, and the address that each URL is sent to.

The server's TwiML contains its public origin (`https://bridge.example.com`); the simulator reaches it at
`base_url`. The signature and the Host header use the public origin. Requests go only to that
server or to loopback.
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
MAX_RESPONSE_BYTES = 65_536
LOOPBACK_HOSTS = {"127.0.0.1", "::1", "localhost"}
SECURE_SCHEMES = {"https", "wss"}


def sign(auth_token: str, url: str, params: Mapping[str, str] | None = None) -> str:
    """`X-Twilio-Signature`: HMAC-SHA1 over the URL and the sorted form, each name followed by its value."""
    text = url + "".join(name + params[name] for name in sorted(params)) if params else url
    return base64.b64encode(hmac.new(auth_token.encode(), text.encode(), hashlib.sha1).digest()).decode()


def url_to_sign(url: str) -> str:
    """The URL as Twilio signs it: without user and password, and for https and wss without port."""
    parts = urlsplit(url)
    if parts.scheme not in SECURE_SCHEMES:
        return url
    host = parts.hostname or ""
    return urlunsplit(parts._replace(netloc=f"[{host}]" if ":" in host else host))


def origin(url: str) -> tuple[bool, str, int | None]:
    parts = urlsplit(url)
    secure = parts.scheme in SECURE_SCHEMES
    return secure, parts.hostname or "", parts.port or (443 if secure else 80)


class UrlResolver:
    """Maps a URL in the server's TwiML to the address to connect to."""

    def __init__(self, base_url: str, public_url: str | None = None, media_base: str | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self.public_url = (public_url or base_url).rstrip("/")
        self.media_base = (media_base or base_url).rstrip("/")

    def resolve(self, url: str, *, media: bool = False) -> str:
        """The URL to connect to. Raises `PermissionError` if it is neither the server's nor on loopback."""
        base = self.media_base if media else self.base_url
        if origin(url) in (origin(self.public_url), origin(base)):
            parts, target = urlsplit(url), urlsplit(base)
            return urlunsplit(parts._replace(scheme=target.scheme, netloc=target.netloc))
        if urlsplit(url).hostname in LOOPBACK_HOSTS:
            return url
        raise PermissionError(f"the simulator does not connect to {urlsplit(url).hostname}")

    def allows_plaintext(self, url: str) -> bool:
        """Whether ws is allowed instead of wss: on loopback, and for an http public origin."""
        is_server = origin(url) in (origin(self.public_url), origin(self.base_url), origin(self.media_base))
        return is_server or urlsplit(url).hostname in LOOPBACK_HOSTS


@dataclass(frozen=True, slots=True)
class WebhookResponse:
    status: int | None  # None: no response
    text: str
    content_type: str
    elapsed_ms: float
    problem: str = ""  # why there was no response


class WebhookClient:
    """Sends webhook requests. Never raises for what the server does; see `WebhookResponse.problem`."""

    def __init__(self, url_resolver: UrlResolver, session: aiohttp.ClientSession) -> None:
        self._url_resolver = url_resolver
        self._session = session

    async def send(self, url: str, params: Mapping[str, str], *, method: str, token: str) -> WebhookResponse:
        """One request, signed with the token; with an empty token it is not signed."""
        form: Mapping[str, str] | None = params
        if method == "GET":
            parts = urlsplit(url)
            url = urlunsplit(parts._replace(query="&".join(filter(None, [parts.query, urlencode(params)]))))
            form = None
        headers = {"Host": urlsplit(url).netloc.rpartition("@")[2], "User-Agent": "TwilioProxy/1.1"}
        if token:
            headers["X-Twilio-Signature"] = sign(token, url_to_sign(url), form)
        started_at = monotonic()
        try:
            async with (
                asyncio.timeout(WEBHOOK_SECONDS),
                self._session.request(
                    method,
                    # Do not re-quote: the signature is over the URL as it is.
                    URL(self._url_resolver.resolve(url), encoded=True),
                    data=form,
                    headers=headers,
                    # The product never redirects, because a redirect breaks the signature.
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=WEBHOOK_SECONDS, connect=CONNECT_SECONDS),
                ) as response,
            ):
                body = await response.content.read(MAX_RESPONSE_BYTES)
                while not response.content.at_eof() and len(body) < MAX_RESPONSE_BYTES:
                    body += await response.content.read(MAX_RESPONSE_BYTES)
                elapsed_ms = (monotonic() - started_at) * 1000
                return WebhookResponse(
                    response.status, body.decode("utf-8", "replace"), response.content_type, elapsed_ms
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = f"{type(error).__name__}: {error}"
            return WebhookResponse(None, "", "", (monotonic() - started_at) * 1000, problem)
