"""Limits the body of every HTTP request: its size by path, and the time that it may take.

A larger body is refused as soon as that is known: by its Content-Length before anything is read, otherwise
after the limit. The connection is closed, so that the rest is not read either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from calls.webhook_auth import MAX_VAPI_BODY_BYTES
from voiceai.server.refusals import Refusals, refusals

KIB, MIB = 1 << 10, 1 << 20
# By the start of the path. Twilio sends a few hundred bytes; Vapi's report has the transcript several times.
MAX_BODY_BYTES = {"/twilio/": 64 * KIB, "/vapi/": MAX_VAPI_BODY_BYTES}
MAX_OTHER_BODY_BYTES = 2 * MIB
BODY_TIMEOUT_SECONDS = 10.0
MAX_LENGTH_DIGITS = 20  # more than any body that fits

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class BodyRefused(Exception):
    """The body is too large or too late. The message is a sentence for the sender."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def find_max_body_bytes(path: str) -> int:
    """The largest body that a path takes."""
    return next(
        (limit for start, limit in MAX_BODY_BYTES.items() if path.startswith(start)), MAX_OTHER_BODY_BYTES
    )


def find_content_length(headers: list[tuple[bytes, bytes]]) -> int | None:
    """The Content-Length header; None if there is none. Raises `BodyRefused` for one that is no number."""
    values = {value.strip() for name, value in headers if name.lower() == b"content-length"}
    if not values:
        return None
    if len(values) > 1 or not (value := values.pop()).isdigit():
        raise BodyRefused(400, "The Content-Length header is not valid.")
    return int(value.lstrip(b"0")[:MAX_LENGTH_DIGITS] or b"0")  # Python refuses thousands of digits


class BodyLimit:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, *, counter: Refusals = refusals) -> None:
        self._app = app
        self._refusals = counter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = find_max_body_bytes(scope["path"])
        has_responded = False

        async def note_response(message: Mapping[str, Any]) -> None:
            nonlocal has_responded
            has_responded = True
            await send(message)

        try:
            if (find_content_length(scope["headers"]) or 0) > limit:
                raise too_large(limit)
            await self._app(scope, _limit_body(receive, limit), note_response)
        except BodyRefused as error:
            self._refusals.count(str(error))
            if not has_responded:
                await _respond(send, error.status, str(error))


def _limit_body(receive: Receive, limit: int) -> Receive:
    """The `receive` of a request, which raises `BodyRefused` when the body exceeds a limit."""
    received, is_complete = 0, False
    deadline = asyncio.get_running_loop().time() + BODY_TIMEOUT_SECONDS

    async def receive_limited() -> Mapping[str, Any]:
        nonlocal received, is_complete
        if is_complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise BodyRefused(408, f"The body did not arrive within {BODY_TIMEOUT_SECONDS:.0f} s.") from None
        received += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        if received > limit:
            raise too_large(limit)
        return message

    return receive_limited


def too_large(limit: int) -> BodyRefused:
    size = f"{limit // MIB} MB" if limit >= MIB else f"{limit // KIB} KB"
    return BodyRefused(413, f"The body is larger than {size}.")


async def _respond(send: Send, status: int, sentence: str) -> None:
    body = f"{sentence}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
