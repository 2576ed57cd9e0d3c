"""Statistics of the calls in any period of time: current at every moment, and fast over a million calls.

Whole hours that are rolled up come from `CallHour`, one row each. Everything else is computed from the calls
themselves: the partial hours at both ends, dirty hours, the current hour. An hour without a row has no calls
if it lies between hours that have one; outside of these it is computed from the calls, too. The statistics of
one phone number are computed from its calls.

At most `MAX_CALLS_READ` calls are read for that, the newest. After an import or a restore many hours are
dirty; until they are rolled up, a report says before which time only rolled-up hours are counted.

A report makes at most eight queries, however many calls there are.
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

from calls.costs import DOLLARS, add_bills, compute_cost_per_minute
from calls.models import CallHour
from calls.stats.aggregates import (
    QUARTER_HOUR_SECONDS,
    Aggregate,
    AggregateJSON,
    Interval,
    aggregate_calls,
    select_calls,
)
from calls.stats.hourly import HOUR, floor_to_hour
from calls.stats.percentiles import LatencySummary

MAX_CALLS_READ = 20_000
# Of one query; beyond it, everything between the first and the last is read from the calls.
MAX_INTERVALS = 100


@dataclass(frozen=True, slots=True)
class CallStats:
    """Statistics of the calls that started in one period."""

    calls: int
    answered: int
    failed: int
    barge_in_calls: int  # calls with at least one barge-in
    barge_ins: int
    response_latency: LatencySummary  # of answered turns
    time_to_first_audio: LatencySummary  # of calls whose assistant was heard
    failure_reasons: Counter[str]  # end reasons of failed calls
    flags: Counter[str]
    cost: Decimal | None  # dollars, by the bills that have arrived; None: no bill has
    foreign_costs: dict[str, Decimal]  # what Twilio billed in other currencies
    unbilled_calls: int  # ended calls with a missing bill: `cost` is what the calls cost so far
    fully_billed_cost: Decimal
    fully_billed_us: int
    minutes: float  # of all calls that are over
    longest_silence_ms: int | None

    @property
    def cost_per_minute(self) -> Decimal | None:
        """Dollars a minute: the bills divided by the calls' durations, not by the minutes billed.

        61 seconds count as 61, though Twilio bills two minutes for them. Only calls without a missing bill
        count: otherwise the calls of the last half hour, not fully billed yet, would lower it.
        """
        return compute_cost_per_minute(self.fully_billed_cost, self.fully_billed_us)

    @property
    def costs(self) -> dict[str, Decimal]:
        """The cost in each currency, dollars first."""
        return add_bills([(self.cost, DOLLARS), *((cost, name) for name, cost in self.foreign_costs.items())])

    @classmethod
    def of(cls, aggregate: Aggregate) -> Self:
        return cls(
            calls=aggregate.calls,
            answered=aggregate.answered,
            failed=aggregate.failure_reasons.total(),
            barge_in_calls=aggregate.barge_in_calls,
            barge_ins=aggregate.barge_ins,
            response_latency=LatencySummary.of_buckets(aggregate.response_latency),
            time_to_first_audio=LatencySummary.of_buckets(aggregate.time_to_first_audio),
            failure_reasons=aggregate.failure_reasons,
            flags=aggregate.flags,
            cost=aggregate.cost,
            foreign_costs=aggregate.foreign_costs,
            unbilled_calls=aggregate.unbilled_calls,
            fully_billed_cost=aggregate.fully_billed_cost,
            fully_billed_us=aggregate.fully_billed_us,
            minutes=aggregate.duration_us / 60_000_000,
            longest_silence_ms=aggregate.longest_silence_ms,
        )


@dataclass(frozen=True, slots=True)
class CallReport:
    """Statistics of a period: in total, and of each hour or day in it."""

    total: CallStats
    periods: list[tuple[datetime, CallStats]]  # with the start of each; the first and last may be partial
    counted_since: datetime | None  # before it only rolled-up hours are counted; None: all are


def report_by_hour(since: datetime, until: datetime, *, simulated: bool, number: str = "") -> CallReport:
    """The calls that started from `since` until just before `until`; with `number`, only those of this
    number of ours. Hours without calls are included."""
    starts = list(_hours(since, until))
    return _report(since, until, simulated, number, starts, floor_to_hour, boundaries=[])


def report_by_day(since: datetime, until: datetime, *, simulated: bool, number: str = "") -> CallReport:
    """The same by day in the current time zone; each day by its midnight."""
    days = list(_days(since, until))
    return _report(since, until, simulated, number, days, _day_start, boundaries=days)


def _report(
    since: datetime,
    until: datetime,
    simulated: bool,
    number: str,
    starts: list[datetime],
    start_of: Callable[[datetime], datetime],
    boundaries: list[datetime],
) -> CallReport:
    rolled_up: dict[datetime, AggregateJSON] = {}
    if not number:
        rolled_up, intervals = _plan_intervals(since, until, simulated, boundaries)
    else:
        intervals = [(since, until)] if since < until else []
    intervals, counted_since = _limit_calls_read(intervals, simulated, number)
    total = Aggregate()
    by_start: dict[datetime, Aggregate] = defaultdict(Aggregate)
    pieces = list(rolled_up.items())
    for quarter, aggregate in aggregate_calls(intervals, simulated=simulated, number=number).items():
        pieces.append((datetime.fromtimestamp(quarter * QUARTER_HOUR_SECONDS, UTC), aggregate.to_json()))
    for moment, stored in pieces:
        total.add_json(stored)
        by_start[start_of(moment)].add_json(stored)
    periods = [(start, CallStats.of(by_start[start])) for start in starts]
    return CallReport(CallStats.of(total), periods, counted_since)


def _limit_calls_read(
    intervals: list[Interval], simulated: bool, number: str
) -> tuple[list[Interval], datetime | None]:
    """The newest part of the intervals, with at most `MAX_CALLS_READ` calls, and where it begins."""
    if not intervals:
        return intervals, None
    calls = select_calls(intervals, simulated=simulated, number=number).order_by("-started_at", "-id")
    first_too_many = calls.values_list("started_at", flat=True)[MAX_CALLS_READ : MAX_CALLS_READ + 1]
    if not (too_old := list(first_too_many)):
        return intervals, None
    begin = floor_to_hour(too_old[0]) + HOUR
    return [(max(since, begin), until) for since, until in intervals if until > begin], begin


def _plan_intervals(
    since: datetime, until: datetime, simulated: bool, boundaries: list[datetime]
) -> tuple[dict[datetime, AggregateJSON], list[Interval]]:
    """The aggregates of rolled-up hours, and the intervals to compute from the calls. Two queries."""
    with_row = CallHour.objects.aggregate(first=Min("hour"), last=Max("hour"))
    rows = CallHour.objects.filter(simulated=simulated, hour__gte=floor_to_hour(since), hour__lt=until)
    stored = {
        hour: None if dirty else aggregate
        for hour, dirty, aggregate in rows.values_list("hour", "dirty", "figures")
    }
    # A day may start within an hour: then this hour's aggregate belongs to two days.
    split_hours = {floor_to_hour(day) for day in boundaries if floor_to_hour(day) != day}
    rolled_up: dict[datetime, AggregateJSON] = {}
    intervals: list[Interval] = []
    for hour in _hours(since, until):
        end = hour + HOUR
        if since <= hour and end <= until and hour not in split_hours:
            if aggregate := stored.get(hour):
                rolled_up[hour] = aggregate
                continue
            if hour not in stored and with_row["first"] and with_row["first"] < hour < with_row["last"]:
                continue
        start, end = max(hour, since), min(end, until)
        if intervals and intervals[-1][1] == start:
            intervals[-1] = (intervals[-1][0], end)
        else:
            intervals.append((start, end))
    if len(intervals) > MAX_INTERVALS:
        start, end = intervals[0][0], intervals[-1][1]
        rolled_up = {hour: aggregate for hour, aggregate in rolled_up.items() if not start <= hour < end}
        intervals = [(start, end)]
    return rolled_up, intervals


def _hours(since: datetime, until: datetime) -> Iterator[datetime]:
    hour = floor_to_hour(since)
    while hour < until:
        yield hour
        hour += HOUR


def _days(since: datetime, until: datetime) -> Iterator[datetime]:
    midnight = _day_start(since)
    while midnight < until:
        yield midnight
        midnight = _start_of_day(midnight.date() + timedelta(days=1))


def _day_start(moment: datetime) -> datetime:
    return _start_of_day(timezone.localtime(moment).date())


def _start_of_day(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=timezone.get_current_timezone())
