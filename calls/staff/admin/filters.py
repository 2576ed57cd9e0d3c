"""The filters of the call list. Choices come from tables in code, never from a scan of all calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from calls import end_reasons
from calls.models import Call, PhoneNumber
from calls.querysets import CallQuerySet
from calls.stats import time_ranges
from calls.stats.flags import FAILED, FLAGS

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin as CallModelAdmin

Lookups = list[tuple[str, str]]
MAX_NUMBERS = 200


class CallFilter(admin.SimpleListFilter, ABC):
    """A filter with one value, kept in the URL."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Call]) -> QuerySet[Call]:
        assert isinstance(queryset, CallQuerySet)
        return self.apply(queryset, self.value()) if self.value() else queryset

    @abstractmethod
    def apply(self, calls: CallQuerySet, value: str | None) -> CallQuerySet:
        """The calls that match the chosen value."""


class TimeRangeFilter(CallFilter):
    """A named time range. Links from the dashboard use exact bounds instead."""

    title = "time range"
    parameter_name = "when"

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> Lookups:
        return list(time_ranges.RANGE_LABELS.items())

    def apply(self, calls: CallQuerySet, value: str | None) -> CallQuerySet:
        try:
            return calls.since(time_ranges.named_range(value or "", timezone.now()).since)
        except time_ranges.InvalidRange:
            return calls


class BoundFilter(CallFilter):
    """A time bound that came with a link. Its only choice is itself, so that it can be removed."""

    lookup = ""

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> Lookups:
        bound = _parse_bound(request.GET.get(self.parameter_name or ""))
        if bound is None:
            return []
        return [(bound.isoformat(), f"{timezone.localtime(bound):%-d %b %Y, %H:%M}")]

    def apply(self, calls: CallQuerySet, value: str | None) -> CallQuerySet:
        bound = _parse_bound(value)
        return calls if bound is None else calls.filter(**{self.lookup: bound})


class FromFilter(BoundFilter):
    title = "from"
    parameter_name = lookup = "started_at__gte"


class UntilFilter(BoundFilter):
    title = "until"
    parameter_name = lookup = "started_at__lt"


def _parse_bound(text: str | None) -> datetime | None:
    """A time from a link, or None if it is not valid."""
    text = (text or "")[:40]
    try:
        # A `+` in a query string arrives as a space.
        bound = parse_datetime(text.replace(" ", "+", 1) if "T" in text else text)
        if bound is None:
            return None
        bound = bound if timezone.is_aware(bound) else timezone.make_aware(bound)
        # Must be representable in every time zone.
        return bound if datetime(2000, 1, 2) <= bound.replace(tzinfo=None) <= datetime(2999, 1, 1) else None
    except (ValueError, OverflowError):
        return None


class EndReasonFilter(CallFilter):
    title = "end reason"
    parameter_name = "ended"

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> Lookups:
        reasons = [(name, reason.sentence.rstrip(".")) for name, reason in end_reasons.END_REASONS.items()]
        return [(FAILED, "Failed (any reason)"), *reasons]

    def apply(self, calls: CallQuerySet, value: str | None) -> CallQuerySet:
        return calls.flagged(FAILED) if value == FAILED else calls.filter(end_reason=value)


class FlagFilter(CallFilter):
    title = "needs attention"
    parameter_name = "flag"

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> Lookups:
        return [(name, flag.label[:1].upper() + flag.label[1:]) for name, flag in FLAGS.items()]

    def apply(self, calls: CallQuerySet, value: str | None) -> CallQuerySet:
        return calls.flagged(value) if value in FLAGS else calls.none()


class NumberFilter(CallFilter):
    """By our number: the one that was called, or the one that we called from."""

    title = "number"
    parameter_name = "number"

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> Lookups:
        numbers = PhoneNumber.objects.order_by("label", "number")[:MAX_NUMBERS]
        return [(str(number.pk), number.label or number.number) for number in numbers]

    def apply(self, calls: CallQuerySet, value: str | None) -> CallQuerySet:
        if not (value or "").isascii() or not (value or "").isdigit() or len(value or "") > 18:
            return calls.none()
        number = PhoneNumber.objects.filter(pk=int(value or 0)).values_list("number", flat=True).first()
        return calls.of_our_number(number) if number else calls.none()


class ReviewFilter(CallFilter):
    title = "needs review"
    parameter_name = "review"

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> Lookups:
        return [("yes", "Yes")]

    def apply(self, calls: CallQuerySet, value: str | None) -> CallQuerySet:
        return calls.filter(needs_review=True)


class SimulatedFilter(admin.SimpleListFilter):
    """Hides simulated calls as soon as there is a real one, unless a choice is made."""

    title = "simulated calls"
    parameter_name = "simulated"

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> Lookups:
        return [("no", "Exclude"), ("yes", "Only"), ("all", "Include")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Call]) -> QuerySet[Call]:
        assert isinstance(queryset, CallQuerySet)
        match self.value():
            case "yes":
                return queryset.filter(simulated=True)
            case "no":
                return queryset.filter(simulated=False)
            case "all":
                return queryset
            case _:
                return queryset.real_or_simulated()
