"""Aggregates of calls: computed from the rows, stored for each hour as JSON, and added up.

Latencies are counted in buckets of 10 ms, which is the precision that pages show (hundredths of a second). So
a percentile of many hours is exactly the percentile of their turns. Money stays decimal and durations are
whole microseconds, so that the order of adding makes no difference.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Count, F, Func, IntegerField, Max, Q, Sum
from django.db.models.functions import Abs

from calls.costs import HAS_BILL, HAS_MISSING_BILL, PRECISION
from calls.models import Call, CallFlag, Turn
from calls.querysets import CallQuerySet, of_our_number
from calls.stats.percentiles import bucket
from calls.statuses import OPEN_STATUSES

QUARTER_HOUR_SECONDS = 900  # midnight is at a whole quarter of an hour in every time zone
MICROSECOND = timedelta(microseconds=1)
BILL_COLUMNS = ("twilio_price", "stream_price", "vapi_cost")
IN_DOLLARS = Q(price_unit="")
FULLY_BILLED = HAS_BILL & ~HAS_MISSING_BILL & IN_DOLLARS
# `Call.duration` as a query: Twilio's `duration_seconds` where there is one, else by our own clock.
CLOCK_DURATION = F("ended_at") - F("started_at")
USES_CLOCK_DURATION = Q(duration_seconds=None, ended_at__gt=F("started_at"))

Interval = tuple[datetime, datetime]  # the end is excluded
AggregateJSON = Mapping[str, Any]  # as stored in `CallHour.figures`


@dataclass(slots=True)
class Aggregate:
    """Totals of some calls. Two aggregates can be added up."""

    calls: int = 0
    answered: int = 0
    barge_in_calls: int = 0  # calls with at least one barge-in
    barge_ins: int = 0
    duration_us: int = 0
    cost: Decimal | None = None  # dollars; None: no bill has arrived
    foreign_costs: dict[str, Decimal] = field(default_factory=dict)  # by currency, without dollars
    unbilled_calls: int = 0  # ended calls with a missing bill
    fully_billed_cost: Decimal = Decimal()  # of the calls without a missing bill, all in dollars ...
    fully_billed_us: int = 0  # ... and their duration
    longest_silence_ms: int | None = None
    response_latency: Counter[int] = field(default_factory=Counter)  # answered turns by bucket
    time_to_first_audio: Counter[int] = field(default_factory=Counter)  # calls by bucket
    failure_reasons: Counter[str] = field(default_factory=Counter)  # end reasons of failed calls
    flags: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> AggregateJSON:
        """For `CallHour.figures`. Rows of earlier versions are read, too: never rename a key, and read
        a new one with a default.

        A counter of buckets is one flat list of bucket, count, bucket, count: the fastest to read back.
        """
        return {
            "calls": self.calls,
            "answered": self.answered,
            "cut_off_by_caller": self.barge_in_calls,
            "barge_ins": self.barge_ins,
            "length_us": self.duration_us,
            "cost": None if self.cost is None else str(self.cost),
            "foreign_costs": {currency: str(amount) for currency, amount in self.foreign_costs.items()},
            "awaited": self.unbilled_calls,
            "settled_cost": str(self.fully_billed_cost),
            "settled_us": self.fully_billed_us,
            "longest_silence_ms": self.longest_silence_ms,
            "response": _flatten(self.response_latency),
            "first_word": _flatten(self.time_to_first_audio),
            "end_reasons": dict(self.failure_reasons),
            "flags": dict(self.flags),
        }

    def add_json(self, stored: AggregateJSON) -> None:
        """Add what `to_json` returned."""
        self.calls += stored["calls"]
        self.answered += stored["answered"]
        self.barge_in_calls += stored["cut_off_by_caller"]
        self.barge_ins += stored["barge_ins"]
        self.duration_us += stored["length_us"]
        if stored["cost"] is not None:
            self.cost = (self.cost or Decimal()) + Decimal(stored["cost"])
        for currency, amount in stored.get("foreign_costs", {}).items():  # earlier versions stored none
            self._add_foreign(currency, Decimal(amount))
        # Hours of earlier versions lack these three: they do not contribute to the cost per minute.
        self.unbilled_calls += stored.get("awaited", 0)
        self.fully_billed_cost += Decimal(stored.get("settled_cost", 0))
        self.fully_billed_us += stored.get("settled_us", 0)
        if stored["longest_silence_ms"] is not None:
            self.longest_silence_ms = max(self.longest_silence_ms or 0, stored["longest_silence_ms"])
        _add_flat(self.response_latency, stored["response"])
        _add_flat(self.time_to_first_audio, stored["first_word"])
        self.failure_reasons.update(stored["end_reasons"])
        self.flags.update(stored["flags"])

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Add the totals of calls whose price is in one currency, as `aggregate_calls` queries them."""
        self.calls += row["calls"]
        self.answered += row["answered"]
        self.barge_in_calls += row["barge_in_calls"]
        self.barge_ins += row["total_barge_ins"]
        self.duration_us += _microseconds(row["seconds"], row["clock_duration"])
        self.unbilled_calls += row["unbilled_calls"]
        bills = {name: row[f"{name}_all"] for name in BILL_COLUMNS}
        if row["price_unit"] and (price := _total([bills.pop("twilio_price")])) is not None:
            self._add_foreign(row["price_unit"], price)
        if (cost := _total(bills.values())) is not None:
            self.cost = (self.cost or Decimal()) + cost
        self.fully_billed_cost += _total(row[f"{name}_fully_billed"] for name in BILL_COLUMNS) or Decimal()
        self.fully_billed_us += _microseconds(row["fully_billed_seconds"], row["fully_billed_clock_duration"])
        if row["longest_silence"] is not None:
            self.longest_silence_ms = max(self.longest_silence_ms or 0, row["longest_silence"])

    def _add_foreign(self, currency: str, amount: Decimal) -> None:
        self.foreign_costs[currency] = self.foreign_costs.get(currency, Decimal()) + amount


