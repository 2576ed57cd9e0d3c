"""`/live`: a page that watches, told what is new as HTML; and the same HTML for pages that poll.

Without a query the board, with `?call=<id>` the growing part of that call's page. For staff who may see
calls, from our own pages only; anybody else is turned away before the socket opens. Who watches is asked
again while they watch, and a session that ended, or a permission that was taken, ends the socket.

The consumer has a receive loop of its own. Channels' dispatch hops to the one thread that all consumers
share before every message; here rows are read on two threads of our own, so that a slow query holds up
other watchers for a moment and calls not at all. What watchers send is ignored. A watcher is told twice a
second at most, and less often where the telling is expensive; Daphne's pings end a socket that takes
nothing in. If the channel layer does not answer, the socket is closed: the page polls, and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from channels.consumer import AsyncConsumer
from channels.layers import get_channel_layer
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse
from django.http.request import split_domain_port, validate_host
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.utils import timezone
from django.views.decorators.http import require_safe
from redis.exceptions import RedisError

from bridge.context import BridgeContext
from calls.middleware import ZONE_COOKIE, zone_of
from calls.models import Call
from calls.staff import audit
from calls.staff.call_detail import call_page
from calls.staff.live.board import board_html, get_bridge
from calls.staff.live.publisher import GROUP
from calls.staff.pages import staff_page
from calls.viewer import Viewer

log = logging.getLogger(__name__)

APART_SECONDS = 0.5
SHARE = 4  # rendering takes no more than this part of the time: one in five
LOOK_SECONDS = 5.0  # without any news: pages poll as often
RECHECK_SECONDS = 20.0
LAYER_SECONDS = 1.0
ROWS_SECONDS = 5.0
MAX_WATCHERS = 100  # in this process
MAX_KEPT = 32

NO_MORE = 4401  # logged out, or not allowed any more: coming back makes no sense
TRY_LATER = 4013

_readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="live-rows")

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Watched:
    """What is shown, and to whom: equal ones see the same."""

    viewer: Viewer
    zone: str
    call_sid: str  # empty: the board


@staff_page
@require_safe
def live_board(request: HttpRequest) -> HttpResponse:
    """For a page whose socket is down."""
    return HttpResponse(board_html(Viewer.of(request.user), get_bridge(request)))


@staff_page
@require_safe
def live_call(request: HttpRequest, call_id: int) -> HttpResponse:
    call = get_object_or_404(Call, pk=call_id)
    audit.opened(request.user, call)
    return HttpResponse(call_html(call, Viewer.of(request.user)))


def call_html(call: Call, viewer: Viewer) -> str:
    return render_to_string("calls/_call_body.html", call_page(call, viewer))


class LiveConsumer(AsyncConsumer):
    """One page that watches."""

    watchers = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        session_key = scope["cookies"].get(settings.SESSION_COOKIE_NAME, "")
        LiveConsumer.watchers += 1
        try:
            watched = await self._admit(scope, session_key)
            if watched is None:
                await send({"type": "websocket.close"})  # before accept: HTTP 403
                return
            await send({"type": "websocket.accept"})
            await self._watch(watched, scope.get("bridge"), session_key, receive, send)
        finally:
            LiveConsumer.watchers -= 1

    async def _admit(self, scope: dict[str, Any], session_key: str) -> Watched | None:
        if LiveConsumer.watchers > MAX_WATCHERS or not session_key or not _is_ours(scope):
            return None
        asked = parse_qs(scope["query_string"].decode("ascii", "replace")).get("call", [""])[0]
        zone = scope["cookies"].get(ZONE_COOKIE, "")
        try:
            return await _on_thread(_watched, session_key, zone, asked)
        except Exception as error:  # whatever the database raises
            log.warning("live: nobody could be asked who watches: %s", type(error).__name__)
            return None

    async def _watch(
        self,
        watched: Watched,
        bridge: BridgeContext | None,
        session_key: str,
        receive: Receive,
        send: Send,
    ) -> None:
        """Until the page is gone, may not look any more, or cannot be told."""
        news = asyncio.Event()
        news.set()
        layer = get_channel_layer()
        gone = asyncio.create_task(_until_gone(receive))
        telling = asyncio.create_task(_tell(watched, bridge, session_key, send, news))
        hearing = asyncio.create_task(_hear(layer, watched.call_sid, news))
        tasks = (gone, telling, hearing)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                bug = not isinstance(end, OSError | DatabaseError | RedisError)  # a TimeoutError is the first
                log.warning(
                    "live: a watcher is sent away: %s", type(end).__name__, exc_info=end if bug else None
                )
        if ends[0] is not None:  # it was not the page that left
            with contextlib.suppress(Exception):  # it may have left by now
                await send({"type": "websocket.close", "code": ends[1] if ends[1] == NO_MORE else TRY_LATER})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _hear(layer: Any, call_sid: str, news: asyncio.Event) -> None:
    """Ends when the channel layer does."""
    async with asyncio.timeout(LAYER_SECONDS):
        channel = await layer.new_channel()
        await layer.group_add(GROUP, channel)
    hearing = asyncio.create_task(_take_notice(layer, channel, call_sid, news))
    try:
        while True:
            done, _ = await asyncio.wait({hearing}, timeout=LOOK_SECONDS)
            if done:
                return await hearing
            # Whether the layer still answers, and our place in the group anew.
            async with asyncio.timeout(LAYER_SECONDS):
                await layer.group_add(GROUP, channel)
    finally:
        hearing.cancel()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(LAYER_SECONDS):
                await layer.group_discard(GROUP, channel)


async def _take_notice(layer: Any, channel: str, call_sid: str, news: asyncio.Event) -> None:
    while True:
        named = (await layer.receive(channel))["calls"]
        if not named or not call_sid or call_sid in named:
            news.set()


async def _tell(
    watched: Watched, bridge: BridgeContext | None, session_key: str, send: Send, news: asyncio.Event
) -> int:
    """Ends with a close code."""
    recheck_at = time.monotonic() + RECHECK_SECONDS
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await news.wait()
        news.clear()
        began_at = time.monotonic()
        if began_at >= recheck_at:
            viewer = await _on_thread(_viewer_of, session_key)
            if not viewer.sees_calls:
                return NO_MORE
            watched = replace(watched, viewer=viewer)
            recheck_at = began_at + RECHECK_SECONDS
        html = await _on_thread(_fragments.of, watched, bridge, began_at)
        if html is None:
            return NO_MORE  # the call's row is gone
        await send({"type": "websocket.send", "text": html})
        await asyncio.sleep(max(APART_SECONDS, SHARE * (time.monotonic() - began_at)))


# On threads of our own


class Fragments:
    """What was rendered last: those who ask for the same at the same time need it once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Watched, tuple[float, str]] = OrderedDict()

    def of(self, watched: Watched, bridge: BridgeContext | None, not_before: float) -> str | None:
        """HTML read from rows at `not_before` or later; None when there is no such call."""
        began_at, html = self._kept.get(watched, (0.0, ""))
        if html and began_at >= not_before:
            return html
        began_at = time.monotonic()
        with timezone.override(zone_of(watched.zone)):
            if not watched.call_sid:
                html = board_html(watched.viewer, bridge)
            else:
                call = Call.objects.filter(call_sid=watched.call_sid).first()
                if call is None:
                    return None
                html = call_html(call, watched.viewer)
        self._kept[watched] = began_at, html
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return html


