"""Authentication of webhooks: Twilio's signature and Vapi's secret, before anything else is read.

A rejected request is answered with a 4xx and one sentence, logged once and counted; one with a wrong method
just gets a 405. Nothing that a stranger sends leads to a 5xx.
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
from bridge.routes import Route

logger = logging.getLogger(__name__)

# Rejected requests since the process started, by endpoint and status. Neither comes from the request.
rejected: Counter[str] = Counter()

SID = re.compile(r"[A-Za-z0-9]{1,64}")
TIMESTAMP = re.compile(r"[0-9]{1,16}")
HMAC_WINDOW_SECONDS = 300
MAX_VAPI_BODY_BYTES = 8 * 1024 * 1024  # an end-of-call report contains the transcript several times

AsyncView = Callable[..., Coroutine[Any, Any, HttpResponse]]


@dataclass(frozen=True, slots=True)
class TwilioRequest:
    """A webhook about one call, with a valid signature of Twilio's."""

    bridge: BridgeContext
    call_sid: str
    form: QueryDict
    query: QueryDict

    def text(self, name: str, max_chars: int = 64) -> str:
        return self.form.get(name, "")[:max_chars]

    def whole_number(self, name: str) -> int | None:
        text = self.form.get(name, "")
        return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None

    @property
    def is_inbound(self) -> bool:
        """Whether somebody called us; otherwise we placed the call."""
        return not self.text("Direction", 16).startswith("outbound")

    @property
    def our_number(self) -> str:
        return self.text("To" if self.is_inbound else "From")

    @property
    def their_number(self) -> str:
        """The other side's number: of the caller, or of the person that we called."""
        return self.text("From" if self.is_inbound else "To")

    @property
    def route(self) -> Route:
        return self.bridge.admission.route_for(self.our_number)


@dataclass(frozen=True, slots=True)
class VapiRequest:
    """A webhook that proved Vapi's secret. `body` is raw, at most `MAX_VAPI_BODY_BYTES` long."""

    bridge: BridgeContext
    body: bytes
    query: QueryDict


def require_bridge(request: HttpRequest) -> BridgeContext:
    """The bridge of this server process, which `voiceai/asgi.py` puts into every scope."""
    assert isinstance(request, ASGIRequest)
    return context_of(request.scope)


def reject(endpoint: str, reason: str, status: int) -> HttpResponse:
    """Answer with a 4xx. `reason` is a fixed sentence: nothing of the request is repeated."""
    rejected[f"{endpoint} {status}"] += 1
    logger.warning("%s rejected with %d: %s", endpoint, status, reason)
    return HttpResponse(f"{reason}\n", status=status, content_type="text/plain; charset=utf-8")


def twilio_signed(view: Callable[[TwilioRequest], Coroutine[Any, Any, HttpResponse]]) -> AsyncView:
    """Accept GET and POST requests that Twilio signed for this account and that have a CallSid."""
    endpoint = f"/twilio/{view.__name__}"

    @csrf_exempt
    @wraps(view)
    async def checked(request: HttpRequest) -> HttpResponse:
        if request.method not in ("GET", "POST"):
            return HttpResponseNotAllowed(["GET", "POST"])
        bridge = require_bridge(request)
        try:
            form, signed = _read_form(request)
        except (SuspiciousOperation, BadRequest, UnicodeDecodeError, ValueError):
            return reject(endpoint, "The body is not a form as Twilio sends it.", 400)
        signature = request.headers.get("X-Twilio-Signature", "")
        if not bridge.admission.verify_request(_path_and_query(request), signed, signature):
            return reject(
                endpoint,
                "X-Twilio-Signature is missing, or does not match PUBLIC_URL and TWILIO_AUTH_TOKEN.",
                403,
            )
        account = bridge.config.twilio_account_sid
        if account and form.get("AccountSid", "") != account:
            return reject(endpoint, "AccountSid is not the configured account.", 403)
        call_sid = form.get("CallSid", "")
        if not SID.fullmatch(call_sid):
            return reject(endpoint, "CallSid is missing or malformed.", 400)
        return await view(TwilioRequest(bridge, call_sid, form, request.GET))

    return checked


def _read_form(request: HttpRequest) -> tuple[QueryDict, Mapping[str, Any] | str]:
    """The parameters of the request, and those that the signature covers."""
    if request.method == "GET":
        return request.GET, {}
    if request.content_type == "multipart/form-data":
        raise BadRequest("Twilio never sends multipart.")
    if "bodySHA256" in request.GET:  # a JSON body: the signed query holds its hash
        return request.POST, request.body.decode("utf-8")
    return request.POST, request.POST


def _path_and_query(request: HttpRequest) -> str:
    """Exactly as Twilio wrote them: the signature covers every character."""
    query = request.META.get("QUERY_STRING", "")
    return f"{request.path}?{query}" if query else request.path


def vapi_authenticated(view: Callable[[VapiRequest], Coroutine[Any, Any, HttpResponse]]) -> AsyncView:
    """Accept POST requests that prove VAPI_WEBHOOK_SECRET. Without one, every request is rejected.

    The proof is `X-Vapi-Secret`, `Authorization: Bearer`, or an HMAC-SHA256 in `X-Signature` over
    `{X-Timestamp}.{body}` whose timestamp is at most five minutes from our clock.
    """

    @csrf_exempt
    @wraps(view)
    async def checked(request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        bridge = require_bridge(request)
        secret = bridge.config.vapi_webhook_secret
        if not secret:
            return reject("/vapi/events", "VAPI_WEBHOOK_SECRET is not set, so no request is accepted.", 401)
        # Not request.body: Django limits it to 2.5 MB, less than the report of a long call.
        body = request.read(MAX_VAPI_BODY_BYTES + 1)
        if len(body) > MAX_VAPI_BODY_BYTES:
            return reject("/vapi/events", "The body is larger than 8 MB.", 413)
        if not (_has_secret(request, secret) or _has_signature(request, body, secret, time.time())):
            return reject("/vapi/events", "The secret is missing or wrong.", 401)
        return await view(VapiRequest(bridge, body, request.GET))

    return checked


def _has_secret(request: HttpRequest, secret: str) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    by_header = _equal(request.headers.get("X-Vapi-Secret", ""), secret)
    by_bearer = _equal(token.strip(), secret) and scheme.lower() == "bearer"
    return by_header or by_bearer


def _has_signature(request: HttpRequest, body: bytes, secret: str, now: float) -> bool:
    timestamp = request.headers.get("X-Timestamp", "")
    signature = request.headers.get("X-Signature", "").removeprefix("sha256=").lower()
    if not signature or not TIMESTAMP.fullmatch(timestamp):
        return False
    seconds = int(timestamp) / 1000 if int(timestamp) > 10**11 else int(timestamp)
    if abs(now - seconds) > HMAC_WINDOW_SECONDS:
        return False
    expected = hmac.new(secret.encode(), timestamp.encode("ascii") + b"." + body, sha256).hexdigest()
    return _equal(signature, expected)


def _equal(header: str, secret: str) -> bool:
    """Compare in constant time. As bytes, because `compare_digest` raises for a str that is not ASCII."""
    return hmac.compare_digest(header.encode("latin-1", "replace"), secret.encode())
