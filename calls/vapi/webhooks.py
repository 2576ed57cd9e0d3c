"""Vapi's server messages: what they tell about a call becomes journal entries.

Vapi does not repeat a message by itself, so anything that is authentic is answered with 200, read or
not; `sync_calls` and the like fill what never came. Fields move between versions, so each is looked
for in the places where it has been seen, and a strange one is left out rather than refused.
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
MAX_SUMMARY = 10_000
MAX_KEPT = 8_000  # characters of JSON, for each part of a report that is kept as sent
MAX_COSTS = 100
LATENCIES = ("modelLatency", "voiceLatency", "transcriberLatency", "endpointingLatency", "turnLatency")
END_OF_CALL = "end-of-call-report"
REPORTS = (END_OF_CALL, "status-update")
PLACES: tuple[tuple[str, ...], ...] = ((), ("artifact",), ("call",))  # where parts of a report have been seen

# Messages since the process started that we had no use for, by kind; bounded by the known kinds.
unread: Counter[str] = Counter()


@vapi_authenticated
async def events(request: VapiRequest) -> HttpResponse:
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        return reject("/vapi/events", "The body is not JSON.", 400)
    message = body.get("message", body) if isinstance(body, dict) else None
    if not isinstance(message, dict):
        return reject("/vapi/events", "The body holds no message.", 400)

    kind = text_at(message, "type", limit=64)
    if kind == "tool-calls":
        return JsonResponse({"results": await tool_results(message, request)})
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
    final = kind == END_OF_CALL  # a cost that is told before is what it came to so far, often 0
    return AssistantReported(
        call_sid=call_sid_of(message, call_sid),
        at=now,
        kind=kind,
        vapi_call_id=text_at(message, "call", "id", limit=64),
        status=text_at(message, "status", limit=32),
        ended_reason=text_at(message, "endedReason", limit=255)
        or text_at(message, "call", "endedReason", limit=255),
        cost=cost_of(message) if final else None,
        summary=text_at(first_at(message, "analysis"), "summary", limit=MAX_SUMMARY)
        or text_at(message, "summary", limit=MAX_SUMMARY),
        turn_latencies=tuple(turn_latencies(message)),
        kept=kept_of(message) if final else {},
    )


def cost_of(message: Mapping[str, Any]) -> float | None:
    """What the vendor's side cost in dollars: as named, else as broken down, else added up.

    A total settles after its parts, and until then it is 0: a later place that knows more is believed.
    """
    found: list[Decimal] = []
    for path in PLACES:
        totals = (value_at(message, *path, "cost"), value_at(message, *path, "costBreakdown", "total"))
        found += [Decimal(str(total)) for total in totals if is_amount(total)]
        items = value_at(message, *path, "costs")
        parts = [value_at(item, "cost") for item in items[:MAX_COSTS]] if isinstance(items, list) else []
        if amounts := [Decimal(str(part)) for part in parts if is_amount(part)]:
            found.append(sum(amounts, Decimal()))
    return next((float(cost) for cost in found if cost), 0.0 if found else None)


def kept_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of the report that are kept as sent; one that is too long is left out, not cut."""
    analysis = first_at(message, "analysis")
    breakdown, costs = first_at(message, "costBreakdown"), first_at(message, "costs")
    parts = {
        # A string by the schema ("true", "8", "Good"), by its rubric; older ones sent true and numbers.
        "success": _as_text(value_at(analysis, "successEvaluation")),
        "structured_data": value_at(analysis, "structuredData"),
        "cost_breakdown": breakdown if isinstance(breakdown, dict) else None,
        "costs": costs[:MAX_COSTS] if isinstance(costs, list) else None,
    }
    known = {name: clean_json(part) for name, part in parts.items() if part}
    return {name: part for name, part in known.items() if len(json.dumps(part)) <= MAX_KEPT}


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)[:64] if isinstance(value, str | int | float) else ""


def first_at(message: Mapping[str, Any], name: str) -> Any:
    """One part of a report, wherever this version of it stands."""
    return next((found for path in PLACES if (found := value_at(message, *path, name))), None)


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


async def tool_results(message: Mapping[str, Any], request: VapiRequest) -> list[dict[str, str]]:
    """An answer to each tool call, all run at once."""
    call_sid, vapi_call_id = (
        call_sid_of(message, request.query.get("callSid", "")),
        text_at(message, "call", "id", limit=64),
    )
    route_id = text_at(message, "call", "assistantOverrides", "metadata", "route", limit=64)
    route = request.bridge.admission.route(route_id)
    return await asyncio.gather(
        *(
            tools.run_tool(tool_call, call_sid, vapi_call_id, route, request.bridge)
            for tool_call in tool_calls(message)
        )
    )


def call_sid_of(message: Mapping[str, Any], call_sid: str) -> str:
    """Whose message it is: from its address, or wherever we put it into the call's own facts."""
    places = (
        call_sid,
        value_at(message, "call", "assistantOverrides", "metadata", "callSid"),
        value_at(message, "call", "metadata", "callSid"),
        value_at(message, "assistant", "metadata", "callSid"),
    )
    return next((sid for sid in places if isinstance(sid, str) and SID.fullmatch(sid)), "")


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
