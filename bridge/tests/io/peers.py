"""Fake peers for tests of `/media-stream`: Twilio as ASGI messages, Vapi as a real server on loopback.

The peers do only what a test tells them, and their attributes inject faults. The simulators in `sandbox`, in
contrast, behave like the real services. Each peer reports activity to a shared `ChangeNotifier`, so that a
test waits for a condition and never for a fixed time.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import WSCloseCode, WSMsgType, web
from twilio.request_validator import RequestValidator

from bridge.admission import Admission
from bridge.call_cache import CallCache
from bridge.config import AudioFormat, BridgeConfig
from bridge.context import BridgeContext
from bridge.io.consumer import MediaStreamConsumer
from bridge.io.vapi_client import VapiClient
from bridge.journal import Entry, StreamEnded
from bridge.tests.call.scenario import ACCOUNT, CALL, STREAM
from bridge.tests.samples import sample

TIMEOUT_SECONDS = 8.0  # for every wait; a test that reaches it fails
Kind = TypeVar("Kind")


class ChangeNotifier:
    """Wakes a test whenever a peer or the journal has received something."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        self._changed.set()

    async def wait_until(self, condition: Callable[[], Any]) -> None:
        """Wait until the condition is true; it is checked after every change."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class FakeVapi:
    """A server with Vapi's three endpoints: `POST /call`, the call's websocket, and its control URL."""

    def __init__(self, changes: ChangeNotifier) -> None:
        self.changes = changes
        # Received from the bridge
        self.requests: list[web.Request] = []  # to POST /call
        self.bodies: list[dict[str, Any]] = []  # of these requests
        self.control_messages: list[dict[str, Any]] = []
        self.audio: list[bytes] = []
        self.messages: list[dict[str, Any]] = []  # text frames, parsed
        self.handshakes = 0  # websocket handshakes that were started
        self.socket: web.WebSocketResponse | None = None
        self.close_code: int | None = None  # the code with which the bridge closed the socket
        # Faults
        self.error_statuses: list[int] = []  # for the next requests to POST /call, before a good response
        self.response_body: Any = None  # bytes that replace the body of the good response
        self.response_changes: dict[str, Any] = {}  # fields that replace those of the good response
        self.may_create = asyncio.Event()  # POST /call is not answered until it is set
        self.may_create.set()
        self.may_open = asyncio.Event()  # the websocket handshake is not answered until it is set
        self.may_open.set()
        self.socket_status = 101
        self.control_status = 200
        self.is_reading = True
        self.closes_on_end_call = True
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post("/call", self._on_create_call)
        app.router.add_get("/socket", self._on_socket)
        app.router.add_post("/control", self._on_control)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.may_create.set()
        self.may_open.set()
        if self.socket is not None:
            await self.socket.close()
        assert self._runner is not None
        await self._runner.cleanup()

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    async def _on_create_call(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.json())
        self.changes.notify()
        await self.may_create.wait()
        if self.error_statuses:
            status = self.error_statuses.pop(0)
            if status == 302:
                return web.Response(status=302, headers={"Location": self.url("/call")})
            return web.json_response({"message": f"refused with {status}"}, status=status)
        if isinstance(self.response_body, bytes):
            return web.Response(body=self.response_body, status=201)
        created = {
            **json.loads(sample("vapi/call_created")),
            "transport": {"provider": "vapi.websocket", "websocketCallUrl": self.url("/socket", "ws")},
            "monitor": {"controlUrl": self.url("/control")},
            **self.response_changes,
        }
        return web.json_response(created, status=201)

    async def _on_control(self, request: web.Request) -> web.StreamResponse:
        self.control_messages.append(await request.json())
        self.changes.notify()
        return web.Response(status=self.control_status)

    async def _on_socket(self, request: web.Request) -> web.StreamResponse:
        self.handshakes += 1
        self.changes.notify()
        await self.may_open.wait()
        if self.socket_status == 302:
            return web.Response(status=302, headers={"Location": self.url("/socket?elsewhere", "ws")})
        if self.socket_status != 101:
            return web.Response(status=self.socket_status)
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self.socket = socket
        self.changes.notify()
        while self.is_reading:
            frame = await socket.receive()
            if frame.type == WSMsgType.BINARY:
                self.audio.append(frame.data)
            elif frame.type == WSMsgType.TEXT:
                message = json.loads(frame.data)
                self.messages.append(message)
                if message["type"] == "audio":
                    self.audio.append(base64.b64decode(message["data"]))
                if message["type"] == "end-call" and self.closes_on_end_call:
                    await socket.close()
            else:
                self.close_code = socket.close_code
                self.changes.notify()
                return socket
            self.changes.notify()
        await asyncio.Event().wait()  # reads no more, but stays connected
        raise AssertionError

    async def send(self, event: str | dict[str, Any] | bytes) -> None:
        """Send an event, by the name of its sample or in full, or audio as bytes."""
        assert self.socket is not None
        if isinstance(event, bytes):
            await self.socket.send_bytes(event)
        else:
            await self.socket.send_str(
                sample(f"vapi/{event}") if isinstance(event, str) else json.dumps(event)
            )

    async def close(self, code: int = WSCloseCode.OK) -> None:
        assert self.socket is not None
        await self.socket.close(code=code)

    def abort(self) -> None:
        """Break the TCP connection, without a close frame."""
        assert self.socket is not None
        assert self.socket._req is not None
        assert self.socket._req.transport is not None
        self.socket._req.transport.abort()

    def messages_of_type(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]


class TwilioStream:
    """Twilio's side of one media stream. It runs the consumer in a task."""

    def __init__(
        self, server: ServerUnderTest, *, path: str = "/media-stream", signature: str | None = None
    ) -> None:
        self.changes = server.changes
        # Received from the bridge
        self.messages: list[dict[str, Any]] = []  # parsed
        self.is_accepted = False
        self.is_rejected = False  # closed before it was accepted
        self.close_code: int | None = None
        # Faults
        self.returns_marks = True  # at once
        self.may_receive = asyncio.Event()  # the server's `send` waits until it is set
        self.may_receive.set()
        self.send_raises: type[Exception] | None = None
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._chunk = 0
        headers = [] if signature is None else [(b"X-Twilio-Signature", signature.encode())]
        scope = {"type": "websocket", "path": path, "headers": headers, "bridge": server.context}
        consumer = MediaStreamConsumer.as_asgi(client=server.client, worker="worker-1")
        self.task = asyncio.create_task(consumer(scope, self._inbox.get, self._receive))
        self.task.add_done_callback(lambda _: self.changes.notify())

    async def _receive(self, message: dict[str, Any]) -> None:
        """The ASGI `send` callable of the server."""
        await self.may_receive.wait()
        if self.send_raises is not None:
            raise self.send_raises
        match message["type"]:
            case "websocket.accept":
                self.is_accepted = True
            case "websocket.close" if not self.is_accepted:
                self.is_rejected = True
            case "websocket.close":
                self.close_code = message["code"]
                self.disconnect(self.close_code)
            case "websocket.send":
                content = json.loads(message["text"])
                self.messages.append(content)
                if content["event"] == "mark" and self.returns_marks:
                    self.send(event="mark", streamSid=STREAM, mark=content["mark"])
        self.changes.notify()

    async def connect(self) -> None:
        self._inbox.put_nowait({"type": "websocket.connect"})
        await self.changes.wait_until(lambda: self.is_accepted or self.task.done())

    def send_text(self, text: str) -> None:
        self._inbox.put_nowait({"type": "websocket.receive", "text": text})

    def send_bytes(self, data: bytes) -> None:
        self._inbox.put_nowait({"type": "websocket.receive", "bytes": data})

    def send(self, **message: Any) -> None:
        self.send_text(json.dumps(message))

    def send_start(self, ticket: str, call_sid: str = CALL) -> None:
        """Send `connected` and `start`."""
        self.send_text(sample("twilio/connected"))
        start = {
            **json.loads(sample("twilio/start"))["start"],
            "callSid": call_sid,
            "customParameters": {"ticket": ticket, "route": "default"},
        }
        self.send(event="start", streamSid=STREAM, start=start)

    def send_frame(self, ulaw: bytes) -> None:
        self._chunk += 1
        media = {"track": "inbound", "chunk": str(self._chunk), "payload": base64.b64encode(ulaw).decode()}
        self.send(event="media", streamSid=STREAM, media=media)

    def send_stop(self) -> None:
        self.send_text(sample("twilio/stop"))

    def disconnect(self, code: int | None = 1000) -> None:
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": code})

    def audio(self) -> bytes:
        """All audio received so far."""
        return b"".join(
            base64.b64decode(message["media"]["payload"])
            for message in self.messages
            if message["event"] == "media"
        )

    def marks(self) -> list[str]:
        """The names of all marks received so far."""
        return [message["mark"]["name"] for message in self.messages if message["event"] == "mark"]

    def clear_count(self) -> int:
        return sum(message["event"] == "clear" for message in self.messages)

    async def wait_closed(self) -> None:
        """Wait until the consumer and all its tasks have ended."""
        await self.changes.wait_until(self.task.done)
        await self.task


