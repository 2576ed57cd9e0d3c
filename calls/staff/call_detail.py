"""The page of one call: transcript, response latency, events and end reason, and the notes of staff.

Reads the database only, and the number of queries does not depend on the length of the call. Opening the
page is recorded in the audit log.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast
from urllib.parse import parse_qsl

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from calls import costs, end_reasons
from calls.models import CALLER, Call, CallEvent, PhoneNumber, Utterance
from calls.staff import audit
from calls.staff.call_query import MAX_QUERY_CHARS, ListQuery, find_neighbors
from calls.staff.pages import page_context, view_call_required
from calls.staff.staff_messages import fetch_staff_messages, is_by_staff
from calls.staff.timeline import SpokenLine, build_timeline
from calls.staff.waterfall import Waterfall, build_waterfalls
from calls.stats import percentiles
from calls.viewer import Viewer

MAX_UTTERANCES = 1000
MAX_TURNS = 500
MAX_EVENTS = 500
MAX_AUDIT_ENTRIES = 20
# Suggestions only; staff can enter any text.
OUTCOMES = ("resolved", "booked", "transferred", "call back", "wrong number", "complaint", "spam")


class NoteForm(forms.ModelForm):  # type: ignore[type-arg]
    """Fields that staff may change."""

    class Meta:
        model = Call
        fields = ("outcome", "note", "needs_review")


@view_call_required
@require_safe
def call_detail(request: HttpRequest, call_id: int) -> HttpResponse:
    call = get_object_or_404(Call, pk=call_id)
    audit.record_opened(request.user, call)
    viewer = Viewer.for_user(request.user)
    context = {
        **page_context(request, f"Call {call}"),
        **call_context(call, viewer),
        **_list_context(request, call, viewer),
    }
    if call.is_ongoing:
        context |= {"live_socket": f"/live?call={call.pk}", **_action_context(call, viewer)}
    if viewer.can_view_audit_log:
        context["audit_entries"] = call.audit.order_by("-at", "-id")[:MAX_AUDIT_ENTRIES]
    return render(request, "calls/call_detail.html", context)


@view_call_required
@require_POST
def call_note(request: HttpRequest, call_id: int) -> HttpResponse:
    """Save outcome, note and needs review."""
    if not Viewer.for_user(request.user).can_annotate:
        raise PermissionDenied("Editing notes requires the permission “Can change call”.")
    call = get_object_or_404(Call, pk=call_id)
    form = NoteForm(request.POST, instance=call)
    if not form.is_valid():
        for name, errors in form.errors.items():
            messages.error(request, f"{name.replace('_', ' ').capitalize()}: {' '.join(map(str, errors))}")
    elif form.changed_data:
        changed = ", ".join(name.replace("_", " ") for name in form.changed_data)
        with transaction.atomic():  # no change without its audit entry
            call.save(update_fields=form.changed_data)
            LogEntry.objects.log_actions(
                user_id=cast(int, request.user.pk), queryset=[call], action_flag=CHANGE,
                change_message=f"Changed {changed}.", single_object=True,
            )  # fmt: skip
            audit.record(request.user, "note", call, changed)
        messages.success(request, "Changes saved.")
    query = ListQuery.parse(dict(parse_qsl(request.GET.get("list", "")[:MAX_QUERY_CHARS])))
    return redirect(call.get_absolute_url() + query.encode_for_call())


def _list_context(request: HttpRequest, call: Call, viewer: Viewer) -> dict[str, Any]:
    """The list that the page was opened from, and the calls before and after this one in it."""
    query = ListQuery.parse(dict(parse_qsl(request.GET.get("list", "")[:MAX_QUERY_CHARS])))
    others = query if query.values or not call.simulated else ListQuery({"simulated": "yes"})
    previous_id, next_id = find_neighbors(call, others, viewer, timezone.now())
    return {
        "list_query": query,
        "list_url": query.url(),
        "list_suffix": query.encode_for_call(),
        "previous_id": previous_id,
        "next_id": next_id,
    }


def call_context(call: Call, viewer: Viewer) -> dict[str, Any]:
    """What `_call_body.html` needs, for this viewer."""
    turns = list(call.turns.order_by("number")[:MAX_TURNS])
    utterances = list(call.utterances.order_by("index")[:MAX_UTTERANCES])
    events = list(call.events.order_by("source", "index")[: MAX_EVENTS + 1])
    waterfalls = build_waterfalls(turns, settings.LATENCY_TARGET_MS)
    answered = [turn for turn in turns if turn.was_answered]
    label = PhoneNumber.objects.filter(number=call.our_number).values_list("label", flat=True).first()
    spoken = _spoken_lines(utterances, waterfalls, fetch_staff_messages([call])[call.pk])
    shown = [waterfall for line in spoken for waterfall in line.waterfalls]
    return {
        "viewer": viewer,
        "call": call,
        "number_label": label or "",
        "end_reason": end_reasons.explain(call.end_reason) if call.end_reason else None,
        "vapi_reason": call.vapi_reason(),
        "cost_per_minute": _cost_per_minute(call),
        "latency": percentiles.LatencySummary.of([turn.response_latency_ms or 0 for turn in answered]),
        "slowest": max(
            (waterfall for waterfall in waterfalls if waterfall.turn.was_answered),
            key=lambda waterfall: waterfall.turn.response_latency_ms or 0,
            default=None,
        ),
        "lacks_breakdown": any(
            part.kind == "no-breakdown" for waterfall in waterfalls for part in waterfall.parts()
        ),
        "target_ms": settings.LATENCY_TARGET_MS,
        "lines": build_timeline(
            spoken,
            events[:MAX_EVENTS],
            party=call.party,
            end_reason=call.end_reason,
        ),
        "has_transcript": bool(utterances),
        "waterfalls": waterfalls,
        "unattached": [waterfall for waterfall in waterfalls if waterfall not in shown],
        "raw_events": sorted(events[:MAX_EVENTS], key=_event_order),
        "more_events": len(events) > MAX_EVENTS,
        "counters": sorted(call.counters.items()) if isinstance(call.counters, dict) else [],
        "outcomes": OUTCOMES,
    }


def render_call(call: Call, viewer: Viewer) -> str:
    """The parts of the page that live updates replace."""
    context = call_context(call, viewer) | _action_context(call, viewer)
    names = ("_call_actions", "_call_head", "_call_body")
    return "".join(render_to_string(f"calls/{name}.html", context) for name in names)


def _action_context(call: Call, viewer: Viewer) -> dict[str, Any]:
    """What `_call_actions.html` needs."""
    if not (call.is_live and viewer.can_act):
        return {"has_actions": False}
    number = PhoneNumber.objects.filter(number=call.our_number).first()
    return {
        "has_actions": call.is_ongoing,
        "caller": viewer.display_number(call.their_number),
        "fallback_number": viewer.display_number(PhoneNumber.fallback_for(number)),
        "can_say": bool(call.vapi_call_id) and not settings.VAPI_SOCKET_URL,
    }


def _cost_per_minute(call: Call) -> Decimal | None:
    """Computed as `CallStats.cost_per_minute` is; None while a bill is pending."""
    cost, duration = call.cost(), call.duration()
    if cost is None or duration is None or call.missing_bills():
        return None
    return costs.compute_cost_per_minute(cost, duration // timedelta(microseconds=1))


def _spoken_lines(
    utterances: list[Utterance], waterfalls: list[Waterfall], messages: list[str]
) -> list[SpokenLine]:
    """Attach each turn to the last caller utterance that had started by the turn's end of speech."""
    by_utterance: dict[int, list[Waterfall]] = defaultdict(list)
    for waterfall in waterfalls:
        started = [
            utterance.index
            for utterance in utterances
            if utterance.speaker == CALLER
            and utterance.started_ms is not None
            and utterance.started_ms <= waterfall.turn.end_of_speech_ms
        ]
        if started:
            by_utterance[started[-1]].append(waterfall)
    return [
        SpokenLine(
            utterance,
            by_utterance[utterance.index],
            *split_heard(utterance),
            is_by_staff(utterance, messages),
        )
        for utterance in utterances
    ]


def split_heard(utterance: Utterance) -> tuple[str, str]:
    """Split the text into what the caller heard and what a barge-in cut off.

    Nobody reports at which word the audio stopped. The share of the audio that was played estimates it.
    """
    started, ended, unheard = utterance.started_ms, utterance.ended_ms, utterance.unheard_ms
    if not utterance.interrupted or not unheard or started is None or ended is None:
        return utterance.text, ""
    played = max(0, ended - started)
    words = utterance.text.split()
    heard_count = round(len(words) * played / (played + unheard))
    return " ".join(words[:heard_count]), " ".join(words[heard_count:])


def _event_order(event: CallEvent) -> tuple[bool, int, str, int]:
    """By time; events without one, which the webhooks report, come last."""
    return event.at_ms is None, event.at_ms or 0, event.source, event.index
