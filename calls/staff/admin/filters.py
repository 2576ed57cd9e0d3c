"""The filters of the list of calls. Choices come from tables in code, never from all the rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from calls import end_reasons as words
from calls.models import Call, CallQuerySet, PhoneNumber
from calls.stats import time_ranges
from calls.stats.flags import FAILED, FLAGS

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin as CallModelAdmin

Lookups = list[tuple[str, str]]
MOST_NUMBERS = 200


class CallFilter(admin.SimpleListFilter, ABC):
    """One choice, kept in the URL."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Call]) -> QuerySet[Call]:
        assert isinstance(queryset, CallQuerySet)
        return self.narrow(queryset, self.value()) if self.value() else queryset

    @abstractmethod
    def narrow(self, calls: CallQuerySet, value: str | None) -> CallQuerySet:
        """The calls that the choice leaves."""


class WhenFilter(CallFilter):
    """A range by name; links from the dashboard bring exact bounds instead."""

    title = "when"
    parameter_name = "when"

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> Lookups:
        return [(name, label.lower()) for name, label in time_ranges.NAMES.items()]

    def narrow(self, calls: CallQuerySet, value: str | None) -> CallQuerySet:
        try:
            return calls.since(time_ranges.named(value or "", timezone.now()).since)
        except time_ranges.BadRange:
            return calls


class BoundFilter(CallFilter):
    """A moment that a link brought. It shows nothing but itself, so that it can be taken away."""

    lookup = ""

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> Lookups:
        moment = _moment(request.GET.get(self.parameter_name or ""))
        if moment is None:
            return []
        return [(moment.isoformat(), f"{timezone.localtime(moment):%-d %b %Y, %H:%M}")]

    def narrow(self, calls: CallQuerySet, value: str | None) -> CallQuerySet:
        moment = _moment(value)
        return calls if moment is None else calls.filter(**{self.lookup: moment})


class FromFilter(BoundFilter):
    title = "from"
    parameter_name = lookup = "started_at__gte"


class UntilFilter(BoundFilter):
    title = "until"
    parameter_name = lookup = "started_at__lt"


def _moment(text: str | None) -> datetime | None:
    """A moment from a link; None for whatever is none."""
    try:
        found = parse_datetime((text or "")[:40].replace(" ", "+", 1) if "T" in (text or "") else text or "")
        if found is None:
            return None
        found = found if timezone.is_aware(found) else timezone.make_aware(found)
        # Every zone must be able to show it.
        return found if datetime(2000, 1, 2) <= found.replace(tzinfo=None) <= datetime(2999, 1, 1) else None
    except (ValueError, OverflowError):
        return None


class EndedFilter(CallFilter):
    """By how a call ended."""

    title = "how it ended"
    parameter_name = "ended"

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> Lookups:
        reasons = [(reason, ending.sentence.rstrip(".")) for reason, ending in words.ENDINGS.items()]
        return [(FAILED, "failed, in any way"), *reasons]

    def narrow(self, calls: CallQuerySet, value: str | None) -> CallQuerySet:
        return calls.flagged(FAILED) if value == FAILED else calls.filter(end_reason=value)


class FlagFilter(CallFilter):
    """By a reason to look at it."""

    title = "needs a look"
    parameter_name = "flag"

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> Lookups:
        return [(name, flag.words) for name, flag in FLAGS.items()]

    def narrow(self, calls: CallQuerySet, value: str | None) -> CallQuerySet:
        return calls.flagged(value) if value in FLAGS else calls.none()


class NumberFilter(CallFilter):
    """By which of our numbers was called."""

    title = "our number"
    parameter_name = "number"

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> Lookups:
        numbers = PhoneNumber.objects.order_by("label", "number")[:MOST_NUMBERS]
        return [(str(number.pk), number.label or number.number) for number in numbers]

    def narrow(self, calls: CallQuerySet, value: str | None) -> CallQuerySet:
        if not (value or "").isascii() or not (value or "").isdigit() or len(value or "") > 18:
            return calls.none()
        number = PhoneNumber.objects.filter(pk=int(value or 0)).values_list("number", flat=True).first()
        return calls.filter(to_number=number) if number else calls.none()


class ReviewFilter(CallFilter):
    title = "needs review"
    parameter_name = "review"

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> Lookups:
        return [("yes", "yes")]

    def narrow(self, calls: CallQuerySet, value: str | None) -> CallQuerySet:
        return calls.filter(needs_review=True)


class SimulatedFilter(admin.SimpleListFilter):
    """Simulated calls are hidden once there is a real one, unless they are asked for."""

    title = "simulated"
    parameter_name = "simulated"

    def lookups(self, request: HttpRequest, model_admin: CallModelAdmin[Any]) -> Lookups:
        return [("no", "no"), ("yes", "yes"), ("all", "with real ones")]

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
                return queryset.shown()
