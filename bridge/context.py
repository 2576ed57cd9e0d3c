"""The shared objects of one server process, which views and consumers read from `scope["bridge"]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.admission import Admission
from bridge.config import BridgeConfig
from bridge.end_reason_cache import EndReasonCache
from bridge.journal import Journal


@dataclass(frozen=True, slots=True)
class BridgeContext:
    """Settings, admission, journal and end reasons of one server process."""

    config: BridgeConfig
    admission: Admission
    journal: Journal
    end_reasons: EndReasonCache
    # One for each media stream of this process: ends its call, because the server stops.
    end_calls: set[Callable[[], None]] = field(default_factory=set)


def context_of(scope: Mapping[str, Any]) -> BridgeContext:
    """The context in an ASGI scope."""
    context = scope["bridge"]
    assert isinstance(context, BridgeContext)
    return context
