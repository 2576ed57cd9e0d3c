"""Vapi's server messages: reports about calls become journal entries, tool calls are run.

Every authenticated message is answered with 200, whether it is used or not, because Vapi repeats those that
are not, as the `backoffPlan` of our assistants says; `sync_calls` fetches what never arrived. A body that is
no message gets a 400. Fields move between versions of Vapi, so each is looked for in all places where it has
been seen, and an invalid one is ignored.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.http import HttpResponse, JsonResponse

from bridge.journal import AssistantReported
from bridge.tool_calls import tool_calls
from calls.ingest.sanitize import clean_json
from calls.masking import short_sid
from calls.vapi import tools
from calls.webhook_auth import SID, VapiRequest, reject, vapi_authenticated

logger = logging.getLogger(__name__)

MAX_TURNS = 500
MAX_SUMMARY_CHARS = 10_000
MAX_PART_CHARS = 8_000  # of JSON, for each part of a report that is stored as sent
MAX_COSTS = 100
MAX_OUTPUTS, MAX_OUTPUT_NAME_CHARS = 50, 80
MAX_URL_CHARS = 1_000
# Kind of a recording -> its place in `recording`, and the field that Vapi used before.
RECORDING_PATHS = {
    "both": ("mono", "combinedUrl"),
    "stereo": ("stereoUrl",),
    "assistant": ("mono", "assistantUrl"),
    "caller": ("mono", "customerUrl"),
    "video": ("videoUrl",),
}
RECORDING_FIELDS = {
    "both": "recordingUrl", "stereo": "stereoRecordingUrl", "video": "videoRecordingUrl",
}  # fmt: skip
LATENCIES = ("modelLatency", "voiceLatency", "transcriberLatency", "endpointingLatency", "turnLatency")
END_OF_CALL = "end-of-call-report"
REPORTS = (END_OF_CALL, "status-update")
PLACES: tuple[tuple[str, ...], ...] = ((), ("artifact",), ("call",))  # where parts of a report have been seen

# Unused messages since the process started, by kind. Unknown kinds share one name, so that it stays small.
unused: Counter[str] = Counter()


@vapi_authenticated
async def events(request: VapiRequest) -> HttpResponse:
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        return reject("/vapi/events", "The body is not JSON.", 400)
    message = body.get("message", body) if isinstance(body, dict) else None
    if not isinstance(message, dict):
        return reject("/vapi/events", "The body is not a message.", 400)

    kind = text_at(message, "type", limit=64)
    if kind == "tool-calls":
        return JsonResponse({"results": await tool_results(message, request)})
    if kind in REPORTS:
        report = read_report(message, kind, request.query.get("callSid", ""), time.time())
        if report.call_sid or report.vapi_call_id:
            request.bridge.journal.write(report)
            logger.info("%s < vapi %s %s", short_sid(report.call_sid), kind, report.status)
        else:
            unused[f"{kind} of no call"] += 1
            logger.warning("vapi: %s without a call, dropped", kind)
    else:
        unused["another kind"] += 1
        logger.debug("vapi: message of kind %r not used", kind)
    return JsonResponse({})


def read_report(message: Mapping[str, Any], kind: str, call_sid: str, now: float) -> AssistantReported:
    """The entry for a status update or an end-of-call report."""
    is_final = kind == END_OF_CALL  # before the end, the cost is what it is so far, often 0
    return AssistantReported(
        call_sid=call_sid_of(message, call_sid),
        at=now,
        kind=kind,
        vapi_call_id=text_at(message, "call", "id", limit=64),
        status=text_at(message, "status", limit=32),
        ended_reason=text_at(message, "endedReason", limit=255)
        or text_at(message, "call", "endedReason", limit=255),
        assistant_id=text_at(message, "call", "assistantId", limit=64)
        or text_at(message, "assistant", "id", limit=64),
        cost=cost_of(message) if is_final else None,
        summary=text_at(first_at(message, "analysis"), "summary", limit=MAX_SUMMARY_CHARS)
        or text_at(message, "summary", limit=MAX_SUMMARY_CHARS),
        turn_latencies=tuple(turn_latencies(message)),
        kept=stored_parts(message) if is_final else {},
    )


def cost_of(message: Mapping[str, Any]) -> float | None:
    """Vapi's cost in dollars: the total, or that of the breakdown, or the sum of the items.

    A total is 0 until Vapi has settled it, which can be after the items. So the first value above 0 counts.
    """
    candidates: list[Decimal] = []
    for path in PLACES:
        totals = (value_at(message, *path, "cost"), value_at(message, *path, "costBreakdown", "total"))
        candidates += [Decimal(str(total)) for total in totals if is_amount(total)]
        items = value_at(message, *path, "costs")
        parts = [value_at(item, "cost") for item in items[:MAX_COSTS]] if isinstance(items, list) else []
        if amounts := [Decimal(str(part)) for part in parts if is_amount(part)]:
            candidates.append(sum(amounts, Decimal()))
    return next((float(cost) for cost in candidates if cost), 0.0 if candidates else None)


def stored_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a report that are stored as sent. One that is too long is left out, not truncated."""
    analysis = first_at(message, "analysis")
    breakdown, costs = first_at(message, "costBreakdown"), first_at(message, "costs")
    parts = {
        # A string ("true", "8", "Good") that depends on the rubric; older versions sent true and numbers.
        "success": _as_text(value_at(analysis, "successEvaluation")),
        "structured_data": value_at(analysis, "structuredData"),
        "structured_outputs": structured_outputs(message),
        "recording_urls": recording_urls(message),
        "cost_breakdown": breakdown if isinstance(breakdown, dict) else None,
        "costs": costs[:MAX_COSTS] if isinstance(costs, list) else None,
    }
    present = {name: clean_json(part) for name, part in parts.items() if part}
    return {name: part for name, part in present.items() if len(json.dumps(part)) <= MAX_PART_CHARS}


