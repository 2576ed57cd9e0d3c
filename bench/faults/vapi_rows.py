"""Rows F1 to F6: Vapi's REST API and its websocket."""

from __future__ import annotations

import time
from pathlib import Path

from bench.faults.rig import SHORT_CALL, Outcome, start_rig
from bench.faults.row import Findings, row
from calls.tests.staff.live.live_socket_client import FreezableProxy
from sandbox.faults import VapiFaults
from sandbox.scenarios import SCENARIOS
from sandbox.twilio.caller import Listen, Say, Step, WaitForHangup

MAX_WEBHOOK_MS = 500.0
MAX_START_SECONDS = 6.0  # from the start of the stream to a person or an apology
MAX_SILENCE_SECONDS = 3.0  # in mid-call
RETRIED = (429, 500, 502, 503)


def check_failover(found: Findings, name: str, outcome: Outcome, end_reason: str) -> None:
    found.expect(outcome.end_reason == end_reason, f"{name}: ended as {outcome.end_reason or 'nothing'}")
    found.expect(outcome.got_person_or_apology, f"{name}: the caller got nobody and no apology")
    found.expect(not outcome.open_vapi_calls, f"{name}: a call is left open at Vapi")


@row("F1", "Vapi's REST API fails", "webhook 500 ms, failover 6 s; only 429 and 5xx are retried, once")
async def fail_rest(folder: Path, found: Findings) -> None:
    names = [name for name in SCENARIOS if name.startswith("vapi-answers-")] + ["vapi-names-no-socket"]
    webhook_ms, start_seconds = 0.0, 0.0
    async with start_rig(folder) as rig:
        for name in names:
            before = len(rig.vapi.rejected_requests)
            outcome = await rig.call(name)
            check_failover(found, name, outcome, "assistant-unreachable")
            webhook_ms = max(webhook_ms, outcome.record.webhook_ms or 0.0)
            start_seconds = max(start_seconds, outcome.stream_seconds)
            if status := SCENARIOS[name].vapi.rest_status:
                requests = len(rig.vapi.rejected_requests) - before
                most = 2 if status in RETRIED else 1
                found.expect(requests <= most, f"{name}: {requests} requests, at most {most}")
        outcome = await rig.call("vapi-fails-once", SHORT_CALL)
        found.expect(outcome.end_reason == "caller-hung-up", "a call is not retried after one 503")
    found.note(f"{len(names)} cases")
    found.limit("webhook", webhook_ms, MAX_WEBHOOK_MS, "ms")
    found.limit("failover", start_seconds, MAX_START_SECONDS)


@row("F2", "Vapi's REST API is slow", "1 s: a normal call; 5 s and never: failover 6 s")
async def delay_rest(folder: Path, found: Findings) -> None:
    async with start_rig(folder) as rig:
        outcome = await rig.call("vapi-is-slow", SHORT_CALL)
        found.expect(outcome.end_reason == "caller-hung-up", f"1 s: ended as {outcome.end_reason}")
        for name in ("vapi-is-very-slow", "vapi-never-answers"):
            outcome = await rig.call(name)
            check_failover(found, name, outcome, "assistant-unreachable")
            found.limit(name, outcome.stream_seconds, MAX_START_SECONDS)


@row("F3", "Vapi's websocket does not open", "failover 6 s; the call is ended at Vapi")
async def refuse_socket(folder: Path, found: Findings) -> None:
    async with start_rig(folder) as rig:
        for name in ("vapi-socket-refuses", "vapi-socket-hangs"):
            outcome = await rig.call(name)
            check_failover(found, name, outcome, "assistant-unreachable")
            found.limit(name, outcome.stream_seconds, MAX_START_SECONDS)


@row("F4", "Vapi's websocket closes in mid-call", "1000, 1001, 1005: hang up; others: failover within 3 s")
async def close_socket(folder: Path, found: Findings) -> None:
    longest = 0.0
    async with start_rig(folder) as rig:
        names = [name for name in SCENARIOS if name.startswith("vapi-closes-")]
        for name in [*names, "vapi-drops-mid-call"]:
            outcome = await rig.call(name)
            if name in ("vapi-closes-1000", "vapi-closes-1001", "vapi-closes-1005"):
                found.expect(outcome.end_reason == "assistant-ended", f"{name}: {outcome.end_reason}")
                found.expect(not outcome.got_person_or_apology, f"{name}: not hung up")
                continue
            check_failover(found, name, outcome, "assistant-failed")
            (call,) = outcome.vapi_calls
            if call.closed_at is None or outcome.record.closed_at is None:
                found.expect(False, f"{name}: not closed")
                continue
            longest = max(longest, outcome.record.closed_at - call.closed_at)
            found.expect(outcome.record.clears, f"{name}: no clear was sent")
        found.expect(not await rig.count_open_vapi_calls(5.0), "calls are left open at Vapi")
    found.note(f"{len(names) + 1} cases")
    found.limit("failover", longest, MAX_SILENCE_SECONDS)


@row("F5", "The network to Vapi is cut, and nobody is told", "noticed within 15 s (VAPI_PING_SECONDS=5)")
async def cut_network(folder: Path, found: Findings) -> None:
    async with start_rig(folder) as other, FreezableProxy(other.vapi.base_url) as proxy:
        url = proxy.url.replace("redis://", "http://")
        variables = {"VAPI_BASE_URL": url, "VAPI_PING_SECONDS": "5"}
        async with start_rig(folder / "cut", **variables) as rig:
            rig.vapi = other.vapi
            rig.vapi.faults = VapiFaults(delay_ms=(200, 400))

            frozen_at: list[float] = []

            def freeze(kind: str, data: dict[str, object]) -> None:
                if not frozen_at and rig.vapi.calls and rig.vapi.calls[-1].answers:
                    proxy.freeze()
                    frozen_at.append(time.monotonic())

            script: tuple[Step, ...] = (Listen(), Say("correct"), Listen(), WaitForHangup(40.0))
            record = await rig.server.twilio_simulator().place_call(script, on_event=freeze)
            outcome = await rig.read(record)
            proxy.thaw()
    check_failover(found, "cut", outcome, "assistant-failed")
    found.expect(frozen_at, "the network was not cut")
    found.limit("noticed after", (record.closed_at or float("inf")) - frozen_at[0], 15.0)


@row(
    "F6",
    "Vapi stalls with its socket open",
    "failover 12 s after the caller has spoken, as assistant-stalled",
)
async def stall(folder: Path, found: Findings) -> None:
    script: tuple[Step, ...] = (Listen(), Say("correct"), Listen(), Say("correct"), WaitForHangup(30.0))
    async with start_rig(folder) as rig:
        outcome = await rig.call("vapi-stalls", script)
        check_failover(found, "stall", outcome, "assistant-stalled")
        spoken_at = outcome.record.utterances[-1].ended_at or 0.0
        found.limit("failover", (outcome.record.closed_at or float("inf")) - spoken_at, 13.0)
