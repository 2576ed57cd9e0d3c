"""What every HTTP request passes first."""

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

Answer = Awaitable[HttpResponseBase]


class WebhookBypassMiddleware:
    """Twilio, Vapi and health probes go straight to their async view, past all other middleware.

    Some of that middleware is synchronous and hops to a thread, where a slow query may stand in the
    way; a caller waits in silence meanwhile. Nothing there is of use to these requests: a webhook is
    authenticated by a signature over PUBLIC_URL, or by a secret, whatever the Host header says, and it
    has no session and no CSRF token. It is never redirected.
    """

    # Not sync-capable, on purpose: Django runs whatever can be synchronous on the thread of the
    # synchronous middleware below it.
    sync_capable = False
    async_capable = True

    PREFIXES = ("/twilio/", "/vapi/", "/healthz", "/readyz", "/doctor/")

    def __init__(self, get_response: Callable[[HttpRequest], Answer]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Answer:
        if request.path_info.startswith(self.PREFIXES):
            return self.straight_to_view(request)
        return self.get_response(request)

    async def straight_to_view(self, request: HttpRequest) -> HttpResponseBase:
        try:
            match = resolve(request.path_info)
        except Resolver404:
            return HttpResponseNotFound("not found\n", content_type="text/plain")
        request.resolver_match = match
        response = await cast(Answer, match.func(request, *match.args, **match.kwargs))
        # Refusals are logged, with their reason, where they are made; Django would add a second line,
        # and an error for every probe of a server that drains.
        response._has_been_logged = True  # type: ignore[attr-defined]
        return response


ZONE_COOKIE = "tz"  # set by page.js


class ViewerTimeZone:
    """Pages speak in their reader's time zone, which the browser tells in a cookie; without it, in UTC."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        zone = zone_of(request.COOKIES.get(ZONE_COOKIE, ""))
        if zone is None:
            return self.get_response(request)
        with timezone.override(zone):
            return self.get_response(request)


def zone_of(cookie: str) -> zoneinfo.ZoneInfo | None:
    """The zone of that name; None for what is no zone's name, however it is spelled."""
    name = unquote(cookie)[:64]
    try:
        # Read from a list of names: what is typed never becomes a path.
        return zoneinfo.ZoneInfo(name) if name in _zones() else None
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return None


@cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


class StaticFiles(WhiteNoiseMiddleware):  # type: ignore[misc]
    """WhiteNoise, answering in one piece: under ASGI its file iterator makes Django warn at every file."""

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponse:
        found = static_file.get_response(request.method, request.META)
        content = b""
        if found.file is not None:
            with found.file:
                content = found.file.read()
        response = HttpResponse(content, status=int(found.status))
        del response["Content-Type"]
        for name, value in found.headers:
            response[name] = value
        return response
