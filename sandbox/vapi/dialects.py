"""The two ways to carry a call on a websocket, behind one interface.

`CallLine` is Vapi's documented transport: binary frames are raw audio, text frames are flat JSON events of
the types that were subscribed to. `SocketLine` is the tutorial's: everything is JSON, audio is base64
mu-law, and there are no events but final transcripts. A line that is gone swallows what is sent to it: the
call itself may live on.
"""

import asyncio
import base64
import json
import time
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from sandbox.vapi.record import AssistantCall
from sandbox.vapi.request_schema import wants
from sandbox.vapi.speech_output import AudioFormat

SEND_WITHIN_S = 5.0
CLOSE_WITHIN_S = 2.0
NO_CODE = 1005
NO_CLOSE_FRAME = 1006


class Line(Protocol):
    audio_format: AudioFormat
    interrupts: bool  # hears a barge-in by itself and says so

    async def audio(self, chunk: bytes) -> None: ...

    async def event(self, event: dict[str, Any]) -> bool: ...

    async def raw(self, text: str) -> None: ...

    async def close(self, code: int) -> None: ...


class _WebSocketLine:
    """What both lines share: a socket that may go at any moment, and a deadline on each send."""

    def __init__(self, ws: web.WebSocketResponse, request: web.Request, call: AssistantCall) -> None:
        self._ws = ws
        self._request = request
        self._call = call

    async def raw(self, text: str) -> None:
        await self._send(text)

    async def _send(self, message: str | bytes) -> bool:
        try:
            async with asyncio.timeout(SEND_WITHIN_S):
                if isinstance(message, bytes):
                    await self._ws.send_bytes(message)
                else:
                    await self._ws.send_str(message)
        except TimeoutError:
            self._abort()  # the peer does not read
        except (ConnectionError, RuntimeError):
            pass  # closed or closing: the reader has noticed or will
        else:
            return True
        return False

    async def _send_event(self, event: dict[str, Any]) -> bool:
        now = time.monotonic()
        sent = await self._send(json.dumps(event))  # ASCII: lone surrogates leave as escapes
        if sent:
            self._call.events_sent.append((now, event))
            self._call.note(
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
                async with asyncio.timeout(CLOSE_WITHIN_S):
                    if code == NO_CODE:
                        await self._ws.send_frame(b"", WSMsgType.CLOSE)
                    else:
                        await self._ws.close(code=code)
            except (TimeoutError, ConnectionError, RuntimeError):
                self._abort()

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


class CallLine(_WebSocketLine):
    interrupts = True

    def __init__(
        self,
        ws: web.WebSocketResponse,
        request: web.Request,
        call: AssistantCall,
        audio_format: AudioFormat,
        subscribed: frozenset[str],
    ) -> None:
        super().__init__(ws, request, call)
        self.audio_format = audio_format
        self._subscribed = subscribed

    async def audio(self, chunk: bytes) -> None:
        await self._send(chunk)

    async def event(self, event: dict[str, Any]) -> bool:
        return wants(event, self._subscribed) and await self._send_event(event)


class SocketLine(_WebSocketLine):
    interrupts = False
    audio_format = AudioFormat("mulaw", 8_000)

    def __init__(
        self, ws: web.WebSocketResponse, request: web.Request, call: AssistantCall, events: bool
    ) -> None:
        super().__init__(ws, request, call)
        self._events = events

    async def audio(self, chunk: bytes) -> None:
        await self._send(json.dumps({"type": "audio", "data": base64.b64encode(chunk).decode()}))

    async def event(self, event: dict[str, Any]) -> bool:
        final = event.get("type") == "transcript" and event.get("transcriptType") == "final"
        return self._events and final and await self._send_event(event)
