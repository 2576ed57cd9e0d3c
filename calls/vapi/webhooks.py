"""Vapi's server messages: reports about calls become journal entries, tool calls are run.

Every authenticated message is answered with 200, whether it is used or not: Vapi would repeat it after any
other status (`backoffPlan`). `sync_calls` fetches what never arrived. A body that is no message gets a 400.
Fields move between versions of Vapi, so each is looked for in all places where it has been seen, and an
invalid one is ignored.
"""

from __future__ import annotations

import asyncio
import json
import logging
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
# Where `artifact.recording` has the URL of each kind.
RECORDING_PATHS = {
    "both": ("mono", "combinedUrl"),
    "stereo": ("stereoUrl",),
    "assistant": ("mono", "assistantUrl"),
    "caller": ("mono", "customerUrl"),
    "video": ("videoUrl",),
}
# The field that had the URL before, by kind. Vapi may still send it.
RECORDING_FIELDS = {
    "both": "recordingUrl", "stereo": "stereoRecordingUrl", "video": "videoRecordingUrl",
}  # fmt: skip
LATENCIES = ("modelLatency", "voiceLatency", "transcriberLatency", "endpointingLatency", "turnLatency")
END_OF_CALL = "end-of-call-report"
REPORTS = (END_OF_CALL, "status-update")
REPORT_PATHS: tuple[tuple[str, ...], ...] = (
    (),
    ("artifact",),
    ("call",),
)  # where parts of a report have been seen

# Unused messages since the process started, by kind. Unknown kinds share one name, which bounds the counter.
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

    kind = get_text(message, "type", max_chars=64)
    if kind == "tool-calls":
        return JsonResponse({"results": await run_tool_calls(message, request)})
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
    is_final = kind == END_OF_CALL  # a status update has the cost so far, often 0: only the report's counts
    return AssistantReported(
        call_sid=read_call_sid(message, call_sid),
        at=now,
        kind=kind,
        vapi_call_id=get_text(message, "call", "id", max_chars=64),
        status=get_text(message, "status", max_chars=32),
        ended_reason=get_text(message, "endedReason", max_chars=255)
        or get_text(message, "call", "endedReason", max_chars=255),
        assistant_id=get_text(message, "call", "assistantId", max_chars=64)
        or get_text(message, "assistant", "id", max_chars=64),
        cost=read_cost(message) if is_final else None,
        summary=get_text(get_first(message, "analysis"), "summary", max_chars=MAX_SUMMARY_CHARS)
        or get_text(message, "summary", max_chars=MAX_SUMMARY_CHARS),
        turn_latencies=tuple(read_turn_latencies(message)),
        kept=select_stored_parts(message) if is_final else {},
    )


def read_cost(message: Mapping[str, Any]) -> float | None:
    """Vapi's cost in dollars: the total, or that of the breakdown, or the sum of the items.

    A total is 0 until Vapi has settled it, which can be after the items. So the first value above 0 counts.
    """
    candidates: list[Decimal] = []
    for path in REPORT_PATHS:
        totals = (get_value(message, *path, "cost"), get_value(message, *path, "costBreakdown", "total"))
        candidates += [Decimal(str(total)) for total in totals if is_amount(total)]
        items = get_value(message, *path, "costs")
        parts = [get_value(item, "cost") for item in items[:MAX_COSTS]] if isinstance(items, list) else []
        if amounts := [Decimal(str(part)) for part in parts if is_amount(part)]:
            candidates.append(sum(amounts, Decimal()))
    return next((float(cost) for cost in candidates if cost), 0.0 if candidates else None)


