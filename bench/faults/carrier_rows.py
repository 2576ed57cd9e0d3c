"""Rows F7 to F12 and F20 to F28: the phone line, the end of the server, and what strangers send."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import time
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bench.faults.rig import FALLBACK, SHORT_CALL, Rig, speak_for, start_rig
from bench.faults.row import CannotStage, Findings, row
from bench.load import samples_of
from bench.naive_codec import ENCODE
from calls.end_reasons import FollowUp, explain
from calls.tests.live_server import ACCOUNT_SID, AUTH_TOKEN, poll_until
from sandbox.faults import TwilioRestFaults, VapiFaults
from sandbox.twilio.caller import HangUp, Pause, WaitForHangup
from sandbox.twilio.webhook_client import sign

CALLS = 20
RESTART_SECONDS = 30.0
CONFIRMED_SECONDS = 60.0
_numbers = count(1)


@row("F7", "Twilio vanishes without stop", "ended within 9 s as stream-lost, and 1 s later at Vapi")
async def vanish(folder: Path, found: Findings) -> None:
    async with start_rig(folder) as rig:
        outcome = await rig.call("caller-vanishes")
        found.expect(outcome.end_reason == "stream-lost", f"ended as {outcome.end_reason}")
        last_frame_at = outcome.record.frames[-1].at
        ended_at = outcome.vapi_calls[0].ended_at or float("inf")
        found.limit("ended at Vapi after", ended_at - last_frame_at, 10.0)


@row("F8", "The connection from Twilio breaks", "ended within 1 s as stream-lost")
async def drop(folder: Path, found: Findings) -> None:
    async with start_rig(folder) as rig:
        outcome = await rig.call("twilio-drops-mid-call")
        found.expect(outcome.end_reason == "stream-lost", f"ended as {outcome.end_reason}")
        last_frame_at = outcome.record.frames[-1].at
        ended_at = outcome.vapi_calls[0].ended_at or float("inf")
        found.limit("ended at Vapi after", ended_at - last_frame_at, 1.0)


@row("F9", "The caller hangs up before Vapi is ready", "60 calls: each call at Vapi is ended within 5 s")
async def hang_up_early(folder: Path, found: Findings) -> None:
    rng = random.Random(9)
    async with start_rig(folder, MAX_CONCURRENT_CALLS="80") as rig:
        rig.vapi.faults = VapiFaults(rest_delay_seconds=1.5, ws_accept_delay_seconds=0.5)
        twilio = rig.server.twilio_simulator()
        for _ in range(3):
            async with asyncio.TaskGroup() as calls:
                for _ in range(20):
                    script = (Pause(rng.randrange(0, 3000)), HangUp())
                    calls.create_task(twilio.place_call(script))
        created = len(rig.vapi.calls)
        found.note(f"{created} calls were created at Vapi")
        opened = await rig.count_open_vapi_calls(5.0)
        found.limit("left open", opened, 0, "calls")


async def start_calls(rig: Rig, tasks: asyncio.TaskGroup, seconds: list[float]) -> list[asyncio.Task[Any]]:
    """Calls of so many seconds, all of them in progress."""
    twilio = rig.server.twilio_simulator()
    calls = [tasks.create_task(twilio.place_call(speak_for(each))) for each in seconds]
    query = "SELECT count(*) FROM calls_call WHERE answered_at IS NOT NULL"
    rows = await poll_until(
        lambda: rig.database.select(query), lambda rows: rows[0][0] >= len(seconds), RESTART_SECONDS
    )
    assert rows[0][0] >= len(seconds), "the calls did not start"
    return calls


@row("F10", "SIGTERM with twenty calls of 3 to 60 s", "calls of 30 s lose nothing, others fail over; exit 0")
async def terminate(folder: Path, found: Findings) -> None:
    lengths = [3.0 + number for number in range(15)] + [60.0] * 5
    async with start_rig(folder, DRAIN_SECONDS="30") as rig:
        async with asyncio.TaskGroup() as tasks:
            calls = await start_calls(rig, tasks, lengths)
            _, half = await asyncio.open_connection("127.0.0.1", rig.server.port)
            half.write(b"POST /twilio/status HTTP/1.1\r\nHost: x\r\n")
            _, upgrade = await asyncio.open_connection("127.0.0.1", rig.server.port)
            upgrade.write(b"GET /media-stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n")
            started_at = time.monotonic()
            rig.server.send_signal()
        code = await rig.server.wait_for_exit()
        for writer in (half, upgrade):
            writer.close()
        found.limit("exit after", time.monotonic() - started_at, 30.0 + 10.0)
        found.expect(code == 0, f"exit code {code}")
        outcomes = [await rig.read(call.result()) for call in calls]
    short, long = outcomes[:15], outcomes[15:]
    dropped = sum(outcome.frames_dropped + outcome.record.frames_dropped for outcome in short)
    found.limit("frames lost", dropped, 0, "")
    ended = [outcome.end_reason for outcome in short]
    found.expect(ended == ["caller-hung-up"] * 15, f"calls that end in time: {set(ended)}")
    ended = [outcome.end_reason for outcome in long]
    found.expect(ended == ["server-stopped"] * 5, f"calls that are longer: {set(ended)}")
    found.expect(all(outcome.record.dialed == [FALLBACK] for outcome in long), "a caller was not put through")
    found.expect(not any("Traceback" in line for line in rig.server.lines), "a traceback in the log")


@row("F11", "A second SIGTERM", "all calls fail over at once; exit within 5 s, and the answers to Twilio")
async def terminate_twice(folder: Path, found: Findings) -> None:
    async with start_rig(folder, DRAIN_SECONDS="600") as rig:
        async with asyncio.TaskGroup() as tasks:
            calls = await start_calls(rig, tasks, [60.0] * 3)
            rig.server.send_signal()
            await asyncio.sleep(1.0)
            started_at = time.monotonic()
            rig.server.send_signal()
        code = await rig.server.wait_for_exit()
        found.limit("exit after", time.monotonic() - started_at, 10.0)
        found.expect(code == 0, f"exit code {code}")
        found.expect(
            all(call.result().dialed == [FALLBACK] for call in calls), "a caller was not put through"
        )


@row(
    "F12", "SIGKILL with twenty calls", "each is final 30 s after the restart, and none is left open at Vapi"
)
async def kill(folder: Path, found: Findings) -> None:
    async with start_rig(folder) as rig:
        rig.vapi.faults = VapiFaults(delay_ms=(200, 300))
        async with asyncio.TaskGroup() as tasks:
            await start_calls(rig, tasks, [60.0] * CALLS)
            said = {call.call_sid: len(call.transcripts) for call in rig.vapi.calls}
            await rig.server.kill()
        rig.vapi.faults = VapiFaults()
        started_at = time.monotonic()
        await rig.server.start()
        query = "SELECT count(*) FROM calls_call WHERE end_reason = 'worker-lost' AND status = 'failed'"
        rows = await poll_until(
            lambda: rig.database.select(query), lambda rows: rows[0][0] == CALLS, 2 * RESTART_SECONDS
        )
        found.expect(rows[0][0] == CALLS, f"{rows[0][0]} of {CALLS} calls are final")
        found.limit("final after", time.monotonic() - started_at, RESTART_SECONDS)
        found.limit("left open at Vapi", await rig.count_open_vapi_calls(CONFIRMED_SECONDS), 0, "calls")
        stored = dict(
            rig.database.select(
                "SELECT c.call_sid, count(*) FROM calls_call c JOIN calls_utterance u ON u.call_id = c.id"
                " GROUP BY c.call_sid"
            )
        )
        lost = sum(max(0, count - stored.get(call_sid, 0)) for call_sid, count in said.items())
        found.limit("utterances lost", lost, 0, "")


@row("F20", "The wall clock steps by 1 h, -1 h and 25 h", "no call ends, and lengths differ by 0.5 s at most")
async def step_clock(folder: Path, found: Findings) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        raise CannotStage("the wall clock of one process cannot be stepped without libfaketime (faketime)")
    offset = folder / "offset"
    offset.write_text("+0s")
    variables = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    async with start_rig(folder / "rig", **variables) as rig:
        for step in ("+3600s", "-3600s", "+90000s"):
            call = asyncio.create_task(rig.server.twilio_simulator().place_call(speak_for(6.0)))
            await rig.vapi.until(lambda: rig.vapi.calls and rig.vapi.calls[-1].answers, 20.0)
            offset.write_text(step)
            record = await call
            ahead = await read_clock_offset(rig, float(step.removesuffix("s")))
            found.expect(ahead, f"{step}: the clock was not stepped")
            outcome = await rig.read(record)
            found.expect(outcome.end_reason == "caller-hung-up", f"{step}: ended as {outcome.end_reason}")
            found.limit(f"{step}: frames lost", outcome.frames_dropped, 0, "")
            query = (
                "SELECT e.at_ms FROM calls_callevent e JOIN calls_call c ON c.id = e.call_id"
                " WHERE e.kind = 'stream-ended' AND c.call_sid = %s"
            )
            ((ended_ms,),) = rig.database.select(query, record.call_sid)
            seconds = record.frames[-1].at - (record.started_at or 0.0)
            found.limit(f"{step}: length differs by", abs(ended_ms / 1000 - seconds), 0.5)
            offset.write_text("+0s")


async def read_clock_offset(rig: Rig, wanted: float) -> bool:
    """Whether the server's clock is so many seconds ahead, by what it last wrote to its row."""
    query = "SELECT (julianday(max(seen_at)) - julianday('now')) * 86400 FROM calls_worker"
    rows = await poll_until(
        lambda: rig.database.select(query), lambda rows: abs(rows[0][0] - wanted) < 30.0, 10.0
    )
    return bool(abs(rows[0][0] - wanted) < 30.0)


