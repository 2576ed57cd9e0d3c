"""The staff pages: is something wrong now, why was this call bad, what was said.

Both read rows and nothing else, so that what they show is true whatever happens to be live, and each
asks a fixed number of queries however many rows there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from itertools import groupby
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.decorators import staff_member_required
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone

from calls import latency, words
from calls.models import CALLER, Call, CallEvent, PhoneNumber, Turn, Utterance
from calls.waterfall import Waterfall, side_by_side

RECENT_CALLS = 25
MAX_UTTERANCES = 1000
MAX_TURNS = 500
MAX_EVENTS = 500

Page = Callable[..., HttpResponse]


def staff_page(view: Page) -> Page:
    """For staff who may see calls; others are sent to the log-in, or told that they may not."""

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.has_perm("calls.view_call"):
            raise PermissionDenied("Viewing calls needs the permission “Can view call”.")
        return view(request, *args, **kwargs)

    guarded: Page = staff_member_required(login_url="admin:login")(checked)
    return guarded


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call in a list."""

    call: Call
    number_label: str
    latency: latency.Summary


@dataclass(frozen=True, slots=True)
class Failure:
    """One way in which calls failed, and how often."""

    reason: str
    count: int
    ending: words.Ending
    link: str


@staff_page
def dashboard(request: HttpRequest) -> HttpResponse:
    since = timezone.now() - timedelta(hours=24)
    shown = Call.objects.shown()
    window = shown.since(since)
    figures = window.aggregate(
        calls=Count("id"),
        answered=Count("id", filter=Q(answered_at__isnull=False)),
        barge_ins=Sum("barge_ins"),
        twilio=Sum("twilio_price"),
        vapi=Sum("vapi_cost"),
    )
    failures = [
        Failure(
            row["end_reason"],
            row["count"],
            words.ending(row["end_reason"]),
            _list_link(since, row["end_reason"]),
        )
        for row in window.failed()
        .values("end_reason")
        .annotate(count=Count("id"))
        .order_by("-count", "end_reason")
    ]
    recent = list(shown.newest_first()[:RECENT_CALLS])
    costs = [cost for cost in (figures["twilio"], figures["vapi"]) if cost is not None]
    context = {
        **admin.site.each_context(request),
        "title": "Dashboard",
        "figures": figures,
        "answered_percent": 100 * figures["answered"] / figures["calls"] if figures["calls"] else None,
        "failed": sum(failure.count for failure in failures),
        "failures": failures,
        "cost": abs(sum(costs)) if costs else None,
        "live": Call.objects.live().since(since).count(),
        "response": (response := latency.response_latency(window)),
        "response_misses": response.misses(settings.LATENCY_TARGET_MS),
        "first_word": latency.first_word(window),
        "target_ms": settings.LATENCY_TARGET_MS,
        "rows": _rows(recent),
        "only_simulated": bool(recent) and all(call.simulated for call in recent),
        "all_link": _list_link(since),
        "failed_link": _list_link(since, "failed"),
    }
    return render(request, "calls/dashboard.html", context)


def _list_link(since: Any, ended: str = "") -> str:
    """The rows behind a figure."""
    wanted = {"started_at__gte": since.strftime("%Y-%m-%d %H:%M:%S+00:00")}
    if ended:
        wanted["ended"] = ended
    return f"{reverse('admin:calls_call_changelist')}?{urlencode(wanted)}"


def _rows(calls: list[Call]) -> list[CallRow]:
    """With labels and latencies, two queries for all of them."""
    numbers = {call.to_number for call in calls}
    labels = dict(PhoneNumber.objects.filter(number__in=numbers).values_list("number", "label"))
    latencies = defaultdict(list)
    for call_id, value in (
        Turn.objects.filter(call__in=[call.pk for call in calls])
        .answered()
        .order_by()
        .values_list("call_id", "response_latency_ms")
    ):
        latencies[call_id].append(value or 0)
    return [
        CallRow(call, labels.get(call.to_number, ""), latency.Summary.of(latencies[call.pk]))
        for call in calls
    ]


@dataclass(frozen=True, slots=True)
class Line:
    """One utterance of the transcript, with the turn that it ended, if it did."""

    utterance: Utterance
    waterfall: Waterfall | None


@staff_page
def call_detail(request: HttpRequest, call_id: int) -> HttpResponse:
    call = get_object_or_404(Call, pk=call_id)
    turns = list(call.turns.order_by("number")[:MAX_TURNS])
    utterances = list(call.utterances.order_by("index")[:MAX_UTTERANCES])
    events = list(call.events.order_by("source", "index")[: MAX_EVENTS + 1])
    times = latency.Summary.of(
        [turn.response_latency_ms for turn in turns if turn.response_latency_ms is not None]
    )
    waterfalls = side_by_side(turns, settings.LATENCY_TARGET_MS)
    slowest = max(
        (turn for turn in turns if turn.was_answered),
        key=lambda turn: turn.response_latency_ms or 0,
        default=None,
    )
    label = PhoneNumber.objects.filter(number=call.to_number).values_list("label", flat=True).first()
    context = {
        **admin.site.each_context(request),
        "title": f"Call {call}",
        "call": call,
        "number_label": label or "",
        "ending": call.ending if call.end_reason else None,
        "vendor_reason": call.vendor_reason(),
        "times": times,
        "slowest": slowest,
        "target_ms": settings.LATENCY_TARGET_MS,
        "lines": _lines(utterances, waterfalls),
        "waterfalls": waterfalls,
        "timeline": _by_source(events[:MAX_EVENTS]),
        "event_count": min(len(events), MAX_EVENTS),
        "more_events": len(events) > MAX_EVENTS,
        "counters": sorted(call.counters.items()) if isinstance(call.counters, dict) else [],
    }
    return render(request, "calls/call_detail.html", context)


def _lines(utterances: list[Utterance], waterfalls: list[Waterfall]) -> list[Line]:
    """Each turn stands beside the caller's last utterance that had begun before the turn's end of speech."""
    beside: dict[int, Waterfall] = {}
    for waterfall in waterfalls:
        begun = [
            utterance.index
            for utterance in utterances
            if utterance.speaker == CALLER
            and utterance.started_ms is not None
            and utterance.started_ms <= waterfall.turn.end_of_speech_ms
        ]
        if begun:
            beside[begun[-1]] = waterfall
    return [Line(utterance, beside.get(utterance.index)) for utterance in utterances]


def _by_source(events: list[CallEvent]) -> list[tuple[str, list[CallEvent]]]:
    """The timelines of stream, carrier and vendor, each in its own order."""
    return [(source, list(rows)) for source, rows in groupby(events, key=lambda event: event.source)]