def _flatten(counter: Counter[int]) -> list[int]:
    return [number for pair in sorted(counter.items()) for number in pair]


def _add_flat(counter: Counter[int], flat: Sequence[int]) -> None:
    for key, count in zip(flat[::2], flat[1::2], strict=True):
        counter[key] += count


class QuarterHour(Func):
    """The quarter of an hour since 1970 that a time is in: a number, the same in every time zone."""

    output_field = IntegerField()
    arity = 1

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = f"CAST(strftime('%%%%s', %(expressions)s) AS INTEGER) / {QUARTER_HOUR_SECONDS}"
        return self.as_sql(compiler, connection, template=template, **extra)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = f"FLOOR(EXTRACT(EPOCH FROM %(expressions)s) / {QUARTER_HOUR_SECONDS})::bigint"
        return self.as_sql(compiler, connection, template=template, **extra)


def select_calls(intervals: Sequence[Interval], *, simulated: bool, number: str = "") -> CallQuerySet:
    """The calls that started in these intervals; with `number`, only those of this number of ours."""
    return Call.objects.filter(_selection(intervals, simulated, number)).order_by()


def aggregate_calls(
    intervals: Sequence[Interval], *, simulated: bool, number: str = ""
) -> dict[int, Aggregate]:
    """Aggregates of these calls, by quarter of an hour (`QuarterHour`).

    Five queries, or none without an interval. Calls are read from the index by time, their turns and flags
    from the indexes by call.
    """
    aggregates: dict[int, Aggregate] = defaultdict(Aggregate)
    if not intervals:
        return aggregates
    calls = select_calls(intervals, simulated=simulated, number=number)
    by_quarter = calls.annotate(quarter=QuarterHour("started_at"))
    totals: Any = by_quarter.values("quarter", "price_unit").annotate(
        calls=Count("pk"),
        answered=Count("answered_at"),
        barge_in_calls=Count("pk", filter=Q(barge_ins__gte=1)),
        total_barge_ins=Sum("barge_ins"),
        seconds=Sum("duration_seconds"),
        clock_duration=Sum(CLOCK_DURATION, filter=USES_CLOCK_DURATION),
        **{f"{name}_all": Sum(Abs(name)) for name in BILL_COLUMNS},
        **{f"{name}_fully_billed": Sum(Abs(name), filter=FULLY_BILLED) for name in BILL_COLUMNS},
        unbilled_calls=Count("pk", filter=HAS_MISSING_BILL & ~Q(end_reason="", status__in=OPEN_STATUSES)),
        fully_billed_seconds=Sum("duration_seconds", filter=FULLY_BILLED),
        fully_billed_clock_duration=Sum(CLOCK_DURATION, filter=FULLY_BILLED & USES_CLOCK_DURATION),
        longest_silence=Max("longest_silence_ms"),
    )
    for row in totals:
        aggregates[row["quarter"]].add_row(row)

    failed = calls.failed().annotate(quarter=QuarterHour("started_at")).values_list("quarter", "end_reason")
    for quarter, reason, count in failed.annotate(count=Count("pk")):
        aggregates[quarter].failure_reasons[reason] += count
    first_audio = by_quarter.filter(time_to_first_audio_ms__isnull=False)
    first_audio_ms = first_audio.values_list("quarter", "time_to_first_audio_ms")
    for quarter, ms, count in first_audio_ms.annotate(count=Count("pk")):
        aggregates[quarter].time_to_first_audio[bucket(ms)] += count

    of_these_calls = _selection(intervals, simulated, number, "call__")
    call_quarter = QuarterHour("call__started_at")
    turns = Turn.objects.filter(of_these_calls).answered().order_by().annotate(quarter=call_quarter)
    for quarter, ms, count in turns.values_list("quarter", "response_latency_ms").annotate(count=Count("pk")):
        aggregates[quarter].response_latency[bucket(ms)] += count
    flags = CallFlag.objects.filter(of_these_calls).order_by().annotate(quarter=call_quarter)
    for quarter, name, count in flags.values_list("quarter", "name").annotate(count=Count("pk")):
        aggregates[quarter].flags[name] += count
    return aggregates


def _total(bills: Iterable[Decimal | None]) -> Decimal | None:
    # SQLite adds up decimals as floats.
    arrived = [bill.quantize(PRECISION) for bill in bills if bill is not None]
    return sum(arrived, Decimal()) if arrived else None


def _microseconds(seconds: int | None, clock_duration: timedelta | None) -> int:
    return (seconds or 0) * 1_000_000 + (clock_duration or timedelta()) // MICROSECOND


def _selection(intervals: Sequence[Interval], simulated: bool, number: str, prefix: str = "") -> Q:
    in_any = Q()
    for since, until in intervals:
        in_any |= Q(**{f"{prefix}started_at__gte": since, f"{prefix}started_at__lt": until})
    selection = in_any & Q(**{f"{prefix}simulated": simulated})
    return selection & of_our_number(number, prefix) if number else selection
