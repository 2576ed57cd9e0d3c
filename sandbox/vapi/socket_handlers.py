"""WebSocket handlers of the Vapi simulator, one for each dialect.

`/{id}/transport` is Vapi's: a socket for a call that was created over REST. `/socket` is the simpler
socket dialect: its first message creates the call.
"""

import asyncio
import base64
import binascii
import json
import time
from typing import Any

from aiohttp import WSMsgType, web

from sandbox.vapi.call_manager import CallManager
from sandbox.vapi.conversation import Conversation
from sandbox.vapi.dialects import NO_CLOSE_FRAME, NO_CODE, CallDialectTransport, SocketDialectTransport
from sandbox.vapi.record import VapiCallRecord
from sandbox.vapi.request_schema import CLIENT_MESSAGES_DEFAULT, audio_format
from sandbox.vapi.responses import error_response, find_by_url_token

MAX_MESSAGE_BYTES = 1 << 20
FIRST_MESSAGE_SECONDS = 5.0
ORDERLY_CLOSE_CODES = (1000, 1001, NO_CODE)


def add_socket_routes(application: web.Application, manager: CallManager) -> None:
    handlers = SocketHandlers(manager)
    application.router.add_get("/{id}/transport", handlers.transport)
    application.router.add_get("/socket", handlers.socket)


class SocketHandlers:
    def __init__(self, manager: CallManager) -> None:
        self._manager = manager

    async def transport(self, request: web.Request) -> web.StreamResponse:
        if (error := await self._handshake_fault()) is not None:
            return error
        call = find_by_url_token(self._manager, request)
        if call is None or call.connected or call.ended_at is not None:
            return error_response(404, "no such call")  # also for a second connection: the URL works once
        call.connected = True
        ws = _websocket()
        await ws.prepare(request)
        overrides = call.body.get("assistantOverrides") or {}
        subscribed = frozenset(overrides.get("clientMessages", CLIENT_MESSAGES_DEFAULT))
        transport = CallDialectTransport(ws, request, call, audio_format(call.body), subscribed)
        await self._run(ws, call, self._conversation(call, transport))
        return ws

    async def socket(self, request: web.Request) -> web.StreamResponse:
        if (error := await self._handshake_fault()) is not None:
            return error
        ws = _websocket()
        await ws.prepare(request)
        first_message = await _receive_assistant_request(ws)
        if first_message is None:
            await ws.close(code=1008)
            return ws
        call = self._manager.create("socket", first_message, first_message.get("metadata"))
        call.record_message(first_message)
        transport = SocketDialectTransport(ws, request, call, self._manager.faults.socket_events)
        await self._run(ws, call, self._conversation(call, transport))
        return ws

    async def _handshake_fault(self) -> web.Response | None:
        await asyncio.sleep(self._manager.faults.ws_accept_delay_seconds)
        return error_response(403, "forbidden") if self._manager.faults.ws_refuse else None

    def _conversation(
        self, call: VapiCallRecord, transport: CallDialectTransport | SocketDialectTransport
    ) -> Conversation:
        manager = self._manager
        bytes_per_second = transport.audio_format.bytes_per_second
        call.max_audio_bytes = int(manager.faults.keep_audio_seconds * bytes_per_second)
        return Conversation(
            call,
            transport,
            faults=manager.faults,
            seed=f"{manager.seed}/{call.number}",
            recognize=manager.recognize,
            end=lambda reason: manager.end(call, reason),
            overrides=call.body.get("assistantOverrides"),
            # A task of the manager, not of the conversation: the result may come after the socket closed.
            call_tool=lambda tool_call: manager.spawn(manager.call_tool(call, tool_call)),
        )

    async def _run(self, ws: web.WebSocketResponse, call: VapiCallRecord, conversation: Conversation) -> None:
        self._manager.open(call, conversation)
        try:
            await self._receive(ws, call, conversation)
        finally:
            if call.close_code is None:
                call.close_code = ws.close_code if ws.close_code is not None else NO_CLOSE_FRAME
            await self._manager.on_socket_closed(call)
            # A closed socket ends a call of the socket dialect. It does not end a Vapi call, unless Vapi
            # itself closed the socket with an orderly code.
            closes_by_itself = self._manager.faults.close_after_seconds is not None
            if call.dialect == "socket" or (closes_by_itself and call.close_code in ORDERLY_CLOSE_CODES):
                self._manager.end(call, "customer-ended-call")

    async def _receive(
        self, ws: web.WebSocketResponse, call: VapiCallRecord, conversation: Conversation
    ) -> None:
        while True:
            message = await ws.receive()
            now = time.monotonic()
            match message.type:
                case WSMsgType.BINARY:
                    if call.dialect == "call":
                        conversation.receive_audio(message.data, now)
                case WSMsgType.TEXT:
                    self._receive_text(message.data, call, conversation, now)
                case WSMsgType.PING:
                    call.pings += 1
                    await ws.pong(message.data)
                case WSMsgType.PONG:
                    pass
                case _:
                    return

    def _receive_text(self, text: str, call: VapiCallRecord, conversation: Conversation, now: float) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        if call.dialect == "socket" and isinstance(message, dict) and message.get("type") == "audio":
            try:
                conversation.receive_audio(base64.b64decode(message["data"], validate=True), now)
            except (KeyError, TypeError, binascii.Error):
                call.record_message(message)  # keep invalid audio messages for inspection
            return
        call.record_message(message if message is not None else text[:1000])
        if isinstance(message, dict):
            is_known = conversation.handle_message(message)
            call.emit(f"< {message.get('type')}{'' if is_known else ' (unknown)'}")


async def _receive_assistant_request(ws: web.WebSocketResponse) -> dict[str, Any] | None:
    try:
        message = await ws.receive_json(timeout=FIRST_MESSAGE_SECONDS)
    except (TimeoutError, TypeError, ValueError):
        return None
    return message if isinstance(message, dict) and message.get("type") == "assistant-request" else None


def _websocket() -> web.WebSocketResponse:
    # No autoping: pings are counted before they are answered.
    return web.WebSocketResponse(autoping=False, compress=False, timeout=2.0, max_msg_size=MAX_MESSAGE_BYTES)
