"""What pages count, over any stretch of time, true at every moment and quick over a million calls.

Whole hours that are summed up come from `CallHour`, one row for each; everything else (the ragged ends,
hours that have changed since, the current one) is read from the calls themselves. An hour without a row
has no calls when it lies between hours that have one; outside of these it is read from the calls, too.

However many calls there are, each function asks the same seven queries at most.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Self

from django.db.models import Max, Min
from django.utils import timezone

from calls.costs import per_minute
from calls.models import CallHour
from calls.stats.aggregates import QUARTER_SECONDS, Range, Stored, Sums, read
from calls.stats.hourly import HOUR, hour_of, sum_up_all
from calls.stats.percentiles import Summary

__all__ = ["Figures", "by_day", "by_hour", "figures", "sum_up_all"]

MAX_RANGES = 100  # of one query; beyond, all that lies between is read from the calls


@dataclass(frozen=True, slots=True)
class Figures:
    """Of the calls that started in one stretch of time."""

    calls: int
    answered: int
    failed: int
    cut_off_by_caller: int  # calls in which the caller cut in at least once
    barge_ins: int  # how often callers cut in
    response: Summary  # of answered turns
    first_word: Summary  # of calls whose assistant was heard
    end_reasons: Counter[str]  # of failed calls
    flags: Counter[str]
    cost: Decimal | None  # dollars, as far as bills have come; None: not one has
    awaited: int  # calls of which some bill is still to come, so that `cost` is what it came to so far
    settled_cost: Decimal
    settled_us: int
    minutes: float  # of all calls that are over
    longest_silence_ms: int | None

    @property
    def cost_per_minute(self) -> Decimal | None:
        """Dollars a minute of talk: all bills over the length of the calls, not over the minutes billed for.

        61 seconds count as 61, though Twilio bills two minutes for them. Only calls whose every bill has
        come are in it: else the calls of the last half hour would make it look cheap.
        """
        return per_minute(self.settled_cost, self.settled_us)

    @classmethod
    def of(cls, sums: Sums) -> Self:
        return cls(
            calls=sums.calls,
            answered=sums.answered,
            failed=sums.end_reasons.total(),
            cut_off_by_caller=sums.cut_off_by_caller,
            barge_ins=sums.barge_ins,
            response=Summary.of_buckets(sums.response),
            first_word=Summary.of_buckets(sums.first_word),
            end_reasons=sums.end_reasons,
            flags=sums.flags,
            cost=sums.cost,
            awaited=sums.awaited,
            settled_cost=sums.settled_cost,
            settled_us=sums.settled_us,
            minutes=sums.length_us / 60_000_000,
            longest_silence_ms=sums.longest_silence_ms,
        )


def figures(since: datetime, until: datetime, *, simulated: bool) -> Figures:
    """Of the calls that started from `since` until just before `until`."""
    sums = Sums()
    for _, stored in _pieces(since, until, simulated):
        sums.add(stored)
    return Figures.of(sums)


def by_hour(since: datetime, until: datetime, *, simulated: bool) -> list[tuple[datetime, Figures]]:
    """Hour by hour, none left out; the first and the last may be parts of theirs."""
    return _grouped(list(_hours(since, until)), hour_of, _pieces(since, until, simulated))


def by_day(since: datetime, until: datetime, *, simulated: bool) -> list[tuple[datetime, Figures]]:
    """Day by day in the current time zone, each named by its midnight."""
    days = list(_days(since, until))
    return _grouped(days, _midnight, _pieces(since, until, simulated, cuts=days))


def _grouped(
    names: list[datetime], name_of: Callable[[datetime], datetime], pieces: Iterator[tuple[datetime, Stored]]
) -> list[tuple[datetime, Figures]]:
    sums: dict[datetime, Sums] = defaultdict(Sums)
    for moment, stored in pieces:
        sums[name_of(moment)].add(stored)
    return [(name, Figures.of(sums[name])) for name in names]


def _pieces(
    since: datetime, until: datetime, simulated: bool, cuts: list[datetime] | None = None
) -> Iterator[tuple[datetime, Stored]]:
    """The sums that make up the whole, each with a moment that it lies at; none reaches over a cut."""
    summed, ranges = _plan(since, until, simulated, cuts or [])
    yield from summed.items()
    for quarter, sums in read(ranges, simulated=simulated).items():
        yield datetime.fromtimestamp(quarter * QUARTER_SECONDS, UTC), sums.stored()


def _plan(
    since: datetime, until: datetime, simulated: bool, cuts: list[datetime]
) -> tuple[dict[datetime, Stored], list[Range]]:
    """Which hours are summed up, and what is left to be read from the calls. Two queries."""
    known = CallHour.objects.aggregate(first=Min("hour"), last=Max("hour"))
    rows = CallHour.objects.filter(simulated=simulated, hour__gte=hour_of(since), hour__lt=until)
    kept = {
        hour: None if dirty else stored
        for hour, dirty, stored in rows.values_list("hour", "dirty", "figures")
    }
    torn = {hour_of(cut) for cut in cuts if hour_of(cut) != cut}
    summed: dict[datetime, Stored] = {}
    ranges: list[Range] = []
    for hour in _hours(since, until):
        end = hour + HOUR
        if since <= hour and end <= until and hour not in torn:
            if stored := kept.get(hour):
                summed[hour] = stored
                continue
            if hour not in kept and known["first"] and known["first"] < hour < known["last"]:
                continue
        begins, ends = max(hour, since), min(end, until)
        if ranges and ranges[-1][1] == begins:
            ranges[-1] = (ranges[-1][0], ends)
        else:
            ranges.append((begins, ends))
    if len(ranges) > MAX_RANGES:
        begins, ends = ranges[0][0], ranges[-1][1]
        summed = {hour: stored for hour, stored in summed.items() if not begins <= hour < ends}
        ranges = [(begins, ends)]
    return summed, ranges


def _hours(since: datetime, until: datetime) -> Iterator[datetime]:
    hour = hour_of(since)
    while hour < until:
        yield hour
        hour += HOUR


def _days(since: datetime, until: datetime) -> Iterator[datetime]:
    midnight = _midnight(since)
    while midnight < until:
        yield midnight
        midnight = _begin(midnight.date() + timedelta(days=1))


def _midnight(moment: datetime) -> datetime:
    return _begin(timezone.localtime(moment).date())


def _begin(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=timezone.get_current_timezone())
