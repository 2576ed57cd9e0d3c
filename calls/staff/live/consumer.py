"""The websocket `/live`: pushes the HTML of live calls to a page whenever it changes.

Without a query it sends the board, with `?call=<id>` the body of that call's page. It is for staff who may
view calls, and for our own pages only; anyone else is rejected before the socket opens. Permissions are
checked again while the socket is open: logging out, or losing the permission, closes it.

The consumer has its own receive loop. Channels' dispatch would hop to the one thread that all consumers
share before every message. Here rows are read on two separate threads (`fragments.py`), so a slow query
delays other pages for a moment and calls not at all. Messages from the page are ignored. A page gets two
updates a second at most, and fewer when rendering is slow. Daphne's pings close a socket that stops
reading. If the channel layer fails, the socket is closed and the page falls back to polling.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, urlsplit

from channels.consumer import AsyncConsumer
from channels.layers import get_channel_layer
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import DatabaseError
from django.http import HttpRequest
from django.http.request import split_domain_port, validate_host
from redis.exceptions import RedisError

from calls.middleware import ZONE_COOKIE
from calls.models import Call
from calls.staff import audit
from calls.staff.live.fragments import Subscription, fragment_cache, run_on_thread
from calls.staff.live.publisher import GROUP
from calls.viewer import Viewer

logger = logging.getLogger(__name__)

MIN_INTERVAL_SECONDS = 0.5  # between two updates
PAUSE_FACTOR = 4  # pause this many times the rendering time: one fifth of the time at most is rendering
REFRESH_SECONDS = 5.0  # without any notification; pages that poll use the same interval
RECHECK_SECONDS = 20.0  # of permissions
LAYER_TIMEOUT_SECONDS = 1.0
MAX_SUBSCRIBERS = 100  # in this process

CLOSE_FORBIDDEN = 4401  # logged out, not permitted, or the call was deleted: the page must not reconnect
CLOSE_TRY_LATER = 4013

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class LiveConsumer(AsyncConsumer):
    """The socket of one page."""

    subscribers = 0  # open sockets in this process

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        session_key = scope["cookies"].get(settings.SESSION_COOKIE_NAME, "")
        LiveConsumer.subscribers += 1
        try:
            subscription = await self._admit(scope, session_key)
            if subscription is None:
                await send({"type": "websocket.close"})  # before accept: HTTP 403
                return
            await send({"type": "websocket.accept"})
            await self._serve(subscription, session_key, receive, send)
        finally:
            LiveConsumer.subscribers -= 1

    async def _admit(self, scope: dict[str, Any], session_key: str) -> Subscription | None:
        """What this socket may show, or None to reject it."""
        if LiveConsumer.subscribers > MAX_SUBSCRIBERS or not session_key or not _has_allowed_origin(scope):
            return None
        call_id = parse_qs(scope["query_string"].decode("ascii", "replace")).get("call", [""])[0]
        zone = scope["cookies"].get(ZONE_COOKIE, "")
        try:
            return await run_on_thread(_authorize, session_key, zone, call_id)
        except Exception as error:  # whatever the database raises
            logger.warning("live: user lookup failed: %s", type(error).__name__)
            return None

    async def _serve(
        self,
        subscription: Subscription,
        session_key: str,
        receive: Receive,
        send: Send,
    ) -> None:
        """Until the page disconnects, loses its permission, or cannot be updated."""
        changed = asyncio.Event()
        changed.set()
        layer = get_channel_layer()
        disconnect = asyncio.create_task(_wait_for_disconnect(receive))
        updates = asyncio.create_task(_send_updates(subscription, session_key, send, changed))
        notifications = asyncio.create_task(_listen(layer, subscription.call_sid, changed))
        tasks = (disconnect, updates, notifications)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                # Includes TimeoutError, which is an OSError.
                is_expected = isinstance(result, OSError | DatabaseError | RedisError)
                logger.warning(
                    "live: socket closed: %s",
                    type(result).__name__,
                    exc_info=None if is_expected else result,
                )
        if results[0] is not None:  # it was not the page that disconnected
            code = CLOSE_FORBIDDEN if results[1] == CLOSE_FORBIDDEN else CLOSE_TRY_LATER
            with contextlib.suppress(Exception):  # the page may have disconnected by now
                await send({"type": "websocket.close", "code": code})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _listen(layer: Any, call_sid: str, changed: asyncio.Event) -> None:
    """Set `changed` on each notification for this page. Returns or raises when the channel layer fails."""
    async with asyncio.timeout(LAYER_TIMEOUT_SECONDS):
        channel = await layer.new_channel()
        await layer.group_add(GROUP, channel)
    receiving = asyncio.create_task(_receive_changes(layer, channel, call_sid, changed))
    try:
        while True:
            done, _ = await asyncio.wait({receiving}, timeout=REFRESH_SECONDS)
            if done:
                return await receiving
            # Checks that the layer still responds, and renews the group membership.
            async with asyncio.timeout(LAYER_TIMEOUT_SECONDS):
                await layer.group_add(GROUP, channel)
    finally:
        receiving.cancel()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(LAYER_TIMEOUT_SECONDS):
                await layer.group_discard(GROUP, channel)


async def _receive_changes(layer: Any, channel: str, call_sid: str, changed: asyncio.Event) -> None:
    while True:
        call_sids = (await layer.receive(channel))["calls"]  # empty: any call
        if not call_sids or not call_sid or call_sid in call_sids:
            changed.set()


async def _send_updates(
    subscription: Subscription,
    session_key: str,
    send: Send,
    changed: asyncio.Event,
) -> int:
    """Send HTML on each change and at least every `REFRESH_SECONDS`. Returns a close code."""
    recheck_at = time.monotonic() + RECHECK_SECONDS
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REFRESH_SECONDS):
                await changed.wait()
        changed.clear()
        started_at = time.monotonic()
        if started_at >= recheck_at:
            viewer = await run_on_thread(_viewer_of, session_key)
            if not viewer.can_view_calls:
                return CLOSE_FORBIDDEN
            subscription = replace(subscription, viewer=viewer)
            recheck_at = started_at + RECHECK_SECONDS
        html = await run_on_thread(fragment_cache.render, subscription, started_at)
        if html is None:
            return CLOSE_FORBIDDEN  # the call has been deleted
        await send({"type": "websocket.send", "text": html})
        await asyncio.sleep(max(MIN_INTERVAL_SECONDS, PAUSE_FACTOR * (time.monotonic() - started_at)))


# Database work, on the threads of `fragments.py`


def _authorize(session_key: str, zone: str, call_id: str) -> Subscription | None:
    """The subscription that the session's user may have, or None."""
    user = _user_of(session_key)
    viewer = Viewer.for_user(user)
    if not viewer.can_view_calls:
        return None
    if not call_id:
        return Subscription(viewer, zone, "")
    if not re.fullmatch("[0-9]{1,18}", call_id):
        return None
    call = Call.objects.filter(pk=int(call_id)).first()
    if call is None:
        return None
    audit.record_opened(user, call)
    return Subscription(viewer, zone, call.call_sid)


def _viewer_of(session_key: str) -> Viewer:
    """What the session's user may see and do now."""
    return Viewer.for_user(_user_of(session_key))


def _user_of(session_key: str) -> AbstractBaseUser | AnonymousUser:
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    return auth.get_user(request)


def _has_allowed_origin(scope: Mapping[str, Any]) -> bool:
    """Whether one of our own pages opens the socket. Browsers send cookies along for any page."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    host = headers.get(b"host", b"").decode("latin-1").lower()
    is_same_host = bool(parts.netloc) and parts.netloc == host
    is_secure = parts.scheme == "https" or not settings.SESSION_COOKIE_SECURE
    return is_same_host and is_secure and validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS)
