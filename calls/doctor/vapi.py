"""What Vapi says of our key and assistant, or whether the socket server of the other dialect answers.

Free slots are not looked at: Vapi names them only in its answer to a new call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
from django.conf import settings

from calls.doctor.check import Check, Finding, amber, green, red
from calls.doctor.public_url import SECONDS
from calls.vapi import client as vapi_client
from calls.vendor_errors import VendorError

SHORT_MS, LONG_MS, CUTTING_MS = 300, 500, 100
SHORTEST_SECONDS = 60
NOT_OURS = green("Another socket server answers calls: there is no assistant at Vapi to look at.")


async def _assistant() -> dict[str, Any] | Finding:
    if settings.VAPI_SOCKET_URL:
        return NOT_OURS
    try:
        return await vapi_client.fetch_assistant(settings.VAPI_ASSISTANT_ID)
    except VendorError as refusal:
        return red(str(refusal), "Look at the checks of Vapi's key and assistant.")


async def key() -> Finding:
    if settings.VAPI_SOCKET_URL:
        return NOT_OURS
    try:
        await vapi_client.fetch_assistant(settings.VAPI_ASSISTANT_ID)
    except VendorError as refusal:
        if refusal.status in (401, 403):
            return red(
                "Vapi refuses our key.",
                "Set VAPI_API_KEY to the private key of Vapi's dashboard: the public one is refused here.",
            )
        if refusal.status != 404:
            return red(str(refusal), "Check VAPI_BASE_URL and whether this machine may reach it.")
    return green("Vapi takes our key.")


async def assistant() -> Finding:
    if settings.VAPI_SOCKET_URL:
        return NOT_OURS
    try:
        await vapi_client.fetch_assistant(settings.VAPI_ASSISTANT_ID)
    except VendorError as refusal:
        return red(
            str(refusal), "Set VAPI_ASSISTANT_ID to the id on the assistant's page, of the key's own account."
        )
    return green("The assistant is there.")


def _of(thing: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = thing.get(name)
    return found if isinstance(found, Mapping) else {}


async def parts() -> Finding:
    found = await _assistant()
    if isinstance(found, Finding):
        return found
    lacking = [name for name in ("model", "voice", "transcriber") if not _of(found, name)]
    if "model" in lacking or "voice" in lacking:
        return red(
            f"The assistant has no {' and no '.join(lacking)}.",
            "Choose a model, a voice and a transcriber on the assistant's page at Vapi.",
        )
    if lacking:
        return amber("The assistant names no transcriber.", "Choose one: Vapi's default may change.")
    if not found.get("firstMessage"):
        return amber(
            "The assistant has no first message.", "Give it one: callers hang up when nobody speaks."
        )
    return green("Model, voice, transcriber and first message are there.")


async def endpointing() -> Finding:
    found = await _assistant()
    if isinstance(found, Finding):
        return found
    theirs = _of(found, "transcriber").get("endpointing")
    ms = theirs if isinstance(theirs, (int, float)) and not isinstance(theirs, bool) else None
    for name, value in (
        ("the transcriber's endpointing", ms),
        ("VAPI_ENDPOINTING_MS", settings.VAPI_ENDPOINTING_MS),
    ):
        if value is None:
            continue
        if value < CUTTING_MS:
            return red(f"{name} is {value} ms.", f"Raise {name} to 300 to 400 ms.")
        if value < SHORT_MS:
            return amber(
                f"{name} is {value} ms: callers are cut off where they pause.",
                f"Raise {name} to 300 to 400 ms.",
            )
        if value > LONG_MS:
            return amber(f"{name} is {value} ms: every answer comes late.", f"Lower {name} to 300 to 400 ms.")
    return green("Endpointing leaves callers time to breathe.")


async def limits() -> Finding:
    found = await _assistant()
    if isinstance(found, Finding):
        return found
    longest, silence = found.get("maxDurationSeconds"), found.get("silenceTimeoutSeconds")
    if isinstance(silence, (int, float)) and silence >= settings.MAX_CALL_SECONDS:
        return amber("Silence never ends a call.", "Lower the assistant's silence timeout to about 30 s.")
    if settings.MAX_CALL_SECONDS < SHORTEST_SECONDS:
        return red(
            f"MAX_CALL_SECONDS is {settings.MAX_CALL_SECONDS}: callers are cut off.",
            "Raise MAX_CALL_SECONDS to some minutes; 1800 is usual.",
        )
    if isinstance(longest, (int, float)) and longest != settings.MAX_CALL_SECONDS:
        return amber(
            f"The assistant's own limit is {longest:.0f} s; ours, which wins, {settings.MAX_CALL_SECONDS} s.",
            "Give both the same limit, so that its page at Vapi tells the truth.",
        )
    return green("The limits fit together.")


async def socket() -> Finding:
    if not settings.VAPI_SOCKET_URL:
        return green("Vapi itself answers calls: no other socket is configured.")
    try:
        async with (
            aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=SECONDS)) as http,
            http.ws_connect(settings.VAPI_SOCKET_URL, timeout=aiohttp.ClientWSTimeout(ws_close=1.0)),
        ):
            pass
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError):
        return red(
            "The socket server at VAPI_SOCKET_URL does not answer.",
            "Start it, and check the address in VAPI_SOCKET_URL: ws:// or wss://, host, port and path.",
        )
    if settings.VAPI_AUDIO_FORMAT == "pcm_s16le":
        return amber(
            "VAPI_SOCKET_URL is set and VAPI_AUDIO_FORMAT is pcm_s16le.",
            "Servers of that dialect usually speak mulaw: unset VAPI_AUDIO_FORMAT if yours does.",
        )
    return green("The socket server answers.")


KNOWN = ("vapi-settings", "vapi-key", "assistant")
CHECKS = (
    Check("vapi-key", "Vapi's key", "Does Vapi take our key?", key, KNOWN[:1]),
    Check("assistant", "Assistant", "Does Vapi know our assistant?", assistant, KNOWN[:2]),
    Check("assistant-parts", "Assistant's parts", "Can it hear, think and speak?", parts, KNOWN),
    Check("assistant-endpointing", "Endpointing", "Are callers given time to pause?", endpointing, KNOWN),
    Check("assistant-limits", "Limits", "Do the limits on calls fit together?", limits, KNOWN),
    Check("vapi-socket", "Socket server", "Does the socket at VAPI_SOCKET_URL answer?", socket),
)
