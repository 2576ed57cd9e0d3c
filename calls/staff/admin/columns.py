"""The columns of the list of calls, made for one viewer: what they show depends on who looks."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from calls.models import Call, PhoneNumber
from calls.staff.admin.filters import MOST_NUMBERS
from calls.staff.search import Hit
from calls.stats.flags import FLAGS
from calls.templatetags.call_words import cost as call_cost
from calls.templatetags.call_words import duration, moment, seconds
from calls.viewer import Viewer


def columns_for(viewer: Viewer, *, searched: bool) -> list[Any]:
    """The list's columns for one viewer. One query."""
    labels = dict(PhoneNumber.objects.exclude(label="").values_list("number", "label")[:MOST_NUMBERS])

    @admin.display(description="time", ordering="started_at")
    def time(call: Call) -> SafeString:
        return format_html('<a href="{}">{}</a>', call.get_absolute_url(), moment(call.started_at, "short"))

    @admin.display(description="caller", ordering="from_number" if viewer.sees_numbers else None)
    def caller(call: Call) -> str:
        return viewer.number(call.from_number) or "unknown"

    @admin.display(description="number", ordering="to_number" if viewer.sees_numbers else None)
    def number(call: Call) -> str:
        return labels.get(call.to_number) or viewer.number(call.to_number)

    @admin.display(description="length", ordering="duration_seconds")
    def length(call: Call) -> str:
        return duration(call.length())

    @admin.display(description="how it ended", ordering="end_reason")
    def ended(call: Call) -> SafeString:
        tone = "call-failed" if call.is_failed else "call-fine"
        return format_html('<span class="{}">{}</span>', tone, call.ended_in_words())

    @admin.display(description="turns", ordering="turn_count")
    def turns(call: Call) -> int:
        return call.turn_count

    @admin.display(description="p50", ordering="p50_latency_ms")
    def p50(call: Call) -> str:
        return seconds(call.p50_latency_ms)

    @admin.display(description="worst", ordering="worst_latency_ms")
    def worst(call: Call) -> str:
        return seconds(call.worst_latency_ms)

    @admin.display(description="cost")
    def cost(call: Call) -> str:
        return call_cost(call)

    @admin.display(description="flags")
    def flags(call: Call) -> SafeString:
        marks = [FLAGS[flag.name].words for flag in call.flags.all() if flag.name in FLAGS]
        if call.needs_review:
            marks.append("needs review")
        if call.simulated:
            marks.append("simulated")
        return format_html_join(" ", '<span class="call-badge">{}</span>', ((each,) for each in marks))

    @admin.display(description="what was said")
    def hit(call: Call) -> SafeString | str:
        found: Hit | None = getattr(call, "hit", None)
        return format_html("{}<mark>{}</mark>{}", *found) if found else ""

    columns: list[Any] = [time, caller, number, length, ended, turns, p50, worst, cost, flags]
    return [*columns[:2], hit, *columns[2:]] if searched else columns
