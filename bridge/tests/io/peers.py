"""The two far ends of one call, on strings: Twilio as ASGI messages, Vapi as a real server on loopback.

Whatever they notice goes up on one noticeboard, and a test waits there for what it expects, never by the
clock. `sandbox` holds far ends that behave; these do what a test tells them.
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
from bridge.config import AudioFormat, BridgeConfig
from bridge.context import BridgeContext
from bridge.end_reason_cache import EndReasonCache
from bridge.io.consumer import MediaStreamConsumer
from bridge.io.vapi_client import VapiClient
from bridge.journal import Entry, StreamEnded
from bridge.tests.call.scenario import ACCOUNT, CALL, STREAM
from bridge.tests.samples import sample

PATIENCE = 8.0  # seconds; a test that needs them has failed
Kind = TypeVar("Kind")


class Noticeboard:
    """Something changed: look again."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notice(self) -> None:
        self._changed.set()

    async def until(self, come_true: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not come_true():
                self._changed.clear()
                await self._changed.wait()


class Vapi:
    """`POST /call`, the socket, the control URL; each with its dials."""

    def __init__(self, board: Noticeboard) -> None:
        self.board = board
        self.requests: list[web.Request] = []
        self.bodies: list[dict[str, Any]] = []
        self.controlled: list[dict[str, Any]] = []
        self.audio: list[bytes] = []
        self.texts: list[dict[str, Any]] = []
        self.dialled = 0  # handshakes begun
        self.socket: web.WebSocketResponse | None = None
        self.close_code: int | None = None  # as the bridge closed it
        # Dials
        self.statuses: list[int] = []  # answers to POST /call before the good one
        self.answer: Any = None  # instead of the good answer; may be bytes
        self.changes: dict[str, Any] = {}  # to the good answer
        self.created = asyncio.Event()  # POST /call is not answered before
        self.created.set()
        self.opened = asyncio.Event()  # the handshake is not answered before
        self.opened.set()
        self.socket_status = 101
        self.control_status = 200
        self.reads = True
        self.obeys = True  # closes when it is told `end-call`
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post("/call", self._create)
        app.router.add_get("/socket", self._serve)
        app.router.add_post("/control", self._control)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.created.set()
        self.opened.set()
        if self.socket is not None:
            await self.socket.close()
        assert self._runner is not None
        await self._runner.cleanup()

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    async def _create(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.json())
        self.board.notice()
        await self.created.wait()
        if self.statuses:
            status = self.statuses.pop(0)
            if status == 302:
                return web.Response(status=302, headers={"Location": self.url("/call")})
            return web.json_response({"message": f"refused with {status}"}, status=status)
        if isinstance(self.answer, bytes):
            return web.Response(body=self.answer, status=201)
        created = {
            **json.loads(sample("vapi/call_created")),
            "transport": {"provider": "vapi.websocket", "websocketCallUrl": self.url("/socket", "ws")},
            "monitor": {"controlUrl": self.url("/control")},
            **self.changes,
        }
        return web.json_response(created, status=201)

    async def _control(self, request: web.Request) -> web.StreamResponse:
        self.controlled.append(await request.json())
        self.board.notice()
        return web.Response(status=self.control_status)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.dialled += 1
        self.board.notice()
        await self.opened.wait()
        if self.socket_status == 302:
            return web.Response(status=302, headers={"Location": self.url("/socket?elsewhere", "ws")})
        if self.socket_status != 101:
            return web.Response(status=self.socket_status)
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self.socket = socket
        self.board.notice()
        while self.reads:
            message = await socket.receive()
            if message.type == WSMsgType.BINARY:
                self.audio.append(message.data)
            elif message.type == WSMsgType.TEXT:
                said = json.loads(message.data)
                self.texts.append(said)
                if said["type"] == "audio":
                    self.audio.append(base64.b64decode(said["data"]))
                if said["type"] == "end-call" and self.obeys:
                    await socket.close()
            else:
                self.close_code = socket.close_code
                self.board.notice()
                return socket
            self.board.notice()
        await asyncio.Event().wait()  # deaf, and still connected
        raise AssertionError

    async def say(self, event: str | dict[str, Any] | bytes) -> None:
        """An event by its sample's name or in full; bytes are audio."""
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

    def drop_dead(self) -> None:
        """No close frame."""
        assert self.socket is not None
        assert self.socket._req is not None
        assert self.socket._req.transport is not None
        self.socket._req.transport.abort()

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [text for text in self.texts if text["type"] == kind]


class Caller:
    """Twilio's side of one media socket."""

    def __init__(self, house: House, *, path: str = "/media-stream", signature: str | None = None) -> None:
        self.board = house.board
        self.sent: list[dict[str, Any]] = []  # by the bridge, parsed
        self.accepted = False
        self.close_code: int | None = None
        self.refused = False
        # Dials
        self.echoes = True  # marks come back at once
        self.takes = asyncio.Event()  # the peer takes nothing before
        self.takes.set()
        self.send_raises: type[Exception] | None = None
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._chunk = 0
        headers = [] if signature is None else [(b"X-Twilio-Signature", signature.encode())]
        scope = {"type": "websocket", "path": path, "headers": headers, "bridge": house.context}
        consumer = MediaStreamConsumer.as_asgi(client=house.client, worker="worker-1")
        self.task = asyncio.create_task(consumer(scope, self._inbox.get, self._take))
        self.task.add_done_callback(lambda _: self.board.notice())

    async def _take(self, message: dict[str, Any]) -> None:
        """The server's `send`."""
        await self.takes.wait()
        if self.send_raises is not None:
            raise self.send_raises
        match message["type"]:
            case "websocket.accept":
                self.accepted = True
            case "websocket.close" if not self.accepted:
                self.refused = True
            case "websocket.close":
                self.close_code = message["code"]
                self.leave(self.close_code)
            case "websocket.send":
                said = json.loads(message["text"])
                self.sent.append(said)
                if said["event"] == "mark" and self.echoes:
                    self.tell(event="mark", streamSid=STREAM, mark=said["mark"])
        self.board.notice()

    async def connect(self) -> None:
        self._inbox.put_nowait({"type": "websocket.connect"})
        await self.board.until(lambda: self.accepted or self.task.done())

    def send_text(self, text: str) -> None:
        self._inbox.put_nowait({"type": "websocket.receive", "text": text})

    def send_bytes(self, data: bytes) -> None:
        self._inbox.put_nowait({"type": "websocket.receive", "bytes": data})

    def tell(self, **message: Any) -> None:
        self.send_text(json.dumps(message))

    def start(self, ticket: str, call_sid: str = CALL) -> None:
        self.send_text(sample("twilio/connected"))
        inner = {
            **json.loads(sample("twilio/start"))["start"],
            "callSid": call_sid,
            "customParameters": {"ticket": ticket, "route": "default"},
        }
        self.tell(event="start", streamSid=STREAM, start=inner)

    def frame(self, ulaw: bytes) -> None:
        self._chunk += 1
        media = {"track": "inbound", "chunk": str(self._chunk), "payload": base64.b64encode(ulaw).decode()}
        self.tell(event="media", streamSid=STREAM, media=media)

    def stop(self) -> None:
        self.send_text(sample("twilio/stop"))

    def leave(self, code: int | None = 1000) -> None:
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": code})

    def heard(self) -> bytes:
        return b"".join(
            base64.b64decode(said["media"]["payload"]) for said in self.sent if said["event"] == "media"
        )

    def marks(self) -> list[str]:
        return [said["mark"]["name"] for said in self.sent if said["event"] == "mark"]

    def cleared(self) -> int:
        return sum(said["event"] == "clear" for said in self.sent)

    async def over(self) -> None:
        """The consumer has left, with all its tasks."""
        await self.board.until(self.task.done)
        await self.task


class Notebook:
    """A journal that is a list."""

    def __init__(self, board: Noticeboard) -> None:
        self.entries: list[Entry] = []
        self.refuses: type[Any] = type(None)  # entries that it raises on, against its promise
        self._board = board

    def write(self, entry: Entry, /) -> None:
        if isinstance(entry, self.refuses):
            raise OSError("no space left")
        self.entries.append(entry)
        self._board.notice()

    def written(self, kind: type[Kind]) -> list[Kind]:
        return [entry for entry in self.entries if isinstance(entry, kind)]


class House:
    """One server process between the two."""

    def __init__(self, vapi: Vapi, **settings: Any) -> None:
        self.board, self.vapi = vapi.board, vapi
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
        self.end_reasons = EndReasonCache()
        self.admission = Admission(self.config, end_reason_cache=self.end_reasons)
        self.journal = Notebook(self.board)
        self.context = BridgeContext(self.config, self.admission, self.journal, self.end_reasons)
        self.client = VapiClient(self.config)

    def ticket(self, call_sid: str = CALL) -> str:
        return self.admission.offer(call_sid, ACCOUNT, "+15559870000", "+15551230000").ticket

    def signature(self) -> str:
        token = self.config.twilio_auth_tokens[0]
        signed = RequestValidator(token).compute_signature(self.config.stream_url, {})
        assert isinstance(signed, str)
        return signed

    async def dialling(self, **options: Any) -> Caller:
        """A call whose `start` was good."""
        caller = Caller(self, **options)
        await caller.connect()
        caller.start(self.ticket())
        await self.board.until(lambda: self.journal.entries)
        return caller

    async def live(self, **options: Any) -> Caller:
        """A call with both legs up, as the bridge knows too."""
        caller = await self.dialling(**options)
        await self.board.until(lambda: len(self.journal.entries) >= 4)
        return caller

    async def ended(self) -> StreamEnded:
        await self.board.until(lambda: self.journal.written(StreamEnded))
        (entry,) = self.journal.written(StreamEnded)
        return entry
