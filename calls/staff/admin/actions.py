"""Bulk actions of the admin's list of calls: set an outcome, mark for review, call back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from asgiref.sync import async_to_sync
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.forms import ActionForm

from calls.ingest.sanitize import clean_text
from calls.models import Call
from calls.staff import audit
from calls.twilio import outbound
from calls.vendor_errors import VendorError

MAX_OUTCOME_CHARS = 64


class CallActionForm(ActionForm):  # type: ignore[misc]
    """The action bar below the list, with an outcome field that only `set_outcome` shows."""

    outcome = forms.CharField(
        label="",
        required=False,
        max_length=MAX_OUTCOME_CHARS,
        widget=forms.TextInput(
            {
                "class": "bg-white/20 placeholder:text-white/80 px-2 py-1 rounded-default text-sm text-white",
                "placeholder": "e.g. booked",
                "aria-label": "Outcome",
                "x-show": "action === 'set_outcome'",
            }
        ),
    )


class CallActions:
    """Mixin for the admin of calls."""

    actions = ("set_outcome", "mark_for_review", "mark_reviewed", "call_back")
    action_form = CallActionForm

    if TYPE_CHECKING:

        def message_user(self, request: HttpRequest, message: str, level: int = 0) -> None: ...

    @admin.action(description="Set outcome", permissions=["change"])
    def set_outcome(self, request: HttpRequest, queryset: QuerySet[Call]) -> None:
        outcome = clean_text(request.POST.get("outcome", "")).strip()[:MAX_OUTCOME_CHARS]
        if not outcome:
            self.message_user(request, "Enter an outcome next to the action.", messages.ERROR)
            return
        self._change(request, queryset, f"Outcome “{outcome}”", outcome=outcome)

    @admin.action(description="Mark for review", permissions=["change"])
    def mark_for_review(self, request: HttpRequest, queryset: QuerySet[Call]) -> None:
        self._change(request, queryset, "Marked for review", needs_review=True)

    @admin.action(description="Mark as reviewed", permissions=["change"])
    def mark_reviewed(self, request: HttpRequest, queryset: QuerySet[Call]) -> None:
        self._change(request, queryset, "Marked as reviewed", needs_review=False)

    @admin.action(description="Call back (the assistant calls)", permissions=["place"])
    def call_back(self, request: HttpRequest, queryset: QuerySet[Call]) -> None:
        calls = list(queryset[:2])
        if len(calls) != 1:
            self.message_user(request, "Select exactly one call to call back.", messages.ERROR)
            return
        (call,) = calls
        try:
            callee, caller_id = outbound.resolve_numbers(call.their_number, call.our_number)
            audit.record(request.user, "call-back", call)
            placed = outbound.create_row(
                async_to_sync(outbound.place_call)(callee, caller_id), callee, caller_id
            )
        except VendorError as error:
            self.message_user(request, str(error), messages.ERROR)
            return
        message = format_html('Call placed. <a href="{}">View call</a>', placed.get_absolute_url())
        self.message_user(request, message, messages.SUCCESS)

    def has_place_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("calls.place_call")

    def _change(self, request: HttpRequest, queryset: QuerySet[Call], change: str, **values: Any) -> None:
        """Update the selected calls that do not have these values yet, and log each change."""
        selected = Call.objects.filter(pk__in=queryset.order_by().values("pk"))
        calls = list(selected.exclude(Q(**values)))
        count = f"{len(calls)} call{'' if len(calls) == 1 else 's'}"
        if calls:
            with transaction.atomic():  # no change without its audit entry
                Call.objects.filter(pk__in=[call.pk for call in calls]).update(**values)
                LogEntry.objects.log_actions(
                    cast(int, request.user.pk), calls, CHANGE, change_message=f"{change}."
                )
                audit.record(request.user, "note", detail=f"{change}: {count}")
        self.message_user(request, f"{change}: {count} changed.", messages.SUCCESS)
