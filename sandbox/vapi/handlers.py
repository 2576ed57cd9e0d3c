"""The HTTP side of the stand-in for Vapi: who may create a call, and how a socket finds its call.

Each handler is one documented endpoint, with the dials that make it fail. URLs are built from the request's
own Host, so that they lead back to the stand-in under whatever name it was reached.
"""

import asyncio
import base64
import binascii
import hmac
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from sandbox.vapi import assistants, reports
from sandbox.vapi.conversation import Conversation
from sandbox.vapi.dialects import NO_CLOSE_FRAME, NO_CODE, CallLine, SocketLine
from sandbox.vapi.record import AssistantCall
from sandbox.vapi.request_schema import CLIENT_MESSAGES_DEFAULT, audio_format, complaints

if TYPE_CHECKING:
    from sandbox.vapi.server import Assistant

MESSAGE_BYTES = 1 << 20
HELLO_WITHIN_S = 5.0
HUGE_BYTES = 8 << 20
FILTERS = frozenset({"id", "assistantId", "limit", "createdAtGt", "createdAtLt"})  # of the list of calls
WRONG_KEY = "Invalid key. It may be the public key where the private one is needed, or the other way round."


class Api:
    def __init__(self, assistant: "Assistant") -> None:
        self._assistant = assistant
        self._asked = 0  # requests to create a call

    def application(self) -> web.Application:
        application = web.Application(client_max_size=MESSAGE_BYTES)
        application.router.add_post("/call", self._create)
        application.router.add_get("/call", self._list)
        application.router.add_get("/call/{id}", self._show)
        application.router.add_post("/assistant", self._make_assistant)
        application.router.add_get("/assistant", self._assistants)
        application.router.add_get("/assistant/{id}", self._assistant_of)
        application.router.add_patch("/assistant/{id}", self._change_assistant)
        application.router.add_post("/{id}/control", self._control)
        application.router.add_get("/{id}/transport", self._transport)
        application.router.add_get("/socket", self._socket)
        return application

    # REST

    async def _create(self, request: web.Request) -> web.Response:
        response = await self._created(request)
        if response.status != 201:
            text = response.text or ""
            self._assistant.refused.append((time.monotonic(), response.status, text[:500]))
        return response

    async def _created(self, request: web.Request) -> web.Response:
        dials = self._assistant.dials
        self._asked += 1
        await asyncio.sleep(dials.rest_delay_s)
        if (refusal := self._refusal(request)) is not None:
            return refusal
        if dials.rest_status and (dials.rest_failures is None or self._asked <= dials.rest_failures):
            return _error(dials.rest_status, "the stand-in was told to fail")
        if dials.rest_html:
            return web.Response(text="<html><body>Bad gateway</body></html>", content_type="text/html")
        try:
            body = await request.json()
        except ValueError:
            return _error(400, "body is not JSON")
        if wrong := complaints(body):
            return _error(400, wrong)
        metadata = (body.get("assistantOverrides") or {}).get("metadata")
        call = self._assistant.create("call", body, metadata)
        answer = self._shown(request, call)
        alive = len(self._assistant.alive())
        blocked = dials.concurrency_blocked or alive >= dials.concurrency_limit
        answer["subscriptionLimits"] = {
            "concurrencyBlocked": blocked,
            "concurrencyLimit": dials.concurrency_limit,
            "remainingConcurrentCalls": 0 if blocked else dials.concurrency_limit - alive - 1,
        }
        if dials.rest_no_url:
            del answer["transport"]["websocketCallUrl"]
        if dials.rest_huge:
            answer["padding"] = "x" * HUGE_BYTES
        return web.json_response(answer, status=201)

    async def _show(self, request: web.Request) -> web.Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        call = self._assistant.find(request.match_info["id"])
        if call is None or call.dialect != "call":
            return _error(404, "no such call")
        return web.json_response(self._shown(request, call))

    async def _list(self, request: web.Request) -> web.Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        asked = request.query
        if unknown := asked.keys() - FILTERS:
            return _error(400, [f"property {name} should not exist" for name in sorted(unknown)])
        try:
            after, before = _moment(asked.get("createdAtGt")), _moment(asked.get("createdAtLt"))
        except ValueError:
            return _error(400, ["createdAtGt and createdAtLt must be valid ISO 8601 date strings"])
        found = [
            shown
            for call in reversed(self._assistant.calls)
            if call.dialect == "call"
            and (shown := self._shown(request, call))
            and all(shown[name] == asked[name] for name in ("id", "assistantId") if name in asked)
            and (after is None or after < datetime.fromisoformat(shown["createdAt"]))
            and (before is None or datetime.fromisoformat(shown["createdAt"]) < before)
        ]
        return web.json_response(found[: _limit(request)])

    async def _make_assistant(self, request: web.Request) -> web.Response:
        return await self._keep_assistant(request, "")

    async def _change_assistant(self, request: web.Request) -> web.Response:
        return await self._keep_assistant(request, request.match_info["id"])

    async def _keep_assistant(self, request: web.Request, assistant_id: str) -> web.Response:
        if (refusal := self._failure(request)) is not None:
            return refusal
        store = self._assistant.store
        if assistant_id and store.get(assistant_id) is None:
            return _error(404, f"assistant {assistant_id} not found")
        try:
            body = await request.json()
        except ValueError:
            return _error(400, "body is not JSON")
        if wrong := assistants.complaints(body):
            return _error(400, wrong)
        return web.json_response(store.put(body, assistant_id), status=200 if assistant_id else 201)

    async def _assistants(self, request: web.Request) -> web.Response:
        if (refusal := self._failure(request)) is not None:
            return refusal
        return web.json_response(self._assistant.store.newest(_limit(request)))

    async def _assistant_of(self, request: web.Request) -> web.Response:
        if (refusal := self._failure(request)) is not None:
            return refusal
        found = self._assistant.store.get(request.match_info["id"])
        return _error(404, "no such assistant") if found is None else web.json_response(found)

    def _failure(self, request: web.Request) -> web.Response | None:
        """Who may not ask, or a fault that was ordered."""
        if (refusal := self._refusal(request)) is not None:
            return refusal
        dials = self._assistant.dials
        return _error(dials.rest_status, "the stand-in was told to fail") if dials.rest_status else None

    async def _control(self, request: web.Request) -> web.Response:
        call = self._of(request)
        if call is None:
            return _error(404, "no such call")
        if call.ended_at is not None:
            return _error(400, "the call has ended")
        try:
            message = await request.json()
        except ValueError:
            return _error(400, "body is not JSON")
        if not self._assistant.told(call, message):
            return _error(400, ["type must be one of say, add-message, control, end-call"])
        return web.json_response({"success": True})

    def _refusal(self, request: web.Request) -> web.Response | None:
        if not request.headers.get("User-Agent"):
            return web.Response(status=403, text="error code: 1010")  # the CDN in front, not the API
        expected = f"Bearer {self._assistant.api_key}".encode()
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        return None if hmac.compare_digest(given, expected) else _error(401, WRONG_KEY)

    def _shown(self, request: web.Request, call: AssistantCall) -> dict[str, Any]:
        place = f"{request.host}/{call.id}"
        shown = {
            **reports.summary_of(call),
            "cost": 0,
            "transport": {
                **call.body["transport"],
                "websocketCallUrl": f"ws://{place}/transport?ticket={call.token}",
            },
            "monitor": {
                "listenUrl": f"ws://{place}/listen?ticket={call.token}",
                "controlUrl": f"http://{place}/control?ticket={call.token}",
            },
        }
        if call.ended_at is not None:
            shown |= reports.report_of(call)
        return shown

    def _of(self, request: web.Request) -> AssistantCall | None:
        """The call whose secret URL this is."""
        call = self._assistant.find(request.match_info["id"])
        ticket = request.query.get("ticket", "").encode()
        return call if call is not None and hmac.compare_digest(ticket, call.token.encode()) else None

    # Sockets

    async def _transport(self, request: web.Request) -> web.StreamResponse:
        if (refused := await self._handshake_fault()) is not None:
            return refused
        call = self._of(request)
        if call is None or call.connected or call.ended_at is not None:
            return _error(404, "no such call")  # also for a second connection: the URL is good for one
        call.connected = True
        ws = _websocket()
        await ws.prepare(request)
        overrides = call.body.get("assistantOverrides") or {}
        subscribed = frozenset(overrides.get("clientMessages", CLIENT_MESSAGES_DEFAULT))
        line = CallLine(ws, request, call, audio_format(call.body), subscribed)
        await self._talk(ws, call, self._conversation(call, line))
        return ws

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if (refused := await self._handshake_fault()) is not None:
            return refused
        ws = _websocket()
        await ws.prepare(request)
        hello = await _hello(ws)
        if hello is None:
            await ws.close(code=1008)
            return ws
        call = self._assistant.create("socket", hello, hello.get("metadata"))
        call.keep_text(hello)
        line = SocketLine(ws, request, call, self._assistant.dials.socket_events)
        await self._talk(ws, call, self._conversation(call, line))
        return ws

    async def _handshake_fault(self) -> web.Response | None:
        await asyncio.sleep(self._assistant.dials.ws_hang_s)
        return _error(403, "forbidden") if self._assistant.dials.ws_refuse else None

    def _conversation(self, call: AssistantCall, line: CallLine | SocketLine) -> Conversation:
        assistant = self._assistant
        call.received_kept_limit = int(assistant.dials.keep_audio_s * line.audio_format.bytes_per_second)
        return Conversation(
            call,
            line,
            dials=assistant.dials,
            seed=f"{assistant.seed}/{call.number}",
            understand=assistant.understand,
            end=lambda reason: assistant.end(call, reason),
            overrides=call.body.get("assistantOverrides"),
            # Not the conversation's own: the answer may come when the line is gone.
            call_tool=lambda asked: assistant.spawn(assistant.use_tool(call, asked)),
        )

    async def _talk(self, ws: web.WebSocketResponse, call: AssistantCall, conversation: Conversation) -> None:
        self._assistant.opened(call, conversation)
        try:
            await self._listen(ws, call, conversation)
        finally:
            if call.close_code is None:
                call.close_code = ws.close_code if ws.close_code is not None else NO_CLOSE_FRAME
            await self._assistant.closed(call)
            # The tutorial's server has no other end than a closed socket. A Vapi call outlives it, unless
            # Vapi itself closed the socket in good order.
            by_itself = self._assistant.dials.close_at_s is not None and call.close_code in (
                1000,
                1001,
                NO_CODE,
            )
            if call.dialect == "socket" or by_itself:
                self._assistant.end(call, "customer-ended-call")

    async def _listen(
        self, ws: web.WebSocketResponse, call: AssistantCall, conversation: Conversation
    ) -> None:
        while True:
            message = await ws.receive()
            now = time.monotonic()
            match message.type:
                case WSMsgType.BINARY:
                    if call.dialect == "call":
                        conversation.hear(message.data, now)
                case WSMsgType.TEXT:
                    self._read(message.data, call, conversation, now)
                case WSMsgType.PING:
                    call.pings += 1
                    await ws.pong(message.data)
                case WSMsgType.PONG:
                    pass
                case _:
                    return

    def _read(self, text: str, call: AssistantCall, conversation: Conversation, now: float) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        if call.dialect == "socket" and isinstance(message, dict) and message.get("type") == "audio":
            try:
                conversation.hear(base64.b64decode(message["data"], validate=True), now)
            except (KeyError, TypeError, binascii.Error):
                call.keep_text(message)  # strange audio is kept for whoever wonders
            return
        call.keep_text(message if message is not None else text[:1000])
        if isinstance(message, dict):
            known = conversation.told(message)
            call.note(f"< {message.get('type')}{'' if known else ' (unknown)'}")


async def _hello(ws: web.WebSocketResponse) -> dict[str, Any] | None:
    try:
        hello = await ws.receive_json(timeout=HELLO_WITHIN_S)
    except (TimeoutError, TypeError, ValueError):
        return None
    return hello if isinstance(hello, dict) and hello.get("type") == "assistant-request" else None


def _websocket() -> web.WebSocketResponse:
    # Pings are answered by hand, to count them.
    return web.WebSocketResponse(autoping=False, compress=False, timeout=2.0, max_msg_size=MESSAGE_BYTES)


def _moment(text: str | None) -> datetime | None:
    """Raises `ValueError` for what is no time."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _limit(request: web.Request) -> int:
    asked = request.query.get("limit", "")
    return min(int(asked), 1000) if asked.isdecimal() else 100


def _error(status: int, message: str | list[str]) -> web.Response:
    reason = web.Response(status=status).reason
    return web.json_response({"message": message, "error": reason, "statusCode": status}, status=status)
