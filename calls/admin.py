"""The admin: every row can be found and read; only what is staff's to say can be changed.

Lists stay quick at a million rows: no row count, no date hierarchy, filters that never ask for all
distinct values, search by the beginning of a sid or a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from calls import words
from calls.masking import mask_number
from calls.models import Call, CallEvent, CallQuerySet, PhoneNumber, Turn, Utterance

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin as CallModelAdmin


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


class TurnInline(ReadOnly, TabularInline):  # type: ignore[misc]
    model = Turn
    fields = ("number", "end_of_speech_ms", "response_latency_ms", "bridge_overhead_us", "interrupted")
    readonly_fields = fields
    ordering = ("number",)
    extra = 0
    tab = True


class EndedFilter(admin.SimpleListFilter):
    """By how a call ended. The choices come from the table of words, not from the rows."""

    title = "how it ended"
    parameter_name = "ended"

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> list[tuple[str, str]]:
        reasons = [(reason, ending.sentence.rstrip(".")) for reason, ending in words.ENDINGS.items()]
        return [("failed", "failed, in any way"), *reasons]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Call]) -> QuerySet[Call]:
        if self.value() == "failed":
            assert isinstance(queryset, CallQuerySet)
            return queryset.failed()
        return queryset.filter(end_reason=self.value()) if self.value() else queryset


class StatusFilter(admin.SimpleListFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> list[tuple[str, str]]:
        return [(status, status) for status in words.STATUS_SENTENCES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Call]) -> QuerySet[Call]:
        return queryset.filter(status=self.value()) if self.value() else queryset


@admin.register(Call)
class CallAdmin(ModelAdmin):  # type: ignore[misc]
    list_display = ("started_at", "caller", "number", "length_shown", "ended", "needs_review", "simulated")
    list_display_links = ("started_at", "caller")
    list_filter = (EndedFilter, StatusFilter, "needs_review", "simulated")
    search_fields = ("call_sid",)
    search_help_text = "The beginning of a CallSid, of Vapi's call id, or of a number."
    show_full_result_count = False
    list_per_page = 50
    inlines = (UtteranceInline, TurnInline)

    STAFF_FIELDS = ("outcome", "note", "needs_review")
    readonly_fields = (
        "page",
        *(f.name for f in Call._meta.fields if f.name not in ("id", "outcome", "note", "needs_review")),
    )
    fieldsets = (
        (None, {"fields": ("page", "status", "end_reason", "ended_by", *STAFF_FIELDS)}),
        (
            "The call",
            {
                "fields": (
                    ("call_sid", "stream_sid", "vapi_call_id"),
                    ("direction", "from_number", "to_number"),
                    ("started_at", "answered_at", "ended_at", "duration_seconds"),
                    ("vapi_ended_reason", "vapi_close_code"),
                    ("twilio_price", "vapi_cost"),
                    "summary",
                    "simulated",
                )
            },
        ),
        (
            "Measured",
            {
                "fields": (
                    ("connect_ms", "time_to_first_audio_ms", "barge_ins"),
                    ("frames_to_assistant", "frames_to_caller", "frames_held", "frames_dropped"),
                    "counters",
                    "vapi_report",
                    ("worker", "lease_until"),
                )
            },
        ),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Call], search_term: str
    ) -> tuple[QuerySet[Call], bool]:
        beginning = search_term.strip()
        if not beginning:
            return queryset, False
        assert isinstance(queryset, CallQuerySet)
        return queryset.found_by(beginning), False

    @admin.display(description="caller", ordering="from_number")
    def caller(self, call: Call) -> str:
        return mask_number(call.from_number) or "unknown"

    @admin.display(description="number", ordering="to_number")
    def number(self, call: Call) -> str:
        return mask_number(call.to_number)

    @admin.display(description="length", ordering="duration_seconds")
    def length_shown(self, call: Call) -> str:
        length = call.length()
        return "–" if length is None else f"{int(length.total_seconds())} s"

    @admin.display(description="how it ended", ordering="end_reason")
    def ended(self, call: Call) -> SafeString:
        tone = "call-failed" if call.is_failed else "call-fine"
        return format_html('<span class="{}">{}</span>', tone, call.ended_in_words())

    @admin.display(description="call page")
    def page(self, call: Call) -> SafeString:
        return format_html(
            '<a class="call-link" href="{}">transcript and timeline</a>', call.get_absolute_url()
        )


class ChildAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    """Rows of a call, found by the beginning of its sid."""

    search_fields = ("call__call_sid__startswith",)
    search_help_text = "The beginning of a CallSid."
    list_select_related = ("call",)
    raw_id_fields = ("call",)
    show_full_result_count = False
    ordering = ("-id",)
    list_per_page = 50


@admin.register(Utterance)
class UtteranceAdmin(ChildAdmin):
    list_display = ("call", "index", "speaker", "text", "started_ms", "interrupted")


@admin.register(Turn)
class TurnAdmin(ChildAdmin):
    list_display = ("call", "number", "response_latency_ms", "bridge_overhead_us", "interrupted")


@admin.register(CallEvent)
class CallEventAdmin(ChildAdmin):
    list_display = ("call", "source", "index", "kind", "at_ms")


@admin.register(PhoneNumber)
class PhoneNumberAdmin(ModelAdmin):  # type: ignore[misc]
    list_display = ("number", "label", "assistant_id", "fallback_number", "active")
    list_filter = ("active",)
    search_fields = ("number__startswith", "label__istartswith")
    show_full_result_count = False


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