async def send_webhook(rig: Rig, path: str, form: dict[str, str]) -> tuple[int, str]:
    url = rig.server.url + path
    headers = {"X-Twilio-Signature": sign(AUTH_TOKEN, url, form)}
    async with (
        aiohttp.ClientSession(trust_env=False) as http,
        http.post(url, data=form, headers=headers) as response,
    ):
        return response.status, await response.text()


def make_form(call_sid: str, status: str, **fields: str) -> dict[str, str]:
    return {"CallSid": call_sid, "AccountSid": ACCOUNT_SID, "From": "+15550100134", "To": "+15559870000",
            "CallStatus": status, "Direction": "inbound", **fields}  # fmt: skip


@row("F21", "Callbacks arrive twice and in any order", "20 orders give the same row; every answer is 2xx")
async def shuffle_callbacks(folder: Path, found: Findings) -> None:
    rng = random.Random(21)
    async with start_rig(folder) as rig:
        finals = set()
        for _ in range(20):
            outcome = await rig.call(script=(Pause(300), HangUp()))
            sid = outcome.record.call_sid
            events = [
                ("/twilio/status", make_form(sid, status, CallDuration="1", SequenceNumber=str(number)))
                for number, status in enumerate(("initiated", "ringing", "in-progress", "completed"))
            ] * 2
            events.append(("/twilio/after", make_form(sid, "in-progress")))
            rng.shuffle(events)
            statuses = [(await send_webhook(rig, path, form))[0] for path, form in events]
            found.expect(set(statuses) == {200} or set(statuses) <= {200, 204}, f"statuses {set(statuses)}")
            finals.add(await read_final_row(rig, sid))
        found.limit("different rows", len(finals), 1, "")


