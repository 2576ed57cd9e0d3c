"""The first page: is something wrong now, and how have the calls been.

Every figure says what it counts, over when and with which n, and leads to the rows behind it. A fixed
number of queries however many calls there are (`figures.py`).
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

from calls import end_reasons as words
from calls import requirements as setup
from calls.models import Call, PhoneNumber
from calls.staff import charts
from calls.staff.live.board import board_context, get_bridge
from calls.staff.pages import page_context, staff_page
from calls.staff.place_test_call import costs_money
from calls.stats import time_ranges
from calls.stats.flags import FAILED, FLAGS
from calls.stats.queries import by_day, by_hour, figures
from calls.viewer import Viewer

RECENT_CALLS = 25


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason to look at calls, and how many there are."""

    name: str
    count: int
    words: str
    next_step: str
    link: str


@dataclass(frozen=True, slots=True)
class Row:
    """One call in a list."""

    call: Call
    number_label: str


@staff_page
@require_safe
def dashboard(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    bad_range = ""
    try:
        when = time_ranges.chosen(request.GET.dict(), now)
    except time_ranges.BadRange as problem:
        bad_range, when = str(problem), time_ranges.named(time_ranges.DEFAULT, now)
    only_simulated = not Call.objects.real().exists()
    link = _linker(only_simulated)
    found = figures(when.since, when.until, simulated=only_simulated)
    parts = (by_hour if when.by_hour else by_day)(when.since, when.until, simulated=only_simulated)
    slots = charts.slots(parts, by_hour=when.by_hour, link=lambda begins, ends: link(begins, ends))
    recent = list(Call.objects.filter(simulated=only_simulated).newest_first()[:RECENT_CALLS])
    labels = _labels(recent)
    context = {
        **page_context(request, "Dashboard"),
        **board_context(Viewer.of(request.user), get_bridge(request)),
        "ranges": time_ranges.NAMES,
        "when": when,
        "bad_range": bad_range,
        "found": found,
        "answered_percent": 100 * found.answered / found.calls if found.calls else None,
        "slow": found.response.misses(settings.LATENCY_TARGET_MS),
        "target_ms": settings.LATENCY_TARGET_MS,
        "links": {
            "all": link(when.since, when.until),
            **{name: link(when.since, when.until, flag=name) for name in FLAGS},
        },
        "failures": [
            Reason(
                reason,
                count,
                words.ending(reason).sentence,
                words.ending(reason).next_step,
                link(when.since, when.until, ended=reason)
                if reason
                else link(when.since, when.until, flag=FAILED),
            )
            for reason, count in found.end_reasons.most_common()
        ],
        "needs_a_look": [
            Reason(name, found.flags[name], flag.words, "", link(when.since, when.until, flag=name))
            for name, flag in FLAGS.items()
            if name != FAILED and found.flags[name]
        ],
        "latency_chart": charts.latency_chart(slots, settings.LATENCY_TARGET_MS),
        "calls_chart": charts.calls_chart(slots),
        "slots": slots,
        "rows": [Row(call, labels.get(call.to_number, "")) for call in recent],
        "only_simulated": only_simulated,
        "hidden_link": f"{reverse('admin:calls_call_changelist')}?simulated=yes",
        "missing": (missing := setup.missing()),
        "needed": any(each.needed for each in missing),
        "test_call_costs": costs_money(),
    }
    return render(request, "calls/dashboard.html", context)


def _linker(simulated: bool) -> Callable[..., str]:
    def link(since: datetime, until: datetime, **filters: str) -> str:
        """The rows behind a figure."""
        asked = {"started_at__gte": since.isoformat(), "started_at__lt": until.isoformat(), **filters}
        if simulated:
            asked["simulated"] = "yes"
        return f"{reverse('admin:calls_call_changelist')}?{urlencode(asked)}"

    return link


def _labels(calls: list[Call]) -> dict[str, str]:
    numbers = {call.to_number for call in calls}
    return dict(PhoneNumber.objects.filter(number__in=numbers).values_list("number", "label"))
