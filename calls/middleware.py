"""Middleware: the bypass for webhooks, the viewer's time zone, and static files."""

from __future__ import annotations

import zoneinfo
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, cast
from urllib.parse import unquote

from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve
from django.utils import timezone
from whitenoise.middleware import WhiteNoiseMiddleware

AsyncResponse = Awaitable[HttpResponseBase]


# The start of each path that is answered without a session: webhooks, probes, and what the doctor asks for.
WEBHOOK_PATHS = ("/twilio/", "/vapi/", "/healthz", "/readyz", "/doctor/echo")


class WebhookBypassMiddleware:
    """Sends webhooks and health probes straight to their async views, past all other middleware.

    Some of that middleware is synchronous and runs on a thread, where it may wait behind a slow query while
    the caller hears silence. These requests need none of it: a webhook is authenticated by a signature over
    PUBLIC_URL, or by a secret, whatever its Host header is, and has neither session nor CSRF token. It is
    never redirected.
    """

    # Deliberately not sync-capable: Django runs sync-capable middleware on the thread of the synchronous
    # middleware below it.
    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], AsyncResponse]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> AsyncResponse:
        if request.path_info.startswith(WEBHOOK_PATHS):
            return self.call_view(request)
        return self.get_response(request)

    async def call_view(self, request: HttpRequest) -> HttpResponseBase:
        try:
            match = resolve(request.path_info)
        except Resolver404:
            return HttpResponseNotFound("not found\n", content_type="text/plain")
        request.resolver_match = match
        response = await cast(AsyncResponse, match.func(request, *match.args, **match.kwargs))
        # Rejections are logged with their reason where they are made. Django would log a second line, and an
        # error for each readiness probe while the server is shutting down.
        response._has_been_logged = True  # type: ignore[attr-defined]
        return response


ZONE_COOKIE = "tz"  # set by page.js


class ViewerTimeZone:
    """Shows times in the viewer's time zone, from a cookie that the browser sets; without it, in UTC."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        zone = find_zone(request.COOKIES.get(ZONE_COOKIE, ""))
        if zone is None:
            return self.get_response(request)
        with timezone.override(zone):
            return self.get_response(request)


def find_zone(cookie: str) -> zoneinfo.ZoneInfo | None:
    """The zone that the cookie names; None if there is no such zone."""
    name = unquote(cookie)[:64]
    try:
        # Compared with the list of names first, because ZoneInfo would open the name as a path.
        return zoneinfo.ZoneInfo(name) if name in _zones() else None
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return None


@cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


class StaticFiles(WhiteNoiseMiddleware):  # type: ignore[misc]
    """WhiteNoise, with the file in one piece: under ASGI its iterator makes Django warn for every file."""

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponse:
        file_response = static_file.get_response(request.method, request.META)
        content = b""
        if file_response.file is not None:
            with file_response.file:
                content = file_response.file.read()
        response = HttpResponse(content, status=int(file_response.status))
        del response["Content-Type"]
        for name, value in file_response.headers:
            response[name] = value
        return response
