"""Calls in the admin: list, search, export and detail form. Staff may change only their own notes.

Lists stay fast at a million rows: the paginator caps the count (`paginator.py`), filter choices come from
code (`filters.py`), and search uses an index, either on the start of an id or number or on spoken words.
Phone numbers are masked for viewers who may not see them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from calls.models import Call
from calls.querysets import CallQuerySet
from calls.staff import audit, export, search
from calls.staff.admin.actions import CallActions
from calls.staff.admin.call_rows import TurnInline, UtteranceInline
from calls.staff.admin.columns import build_columns
from calls.staff.admin.filters import (
    EndReasonFilter,
    FlagFilter,
    FromFilter,
    NumberFilter,
    ReviewFilter,
    SimulatedFilter,
    TimeRangeFilter,
    UntilFilter,
)
from calls.staff.paginator import CappedPaginator
from calls.stats.hourly import hour_key, mark_dirty
from calls.viewer import Viewer

_ID_PREFIX = re.compile(r"(?=.*[0-9])[A-Za-z]{0,2}[0-9a-fA-F-]{4,}")
_NUMBER_PREFIX = re.compile(r"(tel:)?[+0-9()./ -]{3,}")


class CallChangeList(ChangeList):
    """One page of the list. After a search for words each call carries its matching line as `hit`."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        words = "" if _parse_prefix(self.query) else self.query
        hits = search.find_hits([call.pk for call in self.result_list], words) if words else {}
        for call in self.result_list:
            call.hit = hits.get(call.pk)  # for the column


def _parse_prefix(term: str) -> str:
    """The start of a number or id that was entered, normalized; empty when the term is words."""
    term = term.strip()
    if _NUMBER_PREFIX.fullmatch(term):
        digits = re.sub(r"[^0-9+]", "", term.removeprefix("tel:"))
        return "+" + digits[2:] if digits.startswith("00") else digits
    return term if _ID_PREFIX.fullmatch(term) else ""


@admin.register(Call)
class CallAdmin(CallActions, ModelAdmin):  # type: ignore[misc]
    list_filter = (
        TimeRangeFilter,
        FromFilter,
        UntilFilter,
        EndReasonFilter,
        FlagFilter,
        NumberFilter,
        ReviewFilter,
        SimulatedFilter,
    )
    list_filter_sheet = True
    search_fields = ("call_sid",)
    show_full_result_count = False
    paginator = CappedPaginator
    list_per_page = 50
    list_max_show_all = 0
    inlines = (UtteranceInline, TurnInline)
    list_after_template = "calls/_list_foot.html"

    STAFF_FIELDS = ("outcome", "note", "needs_review")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[CallChangeList]:
        return CallChangeList

    def get_list_display(self, request: HttpRequest) -> Sequence[Any]:
        searched = bool(request.GET.get("q", "").strip())
        return build_columns(Viewer.for_user(request.user), searched=searched)

    def get_list_display_links(self, request: HttpRequest, list_display: Sequence[Any]) -> None:
        return None  # the time column links to the call's page

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        viewer = Viewer.for_user(request.user)
        self.search_help_text = (
            "Words, or the start of a number or call ID"
            if viewer.can_view_numbers
            else "Words, or the start of a call ID"
        )
        extra = {"viewer": viewer, "query_string": request.GET.urlencode(), **(extra_context or {})}
        return super().changelist_view(request, extra)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Call], search_term: str
    ) -> tuple[QuerySet[Call], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        assert isinstance(queryset, CallQuerySet)
        if prefix := _parse_prefix(term):
            include_numbers = Viewer.for_user(request.user).can_view_numbers
            return queryset.search_prefix(prefix, include_numbers=include_numbers), False
        return queryset.filter(pk__in=search.find_call_ids(term)), False

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
        excluded = ("id", "from_number", "to_number", *self.STAFF_FIELDS)
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
                        ("vapi_ended_reason", "vapi_close_code"),
                        ("twilio_price", "stream_price", "vapi_cost"),
                        ("reported_at", "end_requested"),
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

    # Export

    def get_urls(self) -> list[URLPattern]:
        export_url = path("export/", self.admin_site.admin_view(self.export_view), name="calls_call_export")
        return [export_url, *super().get_urls()]

    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        """The list with its current search and filters, as a file."""
        viewer = Viewer.for_user(request.user)
        if not viewer.can_export or not viewer.can_view_calls:
            raise PermissionDenied("Exporting calls requires the permission “Can export calls”.")
        query = request.GET.copy()
        file_format = (query.pop("format", None) or ["csv"])[-1]
        if file_format not in export.FORMATS:
            raise Http404(f"There is no export format {file_format[:20]}.")
        request.GET = query  # type: ignore[assignment]
        calls = self.get_changelist_instance(request).get_queryset(request)
        assert isinstance(calls, CallQuerySet)
        audit.record(request.user, "export", detail=f"{file_format} {query.urlencode()}")
        return export.download(calls, file_format, viewer, name=f"calls-{timezone.localdate():%Y-%m-%d}")
