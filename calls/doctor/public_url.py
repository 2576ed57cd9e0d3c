"""Our address as Twilio sees it: name, certificate, proxy, signatures, sockets.

Requests go to PUBLIC_URL itself and come back to this server through whatever stands in front. They change
nothing: the echo only answers, a signed webhook that names no call is turned away behind the signature,
and a media socket that sends no `start` is no call.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import ssl
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from django.conf import settings
from twilio.request_validator import RequestValidator
from yarl import URL

from calls.doctor.check import Check, Finding, amber, green, red
from calls.doctor.echo import proof

SECONDS = 4.0
MAX_BYTES = 1 << 16
SOON_DAYS = 14
STATUS = "/twilio/status"
STRIPS = "Let the proxy hand on all headers as they come, X-Twilio-Signature above all."
UPGRADE = "Let the proxy pass websockets: HTTP/1.1 upstream, with the Upgrade and Connection headers."


def _place() -> tuple[str, int]:
    parts = urlsplit(settings.PUBLIC_URL)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _session() -> aiohttp.ClientSession:
    # A context of our own: aiohttp makes its at import, before anybody names a store.
    return aiohttp.ClientSession(
        trust_env=False,
        connector=aiohttp.TCPConnector(ssl=ssl.create_default_context()),
        timeout=aiohttp.ClientTimeout(total=SECONDS),
    )


async def _ask(
    method: str, path: str, *, headers: Mapping[str, str] | None = None, form: bytes | None = None
) -> tuple[int, bytes]:
    url = URL(settings.PUBLIC_URL + path, encoded=True)  # as written: not a character is tidied
    kept = dict(headers or {})
    if form is not None:
        kept["Content-Type"] = "application/x-www-form-urlencoded"
    async with (
        _session() as http,
        http.request(method, url, headers=kept, data=form, allow_redirects=False) as answer,
    ):
        return answer.status, await answer.content.read(MAX_BYTES)


async def _echo(path: str = "/doctor/echo", more: str = "", **how: Any) -> tuple[int, dict[str, Any], str]:
    """Status, what the server says that it saw (nothing from another server), and what was asked."""
    nonce = secrets.token_hex(16)
    asked = f"{path}?nonce={nonce}{more}"
    status, body = await _ask("POST" if "form" in how else "GET", asked, **how)
    try:
        seen = json.loads(body)
    except (ValueError, RecursionError):
        seen = None
    genuine = isinstance(seen, dict) and hmac.compare_digest(str(seen.get("proof")), proof(nonce))
    return status, seen if genuine and isinstance(seen, dict) else {}, asked


async def address() -> Finding:
    host, port = _place()
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return red(
            "Nobody answers at PUBLIC_URL.",
            "Start the tunnel or the proxy, and check the name in DNS, the port and the firewall.",
        )
    writer.close()
    return green("Somebody answers at PUBLIC_URL.")


async def certificate() -> Finding:
    host, port = _place()
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=ssl.create_default_context())
    except ssl.SSLCertVerificationError as error:
        return red(
            f"The certificate is not trusted: {error.verify_message}",
            "Give the proxy a valid certificate for this name, with its whole chain, and renew it in time.",
        )
    except (OSError, TimeoutError) as error:
        return red(
            f"There is no TLS at PUBLIC_URL ({type(error).__name__}).",
            "Let the proxy speak https on this port, with a valid certificate.",
        )
    shown = writer.get_extra_info("peercert") or {}
    writer.close()
    days = (ssl.cert_time_to_seconds(shown["notAfter"]) - time.time()) / 86_400 if shown else 0
    if days < SOON_DAYS:
        return amber(f"The certificate ends in {days:.0f} days.", "Renew it; see why nothing does by itself.")
    return green(f"The certificate is valid for {days:.0f} more days.")


async def this_server() -> Finding:
    status, seen, _ = await _echo()
    if not seen:
        return red(
            f"PUBLIC_URL leads to another server, or to one with another secret key (it answered {status}).",
            "Point the proxy or tunnel to this server's port, and give all workers one DJANGO_SECRET_KEY.",
        )
    return green("PUBLIC_URL leads here.")


async def redirects() -> Finding:
    for path in ("/doctor/echo", "/doctor/echo/", "/healthz", STATUS):
        status, _ = await _ask("GET", path)
        if 300 <= status < 400:
            return red(
                f"The proxy redirects {path} ({status}).",
                "Switch the redirect off: PUBLIC_URL must be the address where requests end, and a "
                "signature is for one address only.",
            )
    return green("Nothing is redirected.")


async def headers() -> Finding:
    status, seen, _ = await _echo(headers={"X-Twilio-Signature": "of-the-doctor"})
    if seen.get("signature") != sha256(b"of-the-doctor").hexdigest():
        return red(f"X-Twilio-Signature does not arrive (answered {status}).", STRIPS)
    return green("X-Twilio-Signature arrives.")


async def paths() -> Finding:
    for path in ("/doctor/echo", "/doctor/echo/"):
        status, seen, asked = await _echo(path, "&to=%2B1555&empty=")
        if seen.get("asked") != sha256(asked.encode()).hexdigest():
            return red(
                f"The path or query is changed on the way (answered {status}).",
                "Let the proxy hand on path and query as they come: no rewriting, no decoding of %2B, "
                "no slash added or taken away.",
            )
    return green("Path and query arrive as they were sent.")


async def bodies() -> Finding:
    form = b"Probe=%2B1555&Text=a+b&Padding=" + b"x" * 8192
    status, seen, _ = await _echo(form=form)
    if seen.get("body") != sha256(form).hexdigest():
        return red(
            f"The body of a POST does not arrive whole (answered {status}).",
            "Let the proxy pass POST requests with their body, 8 MB of it for Vapi's reports.",
        )
    return green("The body of a POST arrives.")


def _signed(url: str, form: Mapping[str, str]) -> str:
    return str(RequestValidator(settings.TWILIO_AUTH_TOKENS[0]).compute_signature(url, form))


async def signature() -> Finding:
    form = {"AccountSid": settings.TWILIO_ACCOUNT_SID}
    body = f"AccountSid={settings.TWILIO_ACCOUNT_SID}".encode()
    right = _signed(settings.PUBLIC_URL + STATUS, form)
    status, _ = await _ask("POST", STATUS, headers={"X-Twilio-Signature": right}, form=body)
    if status != 400:  # let in, and then turned away since no call is named
        return red(
            f"A rightly signed webhook is refused ({status}).",
            "Restart the server with the same TWILIO_AUTH_TOKEN, TWILIO_ACCOUNT_SID and PUBLIC_URL.",
        )
    status, _ = await _ask("POST", STATUS, headers={"X-Twilio-Signature": "wrong"}, form=body)
    if status != 403:
        return red(
            f"A wrongly signed webhook is not refused ({status}).",
            "Restart the server with TWILIO_AUTH_TOKEN set: anybody could place calls at your cost.",
        )
    return green("Signed webhooks come in, others do not.")


async def websocket() -> Finding:
    path = "/media-stream"
    url = "ws" + settings.PUBLIC_URL.removeprefix("http") + path
    status = await _upgrade(url, _signed(url, {}))
    if status != 101:
        return red(f"A rightly signed websocket is refused ({status}).", UPGRADE)
    status = await _upgrade(url, "wrong")
    if status != 403:
        return red(
            f"A wrongly signed websocket gets {status}, not 403.",
            "Let the proxy hand websockets to this server, with TWILIO_AUTH_TOKEN set there, and not "
            "answer them itself.",
        )
    return green("Signed media streams come in, others do not.")


async def _upgrade(url: str, signature: str) -> int:
    async with _session() as http:
        try:
            async with http.ws_connect(
                url, headers={"X-Twilio-Signature": signature},
                timeout=aiohttp.ClientWSTimeout(ws_close=SECONDS / 2),
            ):  # fmt: skip
                return 101
        except aiohttp.WSServerHandshakeError as refusal:
            return refusal.status


REACHED = ("public-url", "address", "certificate", "this-server")
CHECKS = (
    Check("address", "Address", "Does anybody answer at PUBLIC_URL?", address, ("public-url",)),
    Check("certificate", "Certificate", "Is the certificate valid?", certificate, ("public-url", "address")),
    Check("redirects", "Redirects", "Is a webhook answered where it is sent?", redirects, REACHED[:3]),
    Check(
        "this-server", "This server", "Does PUBLIC_URL lead here?", this_server,
        (*REACHED[:3], "redirects"),
    ),
    Check("headers", "Headers", "Does Twilio's signature arrive?", headers, REACHED),
    Check("paths", "Paths", "Do path and query arrive unchanged?", paths, REACHED),
    Check("bodies", "Bodies", "Does the body of a POST arrive?", bodies, REACHED),
    Check(
        "signature", "Signatures", "Are signatures checked, and right ones let in?", signature,
        (*REACHED, "twilio-settings", "headers", "bodies"),
    ),
    Check(
        "websocket", "Media stream", "Do media streams pass the proxy?", websocket,
        (*REACHED, "twilio-settings", "headers"),
    ),
)  # fmt: skip
