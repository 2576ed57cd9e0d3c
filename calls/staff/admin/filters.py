"""The filters of the admin's list of calls, made from the table of `staff/call_filters.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from calls.models import Call
from calls.querysets import CallQuerySet
from calls.staff.call_filters import FILTERS, SIMULATED, CallFilter, Choices
from calls.viewer import Viewer

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin


class AdminFilter(admin.SimpleListFilter):
    """Adapts a `CallFilter`. A value that is none of its choices can be removed, too."""

    call_filter: CallFilter

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Choices:
        choices = self.call_filter.choices()
        value = request.GET.get(self.call_filter.name, "")
        if value and value not in dict(choices):
            choices.append((value, self.call_filter.label(value, Viewer.for_user(request.user))))
        return choices

    def queryset(self, request: HttpRequest, queryset: QuerySet[Call]) -> QuerySet[Call]:
        assert isinstance(queryset, CallQuerySet)
        if value := self.value():
            return self.call_filter.apply(queryset, value)
        return queryset.real_or_simulated() if self.call_filter is SIMULATED else queryset


def _adapt(call_filter: CallFilter) -> type[AdminFilter]:
    attributes = {
        "call_filter": call_filter,
        "title": call_filter.title.lower(),
        "parameter_name": call_filter.name,
    }
    return type(f"{call_filter.title.title().replace(' ', '')}Filter", (AdminFilter,), attributes)


ADMIN_FILTERS = tuple(map(_adapt, FILTERS))
