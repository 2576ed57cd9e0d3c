"""One call's page: what was said, how fast the answers came, what happened, how it ended.

Reads rows and nothing else, a fixed number of queries however long the call was. Whoever opens it leaves
an audit entry. Staff's own words on the call (outcome, note, needs review) are changed here.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from calls import costs as bills
from calls.models import CALLER, Call, CallEvent, PhoneNumber, Utterance
from calls.staff import audit
from calls.staff.live.board import fallback_number, our_number, their_number
from calls.staff.pages import page_context, staff_page
from calls.staff.timeline import Said, timeline
from calls.staff.waterfall import Waterfall, side_by_side
from calls.stats import percentiles
from calls.viewer import Viewer

MAX_UTTERANCES = 1000
MAX_TURNS = 500
MAX_EVENTS = 500
LATEST_LOOKS = 20
# Suggestions: any other words will do.
OUTCOMES = ("resolved", "booked", "transferred", "call back", "wrong number", "complaint", "spam")


class NoteForm(forms.ModelForm):  # type: ignore[type-arg]
    """What staff say of a call."""

    class Meta:
        model = Call
        fields = ("outcome", "note", "needs_review")


@staff_page
@require_safe
def call_detail(request: HttpRequest, call_id: int) -> HttpResponse:
    call = get_object_or_404(Call, pk=call_id)
    audit.opened(request.user, call)
    viewer = Viewer.of(request.user)
    context = {**page_context(request, f"Call {call}"), **call_page(call, viewer)}
    if call.is_live:
        number = PhoneNumber.objects.filter(number=our_number(call)).first()
        context["live_socket"] = f"/live?call={call.pk}"
        context["who"] = viewer.number(their_number(call))
        context["person"] = viewer.number(fallback_number(number))
        context["can_say"] = bool(call.vapi_call_id) and not settings.VAPI_SOCKET_URL
    if viewer.audits:
        context["looks"] = call.audit.order_by("-at", "-id")[:LATEST_LOOKS]
    return render(request, "calls/call_detail.html", context)


@staff_page
@require_POST
def call_note(request: HttpRequest, call_id: int) -> HttpResponse:
    """Outcome, note, needs review."""
    if not Viewer.of(request.user).annotates:
        raise PermissionDenied("Notes need the permission “Can change call”.")
    call = get_object_or_404(Call, pk=call_id)
    form = NoteForm(request.POST, instance=call)
    if not form.is_valid():
        for name, errors in form.errors.items():
            messages.error(request, f"{name.replace('_', ' ').capitalize()}: {' '.join(map(str, errors))}")
    elif form.changed_data:
        call.save(update_fields=form.changed_data)
        changed = ", ".join(name.replace("_", " ") for name in form.changed_data)
        LogEntry.objects.log_actions(
            user_id=cast(int, request.user.pk), queryset=[call], action_flag=CHANGE,
            change_message=f"Changed {changed}.", single_object=True,
        )  # fmt: skip
        audit.note(request.user, "note", call, changed)
        messages.success(request, "Saved.")
    return redirect(call)


def call_page(call: Call, viewer: Viewer) -> dict[str, Any]:
    """What the page shows of a call, for this viewer."""
    turns = list(call.turns.order_by("number")[:MAX_TURNS])
    utterances = list(call.utterances.order_by("index")[:MAX_UTTERANCES])
    events = list(call.events.order_by("source", "index")[: MAX_EVENTS + 1])
    waterfalls = side_by_side(turns, settings.LATENCY_TARGET_MS)
    answered = [turn for turn in turns if turn.was_answered]
    label = PhoneNumber.objects.filter(number=call.to_number).values_list("label", flat=True).first()
    return {
        "viewer": viewer,
        "call": call,
        "number_label": label or "",
        "ending": call.ending if call.end_reason else None,
        "vendor_reason": call.vendor_reason(),
        "cost_per_minute": _per_minute(call),
        "times": percentiles.Summary.of([turn.response_latency_ms or 0 for turn in answered]),
        "slowest": max(answered, key=lambda turn: turn.response_latency_ms or 0, default=None),
        "target_ms": settings.LATENCY_TARGET_MS,
        "lines": timeline(_said(utterances, waterfalls), events[:MAX_EVENTS]),
        "said": bool(utterances),
        "waterfalls": waterfalls,
        "sources": _by_source(events[:MAX_EVENTS]),
        "event_count": min(len(events), MAX_EVENTS),
        "more_events": len(events) > MAX_EVENTS,
        "counters": sorted(call.counters.items()) if isinstance(call.counters, dict) else [],
        "outcomes": OUTCOMES,
    }


def _per_minute(call: Call) -> Decimal | None:
    """What a minute of talk cost (`Figures.cost_per_minute`); nothing as long as a bill is to come."""
    cost, length = call.cost(), call.length()
    if cost is None or length is None or call.bills_to_come():
        return None
    return bills.per_minute(cost, length // timedelta(microseconds=1))


def _said(utterances: list[Utterance], waterfalls: list[Waterfall]) -> list[Said]:
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
    return [Said(each, beside.get(each.index), *heard_and_not(each)) for each in utterances]


def heard_and_not(utterance: Utterance) -> tuple[str, str]:
    """The words in two: what the caller heard, and what a barge-in kept from them.

    Nobody tells where in the words the sound stopped; the share of the audio that was played is the measure.
    """
    started, ended, unheard = utterance.started_ms, utterance.ended_ms, utterance.unheard_ms
    if not utterance.interrupted or not unheard or started is None or ended is None:
        return utterance.text, ""
    played = max(0, ended - started)
    spoken = utterance.text.split()
    heard = round(len(spoken) * played / (played + unheard))
    return " ".join(spoken[:heard]), " ".join(spoken[heard:])


def _by_source(events: list[CallEvent]) -> list[tuple[str, list[CallEvent]]]:
    """The timelines of stream, carrier and vendor, each in its own order."""
    return [(source, list(rows)) for source, rows in groupby(events, key=lambda event: event.source)]
