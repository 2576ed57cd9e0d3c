"""Common parts of all REST requests to the Twilio simulator: faults, authentication, errors, paging.

For every request: parse the form, apply the faults, check the account, call the handler, and turn a
`RestError` into Twilio's error format.
"""

import asyncio
import base64
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from sandbox.twilio.rest.account_state import AccountState
from sandbox.twilio.rest.resources import ReceivedRequest

MAX_PAGE_SIZE = 1000
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


class RestError(Exception):
    """An error response: HTTP status, Twilio's error code and message."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class RestMiddleware:
    def __init__(self, state: AccountState) -> None:
        self._state = state
        self._fault_count = 0  # requests to which the faults applied

    def wrap(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            form = {str(name): str(value) for name, value in (await request.post()).items()}
            response = await self._respond(request, form, handler)
            received = ReceivedRequest(request.method, request.path, form, response.status)
            self._state.received_requests.append(received)
            self._state.emit(request.path, f"< {request.method} {response.status}")
            return response

        return handle

    async def _respond(self, request: web.Request, form: Form, handler: Handler) -> web.StreamResponse:
        faults = self._state.faults
        is_faulty = faults.rest_path_contains in request.path
        if is_faulty and faults.rest_failures is not None:
            self._fault_count += 1
            is_faulty = self._fault_count <= faults.rest_failures
        if is_faulty:
            await asyncio.sleep(faults.rest_delay_seconds)
            if faults.rest_hang:
                await self._state.stopping.wait()
            if faults.rest_status:
                code, message = MESSAGES.get(faults.rest_status, (20001, "simulated fault"))
                return error_response(faults.rest_status, code, message)
            if faults.rest_html:
                return web.Response(text="<html><body>Bad gateway</body></html>", content_type="text/html")
        try:
            self._authenticate(request)
            response = await handler(request, form)
        except RestError as error:
            return error_response(error.status, error.code, str(error))
        return await _truncate(request, response) if is_faulty and faults.rest_truncate else response

    def _authenticate(self, request: web.Request) -> None:
        account = self._state.account
        if not has_valid_credentials(request, account.sid, account.token):
            raise RestError(401, 20003, "Authenticate")
        if request.match_info.get("account", account.sid) != account.sid:
            raise not_found(request)
        if account.status != "active" and request.method != "GET":
            raise RestError(403, 20005, "Account is not active")


def has_valid_credentials(request: web.Request, sid: str, token: str) -> bool:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    expected = base64.b64encode(f"{sid}:{token}".encode())
    is_equal = hmac.compare_digest(credentials.strip().encode("utf-8", "surrogateescape"), expected)
    return is_equal and scheme.lower() == "basic"


def list_response(request: web.Request, key: str, resources: list[dict[str, Any]]) -> web.Response:
    """One page of a list, with the URIs of the other pages as paths with a query."""
    try:
        size = min(max(int(request.query.get("PageSize", "50")), 1), MAX_PAGE_SIZE)
        number = max(int(request.query.get("Page", "0")), 0)
    except ValueError:
        raise RestError(400, 20001, "Page and PageSize must be numbers") from None
    page = resources[number * size : (number + 1) * size]
    filters = {name: value for name, value in request.query.items() if name not in ("Page", "PageToken")}

    def page_uri(page_number: int) -> str:
        token = {"PageToken": f"PA{page_number}"} if page_number else {}
        query = filters | {"PageSize": str(size), "Page": str(page_number)} | token
        return f"{request.path}?{urlencode(query)}"

    return web.json_response(
        {
            key: page,
            "page": number,
            "page_size": size,
            "start": number * size,
            "end": number * size + max(len(page) - 1, 0),
            "uri": page_uri(number),
            "first_page_uri": page_uri(0),
            "previous_page_uri": page_uri(number - 1) if number else None,
            "next_page_uri": page_uri(number + 1) if (number + 1) * size < len(resources) else None,
        }
    )


def not_found(request: web.Request) -> RestError:
    return RestError(404, 20404, f"The requested resource {request.path} was not found")


def error_response(status: int, code: int, message: str) -> web.Response:
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    body = {"code": code, "message": message, "more_info": more_info, "status": status}
    headers = {"Retry-After": "1"} if status == 429 else None
    return web.json_response(body, status=status, headers=headers)


async def _truncate(request: web.Request, complete: web.Response) -> web.StreamResponse:
    """The request was processed, but only half of the response is sent."""
    body = complete.body if isinstance(complete.body, bytes) else b""
    response = web.StreamResponse(status=complete.status, headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.abort()
    return response
