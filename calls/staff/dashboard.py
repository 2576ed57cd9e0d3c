"""The dashboard: live calls, figures of a time range, calls that need attention, and recent calls.

Figures state their sample size and the change from the period before, where there is one, and link to their
calls where the list has a filter for these. The number of queries does not depend on the number of calls
(`stats/queries.py`).
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
from calls.models import Call, PhoneNumber
from calls.staff import call_filters, charts
from calls.staff.call_filters import NOT_CONNECTED
from calls.staff.call_list import COLUMNS, build_rows
from calls.staff.figures import build_figures
from calls.staff.live.board import board_context
from calls.staff.pages import page_context, view_call_required
from calls.staff.place_test_call import is_billable
from calls.stats import time_ranges
from calls.stats.aggregates import Aggregate
from calls.stats.flags import FAILED, FLAGS
from calls.stats.queries import CallStats, report_by_day, report_by_hour
from calls.viewer import Viewer

RECENT_CALLS = 10


@dataclass(frozen=True, slots=True)
class LinkedCount:
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
    numbers = dict(call_filters.NUMBER.choices())
    number_id = request.GET.get("number", "")
    number_id = number_id if number_id in numbers else ""
    link = _call_list_linker(only_simulated, number_id)
    links = {
        "all": link(when.since, when.until),
        **{name: link(when.since, when.until, flag=name) for name in FLAGS},
    }
    number = _find_number(number_id)
    report_by = report_by_hour if when.is_hourly else report_by_day
    report = report_by(when.since, when.until, simulated=only_simulated, number=number)
    before = time_ranges.previous_range(when)
    totals_before = CallStats.of(Aggregate())
    if report.counted_since is None:
        report_before = report_by(before.since, before.until, simulated=only_simulated, number=number)
        if report_before.counted_since is None:
            totals_before = report_before.total
    totals = report.total
    periods = charts.build_periods(
        report.periods, when.since, when.until, now, by_hour=when.is_hourly, link=link
    )
    calls = Call.objects.filter(
        simulated=only_simulated, started_at__gte=when.since, started_at__lt=when.until
    )
    if number_id:
        calls = calls.of_our_number(_find_number(number_id))
    recent = list(calls.newest_first()[:RECENT_CALLS])
    missing = requirements.list_dashboard_items()
    context = {
        **page_context(request, "Dashboard"),
        **board_context(Viewer.for_user(request.user)),
        "ranges": time_ranges.RANGE_LABELS,
        "when": when,
        "range_error": range_error,
        "numbers": numbers,
        "number_id": number_id,
        "number_suffix": f"&number={number_id}" if number_id else "",
        "has_calls": bool(recent) or Call.objects.exists(),
        "totals": totals,
        "figures": build_figures(
            totals,
            totals_before,
            target_ms=settings.LATENCY_TARGET_MS,
            links=links,
        ),
        "before": before,
        "counted_since": report.counted_since,
        "links": links,
        "failures": [
            _describe_failure(reason, count, link(when.since, when.until, ended=reason or NOT_CONNECTED))
            for reason, count in totals.failure_reasons.most_common()
        ],
        "needs_attention": [
            LinkedCount(name, totals.flags[name], flag.label, "", links[name])
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


def _describe_failure(end_reason: str, count: int, url: str) -> LinkedCount:
    """Failed calls with this end reason; those without one had no stream."""
    if not end_reason:
        return LinkedCount(NOT_CONNECTED, count, end_reasons.STATUS_SENTENCES["failed"], "", url)
    explained = end_reasons.explain(end_reason)
    return LinkedCount(end_reason, count, explained.sentence, explained.next_step, url)


def _find_number(number_id: str) -> str:
    """The phone number with this id; empty for none."""
    if not number_id:
        return ""
    return PhoneNumber.objects.filter(pk=int(number_id)).values_list("number", flat=True).first() or ""


def _call_list_linker(simulated: bool, number_id: str) -> Callable[..., str]:
    def link(since: datetime, until: datetime, **filters: str) -> str:
        """URL of the list with the calls of this time range, narrowed by further filters."""
        query = {"started_at__gte": since.isoformat(), "started_at__lt": until.isoformat(), **filters}
        if simulated:
            query["simulated"] = "yes"
        if number_id:
            query["number"] = number_id
        return f"{reverse('call_list')}?{urlencode(query)}"

    return link
