"""Checks of PUBLIC_URL as Twilio sees it: DNS, certificate, proxy, signatures, websockets.

Requests go to PUBLIC_URL itself and come back to this server through whatever proxy or tunnel is in front.
They change nothing: `/doctor/echo` only answers, a signed webhook without a CallSid is rejected after its
signature was verified, and a media stream that sends no `start` is not a call.
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

REQUEST_TIMEOUT_SECONDS = 4.0
MAX_RESPONSE_BYTES = 1 << 16
MIN_CERTIFICATE_DAYS = 14
ECHO_PATH = "/doctor/echo"
STATUS_PATH = "/twilio/status"
MEDIA_PATH = "/media-stream"
ECHO_SIGNATURE = "echo-check"  # not a signature: only whether the header arrives is checked


def _host_and_port() -> tuple[str, int]:
    parts = urlsplit(settings.PUBLIC_URL)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _session() -> aiohttp.ClientSession:
    # aiohttp makes its default SSL context at import, before SSL_CERT_FILE may be set; so make a new one.
    return aiohttp.ClientSession(
        trust_env=False,
        connector=aiohttp.TCPConnector(ssl=ssl.create_default_context()),
        timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS),
    )


async def _send(
    method: str, path: str, *, headers: Mapping[str, str] | None = None, form: bytes | None = None
) -> tuple[int, bytes]:
    url = URL(settings.PUBLIC_URL + path, encoded=True)  # exactly as written, without normalization
    all_headers = dict(headers or {})
    if form is not None:
        all_headers["Content-Type"] = "application/x-www-form-urlencoded"
    async with (
        _session() as http,
        http.request(method, url, headers=all_headers, data=form, allow_redirects=False) as response,
    ):
        return response.status, await response.content.read(MAX_RESPONSE_BYTES)


async def _echo(
    path: str = ECHO_PATH, more_query: str = "", **request: Any
) -> tuple[int, dict[str, Any], str]:
    """Returns the status, the facts that this server echoed, and the path and query that were requested.

    The facts are empty when another server answered, or one with another secret key.
    """
    nonce = secrets.token_hex(16)
    requested = f"{path}?nonce={nonce}{more_query}"
    status, body = await _send("POST" if "form" in request else "GET", requested, **request)
    try:
        facts = json.loads(body)
    except (ValueError, RecursionError):
        facts = None
    if isinstance(facts, dict) and hmac.compare_digest(str(facts.get("proof")), proof(nonce)):
        return status, facts, requested
    return status, {}, requested


async def check_address() -> Finding:
    host, port = _host_and_port()
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return red(
            "Nothing accepts connections at PUBLIC_URL.",
            "Start the tunnel or the proxy, and check the DNS name, the port and the firewall.",
        )
    writer.close()
    return green("PUBLIC_URL accepts connections.")


async def check_certificate() -> Finding:
    host, port = _host_and_port()
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=ssl.create_default_context())
    except ssl.SSLCertVerificationError as error:
        return red(
            f"The certificate is not trusted: {error.verify_message}.",
            "Install a valid certificate for this name, with its whole chain, at the proxy.",
        )
    except (OSError, TimeoutError) as error:
        return red(
            f"The TLS handshake at PUBLIC_URL fails ({type(error).__name__}).",
            "Configure the proxy to serve https on this port, with a valid certificate.",
        )
    peer_certificate = writer.get_extra_info("peercert") or {}
    writer.close()
    days = 0.0
    if peer_certificate:
        days = (ssl.cert_time_to_seconds(peer_certificate["notAfter"]) - time.time()) / 86_400
    if days < MIN_CERTIFICATE_DAYS:
        return amber(
            f"The certificate expires in {days:.0f} days.", "Renew it, and check its automatic renewal."
        )
    return green(f"The certificate is valid for {days:.0f} more days.")


async def check_this_server() -> Finding:
    status, facts, _ = await _echo()
    if not facts:
        return red(
            f"PUBLIC_URL leads to another server, or to one with another secret key (status {status}).",
            "Point the proxy or tunnel to this server's port, and give all workers the same "
            "DJANGO_SECRET_KEY.",
        )
    return green("PUBLIC_URL leads to this server.")


async def check_redirects() -> Finding:
    for path in (ECHO_PATH, f"{ECHO_PATH}/", "/healthz", STATUS_PATH):
        status, _ = await _send("GET", path)
        if 300 <= status < 400:
            return red(
                f"The proxy redirects {path} (status {status}).",
                "Switch the redirect off, or set PUBLIC_URL to the address it leads to: a signature is valid "
                "for one URL only.",
            )
    return green("Webhook URLs are not redirected.")


async def check_headers() -> Finding:
    status, facts, _ = await _echo(headers={"X-Twilio-Signature": ECHO_SIGNATURE})
    if facts.get("signature") != sha256(ECHO_SIGNATURE.encode()).hexdigest():
        return red(
            f"The X-Twilio-Signature header does not arrive (status {status}).",
            "Configure the proxy to pass all headers unchanged, including X-Twilio-Signature.",
        )
    return green("The X-Twilio-Signature header arrives.")


async def check_paths() -> Finding:
    for path in (ECHO_PATH, f"{ECHO_PATH}/"):
        status, facts, requested = await _echo(path, "&to=%2B1555&empty=")
        if facts.get("path") != sha256(requested.encode()).hexdigest():
            return red(
                f"The proxy changes the path or the query (status {status}).",
                "Configure the proxy to pass path and query unchanged: no rewriting, no decoding of %2B, "
                "no slash added or removed.",
            )
    return green("Path and query arrive unchanged.")


async def check_bodies() -> Finding:
    form = b"Probe=%2B1555&Text=a+b&Padding=" + b"x" * 8192
    status, facts, _ = await _echo(form=form)
    if facts.get("body") != sha256(form).hexdigest():
        return red(
            f"The body of a POST request does not arrive complete (status {status}).",
            "Configure the proxy to pass POST requests with their body, up to 8 MB for Vapi's reports.",
        )
    return green("The body of a POST request arrives complete.")


def _sign(url: str, form: Mapping[str, str]) -> str:
    return str(RequestValidator(settings.TWILIO_AUTH_TOKENS[0]).compute_signature(url, form))


async def check_signature() -> Finding:
    form = {"AccountSid": settings.TWILIO_ACCOUNT_SID}
    body = f"AccountSid={settings.TWILIO_ACCOUNT_SID}".encode()
    valid = _sign(settings.PUBLIC_URL + STATUS_PATH, form)
    status, _ = await _send("POST", STATUS_PATH, headers={"X-Twilio-Signature": valid}, form=body)
    if status != 400:  # the signature was accepted, and the form rejected because it has no CallSid
        return red(
            f"A webhook with a valid signature is rejected (status {status}).",
            "Restart the server with the same TWILIO_AUTH_TOKEN, TWILIO_ACCOUNT_SID and PUBLIC_URL.",
        )
    status, _ = await _send("POST", STATUS_PATH, headers={"X-Twilio-Signature": "wrong"}, form=body)
    if status != 403:
        return red(
            f"A webhook with an invalid signature is not rejected (status {status}).",
            "Restart the server with TWILIO_AUTH_TOKEN set. Until then anyone can place calls at your "
            "expense.",
        )
    return green("Valid signatures are accepted, invalid ones rejected.")


async def check_websocket() -> Finding:
    url = "ws" + settings.PUBLIC_URL.removeprefix("http") + MEDIA_PATH
    status = await _upgrade(url, _sign(url, {}))
    if status != 101:
        return red(
            f"A media stream with a valid signature is rejected (status {status}).",
            "Configure the proxy to pass websockets: HTTP/1.1 upstream, with the Upgrade and Connection "
            "headers.",
        )
    status = await _upgrade(url, "wrong")
    if status != 403:
        return red(
            f"A media stream with an invalid signature is answered with {status}, not 403.",
            "Configure the proxy to pass websockets to this server instead of answering them itself, and "
            "set TWILIO_AUTH_TOKEN there.",
        )
    return green("Media streams with a valid signature are accepted, others rejected.")


async def _upgrade(url: str, signature: str) -> int:
    """The HTTP status that a websocket handshake is answered with."""
    async with _session() as http:
        try:
            async with http.ws_connect(
                url, headers={"X-Twilio-Signature": signature},
                timeout=aiohttp.ClientWSTimeout(ws_close=REQUEST_TIMEOUT_SECONDS / 2),
            ):  # fmt: skip
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status


REACHABLE = ("public-url", "address", "certificate")
REACHES_US = (*REACHABLE, "this-server")
CHECKS = (
    Check("address", "Address", check_address, ("public-url",)),
    Check("certificate", "Certificate", check_certificate, ("public-url", "address")),
    Check("redirects", "Redirects", check_redirects, REACHABLE),
    Check("this-server", "This server", check_this_server, (*REACHABLE, "redirects")),
    Check("headers", "Headers", check_headers, REACHES_US),
    Check("paths", "Paths", check_paths, REACHES_US),
    Check("bodies", "Bodies", check_bodies, REACHES_US),
    Check(
        "signature",
        "Webhook signatures",
        check_signature,
        (*REACHES_US, "twilio-settings", "headers", "bodies"),
    ),
    Check("websocket", "Media streams", check_websocket, (*REACHES_US, "twilio-settings", "headers")),
)