def select_stored_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a report that are stored as sent. One that is too long is left out, not truncated."""
    analysis = get_first(message, "analysis")
    breakdown, costs = get_first(message, "costBreakdown"), get_first(message, "costs")
    parts = {
        # A string ("true", "8", "Good") that depends on the rubric; older versions sent true and numbers.
        "success": _as_text(get_value(analysis, "successEvaluation")),
        "structured_data": get_value(analysis, "structuredData"),
        "structured_outputs": read_structured_outputs(message),
        "recording_urls": read_recording_urls(message),
        "cost_breakdown": breakdown if isinstance(breakdown, dict) else None,
        "costs": costs[:MAX_COSTS] if isinstance(costs, list) else None,
    }
    present = {name: clean_json(part) for name, part in parts.items() if part}
    return {name: part for name, part in present.items() if len(json.dumps(part)) <= MAX_PART_CHARS}


def read_structured_outputs(message: Mapping[str, Any]) -> dict[str, Any]:
    """`artifact.structuredOutputs` as name and result: an object by id, whose items have a name and a result.

    The items may also be a list, or bare results by name.
    """
    found = get_first(message, "structuredOutputs")
    pairs = list(found.items()) if isinstance(found, dict) else []
    if isinstance(found, list):
        pairs = [("", item) for item in found]
    results: dict[str, Any] = {}
    for key, item in pairs[:MAX_OUTPUTS]:
        name, result = get_text(item, "name", max_chars=MAX_OUTPUT_NAME_CHARS) or key, item
        if isinstance(item, dict) and "result" in item:
            result = item["result"]
        if name and result is not None:
            results[name[:MAX_OUTPUT_NAME_CHARS]] = result
    return results


def read_recording_urls(message: Mapping[str, Any]) -> dict[str, str]:
    """The recordings by kind. Presigned URLs are left out: they are secrets, and expire."""
    found = {
        kind: get_value(get_first(message, "recording"), *path) for kind, path in RECORDING_PATHS.items()
    }
    for kind, name in RECORDING_FIELDS.items():
        found[kind] = found.get(kind) or get_first(message, name)
    return {
        kind: url
        for kind, url in found.items()
        if isinstance(url, str) and len(url) <= MAX_URL_CHARS and url.startswith("https://")
    }


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)[:64] if isinstance(value, str | int | float) else ""


def get_first(message: Mapping[str, Any], name: str) -> Any:
    """One part of a report, from the first place that has it."""
    return next((part for path in REPORT_PATHS if (part := get_value(message, *path, name))), None)


def read_turn_latencies(message: Mapping[str, Any]) -> list[dict[str, float]]:
    """Vapi's latencies of each turn, in order. A turn without latencies stays, so that the numbers match."""
    path = ("performanceMetrics", "turnLatencies")
    turns = get_value(message, "artifact", *path) or get_value(message, "call", "artifact", *path)
    if not isinstance(turns, list):
        return []
    return [
        {name: turn[name] for name in LATENCIES if is_amount(turn.get(name))}
        if isinstance(turn, dict)
        else {}
        for turn in turns[:MAX_TURNS]
    ]


async def run_tool_calls(message: Mapping[str, Any], request: VapiRequest) -> list[dict[str, str]]:
    """The results of a message's tool calls, which run concurrently."""
    overrides = get_value(message, "call", "assistantOverrides")  # those that we created the call with
    call_sid = read_call_sid(message, request.query.get("callSid", ""))
    vapi_call_id = get_text(message, "call", "id", max_chars=64)
    caller = get_text(overrides, "variableValues", "caller", max_chars=64)
    route = request.bridge.admission.route(get_text(overrides, "metadata", "route", max_chars=64))
    return await asyncio.gather(
        *(
            tools.run_tool(tools.ToolUse(tool_call, call_sid, vapi_call_id, caller, route, request.bridge))
            for tool_call in tool_calls(message)
        )
    )


def read_call_sid(message: Mapping[str, Any], call_sid: str) -> str:
    """The CallSid that a message belongs to: from its URL, or from the metadata that we gave to the call."""
    candidates = (
        call_sid,
        get_value(message, "call", "assistantOverrides", "metadata", "callSid"),
        get_value(message, "call", "metadata", "callSid"),
        get_value(message, "assistant", "metadata", "callSid"),
    )
    return next((sid for sid in candidates if isinstance(sid, str) and SID.fullmatch(sid)), "")


def get_value(value: Any, *path: str) -> Any:
    """The value at the end of a path of names, None when a part of the path is missing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def get_text(value: Any, *path: str, max_chars: int) -> str:
    text = get_value(value, *path)
    return text[:max_chars] if isinstance(text, str) else ""


def is_amount(value: Any) -> bool:
    """Whether a value is a number from 0 to below 1e9. `True` is not, although it is an `int`."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9  # NaN is not
    )
