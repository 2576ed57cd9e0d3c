"""Checks of the key and the assistant at Vapi, or of the socket server that takes Vapi's place.

Vapi's concurrency limit is not checked: Vapi names it only in the answer to a new call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
from django.conf import settings

from calls.doctor.check import Check, Finding, amber, green, red
from calls.doctor.public_url import REQUEST_TIMEOUT_SECONDS
from calls.doctor.settings import build_unmet_finding
from calls.vapi import client as vapi_client
from calls.vapi import tools
from calls.vapi.assistant_config import MAX_ENDPOINTING_MS, MIN_ENDPOINTING_MS
from calls.vendor_errors import VendorError

CUTS_OFF_MS, SLOW_MS = 100, 500  # endpointing below the first is red; above the second it is amber
ADVISED_RANGE = f"{MIN_ENDPOINTING_MS} to {MAX_ENDPOINTING_MS} ms"
MIN_CALL_SECONDS = 60
NOT_VAPI = green("A socket server answers calls (VAPI_SOCKET_URL), so nothing is checked at Vapi.")


async def _fetch_assistant() -> dict[str, Any] | Finding:
    """The assistant, or the finding to report instead."""
    if settings.VAPI_SOCKET_URL:
        return NOT_VAPI
    try:
        return await vapi_client.fetch_assistant(settings.VAPI_ASSISTANT_ID)
    except VendorError as error:
        return red(str(error), "See the checks `vapi-key` and `assistant`.")


async def check_key() -> Finding:
    if settings.VAPI_SOCKET_URL:
        return NOT_VAPI
    try:
        await vapi_client.fetch_assistant(settings.VAPI_ASSISTANT_ID)
    except VendorError as error:
        if error.status in (401, 403):
            return red(
                "Vapi rejects the API key.",
                "Set VAPI_API_KEY to the private key from Vapi's dashboard, not the public key.",
            )
        if error.status != 404:
            return red(str(error), "Check VAPI_BASE_URL, and that this machine can connect to it.")
    return green("Vapi accepts the API key.")


async def check_assistant() -> Finding:
    if settings.VAPI_SOCKET_URL:
        return NOT_VAPI
    try:
        await vapi_client.fetch_assistant(settings.VAPI_ASSISTANT_ID)
    except VendorError as error:
        return red(
            str(error),
            "Set VAPI_ASSISTANT_ID to the id on the assistant's page, in the same account as the key.",
        )
    return green("The assistant exists.")


def _object(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = facts.get(name)
    return value if isinstance(value, Mapping) else {}


async def check_parts() -> Finding:
    config = await _fetch_assistant()
    if isinstance(config, Finding):
        return config
    missing = [name for name in ("model", "voice", "transcriber") if not _object(config, name)]
    if "model" in missing or "voice" in missing:
        return red(
            f"The assistant has no {' and no '.join(missing)}.",
            "Choose a model, a voice and a transcriber on the assistant's page at Vapi.",
        )
    if missing:
        return amber("The assistant has no transcriber of its own.", "Choose one: Vapi's default may change.")
    if not config.get("firstMessage"):
        return amber("The assistant has no first message.", "Set one: callers hang up when nobody speaks.")
    return green("The assistant has a model, a voice, a transcriber and a first message.")


async def check_assistant_tools() -> Finding:
    """Vapi sends a call of a tool without a URL to the assistant's server URL, which is ours."""
    config = await _fetch_assistant()
    if isinstance(config, Finding):
        return config
    ours = {declaration["function"]["name"] for declaration in tools.build_declarations()}
    declared = _object(config, "model").get("tools") or []
    unknown, known = [], set()
    for tool in declared if isinstance(declared, list) else []:
        if not isinstance(tool, Mapping) or tool.get("type") != "function":
            continue  # Vapi runs its own types itself
        name = str(_object(tool, "function").get("name") or "")
        if name in ours:
            known.add(name)
        elif not _object(tool, "server").get("url"):
            unknown.append(name)
    if unknown:
        return red(
            f"Vapi sends calls of {', '.join(unknown)} to this server, which has no such tool: each call "
            "fails.",
            "Set the tool's own server URL at Vapi, remove the tool, or add it to calls/vapi/tools.py.",
        )
    if missing := sorted(ours - known):
        return amber(
            f"The assistant does not have these tools of this server: {', '.join(missing)}.",
            "Run `./manage.py configure_assistant`.",
        )
    return green("The assistant has this server's tools, and no tool that cannot be called.")


