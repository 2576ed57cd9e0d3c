"""The admin: every row can be found and read; only what is staff's to say can be changed.

Lists stay quick at a million rows: nothing counts them all (`paging.py`), filters take their choices from
code (`admin_filters.py`), search goes by the beginning of a sid or a number, or by words spoken. Phone
numbers are shown as each viewer may read them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from calls.models import AuditEntry, Call, CallEvent, CallQuerySet, Turn, Utterance
from calls.staff import audit, export, search
from calls.staff.admin.actions import CallActions
from calls.staff.admin.columns import columns_for
from calls.staff.admin.filters import (
    EndedFilter,
    FlagFilter,
    FromFilter,
    NumberFilter,
    ReviewFilter,
    SimulatedFilter,
    UntilFilter,
    WhenFilter,
)
from calls.staff.paginator import CappedPaginator
from calls.stats.hourly import key_of, mark
from calls.viewer import Viewer

_ID = re.compile(r"(?=.*[0-9])[A-Za-z]{0,2}[0-9a-fA-F-]{4,}")
_NUMBER = re.compile(r"(tel:)?[+0-9()./ -]{3,}")
MOST_ROWS = 200  # of an inline


class ReadOnly:
    """Rows that the bridge writes: staff look at them, and delete whole calls only."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class UtteranceInline(ReadOnly, TabularInline):  # type: ignore[misc]
    model = Utterance
    fields = ("index", "speaker", "text", "started_ms", "ended_ms", "interrupted")
    readonly_fields = fields
    ordering = ("index",)
    extra = 0
    tab = True
    per_page = MOST_ROWS


class TurnInline(ReadOnly, TabularInline):  # type: ignore[misc]
    model = Turn
    fields = ("number", "end_of_speech_ms", "response_latency_ms", "bridge_overhead_us", "interrupted")
    readonly_fields = fields
    ordering = ("number",)
    extra = 0
    tab = True
    per_page = MOST_ROWS


class CallList(ChangeList):
    """One page of the list, with the lines in which the words looked for were spoken."""

    hits: dict[int, search.Hit]

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        words = "" if _by_beginning(self.query) else self.query
        self.hits = search.hits([call.pk for call in self.result_list], words) if words else {}
        # The columns find it with the row.
        for call in self.result_list:
            call.hit = self.hits.get(call.pk)


def _by_beginning(term: str) -> str:
    """What a number or an id that was typed begins with; empty when it is words."""
    term = term.strip()
    if _NUMBER.fullmatch(term):
        digits = re.sub(r"[^0-9+]", "", term.removeprefix("tel:"))
        return "+" + digits[2:] if digits.startswith("00") else digits
    return term if _ID.fullmatch(term) else ""


@admin.register(Call)
class CallAdmin(CallActions, ModelAdmin):  # type: ignore[misc]
    list_filter = (
        WhenFilter,
        FromFilter,
        UntilFilter,
        EndedFilter,
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

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[CallList]:
        return CallList

    def get_list_display(self, request: HttpRequest) -> Sequence[Any]:
        return columns_for(Viewer.of(request.user), searched=bool(request.GET.get("q", "").strip()))

    def get_list_display_links(self, request: HttpRequest, list_display: Sequence[Any]) -> None:
        return None  # the first column leads to the call's page

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        viewer = Viewer.of(request.user)
        self.search_help_text = (
            "Words spoken, or the beginning of a number, a CallSid or Vapi's call id."
            if viewer.sees_numbers
            else "Words spoken, or the beginning of a CallSid or Vapi's call id."
        )
        extra = {"viewer": viewer, "asked": request.GET.urlencode(), **(extra_context or {})}
        return super().changelist_view(request, extra)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Call], search_term: str
    ) -> tuple[QuerySet[Call], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        assert isinstance(queryset, CallQuerySet)
        if beginning := _by_beginning(term):
            numbers_too = Viewer.of(request.user).sees_numbers
            return queryset.found_by(beginning, numbers_too=numbers_too), False
        return queryset.filter(pk__in=search.call_ids_saying(term)), False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Call]:
        calls: QuerySet[Call] = super().get_queryset(request)
        return calls.prefetch_related("flags")

    # One call

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        call = super().get_object(request, object_id, from_field)
        if call is not None:
            call.viewer = Viewer.of(request.user)  # for the columns below
        return call

    @admin.display(description="caller")
    def caller(self, call: Any) -> str:
        return str(call.viewer.number(call.from_number)) or "unknown"

    @admin.display(description="our number")
    def our_number(self, call: Any) -> str:
        return str(call.viewer.number(call.to_number)) or "unknown"

    @admin.display(description="call page")
    def page(self, call: Call) -> SafeString:
        link = '<a class="call-link" href="{}">transcript and timeline</a>'
        return format_html(link, call.get_absolute_url())

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        left_out = ("id", "from_number", "to_number", *self.STAFF_FIELDS)
        names = [field.name for field in Call._meta.fields if field.name not in left_out]
        return [*names, "caller", "our_number", "page"]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return (
            (None, {"fields": ("page", "status", "end_reason", "ended_by", *self.STAFF_FIELDS)}),
            (
                "The call",
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
                "Measured",
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
        mark([key_of(obj)])
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Call]) -> None:
        mark({key_of(call) for call in queryset})
        super().delete_queryset(request, queryset)

    def get_urls(self) -> list[URLPattern]:
        own = path("export/", self.admin_site.admin_view(self.export_view), name="calls_call_export")
        return [own, *super().get_urls()]

    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        """The list as it is filtered, as a file."""
        viewer = Viewer.of(request.user)
        if not viewer.exports or not viewer.sees_calls:
            raise PermissionDenied("Exporting needs the permission “Can export calls”.")
        asked = request.GET.copy()
        form = (asked.pop("format", None) or ["csv"])[-1]
        if form not in export.FORMATS:
            raise Http404(f"There is no export as {form[:20]}.")
        request.GET = asked  # type: ignore[assignment]
        calls = self.get_changelist_instance(request).get_queryset(request)
        assert isinstance(calls, CallQuerySet)
        audit.note(request.user, "export", detail=f"{form} {asked.urlencode()}")
        return export.download(calls, form, viewer, name=f"calls-{timezone.localdate():%Y-%m-%d}")


class ChildAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    """Rows of a call, found by the beginning of its sid."""

    search_fields = ("call__call_sid__startswith",)
    search_help_text = "The beginning of a CallSid."
    list_select_related = ("call",)
    raw_id_fields = ("call",)
    show_full_result_count = False
    paginator = CappedPaginator
    ordering = ("-id",)
    list_per_page = 50
    list_max_show_all = 0


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    """Who looked at a call, or acted on one."""

    list_display = ("at", "username", "action", "call_sid", "detail")
    list_display_links = None
    search_fields = ("call_sid__startswith", "username__startswith")
    search_help_text = "The beginning of a CallSid or of a user's name."
    show_full_result_count = False
    paginator = CappedPaginator
    ordering = ("-at", "-id")
    list_per_page = 50
    list_max_show_all = 0


@admin.register(Utterance)
class UtteranceAdmin(ChildAdmin):
    list_display = ("call", "index", "speaker", "text", "started_ms", "interrupted")


@admin.register(Turn)
class TurnAdmin(ChildAdmin):
    list_display = ("call", "number", "response_latency_ms", "bridge_overhead_us", "interrupted")


@admin.register(CallEvent)
class CallEventAdmin(ChildAdmin):
    list_display = ("call", "source", "index", "kind", "at_ms")


admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):  # type: ignore[misc]
    pass
