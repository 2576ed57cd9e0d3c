"""The HTML that `/live` sends, rendered from the database on two threads of its own.

Sockets with the same content and the same permissions share one rendering.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import connections
from django.utils import timezone

from calls.middleware import find_zone
from calls.models import Call
from calls.staff.call_detail import render_call
from calls.staff.live.board import render_board
from calls.viewer import Viewer

QUERY_TIMEOUT_SECONDS = 5.0
MAX_CACHED = 32

_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="live-rows")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a socket shows and to whom. Equal subscriptions get the same HTML."""

    viewer: Viewer
    zone: str  # the time zone cookie
    call_sid: str  # empty: the board


class FragmentCache:
    """The latest rendering of each subscription."""

    def __init__(self) -> None:
        self._cached: OrderedDict[Subscription, tuple[float, str]] = OrderedDict()

    def render(self, subscription: Subscription, not_before: float) -> str | None:
        """HTML read from the database at `not_before` (monotonic) or later; None if the call is gone."""
        rendered_at, html = self._cached.get(subscription, (0.0, ""))
        if html and rendered_at >= not_before:
            return html
        rendered_at = time.monotonic()
        with timezone.override(find_zone(subscription.zone)):
            if not subscription.call_sid:
                html = render_board(subscription.viewer)
            else:
                call = Call.objects.filter(call_sid=subscription.call_sid).first()
                if call is None:
                    return None
                html = render_call(call, subscription.viewer)
        self._cached[subscription] = rendered_at, html
        while len(self._cached) > MAX_CACHED:
            self._cached.popitem(last=False)
        return html


fragment_cache = FragmentCache()


async def run_on_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Run database work on a thread of this module. TimeoutError after `QUERY_TIMEOUT_SECONDS`."""

    def work_and_close() -> T:
        try:
            return work(*arguments)
        finally:
            connections.close_all()

    async with asyncio.timeout(QUERY_TIMEOUT_SECONDS):
        return await asyncio.get_running_loop().run_in_executor(_threads, work_and_close)
