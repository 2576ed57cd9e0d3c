"""The two websocket dialects of a call, with one interface.

`CallDialectTransport` is Vapi's documented transport: binary frames are raw audio, text frames are flat JSON
events of the subscribed types. `SocketDialectTransport` is the simpler socket dialect: all messages are JSON,
audio is base64 mu-law, and the only events are final transcripts. Sending on a closed socket does nothing,
because the call itself may continue.
"""

import asyncio
import base64
import json
import time
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from sandbox.vapi.record import VapiCallRecord
from sandbox.vapi.request_schema import is_subscribed
from sandbox.vapi.speech_output import AudioFormat

SEND_TIMEOUT_SECONDS = 5.0
CLOSE_TIMEOUT_SECONDS = 2.0
NO_CODE = 1005
NO_CLOSE_FRAME = 1006


class Transport(Protocol):
    audio_format: AudioFormat
    detects_barge_in: bool  # stops speaking by itself when the caller barges in

    async def send_audio(self, chunk: bytes) -> None: ...

    async def send_event(self, event: dict[str, Any]) -> bool: ...

    async def send_raw(self, text: str) -> None: ...

    async def close(self, code: int) -> None: ...


class _WebSocketTransport:
    """Common parts: a socket that may close at any time, and a timeout for each send."""

    def __init__(self, ws: web.WebSocketResponse, request: web.Request, call: VapiCallRecord) -> None:
        self._ws = ws
        self._request = request
        self._call = call

    async def send_raw(self, text: str) -> None:
        await self._send(text)

    async def _send(self, message: str | bytes) -> bool:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                if isinstance(message, bytes):
                    await self._ws.send_bytes(message)
                else:
                    await self._ws.send_str(message)
        except TimeoutError:
            self._abort()  # the peer does not read
        except (ConnectionError, RuntimeError):
            pass  # closed or closing: the reader handles it
        else:
            return True
        return False

    async def _send_and_record(self, event: dict[str, Any]) -> bool:
        now = time.monotonic()
        sent = await self._send(json.dumps(event))  # ASCII: lone surrogates are sent as escapes
        if sent:
            self._call.events_sent.append((now, event))
            self._call.emit(
                f"> {event.get('type')} {event.get('role', '')} {event.get('status', '')}".rstrip()
            )
        return sent

    async def close(self, code: int) -> None:
        if code == NO_CLOSE_FRAME:
            self._call.close_code = NO_CLOSE_FRAME
            self._abort()
        elif self._call.closed_at is None:
            self._call.close_code = code
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                    if code == NO_CODE:
                        await self._ws.send_frame(b"", WSMsgType.CLOSE)
                    else:
                        await self._ws.close(code=code)
            except (TimeoutError, ConnectionError, RuntimeError):
                self._abort()

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


class CallDialectTransport(_WebSocketTransport):
    detects_barge_in = True

    def __init__(
        self,
        ws: web.WebSocketResponse,
        request: web.Request,
        call: VapiCallRecord,
        audio_format: AudioFormat,
        subscribed: frozenset[str],
    ) -> None:
        super().__init__(ws, request, call)
        self.audio_format = audio_format
        self._subscribed = subscribed

    async def send_audio(self, chunk: bytes) -> None:
        await self._send(chunk)

    async def send_event(self, event: dict[str, Any]) -> bool:
        return is_subscribed(event, self._subscribed) and await self._send_and_record(event)


class SocketDialectTransport(_WebSocketTransport):
    detects_barge_in = False
    audio_format = AudioFormat("mulaw", 8_000)

    def __init__(
        self, ws: web.WebSocketResponse, request: web.Request, call: VapiCallRecord, events: bool
    ) -> None:
        super().__init__(ws, request, call)
        self._events = events

    async def send_audio(self, chunk: bytes) -> None:
        await self._send(json.dumps({"type": "audio", "data": base64.b64encode(chunk).decode()}))

    async def send_event(self, event: dict[str, Any]) -> bool:
        final = event.get("type") == "transcript" and event.get("transcriptType") == "final"
        return self._events and final and await self._send_and_record(event)