_fragments = Fragments()


async def _on_thread(work: Callable[..., T], *arguments: Any) -> T:
    def done() -> T:
        try:
            return work(*arguments)
        finally:
            connections.close_all()

    async with asyncio.timeout(ROWS_SECONDS):
        return await asyncio.get_running_loop().run_in_executor(_readers, done)


def _viewer_of(session_key: str) -> Viewer:
    """What the session's user may see and do at this moment."""
    return Viewer.of(_user_of(session_key))


def _user_of(session_key: str) -> AbstractBaseUser | AnonymousUser:
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    return auth.get_user(request)


def _watched(session_key: str, zone: str, asked: str) -> Watched | None:
    user = _user_of(session_key)
    viewer = Viewer.of(user)
    if not viewer.sees_calls:
        return None
    if not asked:
        return Watched(viewer, zone, "")
    if not re.fullmatch("[0-9]{1,18}", asked):
        return None
    call = Call.objects.filter(pk=int(asked)).first()
    if call is None:
        return None
    audit.opened(user, call)
    return Watched(viewer, zone, call.call_sid)


def _is_ours(scope: Mapping[str, Any]) -> bool:
    """Whether a page of ours opens this socket: a browser sends its cookies along for any page."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    host = headers.get(b"host", b"").decode("latin-1").lower()
    same = bool(parts.netloc) and parts.netloc == host
    secure = parts.scheme == "https" or not settings.SESSION_COOKIE_SECURE
    return same and secure and validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS)
