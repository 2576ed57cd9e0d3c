"""The shared objects of one server process, which views and consumers read from `scope["bridge"]`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.admission import Admission
from bridge.call_cache import CallCache
from bridge.config import BridgeConfig
from bridge.journal import Journal

logger = logging.getLogger(__name__)


def log_refusal(reason: str) -> None:
    logger.warning("refused: %s", reason)


@dataclass(frozen=True, slots=True)
class BridgeContext:
    """Settings, admission, journal and call cache of one server process."""

    config: BridgeConfig
    admission: Admission
    journal: Journal
    call_cache: CallCache
    # Strangers can open many sockets at once. Each handshake waits for its turn.
    handshake_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    # Called with a fixed text for each media socket that is refused.
    on_refused: Callable[[str], object] = log_refusal
    # One for each media stream of this process: ends its call, because the server stops.
    end_calls: set[Callable[[], None]] = field(default_factory=set)


def context_of(scope: Mapping[str, Any]) -> BridgeContext:
    """The context in an ASGI scope."""
    context = scope["bridge"]
    assert isinstance(context, BridgeContext)
    return context
