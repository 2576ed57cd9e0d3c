"""`/media-stream`: the consumer of Twilio's websocket, one for each call.

It is a Channels consumer because of routing and `as_asgi`, but has its own receive loop. Channels' `dispatch`
runs code in the process's one database thread before every message, and waits for the channel layer: one slow
query would stall all calls, and a Redis that is down would end them. Nothing here uses a database, Django's
cache, the channel layer or a thread.

Daphne has no back-pressure, skips `disconnect()` on SIGTERM, and allows an application to close only with
1000 or 3000 to 4999. Clean-up is therefore in a `finally` around the whole call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from channels.consumer import AsyncConsumer

from bridge.call.events import BadMessage, CallerLegClosed, Event, OversizeMessage, ServerStopping
from bridge.context import context_of
from bridge.io.runner import CallRunner
from bridge.io.vapi_client import VapiClient
from bridge.wire import MAX_MESSAGE_BYTES, MalformedMessage, twilio

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 2.0
MAX_WAITING_STREAMS = 50  # sockets that have not started a call yet, in this process

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class MediaStreamConsumer(AsyncConsumer):
    """One media stream."""

    # No layer of this name is configured: this consumer must never get one.
    channel_layer_alias = "none: audio never crosses a channel layer"

    def __init__(self, *, client: VapiClient, worker: str = "") -> None:
        self._client = client
        self._worker = worker

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        context = context_of(scope)
        first_message = await receive()
        if first_message["type"] != "websocket.connect":
            return
        async with context.handshake_turn:
            await asyncio.sleep(0)  # one for each run of the event loop: audio goes on between them
        headers = {name.lower(): value for name, value in scope["headers"]}
        signature = headers.get(b"x-twilio-signature", b"").decode("latin-1")
        if not context.admission.verify_handshake(scope["path"], signature):
            context.on_refused("media socket: bad or missing signature")
            await send({"type": "websocket.close"})  # before accept: HTTP 403
            return
        if context.admission.waiting_streams >= MAX_WAITING_STREAMS:
            context.on_refused(f"media socket: {MAX_WAITING_STREAMS} others have not started a call")
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        logger.info("media socket open")

        async def send_text(text: str) -> None:
            await send({"type": "websocket.send", "text": text})

        async def close(code: int) -> None:
            await send({"type": "websocket.close", "code": code})

        runner = CallRunner(context, self._client, send_text, close, worker=self._worker)
        end_call = partial(runner.feed, ServerStopping())
        context.end_calls.add(end_call)
        try:
            await self._receive(runner, receive)
        finally:
            context.end_calls.discard(end_call)
            await asyncio.shield(asyncio.ensure_future(runner.finish()))

    async def _receive(self, runner: CallRunner, receive: Receive) -> None:
        """Feed the runner until Twilio has closed the socket, or until two seconds after we closed it."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as limit:
                runner.on_closed = lambda: limit.reschedule(loop.time() + CLOSE_SECONDS)
                while (message := await receive())["type"] == "websocket.receive":
                    event = self._parse(message)
                    if type(event) is twilio.Start:
                        await runner.start(event)
                    else:
                        runner.feed(event)
                runner.feed(CallerLegClosed(message.get("code", 1006)))
        except TimeoutError:
            logger.debug("%s ! the peer did not close its side in time", runner.session)
        finally:
            runner.on_closed = None

    @staticmethod
    def _parse(message: dict[str, Any]) -> Event:
        """One message from Twilio as an event; a malformed one becomes an event, too."""
        text = message.get("text")
        if text is None:
            is_oversize = len(message.get("bytes") or b"") > MAX_MESSAGE_BYTES
            return OversizeMessage() if is_oversize else BadMessage("caller", "binary-frame")
        if len(text) > MAX_MESSAGE_BYTES or (
            not text.isascii() and len(text.encode("utf-8", "replace")) > MAX_MESSAGE_BYTES
        ):
            return OversizeMessage()
        try:
            return twilio.parse(text)
        except MalformedMessage as error:
            return BadMessage("caller", error.kind)
