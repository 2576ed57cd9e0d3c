"""Vapi's REST API: speak into a call, end it, fetch it; create, fetch and update assistants.

The call's control URL is a secret and is not stored, so Vapi is asked for it each time. It is followed only
to an allowed host, at the address that was checked to be public.

Every failure becomes a `VendorError` with one sentence for staff.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from django.conf import settings

from bridge.allowed_hosts import AllowedHosts, ForbiddenUrl
from bridge.pinned_http import post_json
from calls.ingest.sanitize import clean_text
from calls.vendor_errors import (
    UnreadableResponse,
    VendorError,
    describe_status,
    read_bounded,
    translate_errors,
)

logger = logging.getLogger(__name__)

VENDOR = "Vapi"
REQUEST_TIMEOUT_SECONDS = 5.0
MAX_RESPONSE_BYTES = 1 << 23  # a long call contains each of its messages more than once
USER_AGENT = "voiceai/0.1 (+staff)"  # without one, the firewall in front of Vapi answers 403
MAX_VALIDATION_ERROR_CHARS = 300
CALL_ENDED = "ended"  # status of a call that is over
CALL_IS_OVER = "The call is already over at Vapi."
CALL_IS_OVER_STATUSES = (400, 404, 409, 410)  # of a control URL
NO_ASSISTANT = "Vapi has no such assistant. Check VAPI_ASSISTANT_ID."


async def say(vapi_call_id: str, text: str, *, then_end_call: bool = False) -> None:
    """Have the assistant speak a text, and end the call after it if wanted. Raises `VendorError`."""
    if settings.VAPI_SOCKET_URL:
        raise VendorError("The assistant's socket server cannot be told what to say. Only Vapi can.")
    if not vapi_call_id:
        raise VendorError("The assistant has not answered this call yet.")
    message: dict[str, Any] = {"type": "say", "content": text}
    if then_end_call:
        message["endCallAfterSpoken"] = True
    async with translate_errors(VENDOR, REQUEST_TIMEOUT_SECONDS):
        await _post(_control_url(await _fetch_call(vapi_call_id)), message)


async def fetch_call(vapi_call_id: str) -> dict[str, Any]:
    """The call object; after the end of the call it holds all that the report held. Raises `VendorError`."""
    async with translate_errors(VENDOR, REQUEST_TIMEOUT_SECONDS):
        return await _fetch_call(vapi_call_id)


async def list_assistants(limit: int = 1000) -> list[dict[str, Any]]:
    """The account's assistants, newest first. Raises `VendorError`."""
    async with translate_errors(VENDOR, REQUEST_TIMEOUT_SECONDS):
        assistants = await _request("GET", f"/assistant?{urlencode({'limit': limit})}")
    if not isinstance(assistants, list):
        raise VendorError("Vapi returned no list of assistants.")
    return [assistant for assistant in assistants if isinstance(assistant, dict)]


async def fetch_assistant(assistant_id: str) -> dict[str, Any]:
    """An assistant's configuration. Raises `VendorError`."""
    async with translate_errors(VENDOR, REQUEST_TIMEOUT_SECONDS):
        return _object(await _request("GET", _assistant_path(assistant_id), not_found=NO_ASSISTANT))


async def create_assistant(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Create an assistant and return it, with its id. Raises `VendorError`."""
    async with translate_errors(VENDOR, REQUEST_TIMEOUT_SECONDS):
        return _object(await _request("POST", "/assistant", fields))


async def update_assistant(assistant_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Replace each named field of an assistant as a whole. Raises `VendorError`."""
    async with translate_errors(VENDOR, REQUEST_TIMEOUT_SECONDS):
        return _object(await _request("PATCH", _assistant_path(assistant_id), fields, not_found=NO_ASSISTANT))


async def end_call(call: Mapping[str, Any]) -> None:
    """End a running call, given as `fetch_call` returned it. Raises `VendorError`."""
    async with translate_errors(VENDOR, REQUEST_TIMEOUT_SECONDS):
        await _post(_control_url(call), {"type": "end-call"})


def _assistant_path(assistant_id: str) -> str:
    return f"/assistant/{quote(assistant_id, safe='')}"


async def _fetch_call(vapi_call_id: str) -> dict[str, Any]:
    path = f"/call/{quote(vapi_call_id, safe='')}"
    return _object(await _request("GET", path, not_found=CALL_IS_OVER))


async def _request(
    method: str, path: str, fields: Mapping[str, Any] | None = None, *, not_found: str = ""
) -> Any:
    """The JSON of the response, None if it is not JSON. `not_found` is the sentence for a 404."""
    headers = {"Authorization": f"Bearer {settings.VAPI_API_KEY}"}
    url = settings.VAPI_BASE_URL + path
    async with (
        _session() as http,
        http.request(method, url, headers=headers, json=fields, allow_redirects=False) as response,
    ):
        try:
            content = json.loads(await read_bounded(response, MAX_RESPONSE_BYTES))
        except (ValueError, RecursionError):
            content = None
        _raise_for_status(response.status, content, not_found)
    return content


def _object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):  # cut off, too long, or not JSON
        raise UnreadableResponse(VENDOR)
    return content


def _control_url(call: Mapping[str, Any]) -> str:
    monitor = call.get("monitor")
    url = monitor.get("controlUrl") if isinstance(monitor, dict) else None
    if not isinstance(url, str) or not url:
        raise VendorError(
            "Vapi returned no control URL: the call is over, or its monitor plan has control disabled."
        )
    return url


async def _post(url: str, message: Mapping[str, Any]) -> None:
    hosts = AllowedHosts(settings.VAPI_ALLOWED_HOSTS)
    try:
        status = await post_json(url, message, hosts, user_agent=USER_AGENT)
    except ForbiddenUrl as error:
        logger.warning("vapi: control URL not followed: %s", error)
        raise VendorError("Vapi returned a control URL whose host is not in VAPI_ALLOWED_HOSTS.") from None
    if status in CALL_IS_OVER_STATUSES:
        logger.warning("vapi answered %d", status)
        raise VendorError(CALL_IS_OVER, status=status)
    _raise_for_status(status)


def _raise_for_status(status: int, content: Any = None, not_found: str = "") -> None:
    if status in (200, 201, 202, 204):
        return
    logger.warning("vapi answered %d", status)
    match status:
        case 400 | 422 if errors := _read_validation_errors(content):
            sentence = f"Vapi rejected the request: {errors}"
        case 404 if not_found:
            sentence = not_found
        case 401:
            sentence = "Vapi rejected the API key. Set VAPI_API_KEY to the private key, not the public one."
        case 403:
            sentence = "Vapi rejected the API key. Check VAPI_API_KEY."
        case _:
            sentence = describe_status(VENDOR, status)
    raise VendorError(sentence, status=status)


def _read_validation_errors(content: Any) -> str:
    """What Vapi finds wrong in a request: one sentence, or a list of them."""
    message = content.get("message") if isinstance(content, dict) else None
    sentences = message if isinstance(message, list) else [message]
    return clean_text(
        "; ".join(text for text in sentences if isinstance(text, str)), MAX_VALIDATION_ERROR_CHARS
    )


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(trust_env=False, headers={"User-Agent": USER_AGENT})
