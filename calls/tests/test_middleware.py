"""The middleware that webhooks bypass, with Django's real ASGI handler."""

from __future__ import annotations

import asyncio
import threading
from typing import Any
from urllib.parse import urlencode

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import include, path
from twilio.request_validator import RequestValidator

from bridge.context import BridgeContext
from calls.tests.webhook_client import ACCOUNT, PUBLIC, SID, TOKEN, make_bridge

entered = threading.Event()
release = threading.Event()


def hang(request: HttpRequest) -> HttpResponse:
    """A page whose query hangs."""
    entered.set()
    release.wait(30)
    return HttpResponse("late")


urlpatterns = [path("blocked", hang), path("", include("voiceai.urls"))]


def make_request(
    path: str, bridge: BridgeContext, form: dict[str, str] | None = None, host: str = "localhost"
) -> Any:
    body = urlencode(form or {}).encode()
    headers = [(b"host", host.encode()), (b"content-length", str(len(body)).encode())]
    if form is not None:
        signature = RequestValidator(TOKEN).compute_signature(f"{PUBLIC}{path}", form)
        headers += [
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"x-twilio-signature", signature.encode()),
        ]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET" if form is None else "POST",
        "path": path,
        "query_string": b"",
        "headers": headers,
        "bridge": bridge,
    }
    return ApplicationCommunicator(get_asgi_application(), scope), body  # type: ignore[no-untyped-call]


async def send_request(
    path: str, form: dict[str, str] | None = None, host: str = "localhost"
) -> tuple[int, dict[bytes, bytes], bytes]:
    communicator, body = make_request(path, make_bridge(), form, host)
    await communicator.send_input({"type": "http.request", "body": body})
    start = await communicator.receive_output(10)
    content = (await communicator.receive_output(10))["body"]
    await communicator.wait(10)
    return start["status"], dict(start["headers"]), content


FORM = {"CallSid": SID, "AccountSid": ACCOUNT, "From": "+15550100134", "To": "+15559870000"}


@override_settings(ROOT_URLCONF="calls.tests.test_middleware", DEBUG=False)
async def test_a_call_is_answered_while_a_page_hangs() -> None:
    entered.clear()
    release.clear()
    page, body = make_request("/blocked", make_bridge())
    await page.send_input({"type": "http.request", "body": body})
    try:
        assert await asyncio.to_thread(entered.wait, 10)
        status, _, content = await send_request("/twilio/voice", FORM)
    finally:
        release.set()
    assert status == 200
    assert b"<Connect" in content
    await page.receive_output(10)
    await page.receive_output(10)
    await page.wait(10)


@override_settings(DEBUG=False, ALLOWED_HOSTS=["voice.example.com"])
@pytest.mark.parametrize("path", ["/twilio/voice", "/twilio/voice/"])
async def test_a_signed_webhook_may_have_any_host_header(path: str) -> None:
    status, headers, content = await send_request(path, FORM, host="10.0.0.7:8000")
    assert status == 200
    assert b"<Connect" in content
    assert b"set-cookie" not in {name.lower() for name in headers}


@override_settings(DEBUG=False, ALLOWED_HOSTS=["voice.example.com"])
async def test_a_page_needs_an_allowed_host_header() -> None:
    status, _, _ = await send_request("/admin/login/", host="10.0.0.7:8000")
    assert status == 400


@override_settings(DEBUG=False, ALLOWED_HOSTS=["voice.example.com"])
async def test_a_health_probe_may_use_the_ip_address() -> None:
    assert (await send_request("/healthz", host="10.0.0.7:8000"))[0] == 200
    assert (await send_request("/readyz", host="10.0.0.7:8000"))[0] == 200


async def test_an_unknown_webhook_path_is_a_404() -> None:
    assert (await send_request("/twilio/nothing"))[0] == 404


async def test_static_files_are_served_without_collectstatic() -> None:
    status, headers, content = await send_request("/static/calls/calls.css")
    assert status == 200
    assert headers[b"Content-Type"].startswith(b"text/css")
    assert content.startswith(b"/* The staff pages")
