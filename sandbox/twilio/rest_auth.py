"""The door of the stand-in for Twilio's REST API: who comes in, how errors and pages look, and the faults.

Every request comes through here: its form is read, the dials have their way, the account is checked, and
what a handler refuses leaves in Twilio's shape.
"""

import asyncio
import base64
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web

from sandbox.twilio.resources import Asked

if TYPE_CHECKING:
    from sandbox.twilio.rest_server import CarrierApi

MAX_PAGE = 1000
MESSAGES = {
    401: (20003, "Authenticate"),
    403: (20003, "Account is not active"),
    404: (20404, "The requested resource was not found"),
    429: (20429, "Too Many Requests"),
    500: (20500, "Internal Server Error"),
    503: (20503, "Service unavailable"),
}

Form = Mapping[str, str]
Handler = Callable[[web.Request, Form], Awaitable[web.Response]]


class Refused(Exception):
    """Answered with an error: HTTP status, Twilio's code, and its sentence."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Door:
    def __init__(self, api: "CarrierApi") -> None:
        self._api = api
        self._faulted = 0  # requests that met a fault

    def through(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            form = {str(name): str(value) for name, value in (await request.post()).items()}
            response = await self._answered(request, form, handler)
            self._api.asked.append(Asked(request.method, request.path, form, response.status))
            self._api.note(request.path, f"< {request.method} {response.status}")
            return response

        return handle

    async def _answered(self, request: web.Request, form: Form, handler: Handler) -> web.StreamResponse:
        dials = self._api.dials
        faulty = dials.rest_only in request.path
        if faulty and dials.rest_failures is not None:
            self._faulted += 1
            faulty = self._faulted <= dials.rest_failures
        if faulty:
            await asyncio.sleep(dials.rest_delay_s)
            if dials.rest_hang:
                await self._api.stopping.wait()
            if dials.rest_status:
                code, message = MESSAGES.get(dials.rest_status, (20001, "the stand-in was told to fail"))
                return error(dials.rest_status, code, message)
            if dials.rest_garbage:
                return web.Response(text="<html><body>Bad gateway</body></html>", content_type="text/html")
        try:
            self._let_in(request)
            response = await handler(request, form)
        except Refused as refused:
            return error(refused.status, refused.code, str(refused))
        return await _cut(request, response) if faulty and dials.rest_cut else response

    def _let_in(self, request: web.Request) -> None:
        account = self._api.account
        if not is_right(request, account.sid, account.token):
            raise Refused(401, 20003, "Authenticate")
        if request.match_info.get("account", account.sid) != account.sid:
            raise not_found(request)
        if account.status != "active" and request.method != "GET":
            raise Refused(403, 20005, "Account is not active")


def is_right(request: web.Request, sid: str, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    right = base64.b64encode(f"{sid}:{token}".encode())
    same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), right)
    return same and scheme.lower() == "basic"


def page(request: web.Request, key: str, found: list[dict[str, Any]]) -> web.Response:
    """One page and the way to the next, as a path with query."""
    try:
        size = min(max(int(request.query.get("PageSize", "50")), 1), MAX_PAGE)
        number = max(int(request.query.get("Page", "0")), 0)
    except ValueError:
        raise Refused(400, 20001, "Page and PageSize are numbers") from None
    shown = found[number * size : (number + 1) * size]
    kept = {name: value for name, value in request.query.items() if name not in ("Page", "PageToken")}

    def at(page: int) -> str:
        token = {"PageToken": f"PA{page}"} if page else {}
        return f"{request.path}?{urlencode(kept | {'PageSize': str(size), 'Page': str(page)} | token)}"

    return web.json_response(
        {
            key: shown,
            "page": number,
            "page_size": size,
            "start": number * size,
            "end": number * size + max(len(shown) - 1, 0),
            "uri": at(number),
            "first_page_uri": at(0),
            "previous_page_uri": at(number - 1) if number else None,
            "next_page_uri": at(number + 1) if (number + 1) * size < len(found) else None,
        }
    )


def not_found(request: web.Request) -> Refused:
    return Refused(404, 20404, f"The requested resource {request.path} was not found")


def error(status: int, code: int, message: str) -> web.Response:
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    shown = {"code": code, "message": message, "more_info": more_info, "status": status}
    headers = {"Retry-After": "1"} if status == 429 else None
    return web.json_response(shown, status=status, headers=headers)


async def _cut(request: web.Request, whole: web.Response) -> web.StreamResponse:
    """The request was obeyed, and half of the answer gets through."""
    body = whole.body if isinstance(whole.body, bytes) else b""
    response = web.StreamResponse(status=whole.status, headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.abort()
    return response
