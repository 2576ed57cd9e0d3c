"""Which calls a list shows, in which order: the meaning of the list's URL parameters.

The list, its export and links to it use the same parameters. Unknown ones are dropped, so that a link of
another version still opens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from urllib.parse import urlencode

from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from calls.ingest.sanitize import clean_text
from calls.models import Call
from calls.querysets import CallQuerySet
from calls.staff import search
from calls.staff.call_filters import FILTERS, apply_filters
from calls.stats import time_ranges
from calls.viewer import Viewer

MAX_VALUE_CHARS = 200
MAX_QUERY_CHARS = 1024  # of a list that is saved, or that a link names
TIME_PARAMETERS = ("range", "since", "until", "started_at__gte", "started_at__lt")
PARAMETERS = ("q", *TIME_PARAMETERS, *(call_filter.name for call_filter in FILTERS), "sort")

# By value of `sort`. Calls without the value that is sorted by are left out: databases disagree where nulls
# belong, and an index would serve only one of the two directions.
SORT_COLUMNS = {"time": "started_at", "length": "duration_seconds", "slowest": "worst_latency_ms"}
DEFAULT_SORT = "-time"


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The list's URL parameters; unknown ones are dropped."""

    values: dict[str, str]

    @classmethod
    def parse(cls, params: Mapping[str, str]) -> Self:
        given = ((name, clean_text(params.get(name, ""), MAX_VALUE_CHARS).strip()) for name in PARAMETERS)
        return cls({name: value for name, value in given if value})

    def encode(self, **changes: str) -> str:
        """The query string, with some values changed; an empty value removes the parameter."""
        return urlencode({name: value for name, value in (self.values | changes).items() if value})

    def url(self, **changes: str) -> str:
        query = self.encode(**changes)
        return reverse("call_list") + (f"?{query}" if query else "")

    def url_without(self, *names: str) -> str:
        return self.url(**dict.fromkeys(names, ""))

    def encode_for_call(self) -> str:
        """The query string of links from the list to a call, whose page then knows the list."""
        return "?" + urlencode({"list": self.encode()}) if self.values else ""

    @property
    def search_text(self) -> str:
        return self.values.get("q", "")

    @property
    def sort(self) -> str:
        sort = self.values.get("sort", "")
        return sort if sort.removeprefix("-") in SORT_COLUMNS else DEFAULT_SORT


@dataclass(frozen=True, slots=True)
class TimeFilter:
    """The calls from `since` until just before `until`; None where there is no bound."""

    label: str
    since: datetime | None = None
    until: datetime | None = None
    error: str = ""

    @classmethod
    def parse(cls, values: Mapping[str, str], now: datetime) -> Self:
        """From exact bounds, which links of other pages have, else from days, else from a named range."""
        since = _parse_bound(values.get("started_at__gte", ""))
        until = _parse_bound(values.get("started_at__lt", ""))
        if since or until:
            bounds = (("from", since), ("to", until))
            return cls(" ".join(f"{word} {_format(bound)}" for word, bound in bounds if bound), since, until)
        if not any(values.get(name) for name in ("range", "since", "until")):
            return cls("")
        try:
            chosen = time_ranges.parse_range(values, now)
        except time_ranges.InvalidRange as error:
            return cls("", error=str(error))
        return cls(chosen.label, chosen.since, None if chosen.name else chosen.until)

    def apply(self, calls: CallQuerySet) -> CallQuerySet:
        if self.since:
            calls = calls.filter(started_at__gte=self.since)
        return calls.filter(started_at__lt=self.until) if self.until else calls


def _parse_bound(text: str) -> datetime | None:
    """A time from a link, or None if it is not valid."""
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


def _format(bound: datetime) -> str:
    return f"{timezone.localtime(bound):%-d %b %Y, %H:%M}"


def select_calls(query: ListQuery, viewer: Viewer, now: datetime) -> search.Found:
    """The calls of a list, in its order."""
    calls = TimeFilter.parse(query.values, now).apply(Call.objects.all())
    calls = apply_filters(calls, query.values)
    is_capped = False
    if query.search_text:
        calls, is_capped = search.search_calls(calls, query.search_text, viewer)
    name = SORT_COLUMNS[query.sort.removeprefix("-")]
    if name != "started_at":
        calls = calls.filter(**{f"{name}__isnull": False})
    sign = "-" if query.sort.startswith("-") else ""
    return search.Found(calls.order_by(f"{sign}{name}", f"{sign}id"), is_capped)


def find_neighbors(
    call: Call, query: ListQuery, viewer: Viewer, now: datetime
) -> tuple[int | None, int | None]:
    """Ids of the calls before and after this one in the list; None at its ends.

    Two queries, more with a search.
    """
    name = SORT_COLUMNS[query.sort.removeprefix("-")]
    value = getattr(call, name)
    if value is None:
        return None, None
    calls = select_calls(query, viewer, now).calls.values_list("pk", flat=True)
    # The second, redundant condition lets the databases begin in the middle of an index.
    below = calls.filter(Q(**{f"{name}__lt": value}) | Q(pk__lt=call.pk), **{f"{name}__lte": value})
    above = calls.filter(Q(**{f"{name}__gt": value}) | Q(pk__gt=call.pk), **{f"{name}__gte": value})
    lower, higher = below.order_by(f"-{name}", "-id").first(), above.order_by(name, "id").first()
    return (higher, lower) if query.sort.startswith("-") else (lower, higher)
