"""What staff do to many calls at once, from the list: an outcome, a review."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from asgiref.sync import async_to_sync
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.forms import ActionForm

from calls.ingest.sanitize import clean_text
from calls.models import Call
from calls.staff import audit
from calls.staff.live.board import our_number, their_number
from calls.twilio import outbound
from calls.vendor_errors import VendorError

MAX_OUTCOME = 64


class CallActionForm(ActionForm):  # type: ignore[misc]
    """The bar under the list: which action, and for one of them the outcome."""

    outcome = forms.CharField(
        label="",
        required=False,
        max_length=MAX_OUTCOME,
        widget=forms.TextInput(
            {
                "class": "bg-white/20 placeholder:text-white/80 px-2 py-1 rounded-default text-sm text-white",
                "placeholder": "such as booked",
                "aria-label": "Outcome",
                "x-show": "action === 'set_outcome'",
            }
        ),
    )


class CallActions:
    """The actions, for the admin of calls."""

    actions = ("set_outcome", "needs_review", "needs_no_review", "call_back")
    action_form = CallActionForm

    if TYPE_CHECKING:

        def message_user(self, request: HttpRequest, message: str, level: int = 0) -> None: ...

    @admin.action(description="Set the outcome", permissions=["change"])
    def set_outcome(self, request: HttpRequest, queryset: QuerySet[Call]) -> None:
        outcome = clean_text(request.POST.get("outcome", "")).strip()[:MAX_OUTCOME]
        if not outcome:
            self.message_user(request, "Write the outcome beside the action.", messages.ERROR)
            return
        self._change(request, queryset, f"Outcome “{outcome}”.", outcome=outcome)

    @admin.action(description="Mark as needing review", permissions=["change"])
    def needs_review(self, request: HttpRequest, queryset: QuerySet[Call]) -> None:
        self._change(request, queryset, "Needs review.", needs_review=True)

    @admin.action(description="Mark as reviewed", permissions=["change"])
    def needs_no_review(self, request: HttpRequest, queryset: QuerySet[Call]) -> None:
        self._change(request, queryset, "Reviewed.", needs_review=False)

    @admin.action(description="Call back: the assistant calls the caller", permissions=["place"])
    def call_back(self, request: HttpRequest, queryset: QuerySet[Call]) -> None:
        calls = list(queryset[:2])
        if len(calls) != 1:
            self.message_user(request, "Choose one call: one person is called at a time.", messages.ERROR)
            return
        (call,) = calls
        try:
            callee, ours = outbound.numbers_for(their_number(call), our_number(call))
            audit.note(request.user, "call-back", call)
            placed = outbound.note(async_to_sync(outbound.place)(callee, ours), callee, ours)
        except VendorError as failure:
            self.message_user(request, str(failure), messages.ERROR)
            return
        said = format_html('They are being called: <a href="{}">the call</a>.', placed.get_absolute_url())
        self.message_user(request, said, messages.SUCCESS)

    def has_place_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("calls.place_call")

    def _change(self, request: HttpRequest, queryset: QuerySet[Call], said: str, **values: Any) -> None:
        """Change the calls of the page that are not so yet, and leave a trace of each."""
        selected = Call.objects.filter(pk__in=queryset.order_by().values("pk"))
        calls = list(selected.exclude(Q(**values)))
        Call.objects.filter(pk__in=[call.pk for call in calls]).update(**values)
        if calls:
            LogEntry.objects.log_actions(cast(int, request.user.pk), calls, CHANGE, change_message=said)
            audit.note(request.user, "note", detail=f"{said} {len(calls)} calls")
        self.message_user(request, f"{said} {len(calls)} changed.", messages.SUCCESS)
