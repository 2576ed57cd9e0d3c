"""What the stand-in tells others about a call: the API's call object and the server messages.

Money and the vendor's latencies are made up from what really happened: a price per minute, and the drawn
delay of each answer, split the way the real service splits it.
"""

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import aiohttp

from sandbox.vapi.record import AssistantCall
from sandbox.vapi.request_schema import SERVER_MESSAGES_DEFAULT
from sandbox.vapi.speech_detector import HANGOVER_MS

POST_WITHIN_S = 5.0
DOLLARS_A_MINUTE = {"transport": 0.0, "stt": 0.01, "model": 0.02, "voice": 0.03, "vapi": 0.05}


class Reporter:
    """Posts server messages where the request asked for them, without retries (Vapi's default)."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def post(self, call: AssistantCall, kind: str, **facts: Any) -> Any:
        """The answer's JSON, None when there is none."""
        overrides = call.body.get("assistantOverrides") or {}
        server = overrides.get("server") or {}
        if not server.get("url") or kind not in overrides.get("serverMessages", SERVER_MESSAGES_DEFAULT):
            return None
        message = {"type": kind, "timestamp": _epoch_ms(time.monotonic()), **facts, "call": summary_of(call)}
        headers = {"x-call-id": call.id, **(server.get("headers") or {})}
        if server.get("secret"):
            headers["X-Vapi-Secret"] = server["secret"]
        timeout = aiohttp.ClientTimeout(total=min(POST_WITHIN_S, server.get("timeoutSeconds", POST_WITHIN_S)))
        status, said = 0, None
        try:
            async with self._http.post(
                server["url"],
                json={"message": message},
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                status = response.status
                said = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError):
            pass  # status 0 in the record says so
        call.webhooks_posted.append((time.monotonic(), kind, status))
        call.note(f"> webhook {kind} {status}")
        return said

    async def post_end_of_call(self, call: AssistantCall, after_s: float) -> None:
        await self.post(call, "status-update", status="ended", endedReason=call.ended_reason)
        await asyncio.sleep(after_s)
        await self.post(call, "end-of-call-report", **report_of(call))


def summary_of(call: AssistantCall) -> dict[str, Any]:
    """The call without what settles after its end."""
    return {
        "id": call.id,
        "orgId": "sandbox",
        "type": "vapi.websocketCall",
        "status": call.status,
        "createdAt": _iso(call.created_at),
        "updatedAt": _iso(time.monotonic()),
        "assistantId": call.body.get("assistantId"),
        "assistantOverrides": call.body.get("assistantOverrides", {}),
        "name": call.body.get("name"),
    }


def report_of(call: AssistantCall) -> dict[str, Any]:
    """The facts of an end-of-call report, also part of the finished call object."""
    costs = _costs(call)
    messages = [_message(call, at, speaker, words) for at, speaker, words in call.said]
    return {
        "endedReason": call.ended_reason,
        "startedAt": _iso(call.opened_at),
        "endedAt": _iso(call.ended_at),
        "cost": round(sum(item["cost"] for item in costs), 4),
        "costs": costs,
        "costBreakdown": _breakdown(costs),
        "durationSeconds": round(_seconds(call), 3),
        "messages": messages,
        "analysis": {"summary": _summary(call), "successEvaluation": "true", "structuredData": {}},
        "artifact": {
            "transcript": "".join(f"{_who(speaker)}: {words}\n" for _, speaker, words in call.said),
            "messages": messages,
            "variableValues": (call.body.get("assistantOverrides") or {}).get("variableValues", {}),
            "performanceMetrics": _metrics(call),
        },
    }


def _metrics(call: AssistantCall) -> dict[str, Any]:
    turns = []
    for reply in call.answers:
        if (latency_ms := reply.response_latency_ms) is not None:
            rest = max(0.0, latency_ms - HANGOVER_MS)
            shares = {"modelLatency": 0.5, "voiceLatency": 0.35, "transcriberLatency": 0.15}
            turn = {name: round(rest * share) for name, share in shares.items()}
            turns.append({**turn, "endpointingLatency": HANGOVER_MS, "turnLatency": round(latency_ms)})
    metrics: dict[str, Any] = {"turnLatencies": turns, "numAssistantInterrupted": len(call.interrupted_at)}
    if turns:
        metrics["turnLatencyAverage"] = round(sum(turn["turnLatency"] for turn in turns) / len(turns))
    return metrics


def _costs(call: AssistantCall) -> list[dict[str, Any]]:
    minutes = _seconds(call) / 60
    costs: list[dict[str, Any]] = [
        {"type": kind, "minutes": round(minutes, 4), "cost": round(minutes * price, 4)}
        for kind, price in DOLLARS_A_MINUTE.items()
    ]
    costs[0]["provider"] = "vapi.websocket"
    return costs


def _breakdown(costs: list[dict[str, Any]]) -> dict[str, float]:
    """The same money under the older names."""
    older = {"model": "llm", "voice": "tts"}
    parts: dict[str, float] = {older.get(item["type"], item["type"]): item["cost"] for item in costs}
    return {**parts, "total": round(sum(parts.values()), 4)}


def _summary(call: AssistantCall) -> str:
    wishes = [words.rstrip(".") for _, speaker, words in call.said if speaker == "caller"]
    return (
        f"The caller said: {'; '.join(wishes)}." if wishes else "The caller said nothing that was understood."
    )


def _message(call: AssistantCall, at: float, speaker: str, words: str) -> dict[str, Any]:
    return {
        "role": "user" if speaker == "caller" else "bot",
        "message": words,
        "time": _epoch_ms(at),
        "secondsFromStart": round(at - (call.opened_at or at), 3),
    }


def _who(speaker: str) -> str:
    return "User" if speaker == "caller" else "AI"


def _seconds(call: AssistantCall) -> float:
    if call.opened_at is None:
        return 0.0
    return (call.ended_at if call.ended_at is not None else time.monotonic()) - call.opened_at


def _epoch(at: float) -> float:
    return time.time() - time.monotonic() + at


def _epoch_ms(at: float) -> int:
    return round(_epoch(at) * 1000)


def _iso(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(_epoch(at), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
