"""The dashboard: live calls, metrics of a time range, calls that need attention, and recent calls.

Every metric states its time range and sample size, and links to the calls behind it. The number of
queries does not depend on the number of calls (`stats/queries.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from calls import end_reasons, requirements
from calls.models import Call
from calls.staff import charts
from calls.staff.call_list import COLUMNS, build_rows
from calls.staff.live.board import board_context, get_bridge
from calls.staff.pages import page_context, view_call_required
from calls.staff.place_test_call import is_billable
from calls.stats import time_ranges
from calls.stats.flags import FAILED, FLAGS
from calls.stats.queries import call_stats, stats_by_day, stats_by_hour
from calls.viewer import Viewer

RECENT_CALLS = 25


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """The number of calls with one end reason or flag, and a link to them."""

    name: str
    count: int
    description: str
    next_step: str
    link: str


@view_call_required
@require_safe
def dashboard(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    range_error = ""
    try:
        when = time_ranges.parse_range(request.GET.dict(), now)
    except time_ranges.InvalidRange as error:
        range_error, when = str(error), time_ranges.named_range(time_ranges.DEFAULT_RANGE, now)
    only_simulated = not Call.objects.real().exists()
    link = _call_list_linker(only_simulated)
    totals = call_stats(when.since, when.until, simulated=only_simulated)
    group = stats_by_hour if when.is_hourly else stats_by_day
    periods = charts.build_periods(
        group(when.since, when.until, simulated=only_simulated), by_hour=when.is_hourly, link=link
    )
    recent = list(Call.objects.filter(simulated=only_simulated).newest_first()[:RECENT_CALLS])
    missing = requirements.dashboard_items()
    context = {
        **page_context(request, "Dashboard"),
        **board_context(Viewer.for_user(request.user), get_bridge(request)),
        "ranges": time_ranges.RANGE_LABELS,
        "when": when,
        "range_error": range_error,
        "totals": totals,
        "answered_percent": 100 * totals.answered / totals.calls if totals.calls else None,
        "slow": totals.response_latency.misses_target(settings.LATENCY_TARGET_MS),
        "target_ms": settings.LATENCY_TARGET_MS,
        "links": {
            "all": link(when.since, when.until),
            **{name: link(when.since, when.until, flag=name) for name in FLAGS},
        },
        "failures": [
            ReasonCount(
                reason,
                count,
                end_reasons.explain(reason).sentence,
                end_reasons.explain(reason).next_step,
                link(when.since, when.until, ended=reason)
                if reason
                else link(when.since, when.until, flag=FAILED),
            )
            for reason, count in totals.end_reasons.most_common()
        ],
        "needs_attention": [
            ReasonCount(name, totals.flags[name], flag.label, "", link(when.since, when.until, flag=name))
            for name, flag in FLAGS.items()
            if name != FAILED and totals.flags[name]
        ],
        "latency_chart": charts.latency_chart(periods, settings.LATENCY_TARGET_MS),
        "calls_chart": charts.calls_chart(periods),
        "periods": periods,
        "recent_calls": build_rows(recent),
        "columns": COLUMNS,
        "only_simulated": only_simulated,
        "simulated_link": f"{reverse('call_list')}?simulated=yes",
        "missing_settings": missing,
        "setup_required": any(requirement.is_required for requirement in missing),
        "test_call_is_billable": is_billable(),
    }
    return render(request, "calls/dashboard.html", context)


def _call_list_linker(simulated: bool) -> Callable[..., str]:
    def link(since: datetime, until: datetime, **filters: str) -> str:
        """URL of the call list with the calls of this time range, narrowed by further filters."""
        query = {"started_at__gte": since.isoformat(), "started_at__lt": until.isoformat(), **filters}
        if simulated:
            query["simulated"] = "yes"
        return f"{reverse('call_list')}?{urlencode(query)}"

    return link
