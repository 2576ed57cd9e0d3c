"""What calls add up to: read from the rows, kept for an hour as JSON, added together again.

Latencies are counted in buckets of 10 ms, which is what pages show (two decimals of a second), so that a
percentile of many hours is the one that the turns themselves would give. Money stays decimal, lengths
stay whole microseconds: what is added up in any order is the same to the last digit.
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

from calls.costs import BILLED, EXACT, TO_COME
from calls.models import OPEN_STATUSES, Call, CallFlag, Turn
from calls.stats.percentiles import bucket

QUARTER_SECONDS = 900  # every time zone's midnight is a whole quarter of an hour
MICROSECOND = timedelta(microseconds=1)
BILLS = ("twilio_price", "stream_price", "vapi_cost")
SETTLED = BILLED & ~TO_COME
LENGTH = F("ended_at") - F("started_at")  # Twilio's word comes before it, as in `Call.length`
BY_OUR_CLOCK = Q(duration_seconds=None, ended_at__gt=F("started_at"))

Range = tuple[datetime, datetime]  # from, and until just before
Stored = Mapping[str, Any]


@dataclass(slots=True)
class Sums:
    """Of some calls. Adding is all that it can."""

    calls: int = 0
    answered: int = 0
    cut_off_by_caller: int = 0  # calls in which the caller cut in at least once
    barge_ins: int = 0
    length_us: int = 0
    cost: Decimal | None = None  # None: no bill has come
    awaited: int = 0  # calls that are over, and some bill is still to come
    settled_cost: Decimal = Decimal()  # of calls whose every bill has come ...
    settled_us: int = 0  # ... and how long these lasted
    longest_silence_ms: int | None = None
    response: Counter[int] = field(default_factory=Counter)  # answered turns by bucket
    first_word: Counter[int] = field(default_factory=Counter)  # calls by bucket
    end_reasons: Counter[str] = field(default_factory=Counter)  # of failed calls
    flags: Counter[str] = field(default_factory=Counter)

    def stored(self) -> Stored:
        """As JSON. Buckets and their counts stand in turn in one flat list, the quickest to read back."""
        return {
            "calls": self.calls,
            "answered": self.answered,
            "cut_off_by_caller": self.cut_off_by_caller,
            "barge_ins": self.barge_ins,
            "length_us": self.length_us,
            "cost": None if self.cost is None else str(self.cost),
            "awaited": self.awaited,
            "settled_cost": str(self.settled_cost),
            "settled_us": self.settled_us,
            "longest_silence_ms": self.longest_silence_ms,
            "response": [number for pair in sorted(self.response.items()) for number in pair],
            "first_word": [number for pair in sorted(self.first_word.items()) for number in pair],
            "end_reasons": dict(self.end_reasons),
            "flags": dict(self.flags),
        }

    def add(self, stored: Stored) -> None:
        self.calls += stored["calls"]
        self.answered += stored["answered"]
        self.cut_off_by_caller += stored["cut_off_by_caller"]
        self.barge_ins += stored["barge_ins"]
        self.length_us += stored["length_us"]
        if stored["cost"] is not None:
            self.cost = (self.cost or Decimal()) + Decimal(stored["cost"])
        # Hours that were summed up by an earlier version do not tell: they count for no price per minute.
        self.awaited += stored.get("awaited", 0)
        self.settled_cost += Decimal(stored.get("settled_cost", 0))
        self.settled_us += stored.get("settled_us", 0)
        if stored["longest_silence_ms"] is not None:
            self.longest_silence_ms = max(self.longest_silence_ms or 0, stored["longest_silence_ms"])
        _count(self.response, stored["response"])
        _count(self.first_word, stored["first_word"])
        self.end_reasons.update(stored["end_reasons"])
        self.flags.update(stored["flags"])


def _count(counter: Counter[int], flat: Sequence[int]) -> None:
    for at, count in zip(flat[::2], flat[1::2], strict=True):
        counter[at] += count


class Quarter(Func):
    """Which quarter of an hour since 1970 a moment is in: a number, the same in every time zone."""

    output_field = IntegerField()
    arity = 1

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = f"CAST(strftime('%%%%s', %(expressions)s) AS INTEGER) / {QUARTER_SECONDS}"
        return self.as_sql(compiler, connection, template=template, **extra)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = f"FLOOR(EXTRACT(EPOCH FROM %(expressions)s) / {QUARTER_SECONDS})::bigint"
        return self.as_sql(compiler, connection, template=template, **extra)


def read(ranges: Sequence[Range], *, simulated: bool) -> dict[int, Sums]:
    """What the calls that started in these ranges add up to, by quarter of an hour. Five queries, or none.

    The calls come from the index by time, their turns and flags from those by call.
    """
    found: dict[int, Sums] = defaultdict(Sums)
    if not ranges:
        return found
    started = Call.objects.filter(_started("", ranges), simulated=simulated).order_by()
    calls = started.annotate(quarter=Quarter("started_at"))
    summed: Any = calls.values("quarter").annotate(
        calls=Count("pk"),
        answered=Count("answered_at"),
        cut_off_by_caller=Count("pk", filter=Q(barge_ins__gte=1)),
        all_barge_ins=Sum("barge_ins"),
        seconds=Sum("duration_seconds"),
        lengths=Sum(LENGTH, filter=BY_OUR_CLOCK),
        **{f"{name}_all": Sum(Abs(name)) for name in BILLS},
        **{f"{name}_settled": Sum(Abs(name), filter=SETTLED) for name in BILLS},
        awaited=Count("pk", filter=TO_COME & ~Q(end_reason="", status__in=OPEN_STATUSES)),
        settled_seconds=Sum("duration_seconds", filter=SETTLED),
        settled_lengths=Sum(LENGTH, filter=SETTLED & BY_OUR_CLOCK),
        silence=Max("longest_silence_ms"),
    )
    for row in summed:
        sums = found[row["quarter"]]
        sums.calls, sums.answered = row["calls"], row["answered"]
        sums.cut_off_by_caller, sums.barge_ins = row["cut_off_by_caller"], row["all_barge_ins"]
        sums.length_us = _us(row["seconds"], row["lengths"])
        sums.cost = _dollars(row[f"{name}_all"] for name in BILLS)
        sums.awaited = row["awaited"]
        sums.settled_cost = _dollars(row[f"{name}_settled"] for name in BILLS) or Decimal()
        sums.settled_us = _us(row["settled_seconds"], row["settled_lengths"])
        sums.longest_silence_ms = row["silence"]

    failed = started.failed().annotate(quarter=Quarter("started_at")).values_list("quarter", "end_reason")
    for quarter, reason, count in failed.annotate(count=Count("pk")):
        found[quarter].end_reasons[reason] += count
    words = calls.filter(time_to_first_audio_ms__isnull=False)
    for quarter, ms, count in words.values_list("quarter", "time_to_first_audio_ms").annotate(
        count=Count("pk")
    ):
        found[quarter].first_word[bucket(ms)] += count

    below = _started("call__", ranges) & Q(call__simulated=simulated)
    quarters = Quarter("call__started_at")
    turns = Turn.objects.filter(below).answered().order_by().annotate(quarter=quarters)
    for quarter, ms, count in turns.values_list("quarter", "response_latency_ms").annotate(count=Count("pk")):
        found[quarter].response[bucket(ms)] += count
    flags = CallFlag.objects.filter(below).order_by().annotate(quarter=quarters)
    for quarter, name, count in flags.values_list("quarter", "name").annotate(count=Count("pk")):
        found[quarter].flags[name] += count
    return found


def _dollars(bills: Iterable[Decimal | None]) -> Decimal | None:
    # SQLite adds decimals up as floats.
    come = [bill.quantize(EXACT) for bill in bills if bill is not None]
    return sum(come, Decimal()) if come else None


def _us(seconds: int | None, lengths: timedelta | None) -> int:
    return (seconds or 0) * 1_000_000 + (lengths or timedelta()) // MICROSECOND


def _started(path: str, ranges: Sequence[Range]) -> Q:
    wanted = Q()
    for since, until in ranges:
        wanted |= Q(**{f"{path}started_at__gte": since, f"{path}started_at__lt": until})
    return wanted
