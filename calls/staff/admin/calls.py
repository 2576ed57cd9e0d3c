"""Calls in the admin: a list with bulk actions, and all columns of a call. Staff may change only their notes.

`staff/call_list.py` is the list that staff browse.

The list stays fast at a million rows: the paginator caps the count (`paginator.py`), filters are those of
`staff/call_filters.py`, and search uses an index. Phone numbers are masked for viewers who may not see them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from calls.models import Call
from calls.querysets import CallQuerySet
from calls.staff import search
from calls.staff.admin.actions import CallActions
from calls.staff.admin.call_rows import TurnInline, UtteranceInline
from calls.staff.admin.columns import build_columns
from calls.staff.admin.filters import ADMIN_FILTERS
from calls.staff.paginator import CappedPaginator
from calls.stats.hourly import hour_key, mark_dirty
from calls.viewer import Viewer


@admin.register(Call)
class CallAdmin(CallActions, ModelAdmin):  # type: ignore[misc]
    list_filter = ADMIN_FILTERS
    list_filter_sheet = True
    search_fields = ("call_sid",)
    show_full_result_count = False
    paginator = CappedPaginator
    list_per_page = 50
    list_max_show_all = 0
    inlines = (UtteranceInline, TurnInline)
    list_after_template = "calls/_list_foot.html"

    STAFF_FIELDS = ("outcome", "note", "needs_review")

    def get_list_display(self, request: HttpRequest) -> Sequence[Any]:
        return build_columns(Viewer.for_user(request.user))

    def get_list_display_links(self, request: HttpRequest, list_display: Sequence[Any]) -> None:
        return None  # the time column links to the call's page

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        viewer = Viewer.for_user(request.user)
        self.search_help_text = (
            "Words, a number, or the start of a call ID"
            if viewer.can_view_numbers
            else "Words, or the start of a call ID"
        )
        return super().changelist_view(request, extra_context)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Call], search_term: str
    ) -> tuple[QuerySet[Call], bool]:
        assert isinstance(queryset, CallQuerySet)
        text, viewer = search_term.strip(), Viewer.for_user(request.user)
        return (search.search_calls(queryset, text, viewer).calls if text else queryset), False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Call]:
        calls: QuerySet[Call] = super().get_queryset(request)
        return calls.prefetch_related("flags")

    # The detail form

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        call = super().get_object(request, object_id, from_field)
        if call is not None:
            call.viewer = Viewer.for_user(request.user)  # for the two fields below
        return call

    @admin.display(description="caller or callee")
    def caller(self, call: Any) -> str:
        return str(call.viewer.display_number(call.their_number)) or "Unknown"

    @admin.display(description="number")
    def our_number(self, call: Any) -> str:
        return str(call.viewer.display_number(call.our_number)) or "Unknown"

    @admin.display(description="call page")
    def page(self, call: Call) -> SafeString:
        link = '<a class="call-link" href="{}">Transcript and timeline</a>'
        return format_html(link, call.get_absolute_url())

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        excluded = ("id", "from_number", "to_number", "recording_urls", *self.STAFF_FIELDS)
        names = [field.name for field in Call._meta.fields if field.name not in excluded]
        return [*names, "caller", "our_number", "page"]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return (
            (None, {"fields": ("page", "status", "end_reason", "ended_by", *self.STAFF_FIELDS)}),
            (
                "Details",
                {
                    "fields": (
                        ("call_sid", "stream_sid"),
                        ("vapi_call_id", "direction"),
                        ("caller", "our_number"),
                        ("caller_name", "simulated"),
                        ("started_at", "answered_at"),
                        ("ended_at", "duration_seconds"),
                        ("answered_by", "vapi_ended_reason"),
                        ("vapi_close_code", "reported_at"),
                        ("twilio_price", "price_unit"),
                        ("stream_price", "vapi_cost"),
                        ("assistant_id", "release"),
                        "end_requested",
                        "summary",
                    )
                },
            ),
            (
                "Metrics",
                {
                    "fields": (
                        ("connect_ms", "time_to_first_audio_ms"),
                        ("turn_count", "barge_ins"),
                        ("p50_latency_ms", "worst_latency_ms"),
                        ("longest_silence_ms", "frames_held"),
                        ("frames_to_assistant", "frames_to_caller"),
                        ("frames_dropped", "end_requested_at"),
                        "counters",
                        "vapi_report",
                        ("worker", "lease_until"),
                    )
                },
            ),
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def delete_model(self, request: HttpRequest, obj: Call) -> None:
        mark_dirty([hour_key(obj)])
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Call]) -> None:
        mark_dirty({hour_key(call) for call in queryset})
        super().delete_queryset(request, queryset)