def structured_outputs(message: Mapping[str, Any]) -> dict[str, Any]:
    """`artifact.structuredOutputs` as name and result: an object by id, whose items have a name and a result.

    The items may also be a list, or bare results by name.
    """
    found = first_at(message, "structuredOutputs")
    pairs = list(found.items()) if isinstance(found, dict) else []
    if isinstance(found, list):
        pairs = [("", item) for item in found]
    results: dict[str, Any] = {}
    for key, item in pairs[:MAX_OUTPUTS]:
        name, result = text_at(item, "name", limit=MAX_OUTPUT_NAME_CHARS) or key, item
        if isinstance(item, dict) and "result" in item:
            result = item["result"]
        if name and result is not None:
            results[name[:MAX_OUTPUT_NAME_CHARS]] = result
    return results


def recording_urls(message: Mapping[str, Any]) -> dict[str, str]:
    """The recordings by kind. Presigned URLs are left out: they are secrets, and expire."""
    found = {kind: value_at(first_at(message, "recording"), *path) for kind, path in RECORDING_PATHS.items()}
    for kind, name in RECORDING_FIELDS.items():
        found[kind] = found.get(kind) or first_at(message, name)
    return {
        kind: url
        for kind, url in found.items()
        if isinstance(url, str) and len(url) <= MAX_URL_CHARS and url.startswith("https://")
    }


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)[:64] if isinstance(value, str | int | float) else ""


def first_at(message: Mapping[str, Any], name: str) -> Any:
    """One part of a report, from the first place that has it."""
    return next((part for path in PLACES if (part := value_at(message, *path, name))), None)


def turn_latencies(message: Mapping[str, Any]) -> list[dict[str, float]]:
    """Vapi's latencies of each turn, in order. A turn without latencies stays, so that the numbers match."""
    path = ("performanceMetrics", "turnLatencies")
    turns = value_at(message, "artifact", *path) or value_at(message, "call", "artifact", *path)
    if not isinstance(turns, list):
        return []
    return [
        {name: turn[name] for name in LATENCIES if is_amount(turn.get(name))}
        if isinstance(turn, dict)
        else {}
        for turn in turns[:MAX_TURNS]
    ]


async def tool_results(message: Mapping[str, Any], request: VapiRequest) -> list[dict[str, str]]:
    """The results of a message's tool calls, which run concurrently."""
    overrides = value_at(message, "call", "assistantOverrides")  # those that we created the call with
    call_sid = call_sid_of(message, request.query.get("callSid", ""))
    vapi_call_id = text_at(message, "call", "id", limit=64)
    caller = text_at(overrides, "variableValues", "caller", limit=64)
    route = request.bridge.admission.route(text_at(overrides, "metadata", "route", limit=64))
    return await asyncio.gather(
        *(
            tools.run_tool(tools.ToolUse(tool_call, call_sid, vapi_call_id, caller, route, request.bridge))
            for tool_call in tool_calls(message)
        )
    )


def call_sid_of(message: Mapping[str, Any], call_sid: str) -> str:
    """The CallSid that a message belongs to: from its URL, or from the metadata that we gave to the call."""
    candidates = (
        call_sid,
        value_at(message, "call", "assistantOverrides", "metadata", "callSid"),
        value_at(message, "call", "metadata", "callSid"),
        value_at(message, "assistant", "metadata", "callSid"),
    )
    return next((sid for sid in candidates if isinstance(sid, str) and SID.fullmatch(sid)), "")


def value_at(value: Any, *path: str) -> Any:
    """The value at the end of a path of names, None when a part of the path is missing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text_at(value: Any, *path: str, limit: int) -> str:
    text = value_at(value, *path)
    return text[:limit] if isinstance(text, str) else ""


def is_amount(value: Any) -> bool:
    """Whether a value is a finite number of at least 0. `True` is not, although it is an `int`."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < math.inf
        and value < 1e9
    )