async def read_final_row(rig: Rig, call_sid: str) -> tuple[object, ...]:
    """Status, end reason, who ended it, and the duration, once Twilio has reported it."""
    query = "SELECT status, end_reason, ended_by, duration_seconds FROM calls_call WHERE call_sid = %s"
    rows = await poll_until(
        lambda: rig.database.select(query, call_sid), lambda rows: rows[0][3] is not None, 10.0
    )
    return rows[0]


@row("F22", "Signed webhooks are replayed", "no second call at Vapi, and the row stays as it is")
async def replay(folder: Path, found: Findings) -> None:
    async with start_rig(folder) as rig:
        outcome = await rig.call(script=SHORT_CALL)
        sid = outcome.record.call_sid
        query = "SELECT status, end_reason, ended_at, duration_seconds FROM calls_call WHERE call_sid = %s"
        await poll_until(
            lambda: rig.database.select(query, sid), lambda rows: rows[0][0] == "completed", 10.0
        )
        (before,) = rig.database.select(query, sid)
        created = len(rig.vapi.calls)
        for path, status in (
            ("/twilio/voice", "ringing"),
            ("/twilio/status", "ringing"),
            ("/twilio/status", "in-progress"),
            ("/twilio/after", "in-progress"),
        ):
            code, twiml = await send_webhook(rig, path, make_form(sid, status))
            found.expect(code < 300, f"{path}: {code}")
            found.expect("<Stream" not in twiml, f"{path}: a second stream is offered")
        await rig.call(script=SHORT_CALL)  # its entries come after those of the replays
        (after,) = rig.database.select(query, sid)
        found.expect(after == before, f"the row changed from {before} to {after}")
        found.limit("second calls", len(rig.vapi.calls) - created - 1, 0, "")


