"""What we ask of Vapi: say this to the caller, end a call, show one; make, show and change an assistant.

The call's control URL is a secret and lives nowhere with us, so Vapi is asked for it each time; it is
followed only to an allowed host, at the address that was found to be public. Whatever goes wrong becomes
one sentence that a page can show.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from django.conf import settings

from bridge.allowed_hosts import AllowedHosts, ForbiddenUrl, public_address
from calls.ingest.sanitize import clean_text
from calls.vendor_errors import VendorError

log = logging.getLogger(__name__)

SECONDS = 5.0
MAX_ANSWER_BYTES = 1 << 23  # a long call's every message is in it, more than once
USER_AGENT = "voiceai/0.1 (+staff)"  # without one Vapi's front door answers 403
MAX_COMPLAINT = 300
OVER = "The call is already over at Vapi."
NO_ASSISTANT = "Vapi knows no such assistant: check VAPI_ASSISTANT_ID."
_SCHEMES = frozenset({"http", "https"})


async def say(vapi_call_id: str, words: str, *, then_end: bool = False) -> None:
    """Have the assistant speak these words, and end the call behind them if asked. Raises `VendorError`."""
    if settings.VAPI_SOCKET_URL:
        raise VendorError("The assistant's socket server takes no words from us: only Vapi itself does.")
    if not vapi_call_id:
        raise VendorError("The assistant has not answered this call yet.")
    async with _told():
        said = {"type": "say", "content": words} | ({"endCallAfterSpoken": True} if then_end else {})
        await _post(_control_url(await _call(vapi_call_id)), said)


async def fetch_call(vapi_call_id: str) -> dict[str, Any]:
    """What Vapi knows of a call; once it is over, all that its report held. Raises `VendorError`."""
    async with _told():
        return await _call(vapi_call_id)


async def list_calls(assistant_id: str, limit: int = 10) -> list[dict[str, Any]]:
    """The calls of an assistant, the newest first. Raises `VendorError`."""
    query = urlencode({"assistantId": assistant_id, "limit": limit})
    async with _told():
        found = await _asked("GET", f"/call?{query}", OVER)
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


async def fetch_assistant(assistant_id: str) -> dict[str, Any]:
    """An assistant as Vapi keeps it. Raises `VendorError`."""
    async with _told():
        return _object(await _asked("GET", f"/assistant/{quote(assistant_id, safe='')}", NO_ASSISTANT))


async def create_assistant(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Make an assistant; the answer holds its id. Raises `VendorError`."""
    async with _told():
        return _object(await _asked("POST", "/assistant", NO_ASSISTANT, facts))


async def update_assistant(assistant_id: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Change an assistant: each field that is named is replaced whole. Raises `VendorError`."""
    async with _told():
        path = f"/assistant/{quote(assistant_id, safe='')}"
        return _object(await _asked("PATCH", path, NO_ASSISTANT, facts))


async def end_call(call: Mapping[str, Any]) -> None:
    """End a call that `fetch_call` found still running. Raises `VendorError`."""
    async with _told():
        await _post(_control_url(call), {"type": "end-call"})


@asynccontextmanager
async def _told() -> AsyncIterator[None]:
    """A deadline, and a sentence for whatever goes wrong."""
    try:
        async with asyncio.timeout(SECONDS):
            yield
    except TimeoutError:
        raise VendorError(
            f"Vapi did not answer within {SECONDS:.0f} seconds.", may_have_happened=True
        ) from None
    except ForbiddenUrl as refusal:
        log.warning("vapi: control URL not followed: %s", refusal)
        raise VendorError(
            "Vapi named a control address that is not in VAPI_ALLOWED_HOSTS.", status=400
        ) from None
    except (aiohttp.ClientError, OSError) as error:
        log.warning("vapi: no connection: %s", type(error).__name__)
        raise VendorError("Vapi cannot be reached from here.") from None


async def _call(vapi_call_id: str) -> dict[str, Any]:
    return _object(await _asked("GET", f"/call/{quote(vapi_call_id, safe='')}", OVER))


async def _asked(method: str, path: str, gone: str, body: Mapping[str, Any] | None = None) -> Any:
    """The answer's JSON, None for what is none; `gone` says what a 404 means."""
    headers = {"Authorization": f"Bearer {settings.VAPI_API_KEY}"}
    url = settings.VAPI_BASE_URL + path
    async with (
        _session() as http,
        http.request(method, url, headers=headers, json=body, allow_redirects=False) as answer,
    ):
        said = b""
        while len(said) <= MAX_ANSWER_BYTES and (more := await answer.content.read(MAX_ANSWER_BYTES)):
            said += more
        try:
            found = json.loads(said)
        except (ValueError, RecursionError):
            found = None
        _must_be_well(answer.status, gone, found if method != "GET" else None)
    return found


def _object(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _control_url(call: Mapping[str, Any]) -> str:
    monitor = call.get("monitor")
    found = monitor.get("controlUrl") if isinstance(monitor, dict) else None
    if not isinstance(found, str) or not found:
        raise VendorError(
            "Vapi offers no control over this call: it is over, or control is switched off.", status=400
        )
    return found


async def _post(url: str, message: Mapping[str, Any]) -> None:
    must_be_public = AllowedHosts(settings.VAPI_ALLOWED_HOSTS).check(url, _SCHEMES)
    address = await public_address(urlsplit(url).hostname or "", 443) if must_be_public else None
    async with _session(address) as http, http.post(url, json=message, allow_redirects=False) as answer:
        _must_be_well(answer.status)


def _must_be_well(status: int, gone: str = OVER, said: Any = None) -> None:
    if status in (200, 201, 202, 204):
        return
    log.warning("vapi answered %d", status)
    match status:
        case 400 | 422 if words := _complaints(said):
            sentence = f"Vapi refuses: {words}"
        case 400 | 404 | 409 | 410:
            sentence = gone
        case 401:
            sentence = "Vapi refuses our key: check VAPI_API_KEY (the private key, not the public one)."
        case 403:
            sentence = "Vapi refuses our key: check VAPI_API_KEY."
        case 429:
            sentence = "Vapi is asked too often at the moment. Try again in a few seconds."
        case _:
            sentence = f"Vapi has trouble of its own ({status}). Try again."
    raise VendorError(sentence, status=status)


def _complaints(said: Any) -> str:
    """What Vapi finds wrong with what it was sent: one sentence or several."""
    message = said.get("message") if isinstance(said, dict) else None
    found = message if isinstance(message, list) else [message]
    return clean_text("; ".join(each for each in found if isinstance(each, str)), MAX_COMPLAINT)


class _Pinned(AbstractResolver):
    """One address for any name: a second look-up could answer otherwise than the one that was checked."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        return [
            ResolveResult(
                hostname=host, host=self._address, port=port, family=family, proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing is open."""


def _session(address: str | None = None) -> aiohttp.ClientSession:
    connector: dict[str, Any] = {}
    if address is not None:
        connector = {"connector": aiohttp.TCPConnector(resolver=_Pinned(address))}
    return aiohttp.ClientSession(trust_env=False, headers={"User-Agent": USER_AGENT}, **connector)
