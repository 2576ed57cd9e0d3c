"""The columns of the call list. They are built per viewer, because they may mask numbers."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from calls.models import Call, PhoneNumber
from calls.staff.call_filters import MAX_NUMBERS
from calls.stats.flags import FLAGS
from calls.templatetags.call_format import cost as format_cost
from calls.templatetags.call_format import duration, seconds, timestamp
from calls.viewer import Viewer

OUTBOUND_BADGE = format_html('<span class="call-badge">{}</span>', "outbound")


def build_columns(viewer: Viewer) -> list[Any]:
    """The columns for one viewer. One query.

    The functions' names are part of the page: Django uses them as CSS classes.
    """
    labels = dict(PhoneNumber.objects.exclude(label="").values_list("number", "label")[:MAX_NUMBERS])

    @admin.display(description="time", ordering="started_at")
    def time(call: Call) -> SafeString:
        text = timestamp(call.started_at, "short")
        return format_html('<a href="{}">{}</a>', call.get_absolute_url(), text)

    @admin.display(
        description="caller or callee", ordering="from_number" if viewer.can_view_numbers else None
    )
    def caller(call: Call) -> SafeString | str:
        number = viewer.display_number(call.their_number) or "Unknown"
        return format_html("{} {}", number, OUTBOUND_BADGE) if call.is_outbound else number

    @admin.display(description="number", ordering="to_number" if viewer.can_view_numbers else None)
    def number(call: Call) -> str:
        return labels.get(call.our_number) or viewer.display_number(call.our_number)

    @admin.display(description="duration", ordering="duration_seconds")
    def length(call: Call) -> str:
        return duration(call.duration())

    @admin.display(description="status", ordering="end_reason")
    def ended(call: Call) -> SafeString:
        css_class = "call-failed" if call.is_failed else "call-fine"
        return format_html('<span class="{}">{}</span>', css_class, call.status_sentence())

    @admin.display(description="turns", ordering="turn_count")
    def turns(call: Call) -> int:
        return call.turn_count

    @admin.display(description="p50", ordering="p50_latency_ms")
    def p50(call: Call) -> str:
        return seconds(call.p50_latency_ms)

    @admin.display(description="slowest", ordering="worst_latency_ms")
    def worst(call: Call) -> str:
        return seconds(call.worst_latency_ms)

    @admin.display(description="cost")
    def cost(call: Call) -> str:
        return format_cost(call)

    @admin.display(description="flags")
    def flags(call: Call) -> SafeString:
        badges = [FLAGS[flag.name].label for flag in call.flags.all() if flag.name in FLAGS]
        if call.needs_review:
            badges.append("needs review")
        if call.simulated:
            badges.append("simulated")
        return format_html_join(" ", '<span class="call-badge">{}</span>', ((badge,) for badge in badges))

    return [time, caller, number, length, ended, turns, p50, worst, cost, flags]
