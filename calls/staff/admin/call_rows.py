"""The rows of a call in the admin: transcript, turns and events, as inlines of the call and as lists."""

from __future__ import annotations

from django.contrib import admin
from unfold.admin import ModelAdmin, TabularInline

from calls.models import CallEvent, Turn, Utterance
from calls.staff.admin.readonly import ReadOnlyMixin
from calls.staff.paginator import CappedPaginator

MAX_INLINE_ROWS = 200


class UtteranceInline(ReadOnlyMixin, TabularInline):  # type: ignore[misc]
    model = Utterance
    fields = ("index", "speaker", "text", "started_ms", "ended_ms", "interrupted")
    readonly_fields = fields
    ordering = ("index",)
    extra = 0
    tab = True
    per_page = MAX_INLINE_ROWS


class TurnInline(ReadOnlyMixin, TabularInline):  # type: ignore[misc]
    model = Turn
    fields = ("number", "end_of_speech_ms", "response_latency_ms", "bridge_overhead_us", "interrupted")
    readonly_fields = fields
    ordering = ("number",)
    extra = 0
    tab = True
    per_page = MAX_INLINE_ROWS


class CallChildAdmin(ReadOnlyMixin, ModelAdmin):  # type: ignore[misc]
    """Searched by the start of the call's sid."""

    search_fields = ("call__call_sid__startswith",)
    search_help_text = "Start of a CallSid"
    list_select_related = ("call",)
    raw_id_fields = ("call",)
    show_full_result_count = False
    paginator = CappedPaginator
    ordering = ("-id",)
    list_per_page = 50
    list_max_show_all = 0


@admin.register(Utterance)
class UtteranceAdmin(CallChildAdmin):
    list_display = ("call", "index", "speaker", "text", "started_ms", "interrupted")


@admin.register(Turn)
class TurnAdmin(CallChildAdmin):
    list_display = ("call", "number", "response_latency_ms", "bridge_overhead_us", "interrupted")


@admin.register(CallEvent)
class CallEventAdmin(CallChildAdmin):
    list_display = ("call", "source", "index", "kind", "at_ms")
