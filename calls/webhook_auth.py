"""Who may speak to the webhooks: Twilio's signature and Vapi's secret, before anything else is read.

A refused request is answered with a 4xx and one plain sentence, logged once and counted. Whatever a
stranger sends, it is never a 5xx.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import wraps
from hashlib import sha256
from typing import Any

from django.core.exceptions import BadRequest, SuspiciousOperation
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, QueryDict
from django.views.decorators.csrf import csrf_exempt

from bridge.context import BridgeContext, context_of

logger = logging.getLogger(__name__)

# Requests turned away since the process started, by endpoint and reason; both are our own words.
refused: Counter[str] = Counter()

SID = re.compile(r"[A-Za-z0-9]{1,64}")
TIMESTAMP = re.compile(r"[0-9]{1,16}")
HMAC_WINDOW_SECONDS = 300
MAX_VAPI_BODY = 8 * 1024 * 1024  # an end-of-call report carries the whole conversation, several times

AsyncView = Callable[..., Coroutine[Any, Any, HttpResponse]]


@dataclass(frozen=True, slots=True)
class TwilioRequest:
    """A webhook that Twilio signed, about one call."""

    bridge: BridgeContext
    call_sid: str
    form: QueryDict
    query: QueryDict

    def text(self, name: str, limit: int = 64) -> str:
        return self.form.get(name, "")[:limit]

    def whole_number(self, name: str) -> int | None:
        text = self.form.get(name, "")
        return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


@dataclass(frozen=True, slots=True)
class VapiRequest:
    """A webhook that knew Vapi's secret; `body` is raw and bounded."""

    bridge: BridgeContext
    body: bytes
    query: QueryDict


def bridge_of(request: HttpRequest) -> BridgeContext:
    """The bridge of this server process; `voiceai/asgi.py` puts it into every scope."""
    assert isinstance(request, ASGIRequest)
    return context_of(request.scope)


def refuse(where: str, why: str, status: int) -> HttpResponse:
    """Turn a request away. `why` is one of our own sentences: nothing of the request is repeated."""
    refused[f"{where} {status}"] += 1
    logger.warning("%s refused with %d: %s", where, status, why)
    return HttpResponse(f"{why}\n", status=status, content_type="text/plain; charset=utf-8")


def twilio_signed(view: Callable[[TwilioRequest], Coroutine[Any, Any, HttpResponse]]) -> AsyncView:
    """Let through GET and POST requests that Twilio signed for this account, and that name a call."""
    where = f"/twilio/{view.__name__}"

    @csrf_exempt
    @wraps(view)
    async def checked(request: HttpRequest) -> HttpResponse:
        if request.method not in ("GET", "POST"):
            return HttpResponseNotAllowed(["GET", "POST"])
        bridge = bridge_of(request)
        try:
            form, signed = _read_form(request)
        except (SuspiciousOperation, BadRequest, UnicodeDecodeError, ValueError):
            return refuse(where, "This is not a form that Twilio sends.", 400)
        signature = request.headers.get("X-Twilio-Signature", "")
        if not bridge.admission.verify_request(_path_as_asked(request), signed, signature):
            return refuse(
                where, "The X-Twilio-Signature is missing or does not match PUBLIC_URL and token.", 403
            )
        account = bridge.config.twilio_account_sid
        if account and form.get("AccountSid", "") != account:
            return refuse(where, "AccountSid is not the configured account.", 403)
        call_sid = form.get("CallSid", "")
        if not SID.fullmatch(call_sid):
            return refuse(where, "CallSid is missing or malformed.", 400)
        return await view(TwilioRequest(bridge, call_sid, form, request.GET))

    return checked


def _read_form(request: HttpRequest) -> tuple[QueryDict, Mapping[str, Any] | str]:
    """The parameters, and what of them the signature covers."""
    if request.method == "GET":
        return request.GET, {}
    if request.content_type == "multipart/form-data":
        raise BadRequest("Twilio never sends multipart.")
    if "bodySHA256" in request.GET:  # a JSON body: the signed query holds its hash
        return request.POST, request.body.decode("utf-8")
    return request.POST, request.POST


def _path_as_asked(request: HttpRequest) -> str:
    """Path and query as Twilio wrote them: the signature covers every character."""
    query = request.META.get("QUERY_STRING", "")
    return f"{request.path}?{query}" if query else request.path


def vapi_authenticated(view: Callable[[VapiRequest], Coroutine[Any, Any, HttpResponse]]) -> AsyncView:
    """Let through POST requests that prove the configured secret. No secret: nothing comes through.

    The proof is `X-Vapi-Secret`, `Authorization: Bearer`, or an HMAC-SHA256 in `X-Signature` over
    `{X-Timestamp}.{body}` not older than five minutes.
    """

    @csrf_exempt
    @wraps(view)
    async def checked(request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        bridge = bridge_of(request)
        secret = bridge.config.vapi_webhook_secret
        if not secret:
            return refuse("/vapi/events", "VAPI_WEBHOOK_SECRET is not set, so nothing is accepted.", 401)
        # Not request.body: Django's limit of 2.5 MB for it is less than a long call's report.
        body = request.read(MAX_VAPI_BODY + 1)
        if len(body) > MAX_VAPI_BODY:
            return refuse("/vapi/events", "The body is larger than 8 MB.", 413)
        if not (_knows_secret(request, secret) or _signed_body(request, body, secret, time.time())):
            return refuse("/vapi/events", "The secret is missing or wrong.", 401)
        return await view(VapiRequest(bridge, body, request.GET))

    return checked


def _knows_secret(request: HttpRequest, secret: str) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    by_header = _same(request.headers.get("X-Vapi-Secret", ""), secret)
    by_bearer = _same(token.strip(), secret) and scheme.lower() == "bearer"
    return by_header or by_bearer


def _signed_body(request: HttpRequest, body: bytes, secret: str, now: float) -> bool:
    timestamp = request.headers.get("X-Timestamp", "")
    signature = request.headers.get("X-Signature", "").removeprefix("sha256=").lower()
    if not signature or not TIMESTAMP.fullmatch(timestamp):
        return False
    seconds = int(timestamp) / 1000 if int(timestamp) > 10**11 else int(timestamp)
    if abs(now - seconds) > HMAC_WINDOW_SECONDS:
        return False
    expected = hmac.new(secret.encode(), timestamp.encode("ascii") + b"." + body, sha256).hexdigest()
    return _same(signature, expected)


def _same(header: str, secret: str) -> bool:
    """Compare in constant time, as bytes: a str with other than ASCII would raise."""
    return hmac.compare_digest(header.encode("latin-1", "replace"), secret.encode())
