"""Server messages of the Vapi simulator, and the facts about a call that its REST API returns.

Costs and latencies are derived from the call: a fictitious price per minute, and the delay of each answer,
split as Vapi splits it.
"""

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import aiohttp

from sandbox.vapi.record import VapiCallRecord
from sandbox.vapi.request_schema import SERVER_MESSAGES_DEFAULT
from sandbox.vapi.speech_detector import HANGOVER_MS

POST_TIMEOUT_SECONDS = 5.0
DOLLARS_PER_MINUTE = {"transport": 0.0, "stt": 0.01, "model": 0.02, "voice": 0.03, "vapi": 0.05}


class Reporter:
    """Posts the server messages that the call's request asked for, without retries (Vapi's default)."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def post(self, call: VapiCallRecord, kind: str, **facts: Any) -> Any:
        """Post one message. Returns the JSON of the response, or None."""
        overrides = call.body.get("assistantOverrides") or {}
        server = overrides.get("server") or {}
        if not server.get("url") or kind not in overrides.get("serverMessages", SERVER_MESSAGES_DEFAULT):
            return None
        message = {
            "type": kind,
            "timestamp": _epoch_ms(time.monotonic()),
            **facts,
            "call": call_summary(call),
        }
        headers = {"x-call-id": call.id, **(server.get("headers") or {})}
        if server.get("secret"):
            headers["X-Vapi-Secret"] = server["secret"]
        timeout = aiohttp.ClientTimeout(
            total=min(POST_TIMEOUT_SECONDS, server.get("timeoutSeconds", POST_TIMEOUT_SECONDS))
        )
        status, answer = 0, None
        try:
            async with self._http.post(
                server["url"],
                json={"message": message},
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                status = response.status
                answer = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError):
            pass  # recorded with status 0
        call.webhooks_posted.append((time.monotonic(), kind, status))
        call.emit(f"> webhook {kind} {status}")
        return answer

    async def post_end_of_call(self, call: VapiCallRecord, delay_seconds: float) -> None:
        await self.post(call, "status-update", status="ended", endedReason=call.ended_reason)
        await asyncio.sleep(delay_seconds)
        await self.post(call, "end-of-call-report", **end_of_call_report(call))


def call_summary(call: VapiCallRecord) -> dict[str, Any]:
    """The fields of the call object that are known from the start."""
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


def end_of_call_report(call: VapiCallRecord) -> dict[str, Any]:
    """The fields of the end-of-call report; a call object has them too once the call ended."""
    costs = _costs(call)
    messages = [_message(call, at, speaker, words) for at, speaker, words in call.all_transcripts]
    return {
        "endedReason": call.ended_reason,
        "startedAt": _iso(call.opened_at),
        "endedAt": _iso(call.ended_at),
        "cost": round(sum(item["cost"] for item in costs), 4),
        "costs": costs,
        "costBreakdown": _breakdown(costs),
        "durationSeconds": round(_duration_seconds(call), 3),
        "messages": messages,
        "analysis": {"summary": _summary(call), "successEvaluation": "true", "structuredData": {}},
        "artifact": {
            "transcript": "".join(
                f"{_speaker_label(speaker)}: {words}\n" for _, speaker, words in call.all_transcripts
            ),
            "messages": messages,
            "variableValues": (call.body.get("assistantOverrides") or {}).get("variableValues", {}),
            "performanceMetrics": _metrics(call),
        },
    }


def _metrics(call: VapiCallRecord) -> dict[str, Any]:
    turns = []
    for reply in call.answers:
        if (latency_ms := reply.response_latency_ms) is not None:
            without_endpointing = max(0.0, latency_ms - HANGOVER_MS)
            shares = {"modelLatency": 0.5, "voiceLatency": 0.35, "transcriberLatency": 0.15}
            turn = {name: round(without_endpointing * share) for name, share in shares.items()}
            turns.append({**turn, "endpointingLatency": HANGOVER_MS, "turnLatency": round(latency_ms)})
    metrics: dict[str, Any] = {"turnLatencies": turns, "numAssistantInterrupted": len(call.interrupted_at)}
    if turns:
        metrics["turnLatencyAverage"] = round(sum(turn["turnLatency"] for turn in turns) / len(turns))
    return metrics


def _costs(call: VapiCallRecord) -> list[dict[str, Any]]:
    minutes = _duration_seconds(call) / 60
    costs: list[dict[str, Any]] = [
        {"type": kind, "minutes": round(minutes, 4), "cost": round(minutes * price, 4)}
        for kind, price in DOLLARS_PER_MINUTE.items()
    ]
    costs[0]["provider"] = "vapi.websocket"
    return costs


def _breakdown(costs: list[dict[str, Any]]) -> dict[str, float]:
    """The same costs under Vapi's older names."""
    older_names = {"model": "llm", "voice": "tts"}
    parts: dict[str, float] = {older_names.get(item["type"], item["type"]): item["cost"] for item in costs}
    return {**parts, "total": round(sum(parts.values()), 4)}


def _summary(call: VapiCallRecord) -> str:
    sentences = [words.rstrip(".") for _, speaker, words in call.all_transcripts if speaker == "caller"]
    return (
        f"The caller said: {'; '.join(sentences)}."
        if sentences
        else "The caller said nothing that was recognized."
    )


def _message(call: VapiCallRecord, at: float, speaker: str, words: str) -> dict[str, Any]:
    return {
        "role": "user" if speaker == "caller" else "bot",
        "message": words,
        "time": _epoch_ms(at),
        "secondsFromStart": round(at - (call.opened_at or at), 3),
    }


def _speaker_label(speaker: str) -> str:
    return "User" if speaker == "caller" else "AI"


def _duration_seconds(call: VapiCallRecord) -> float:
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