async def check_endpointing() -> Finding:
    config = await _fetch_assistant()
    if isinstance(config, Finding):
        return config
    value = _object(config, "transcriber").get("endpointing")
    transcriber_ms = value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    for name, ms in (
        ("The transcriber's endpointing", transcriber_ms),
        ("VAPI_ENDPOINTING_MS", settings.VAPI_ENDPOINTING_MS),
    ):
        if ms is None:
            continue
        if ms < CUTS_OFF_MS:
            return red(f"{name} is {ms} ms: callers are cut off mid-sentence.", f"Set it to {ADVISED_RANGE}.")
        if ms < MIN_ENDPOINTING_MS:
            return amber(
                f"{name} is {ms} ms: callers are cut off when they pause.", f"Set it to {ADVISED_RANGE}."
            )
        if ms > SLOW_MS:
            return amber(f"{name} is {ms} ms: every answer comes late.", f"Set it to {ADVISED_RANGE}.")
    return green("Endpointing is long enough for callers to pause.")


async def check_limits() -> Finding:
    config = await _fetch_assistant()
    if isinstance(config, Finding):
        return config
    assistant_limit, silence_timeout = config.get("maxDurationSeconds"), config.get("silenceTimeoutSeconds")
    if isinstance(silence_timeout, (int, float)) and silence_timeout >= settings.MAX_CALL_SECONDS:
        return amber(
            "Calls do not end on silence: the assistant's silence timeout is not below MAX_CALL_SECONDS.",
            "Lower the silence timeout to about 30 s.",
        )
    if settings.MAX_CALL_SECONDS < MIN_CALL_SECONDS:
        return red(
            f"MAX_CALL_SECONDS is {settings.MAX_CALL_SECONDS}: callers are cut off.",
            "Raise MAX_CALL_SECONDS to several minutes; the default is 1800.",
        )
    if isinstance(assistant_limit, (int, float)) and assistant_limit != settings.MAX_CALL_SECONDS:
        return amber(
            f"The assistant's own limit is {assistant_limit:.0f} s, but MAX_CALL_SECONDS, which applies, is "
            f"{settings.MAX_CALL_SECONDS} s.",
            "Set both to the same value, so that the assistant's page at Vapi shows the limit that applies.",
        )
    return green("The limits agree.")


async def check_socket() -> Finding:
    if not settings.VAPI_SOCKET_URL:
        return green("VAPI_SOCKET_URL is not set: Vapi itself answers calls.")
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(trust_env=False, timeout=timeout) as http,
            http.ws_connect(settings.VAPI_SOCKET_URL, timeout=aiohttp.ClientWSTimeout(ws_close=1.0)),
        ):
            pass
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError):
        return red(
            "The socket server at VAPI_SOCKET_URL does not respond.",
            "Start it, and check the address in VAPI_SOCKET_URL: ws:// or wss://, host, port and path.",
        )
    return build_unmet_finding("vapi-socket") or green("The socket server responds.")


HAS_KEY = ("vapi-settings",)
HAS_ASSISTANT = ("vapi-settings", "vapi-key", "assistant")
CHECKS = (
    Check("vapi-key", "Vapi key", check_key, HAS_KEY),
    Check("assistant", "Assistant", check_assistant, ("vapi-settings", "vapi-key")),
    Check("assistant-parts", "Model, voice and transcriber", check_parts, HAS_ASSISTANT),
    Check("assistant-tools", "Tools", check_assistant_tools, HAS_ASSISTANT),
    Check("assistant-endpointing", "Endpointing", check_endpointing, HAS_ASSISTANT),
    Check("assistant-limits", "Call limits", check_limits, HAS_ASSISTANT),
    Check("vapi-socket", "Socket server", check_socket),
)