class RawStream:
    """A media stream that sends what it likes."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.call_sid = f"CA{next(_numbers):032d}"
        self.stream_sid = f"MZ{next(_numbers):032d}"
        self.parameters: dict[str, str] = {}

    async def offer(self) -> None:
        _, twiml = await send_webhook(self.rig, "/twilio/voice", make_form(self.call_sid, "ringing"))
        self.parameters = dict(re.findall(r'<Parameter name="(\w+)" value="([^"]*)"', twiml))

    def connect(self, **options: Any) -> connect:
        url = self.rig.server.url.replace("http", "ws", 1) + "/media-stream"
        headers = {"X-Twilio-Signature": sign(AUTH_TOKEN, url)}
        return connect(url, additional_headers=headers, compression=None, proxy=None, **options)

    async def start(self, socket: ClientConnection) -> None:
        start = {"streamSid": self.stream_sid, "accountSid": ACCOUNT_SID, "callSid": self.call_sid,
                 "tracks": ["inbound"], "customParameters": self.parameters,
                 "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}}  # fmt: skip
        await socket.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        await socket.send(
            json.dumps(
                {"event": "start", "sequenceNumber": "1", "streamSid": self.stream_sid, "start": start}
            )
        )

    def frame(self, number: int) -> str:
        payload = base64.b64encode(
            ENCODE[samples_of(1, number, 8000).astype("i4") + 32768].tobytes()
        ).decode()
        media = {"track": "inbound", "chunk": str(number), "timestamp": str(number * 20), "payload": payload}
        return json.dumps(
            {
                "event": "media",
                "sequenceNumber": str(number + 1),
                "streamSid": self.stream_sid,
                "media": media,
            }
        )

    async def read_end_reason(self) -> str:
        query = "SELECT end_reason FROM calls_call WHERE call_sid = %s"
        rows = await poll_until(
            lambda: self.rig.database.select(query, self.call_sid), lambda rows: rows and rows[0][0], 15.0
        )
        return str(rows[0][0]) if rows else ""


@row("F23", "A second stream of a live call", "it is closed, and the first one goes on")
async def open_second_stream(folder: Path, found: Findings) -> None:
    async with start_rig(folder) as rig:
        stream = RawStream(rig)
        await stream.offer()
        async with stream.connect() as first, stream.connect() as second:
            await stream.start(first)
            call = await rig.vapi.call_for(stream.call_sid, 10.0)
            await stream.start(second)
            async with asyncio.timeout(5.0):
                await second.wait_closed()
            found.expect(second.close_code == 4003, f"closed with {second.close_code}")
            before = call.received_bytes
            for number in range(1, 51):
                await first.send(stream.frame(number))
                await asyncio.sleep(0.02)
            await rig.vapi.until(lambda: call.received_bytes > before, 5.0)
        found.limit("calls at Vapi", len(rig.vapi.calls), 1, "")
        found.expect(await stream.read_end_reason() == "caller-hung-up", "the first stream ended otherwise")


@row("F24", "Both sides flood", "ended as flood within 3 s; memory grows by 20 MiB at most")
async def flood(folder: Path, found: Findings) -> None:
    async with start_rig(folder) as rig:
        stream = RawStream(rig)
        await stream.offer()
        memory_kb = rig.server.memory_kb
        async with stream.connect() as socket:
            await stream.start(socket)
            await rig.vapi.call_for(stream.call_sid, 10.0)
            started_at = time.monotonic()
            try:
                for number in range(1, 60 * 50):
                    await socket.send(stream.frame(number))
                    if number % 20 == 0:
                        await asyncio.sleep(0.02)  # twenty times as fast as speech
            except ConnectionClosed:
                pass
            found.limit("caller: ended after", time.monotonic() - started_at, 3.0)
        reason = await stream.read_end_reason()
        found.expect(reason == "flood", f"caller: ended as {reason}")
        outcome = await rig.call("vapi-floods", (WaitForHangup(20.0),))
        found.expect(outcome.end_reason == "flood", f"Vapi: ended as {outcome.end_reason}")
        found.limit("Vapi: ended after", outcome.stream_seconds, 6.0)
        found.limit("memory", (rig.server.memory_kb - memory_kb) / 1024, 20.0, "MiB")


@row("F25", "Twilio reads nothing", "the call ends, and memory grows by 20 MiB at most")
async def read_nothing(folder: Path, found: Findings) -> None:
    async with start_rig(folder) as rig:
        rig.vapi.faults = VapiFaults(flood=True)
        stream = RawStream(rig)
        await stream.offer()
        memory_kb = rig.server.memory_kb
        async with stream.connect(max_queue=1, close_timeout=0.1) as socket:
            await stream.start(socket)
            number = 0
            try:
                for number in range(1, 60 * 50):
                    await socket.send(stream.frame(number))
                    await asyncio.sleep(0.02)
            except ConnectionClosed:
                pass
            found.limit("ended after", number * 0.02, 20.0)
        reason = await stream.read_end_reason()
        found.expect(reason in ("flood", "stream-lost"), f"ended as {reason}")
        found.limit("memory", (rig.server.memory_kb - memory_kb) / 1024, 20.0, "MiB")


@row("F26", "Twilio's REST API fails when a call must be hung up", "5 attempts in 2 min, then needs review")
async def fail_to_hang_up(folder: Path, found: Findings) -> None:
    async with start_rig(folder) as rig:
        rig.rest.faults = TwilioRestFaults(rest_status=500)
        simulator = rig.server.twilio_simulator(status_url=None)  # no callback reports the end
        record = await simulator.place_call(SHORT_CALL)
        started_at = time.monotonic()
        query = "SELECT needs_review FROM calls_call WHERE call_sid = %s"
        rows = await poll_until(
            lambda: rig.database.select(query, record.call_sid), lambda rows: rows and rows[0][0], 150.0
        )
        found.expect(rows and rows[0][0], "the call is not marked")
        found.limit("marked after", time.monotonic() - started_at, 140.0)
        outcome = await rig.call(script=SHORT_CALL)
        found.limit("frames lost of another call", outcome.frames_dropped, 0, "")


@row("F27", "Every end has its TwiML", "the documents after 12 ways to end are those of the table")
async def check_follow_ups(folder: Path, found: Findings) -> None:
    names = ("none", "vapi-answers-503", "vapi-closes-1000", "vapi-closes-1011", "vapi-ends-with-an-error",
             "vapi-floods", "caller-hangs-up-without-stop", "stream-never-starts", "forged-ticket",
             "wrong-stream", "twilio-drops-mid-call", "vapi-socket-refuses")  # fmt: skip
    async with start_rig(folder) as rig:
        for name in names:
            script = (
                SHORT_CALL if name in ("none", "caller-hangs-up-without-stop") else (WaitForHangup(15.0),)
            )
            outcome = await rig.call(name, script)
            reason = explain(outcome.end_reason)
            caller_is_gone = outcome.record.ended_by == "caller"
            wants_person = reason.follow_up != FollowUp.HANG_UP and not caller_is_gone
            got = outcome.got_person_or_apology
            wrong = "put through" if got else "not put through"
            found.expect(got == wants_person, f"{name} ({outcome.end_reason or 'no end'}): {wrong}")
    found.note(f"{len(names)} ways to end")


@row("F28", "The longest duration", "ended 10 s after the start, 1 s more or less, on both sides")
async def reach_limit(folder: Path, found: Findings) -> None:
    async with start_rig(folder, MAX_CALL_SECONDS="10") as rig:
        outcome = await rig.call(script=(WaitForHangup(30.0),))
        found.expect(outcome.end_reason == "limit-reached", f"ended as {outcome.end_reason}")
        found.limit("deviation", abs(outcome.stream_seconds - 10.0), 1.0)
        found.expect(not outcome.open_vapi_calls, "the call is left open at Vapi")
        found.expect(outcome.record.dialed == [FALLBACK], "the caller was not put through")
