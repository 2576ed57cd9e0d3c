"""Template filters and tags that format times, amounts, phone numbers and event data."""

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

from calls.costs import DOLLARS
from calls.end_reasons import name_party
from calls.models import Call
from calls.stats.percentiles import bucket
from calls.viewer import Viewer

register = template.Library()

MAX_DATA_CHARS = 400
LONG_TIME = "D j M Y, H:i:s"


@register.filter
def seconds(ms: int | None) -> str:
    """`940` -> `0.94 s`; None -> `–`."""
    return "–" if ms is None else f"{bucket(ms) / 100:.2f} s"


@register.filter
def clock(ms: int | None) -> str:
    """Milliseconds since the start of the stream: `65200` -> `1:05.2`; None -> empty."""
    if ms is None:
        return ""
    tenths = max(ms, 0) // 100
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


@register.filter
def duration(value: timedelta | None) -> str:
    """`0:02:08` -> `2 min 08 s`; None -> `–`."""
    if value is None:
        return "–"
    total = int(value.total_seconds())
    return f"{total // 60} min {total % 60:02d} s" if total >= 60 else f"{total} s"


@register.filter
def short_duration(value: timedelta | None) -> str:
    """`0:02:08` -> `2:08`, as in lists; None -> `–`."""
    if value is None:
        return "–"
    total = int(value.total_seconds())
    return f"{total // 60}:{total % 60:02d}"


@register.filter
def get(names: Mapping[str, Any], name: str) -> Any:
    """Look up a key that the template syntax does not allow, such as one with a dash."""
    return names.get(name, "")


@register.filter
def for_viewer(number: str, viewer: Viewer) -> str:
    """A phone number, masked unless this viewer may see it."""
    return viewer.display_number(number) or "Unknown"


@register.filter
def for_party(text: str, call: Call) -> str:
    """A text about the caller; of a call that we placed, about the callee."""
    return name_party(text, call.party)


@register.simple_tag
def timestamp(value: datetime | None, form: str = "long") -> SafeString | str:
    """`Sun 22 Nov 2026, 10:31:04` in the viewer's time zone, UTC on hover; short: as in lists."""
    if value is None:
        return "–"
    local = timezone.localtime(value)
    text = short_time(local, timezone.localtime()) if form == "short" else dateformat.format(local, LONG_TIME)
    utc = value.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>', utc.isoformat(), f"{utc:%Y-%m-%d %H:%M:%S}", text
    )


def short_time(local: datetime, now: datetime) -> str:
    """`Today 16:44`, `Tue 24 Nov 16:44`, `Mon 24 Nov 2025 16:44`. Both times are in the viewer's zone."""
    if local.date() == now.date():
        return dateformat.format(local, r"\T\o\d\a\y H:i")
    return dateformat.format(local, "D j M H:i" if local.year == now.year else "D j M Y H:i")


@register.filter
def bill(amount: Decimal | None, currency: str = DOLLARS) -> str:
    """One bill's amount, or `pending` until it arrives. Twilio's amounts are negative."""
    return "pending" if amount is None else amounts({currency: abs(amount)})


@register.filter
def named_values(values: Any) -> list[tuple[str, str]]:
    """Names and values of a JSON object, to be shown: yes and no, text as it is, anything else as JSON."""
    if not isinstance(values, Mapping):
        return []
    return [
        (
            str(name),
            ("yes" if value else "no")
            if isinstance(value, bool)
            else value
            if isinstance(value, str)
            else json.dumps(value, ensure_ascii=False),
        )
        for name, value in values.items()
    ]


@register.filter
def amounts(by_currency: Mapping[str, Decimal]) -> str:
    """`$0.16`, `EUR 0.011`, `$0.16 + EUR 0.011`; nothing: `–`. Currencies are never added up."""
    texts = (
        dollars(amount) if currency == DOLLARS else f"{currency} {dollars(amount).removeprefix('$')}"
        for currency, amount in by_currency.items()
    )
    return " + ".join(texts) or "–"


@register.filter
def cost(call: Call) -> str:
    """The cost of a call, with `so far` while a bill is pending."""
    by_currency = call.costs()
    return amounts(by_currency) + (" so far" if by_currency and call.missing_bills() else "")


@register.filter
def dollars(amount: Decimal | None) -> str:
    """`0.1634` -> `$0.16`, rounded half up, as on bills; None -> `–`.

    Amounts under ten cents get three decimals, so that a short call does not show as free. Amounts under
    a cent get a fourth if it is not zero: $0.0085 is a price per minute.
    """
    if amount is None:
        return "–"
    if 0 < amount < Decimal("0.1"):
        step = Decimal("0.0001") if amount < Decimal("0.01") else Decimal("0.001")
        text = f"{amount.quantize(step, ROUND_HALF_UP)}"
        return f"${text[:-1] if len(text) > 5 and text.endswith('0') else text}"
    return f"${amount.quantize(Decimal('0.01'), ROUND_HALF_UP):,}"


@register.filter
def key_values(data: Any) -> str:
    """An event's data on one line, truncated to `MAX_DATA_CHARS`."""
    if not data:
        return ""
    if isinstance(data, dict):
        text = ", ".join(f"{name} {value}" for name, value in data.items())
    else:
        text = json.dumps(data)
    return text if len(text) <= MAX_DATA_CHARS else text[:MAX_DATA_CHARS] + "…"


@register.filter
def humanize(name: str) -> str:
    """`frames_held` and `assistant-answered` with spaces."""
    return name.replace("_", " ").replace("-", " ")


@register.filter(is_safe=True)
def main_landmark(page: str) -> str:
    """The page of the admin theme, whose main part is marked as such."""
    return page.replace('<div id="main"', '<div id="main" role="main"', 1)
