"""Load generator: many simultaneous calls whose frames identify themselves.

Runs both peers in one process: callers that speak Twilio's protocol and an assistant that speaks Vapi's.
Each 20 ms frame encodes its call (5 bits) and its sequence number (11 bits) in its samples: sixteen blocks
of ten samples, each at a positive or negative level. That signal is slow enough to pass a telephone filter,
so a frame can be decoded behind the bridge, transcoded or not, and a frame that is lost, duplicated, out of
order or from another call is detected.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import numpy as np
from aiohttp import web
from numpy.typing import NDArray
from websockets.asyncio.client import connect

from bench.naive_codec import DECODE, ENCODE

BITS, BLOCK, FRAME_SECONDS = 16, 10, 0.020
NUMBERS = 1 << 11
LEVEL = 8000
TOKEN, ACCOUNT = "bench-token", "AC" + "0" * 32


def samples_of(call: int, number: int, rate: int) -> NDArray[np.int16]:
    """One frame, at 8 or 16 kHz."""
    word = (call << 11) | (number % NUMBERS)
    bits = np.array([word >> bit & 1 for bit in range(BITS)])
    return np.repeat(np.where(bits, LEVEL, -LEVEL), BLOCK * rate // 8000).astype(np.int16)


def decode_frame(samples: NDArray[np.int16], rate: int) -> tuple[int, int]:
    """The call and the sequence number that a frame encodes, sampled in the middle of each block."""
    block = BLOCK * rate // 8000
    middles = samples[block // 2 :: block][:BITS]
    word = int(sum(1 << bit for bit, value in enumerate(middles) if value > 0))
    return word >> 11, word % NUMBERS


@dataclass
class Direction:
    """One direction of one call: the frames sent, and those that arrived."""

    call: int
    rate: int  # sample rate on arrival
    sent: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    from_other_calls: int = 0
    out_of_order: int = 0
    arrived: int = 0
    delay: int | None = None  # of the transcoder, in samples; measured on the first frames
    _stream: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    _next: int = 0
    _position: int = 0  # total of samples received
    _arrivals: deque[tuple[int, float]] = field(default_factory=deque)  # (position, time) of each message

    def receive(self, samples: NDArray[np.int16], now: float) -> None:
        """Take the samples of one message. A frame counts as arrived when its middle has arrived: the
        transcoder's own delay, a small part of a frame, is reported separately."""
        size = int(self.rate * FRAME_SECONDS)
        self._position += len(samples)
        self._arrivals.append((self._position, now))
        self._stream = np.concatenate([self._stream, samples])
        if self.delay is None:
            if len(self._stream) < 12 * size:
                return
            self.delay = self._find_delay(size)
        while len(self._stream) >= self.delay + size - size // BITS // 2:
            call, number = decode_frame(self._stream[self.delay : self.delay + size], self.rate)
            self._stream = self._stream[size:]
            self.arrived += 1
            if call != self.call:
                self.from_other_calls += 1
            elif number != self._next % NUMBERS:
                self.out_of_order += 1
            elif self._next < len(self.sent):
                self.latencies.append(self._arrival(self._next * size + size // 2) - self.sent[self._next])
            self._next += 1
        # Frames that were buffered while the delay was measured have no meaningful latency.
        if self.arrived <= 12:
            self.latencies.clear()

    def _arrival(self, position: int) -> float:
        while self._arrivals[0][0] <= position:
            self._arrivals.popleft()
        return self._arrivals[0][1]

    def _find_delay(self, size: int) -> int:
        """The offset at which the first frames decode as 0, 1, 2 ... of this call."""

        def count_misread(delay: int) -> int:
            return sum(
                decode_frame(self._stream[delay + n * size : delay + (n + 1) * size], self.rate)
                != (self.call, n)
                for n in range(10)
            )

        misread = np.array([count_misread(delay) for delay in range(size // 5)])
        best = np.flatnonzero(misread == misread.min())
        return int(best[len(best) // 2])


@dataclass
class Load:
    """The result of one run."""

    calls: int
    seconds: float
    up: list[Direction]
    down: list[Direction]

    @property
    def lost(self) -> int:
        """Frames that never arrived, without the last one: it may still be in the transcoder."""
        return sum(max(0, len(d.sent) - d.arrived - 1) for d in self.up + self.down)

    @property
    def misread(self) -> int:
        return sum(d.from_other_calls + d.out_of_order for d in self.up + self.down)


def signature(url: str, form: dict[str, str]) -> str:
    text = url + "".join(name + form[name] for name in sorted(form))
    return base64.b64encode(hmac.new(TOKEN.encode(), text.encode(), hashlib.sha1).digest()).decode()


class Assistant:
    """Simulates Vapi: gives each call a socket and sends a frame on it every 20 ms."""

    def __init__(self, mulaw: bool) -> None:
        self.mulaw = mulaw
        self.up: dict[int, Direction] = {}
        self.down: dict[int, Direction] = {}
        self.url = ""
        self.stop = asyncio.Event()

    async def __aenter__(self) -> Assistant:
        app = web.Application()
        app.router.add_post("/call", self._create)
        app.router.add_get("/socket", self._socket)
        app.router.add_post("/control", self._control)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        await self._runner.cleanup()

    async def _create(self, request: web.Request) -> web.Response:
        socket = self.url.replace("http", "ws") + "/socket"
        answer = {
            "id": "bench",
            "transport": {"websocketCallUrl": socket},
            "monitor": {"controlUrl": self.url + "/control"},
        }
        return web.json_response(answer, status=201)

    async def _control(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        call: int | None = None
        held: list[tuple[NDArray[np.int16], float]] = []
        sender: asyncio.Task[None] | None = None
        rate = 8000 if self.mulaw else 16000
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                continue
            now = time.monotonic()
            pcm = self._decode(message.data)
            if call is None:
                held.append((pcm, now))
                call = self._identify_call(np.concatenate([p for p, _ in held]), rate)
                if call is None:
                    continue
                for earlier, at in held:
                    self.up[call].receive(earlier, at)
                sender = asyncio.create_task(self._send_frames(socket, self.down[call]))
            else:
                self.up[call].receive(pcm, now)
        if sender is not None:
            sender.cancel()
        return socket

    def _identify_call(self, samples: NDArray[np.int16], rate: int) -> int | None:
        """The call of this socket: the one whose frames 0 to 4 decode most often, over all delays."""
        size = int(rate * FRAME_SECONDS)
        if len(samples) < 6 * size:
            return None
        votes = [
            call
            for delay in range(size // 5)
            for n in range(5)
            for call, number in [decode_frame(samples[delay + n * size : delay + (n + 1) * size], rate)]
            if number == n and call in self.up
        ]
        return max(set(votes), key=votes.count) if votes else None

    async def _send_frames(self, socket: web.WebSocketResponse, down: Direction) -> None:
        async def send(number: int) -> None:
            if self.mulaw:
                pcm = samples_of(down.call, number, 8000)
                await socket.send_bytes(ENCODE[pcm.astype(np.int32) + 32768].tobytes())
            else:
                await socket.send_bytes(samples_of(down.call, number, 16000).astype("<i2").tobytes())

        await send_paced(send, down, self.stop)

    def _decode(self, data: bytes) -> NDArray[np.int16]:
        return DECODE[np.frombuffer(data, np.uint8)] if self.mulaw else np.frombuffer(data, "<i2")


async def send_paced(send: Callable[[int], Awaitable[None]], way: Direction, stop: asyncio.Event) -> None:
    """Send a frame every 20 ms, by an absolute clock, until `stop` is set."""
    began, number = time.monotonic(), 0
    while not stop.is_set():
        await asyncio.sleep(max(0.0, began + number * FRAME_SECONDS - time.monotonic()))
        way.sent.append(time.monotonic())
        await send(number)
        number += 1


async def place_call(
    base_url: str, number: int, assistant: Assistant, stop: asyncio.Event, ticketed: bool
) -> None:
    """Run one caller until `stop` is set. With `ticketed`, request a ticket from the webhook first."""
    call_sid, stream_sid = f"CA{number:032d}", f"MZ{number:032d}"
    socket_url = base_url.replace("http", "ws") + "/media-stream"
    parameters: dict[str, str] = {}
    if ticketed:
        form = {"CallSid": call_sid, "AccountSid": ACCOUNT, "From": "+15550100000", "To": "+15550100001",
                "CallStatus": "ringing", "Direction": "inbound"}  # fmt: skip
        headers = {"X-Twilio-Signature": signature(base_url + "/twilio/voice", form)}
        async with (
            aiohttp.ClientSession() as http,
            http.post(base_url + "/twilio/voice", data=form, headers=headers) as answer,
        ):
            twiml = await answer.text()
        parameters = dict(re.findall(r'<Parameter name="(\w+)" value="([^"]*)"', twiml))
    headers = {"X-Twilio-Signature": signature(socket_url, {})}
    up, down = assistant.up[number], assistant.down[number]
    async with connect(socket_url, additional_headers=headers, compression=None, proxy=None) as socket:
        await socket.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        media_format = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        start = {"streamSid": stream_sid, "accountSid": ACCOUNT, "callSid": call_sid, "tracks": ["inbound"],
                 "customParameters": parameters, "mediaFormat": media_format}  # fmt: skip
        await socket.send(
            json.dumps({"event": "start", "sequenceNumber": "1", "streamSid": stream_sid, "start": start})
        )
        if not ticketed:
            await asyncio.sleep(1)  # the naive consumer has no hold buffer while it dials

        async def send(n: int) -> None:
            pcm = samples_of(number, n, 8000).astype(np.int32)
            payload = base64.b64encode(ENCODE[pcm + 32768].tobytes()).decode()
            media = {"track": "inbound", "chunk": str(n + 1), "timestamp": str(n * 20), "payload": payload}
            message = {
                "event": "media",
                "sequenceNumber": str(n + 2),
                "streamSid": stream_sid,
                "media": media,
            }
            await socket.send(json.dumps(message))

        async def listen() -> None:
            async for text in socket:
                message = json.loads(text)
                if message["event"] == "media" and message["streamSid"] == stream_sid:
                    ulaw = np.frombuffer(base64.b64decode(message["media"]["payload"]), np.uint8)
                    down.receive(DECODE[ulaw], time.monotonic())
                elif message["event"] == "mark":
                    await socket.send(text)

        listener = asyncio.create_task(listen())
        await send_paced(send, up, stop)
        with contextlib.suppress(TimeoutError):  # frames in flight arrive now, or count as lost
            async with asyncio.timeout(3):
                while any(len(way.sent) - way.arrived > 1 for way in (up, down)):
                    await asyncio.sleep(0.05)
        await socket.send(
            json.dumps({"event": "stop", "streamSid": stream_sid, "stop": {"callSid": call_sid}})
        )
        listener.cancel()


async def run(
    base_url: str,
    assistant: Assistant,
    *,
    calls: int,
    seconds: float,
    ticketed: bool,
    on_phase: Callable[[str], None],
) -> Load:
    """Run `calls` simultaneous calls. Calls `on_phase("running")` when all of them are up, and
    `on_phase("ending")` after `seconds`."""
    rate = 8000 if assistant.mulaw else 16000
    for number in range(calls):
        assistant.up[number] = Direction(number, rate)
        assistant.down[number] = Direction(number, 8000)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as callers:
        for number in range(calls):
            callers.create_task(place_call(base_url, number, assistant, stop, ticketed))
            await asyncio.sleep(0.05)
        async with asyncio.timeout(20):
            while not all(down.arrived > 20 for down in assistant.down.values()):
                await asyncio.sleep(0.1)
        on_phase("running")
        await asyncio.sleep(seconds)
        on_phase("ending")
        stop.set()
        assistant.stop.set()
    return Load(calls, seconds, list(assistant.up.values()), list(assistant.down.values()))