class RecordingJournal:
    """A journal that keeps its entries in a list."""

    def __init__(self, changes: ChangeNotifier) -> None:
        self.entries: list[Entry] = []
        self.raises_on: type[Any] = type(
            None
        )  # a kind of entry on which `write` raises, against its contract
        self._changes = changes

    def write(self, entry: Entry, /) -> None:
        if isinstance(entry, self.raises_on):
            raise OSError("no space left")
        self.entries.append(entry)
        self._changes.notify()

    def entries_of(self, kind: type[Kind]) -> list[Kind]:
        return [entry for entry in self.entries if isinstance(entry, kind)]


class ServerUnderTest:
    """One server process between the two peers: real admission and client, a recording journal."""

    def __init__(self, vapi: FakeVapi, **settings: Any) -> None:
        self.changes, self.vapi = vapi.changes, vapi
        defaults: dict[str, Any] = {
            "public_url": "https://bridge.example.com",
            "ticket_secret": "s3cret-canary",
            "allow_unsigned": True,
            "vapi_api_key": "key-canary",
            "vapi_assistant_id": "assistant-1",
            "vapi_base_url": vapi.url(""),
            "vapi_allowed_hosts": ("127.0.0.1", "api.vapi.ai"),
            "vapi_audio_format": AudioFormat.MULAW,
        }
        self.config = BridgeConfig(**{**defaults, **settings})
        self.call_cache = CallCache()
        self.admission = Admission(self.config, call_cache=self.call_cache)
        self.journal = RecordingJournal(self.changes)
        self.context = BridgeContext(self.config, self.admission, self.journal, self.call_cache)
        self.client = VapiClient(self.config)

    def issue_ticket(self, call_sid: str = CALL) -> str:
        return self.admission.offer(call_sid, ACCOUNT, "+15559870000", "+15551230000").ticket

    def handshake_signature(self) -> str:
        """Twilio's signature of the media socket's handshake."""
        token = self.config.twilio_auth_tokens[0]
        signature = RequestValidator(token).compute_signature(self.config.stream_url, {})
        assert isinstance(signature, str)
        return signature

    async def start_call(self, **options: Any) -> TwilioStream:
        """A stream whose ticket was accepted; the assistant is being dialed."""
        stream = TwilioStream(self, **options)
        await stream.connect()
        stream.send_start(self.issue_ticket())
        await self.changes.wait_until(lambda: self.journal.entries)
        return stream

    async def start_live_call(self, **options: Any) -> TwilioStream:
        """A stream whose call is LIVE: both legs are connected."""
        stream = await self.start_call(**options)
        await self.changes.wait_until(lambda: len(self.journal.entries) >= 4)
        return stream

    async def wait_ended(self) -> StreamEnded:
        """Wait for the only `StreamEnded` entry."""
        await self.changes.wait_until(lambda: self.journal.entries_of(StreamEnded))
        (entry,) = self.journal.entries_of(StreamEnded)
        return entry
