"""Vapi's server messages: what they tell about a call becomes journal entries.

Vapi does not repeat a message by itself, so anything that is authentic is answered with 200, read or
not; `sync_calls` and the like fill what never came. Fields move between versions, so each is looked
for in the places where it has been seen, and a strange one is left out rather than refused.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse, JsonResponse

from bridge.journal import AssistantReported
from calls.decorators import SID, VapiRequest, refuse, vapi_authenticated
from calls.masking import short_sid

logger = logging.getLogger(__name__)

MAX_TURNS = 500
MAX_TOOL_CALLS = 100
MAX_SUMMARY = 10_000
LATENCIES = ("modelLatency", "voiceLatency", "transcriberLatency", "endpointingLatency", "turnLatency")
REPORTS = ("end-of-call-report", "status-update")

# Messages since the process started that we had no use for, by kind; bounded by the known kinds.
unread: Counter[str] = Counter()


@vapi_authenticated
async def events(request: VapiRequest) -> HttpResponse:
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        return refuse("/vapi/events", "The body is not JSON.", 400)
    message = body.get("message", body) if isinstance(body, dict) else None
    if not isinstance(message, dict):
        return refuse("/vapi/events", "The body holds no message.", 400)

    kind = text_at(message, "type", limit=64)
    if kind == "tool-calls":
        return JsonResponse({"results": tool_results(message)})
    if kind in REPORTS:
        report = read_report(message, kind, request.query.get("callSid", ""), time.time())
        if report.call_sid or report.vapi_call_id:
            request.bridge.journal.write(report)
            logger.info("%s < vapi %s %s", short_sid(report.call_sid), kind, report.status)
        else:
            unread[f"{kind} of no call"] += 1
            logger.warning("vapi %s names no call and was dropped", kind)
    else:
        unread["another kind"] += 1
        logger.debug("vapi message of kind %r left unread", kind)
    return JsonResponse({})


def read_report(message: Mapping[str, Any], kind: str, call_sid: str, now: float) -> AssistantReported:
    """The entry for a status update or an end-of-call report."""
    places = (
        (call_sid,),
        (value_at(message, "call", "assistantOverrides", "metadata", "callSid"),),
        (value_at(message, "call", "metadata", "callSid"),),
        (value_at(message, "assistant", "metadata", "callSid"),),
    )
    sids = (sid for (sid,) in places if isinstance(sid, str) and SID.fullmatch(sid))
    costs = (
        value_at(message, "cost"),
        value_at(message, "artifact", "cost"),
        value_at(message, "call", "cost"),
    )
    return AssistantReported(
        call_sid=next(sids, ""),
        at=now,
        kind=kind,
        vapi_call_id=text_at(message, "call", "id", limit=64),
        status=text_at(message, "status", limit=32),
        ended_reason=text_at(message, "endedReason", limit=255)
        or text_at(message, "call", "endedReason", limit=255),
        cost=next((float(cost) for cost in costs if is_amount(cost)), None),
        summary=text_at(message, "analysis", "summary", limit=MAX_SUMMARY)
        or text_at(message, "summary", limit=MAX_SUMMARY),
        turn_latencies=tuple(turn_latencies(message)),
    )


def turn_latencies(message: Mapping[str, Any]) -> list[dict[str, float]]:
    """The vendor's own split of each turn, in order; a turn without a number stays, to keep the count."""
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


def tool_results(message: Mapping[str, Any]) -> list[dict[str, str]]:
    """An answer to each tool call. We offer no tools, and the model must hear that rather than wait."""
    asked = value_at(message, "toolCallList") or value_at(message, "toolCalls")
    if not isinstance(asked, list):
        together = value_at(message, "toolWithToolCallList")
        asked = [value_at(each, "toolCall") for each in together] if isinstance(together, list) else []
    return [
        {
            "toolCallId": text_at(each, "id", limit=128),
            "name": text_at(each, "name", limit=128) or text_at(each, "function", "name", limit=128),
            "error": "no such tool",
        }
        for each in asked[:MAX_TOOL_CALLS]
    ]


def value_at(value: Any, *path: str) -> Any:
    """What stands at the end of a path of names, None where it breaks off."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text_at(value: Any, *path: str, limit: int) -> str:
    found = value_at(value, *path)
    return found[:limit] if isinstance(found, str) else ""


def is_amount(value: Any) -> bool:
    """A finite number that is not below zero; `true` is not one."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < math.inf
        and value < 1e9
    )
