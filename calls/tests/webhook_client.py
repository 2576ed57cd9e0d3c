"""A client that sends webhooks as Twilio and Vapi do, to a real bridge context with a journal in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.test import AsyncClient
from twilio.request_validator import RequestValidator

from bridge.admission import Admission
from bridge.call_cache import CallCache
from bridge.config import BridgeConfig
from bridge.context import BridgeContext
from bridge.journal import Entry
from bridge.routes import Route

ACCOUNT = "AC" + "0" * 32
SID = "CA" + "1" * 32
TOKEN = "12345"
PUBLIC = "https://voice.example.com"
OURS = "+15559870000"


class InMemoryJournal(list[Entry]):
    def write(self, entry: Entry, /) -> None:
        self.append(entry)


def make_bridge(routes: Iterable[Route] = (), **changes: Any) -> BridgeContext:
    values: dict[str, Any] = {
        "public_url": PUBLIC,
        "twilio_account_sid": ACCOUNT,
        "twilio_auth_tokens": (TOKEN,),
        "ticket_secret": "not so secret",
        "vapi_webhook_secret": "topsecret",
        "ai_disclosure": settings.AI_DISCLOSURE,
        "fallback_number": settings.FALLBACK_NUMBER,
    }
    config = BridgeConfig(**(values | changes))
    call_cache = CallCache()
    admission = Admission(config, call_cache=call_cache)
    admission.replace_routes(routes)
    return BridgeContext(config, admission, InMemoryJournal(), call_cache)


class WebhookClient(AsyncClient):
    """A test client whose requests have a bridge in their scope, as in the server."""

    def __init__(self, bridge: BridgeContext | None = None) -> None:
        super().__init__()
        self.bridge = bridge or make_bridge()

    @property
    def entries(self) -> InMemoryJournal:
        assert isinstance(self.bridge.journal, InMemoryJournal)
        return self.bridge.journal

    def _base_scope(self, **request: Any) -> dict[str, Any]:
        scope: dict[str, Any] = super()._base_scope(**request)  # type: ignore[misc]
        return scope | {"bridge": self.bridge}

    async def twilio(self, path: str, method: str = "POST", token: str = TOKEN, **changes: str) -> Any:
        """Send a webhook with Twilio's signature."""
        form = {
            "CallSid": SID,
            "AccountSid": ACCOUNT,
            "From": "+15550100134",
            "To": OURS,
            "CallStatus": "ringing",
            "Direction": "inbound",
        } | changes
        if method == "GET":
            path, form = f"{path}{'&' if '?' in path else '?'}{urlencode(form)}", {}
        signature = RequestValidator(token).compute_signature(f"{PUBLIC}{path}", form)
        headers = {"X-Twilio-Signature": signature}
        if method == "GET":
            return await self.get(path, headers=headers)
        return await self.post(
            path, urlencode(form), content_type="application/x-www-form-urlencoded", headers=headers
        )
