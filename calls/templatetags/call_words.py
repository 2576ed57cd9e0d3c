"""How times, numbers and event data are written on pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from django import template
from django.utils import dateformat, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from calls.masking import mask_number
from calls.models import Call
from calls.stats.percentiles import bucket
from calls.viewer import Viewer

register = template.Library()

MAX_DATA = 400


@register.filter
def seconds(ms: int | None) -> str:
    """`940` -> `0.94 s`; a dash where nothing was measured."""
    return "–" if ms is None else f"{bucket(ms) / 100:.2f} s"


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
def get(names: Mapping[str, Any], name: str) -> Any:
    """Of a mapping whose names have dashes."""
    return names.get(name, "")


@register.filter
def for_viewer(number: str, viewer: Viewer) -> str:
    """A phone number as this viewer may read it."""
    return viewer.number(number) or "unknown"


@register.simple_tag
def moment(value: datetime | None, form: str = "long") -> SafeString | str:
    """`Sat 22 Nov 2026, 10:31:04` in the viewer's zone, UTC on hover; short: `22 Nov, 10:31:04`."""
    if value is None:
        return "–"
    shown = dateformat.format(
        timezone.localtime(value), "j M, H:i:s" if form == "short" else "D j M Y, H:i:s"
    )
    utc = value.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>', utc.isoformat(), f"{utc:%Y-%m-%d %H:%M:%S}", shown
    )


@register.filter
def bill(amount: Decimal | None) -> str:
    """One bill; Twilio's are negative. "not yet" while it has not come."""
    return "not yet" if amount is None else dollars(abs(amount))


@register.filter
def cost(call: Call) -> str:
    """What a call cost, and whether that is all yet."""
    found = call.cost()
    return dollars(found) + (" so far" if found is not None and call.bills_to_come() else "")


@register.filter
def dollars(amount: Decimal | None) -> str:
    """`0.1634` -> `$0.16`, a half rounded up, as bills are; under ten cents three decimals, so that a short
    call does not cost nothing, and under a cent a fourth where there is one: $0.0085 is a price a minute."""
    if amount is None:
        return "–"
    if 0 < amount < Decimal("0.1"):
        exact = Decimal("0.0001") if amount < Decimal("0.01") else Decimal("0.001")
        shown = f"{amount.quantize(exact, ROUND_HALF_UP)}"
        return f"${shown[:-1] if len(shown) > 5 and shown.endswith('0') else shown}"
    return f"${amount.quantize(Decimal('0.01'), ROUND_HALF_UP):,}"


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
