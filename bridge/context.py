"""What `voiceai/asgi.py` hands to every view and consumer, as `scope["bridge"]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.admission import Admission
from bridge.config import BridgeConfig
from bridge.end_reason_cache import KnownEnds
from bridge.journal import Journal


@dataclass(frozen=True, slots=True)
class BridgeContext:
    """One server process: its settings, its door, its journal, and how its calls ended."""

    config: BridgeConfig
    admission: Admission
    journal: Journal
    endings: KnownEnds


def context_of(scope: Mapping[str, Any]) -> BridgeContext:
    context = scope["bridge"]
    assert isinstance(context, BridgeContext)
    return context
