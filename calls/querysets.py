"""The querysets of calls and turns: one method for each filter that more than one page or job needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Self

from django.db import connections, models
from django.db.models import Case, Q, When
from django.db.models.functions import Substr

from calls.end_reasons import FAILURE_REASONS
from calls.statuses import OPEN_STATUSES

if TYPE_CHECKING:
    from calls.models import Call, Turn  # noqa: F401, they are the type arguments below

MANY_MATCHES = 5_000  # calls; from here on a list is read in its order instead of sorting all matches


def of_our_number(number: str, prefix: str = "") -> Q:
    """Calls of this number of ours; `prefix` leads to the call, such as `call__`."""
    is_outbound = Q(**{f"{prefix}direction__startswith": "outbound"})
    came_in, placed = Q(**{f"{prefix}to_number": number}), Q(**{f"{prefix}from_number": number})
    return (~is_outbound & came_in) | (is_outbound & placed)


class CallQuerySet(models.QuerySet["Call"]):
    def live(self) -> Self:
        """In progress now."""
        return self.filter(status="in-progress")

    def open(self) -> Self:
        """Without a terminal status so far."""
        return self.filter(status__in=OPEN_STATUSES)

    def failed(self) -> Self:
        """The caller was not served, and did not choose to end the call. The same as `Call.is_failed`."""
        return self.filter(Q(end_reason__in=FAILURE_REASONS) | Q(status="failed", end_reason=""))

    def real(self) -> Self:
        """Calls of the telephone network, without the simulated ones."""
        return self.filter(simulated=False)

    def real_or_simulated(self) -> Self:
        """What pages count: real calls, or simulated ones as long as there are no real ones. One query."""
        return self.real() if self.model._default_manager.filter(simulated=False).exists() else self

    def flagged(self, name: str) -> Self:
        """Calls with this flag (`stats/flags.py`), from the index of flags."""
        return self.filter(flags__name=name)

    def of_our_number(self, number: str) -> Self:
        """Calls that came in at this number of ours, or that we placed from it."""
        return self.filter(of_our_number(number))

    def of_their_number(self, number: str) -> Self:
        """Calls from this caller, or to this callee."""
        is_outbound = Q(direction__startswith="outbound")
        return self.filter(Q(~is_outbound, from_number=number) | Q(is_outbound, to_number=number))

    def matching(self, condition: Q) -> Self:
        """Calls that fulfill a condition on their own columns, which may be rare or common. One query.

        Databases often choose wrongly between sorting all matches and reading calls in the list's order until
        enough of them match. So this method chooses: few matches are fetched by their ids, many are compared
        in an expression, which no index answers.
        """
        matches = self.model._default_manager.filter(condition).order_by()
        ids = list(matches.values_list("pk", flat=True)[:MANY_MATCHES])
        if len(ids) < MANY_MATCHES:
            return self.filter(pk__in=ids)
        name = f"matches_{len(self.query.annotations)}"
        return self.alias(**{name: Case(When(condition, then=True), default=False)}).filter(**{name: True})

    def since(self, moment: datetime) -> Self:
        return self.filter(started_at__gte=moment)

    def newest_first(self) -> Self:
        return self.order_by("-started_at", "-id")

    def search_prefixes(self, prefixes: Sequence[tuple[str, str]]) -> Self:
        """Calls in which one of these columns starts with its prefix.

        From an index; on SQLite, with many matches, by reading the newest calls.
        """
        # SQLite's LIKE ignores case and therefore cannot use the index. On PostgreSQL, ranges follow the
        # locale and cannot use it. So each database gets the query that its index can answer.
        if connections[self.db].vendor != "sqlite":
            return self.filter(_any_of({f"{name}__startswith": prefix} for name, prefix in prefixes))
        in_range = _any_of(
            {f"{name}__gte": prefix, f"{name}__lt": f"{prefix}\U0010ffff"} for name, prefix in prefixes
        )
        if self.model._default_manager.filter(in_range).order_by()[:MANY_MATCHES].count() < MANY_MATCHES:
            return self.filter(in_range)
        # SQLite would sort all matches to find the newest. Where many calls match, it is faster to read
        # the newest calls and to compare each.
        starts = {
            f"start_{index}": Substr(name, 1, len(prefix)) for index, (name, prefix) in enumerate(prefixes)
        }
        values = zip(starts, prefixes, strict=True)
        return self.alias(**starts).filter(_any_of({start: prefix} for start, (_, prefix) in values))


class TurnQuerySet(models.QuerySet["Turn"]):
    def answered(self) -> Self:
        return self.filter(response_latency_ms__isnull=False)


def _any_of(lookups: Iterable[dict[str, str]]) -> Q:
    """Calls that match at least one of these lookups."""
    return reduce(or_, (Q(**lookup) for lookup in lookups))
