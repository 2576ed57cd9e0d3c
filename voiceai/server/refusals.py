"""Counts refused requests, and logs each reason at most once a second, with the count."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

logger = logging.getLogger(__name__)

LOG_INTERVAL_SECONDS = 1.0


class Refusals:
    """The refusals of one server process. Reasons are fixed texts: nothing of a request is logged."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()  # since the process started, by reason
        self._unlogged: Counter[str] = Counter()

    def count(self, reason: str) -> None:
        """Count one. Call it on the server's event loop."""
        self.total[reason] += 1
        if not self._unlogged:
            asyncio.get_running_loop().call_later(LOG_INTERVAL_SECONDS, self.log)
        self._unlogged[reason] += 1

    def log(self) -> None:
        """Log what was counted since the last time."""
        for reason, count in self._unlogged.items():
            logger.warning("refused or closed, %d time%s: %s", count, "" if count == 1 else "s", reason)
        self._unlogged.clear()


refusals = Refusals()


async def refuse_socket(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The ASGI application of paths without a websocket: HTTP 403."""
    if (await receive())["type"] == "websocket.connect":
        refusals.count("no websocket at this path")
        await send({"type": "websocket.close"})
