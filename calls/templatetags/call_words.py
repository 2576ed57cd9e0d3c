"""How times, numbers and event data are written on pages."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django import template

from calls.masking import mask_number

register = template.Library()

MAX_DATA = 400


@register.filter
def seconds(ms: int | None) -> str:
    """`940` -> `0.94 s`; a dash where nothing was measured."""
    return "–" if ms is None else f"{ms / 1000:.2f} s"


@register.filter
def clock(ms: int | None) -> str:
    """`65200` -> `1:05.2`, milliseconds into the stream."""
    if ms is None:
        return ""
    tenths = max(ms, 0) // 100
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


@register.filter
def duration(length: timedelta | None) -> str:
    """`0:02:08` -> `2 min 08 s`."""
    if length is None:
        return "–"
    whole = int(length.total_seconds())
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


@register.filter
def masked(number: str) -> str:
    return mask_number(number) or "unknown"


@register.filter
def facts(data: Any) -> str:
    """An event's data on one line, cut where it grows long."""
    if not data:
        return ""
    if isinstance(data, dict):
        text = ", ".join(f"{name} {value}" for name, value in data.items())
    else:
        text = json.dumps(data)
    return text if len(text) <= MAX_DATA else text[:MAX_DATA] + "…"


@register.filter
def spelled(name: str) -> str:
    """`frames_held` and `assistant-answered` as words."""
    return name.replace("_", " ").replace("-", " ")
