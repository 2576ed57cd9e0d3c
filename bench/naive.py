"""The baseline for `bench/calls.py`: a stock Channels consumer with json, base64 and np.interp.

It carries the same calls, without ticket, hold buffer, records or barge-in.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from typing import Any

import aiohttp
import numpy as np
import websockets
from django.conf import settings

settings.configure(DATABASES={}, INSTALLED_APPS=[], SECRET_KEY="bench")

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter

from bench.naive_codec import DECODE, ENCODE


class NaiveConsumer(AsyncWebsocketConsumer):
    vapi: Any = None

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        message = json.loads(text_data or "{}")
        if message["event"] == "start":
            self.stream_sid = message["start"]["streamSid"]
            async with (
                aiohttp.ClientSession() as http,
                http.post(os.environ["VAPI_BASE_URL"] + "/call", json={}) as answer,
            ):
                url = (await answer.json())["transport"]["websocketCallUrl"]
            self.vapi = await websockets.connect(url)
            self.pump = asyncio.create_task(self.to_caller())
        elif message["event"] == "media" and self.vapi:
            ulaw = np.frombuffer(base64.b64decode(message["media"]["payload"]), np.uint8)
            pcm = DECODE[ulaw].astype(np.float64)
            at = np.arange(len(pcm) * 2) / 2
            await self.vapi.send(np.interp(at, np.arange(len(pcm)), pcm).astype("<i2").tobytes())

    async def to_caller(self) -> None:
        async for chunk in self.vapi:
            pcm = np.frombuffer(chunk, "<i2").astype(np.float64)
            at = np.arange(len(pcm) // 2) * 2
            low = np.interp(at, np.arange(len(pcm)), pcm).astype(np.int32)
            payload = base64.b64encode(ENCODE[low + 32768].tobytes()).decode()
            media = {"event": "media", "streamSid": self.stream_sid, "media": {"payload": payload}}
            await self.send(text_data=json.dumps(media))

    async def disconnect(self, code: int) -> None:
        if self.vapi:
            await self.vapi.close()


application = ProtocolTypeRouter({"websocket": NaiveConsumer.as_asgi()})
