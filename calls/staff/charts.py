"""Two server-rendered bar charts: one bar per hour or day, each linked to its calls.

They are computed from numbers, without a query. Coordinates are in the drawing's own units; CSS scales it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from calls.staff.figures import format_count, percent
from calls.stats.queries import CallStats

HEIGHT = 100
PERIOD_WIDTH = 10
_BAR_WIDTH = 8  # the rest of the period is the gap


@dataclass(frozen=True, slots=True)
class Bar:
    """The bar of one period: its full height, and an inner part in another color."""

    x: int
    y: float
    height: float
    inner_y: float
    inner_height: float
    label: str
    link: str
    is_partial: bool


@dataclass(frozen=True, slots=True)
class Period:
    """One hour or day with its statistics. Also a row of the table below the charts."""

    name: str
    stats: CallStats
    link: str
    is_partial: bool = False  # it is not over, or begins before the range

    def failure_rate(self) -> str:
        return percent(self.stats.failed, self.stats.calls)


@dataclass(frozen=True, slots=True)
class Chart:
    width: int
    ticks: tuple[str, str, str]  # labels of the axis: top, middle, bottom
    bars: list[Bar]
    target_y: float | None = None

    height = HEIGHT
    bar_width = _BAR_WIDTH


def build_periods(
    parts: Sequence[tuple[datetime, CallStats]],
    since: datetime,
    until: datetime,
    now: datetime,
    *,
    by_hour: bool,
    link: Callable[[datetime, datetime], str],
) -> list[Period]:
    """`link` returns the URL of the calls from one time up to, and excluding, another."""
    periods = []
    for start, stats in parts:
        local = timezone.localtime(start)
        if by_hour:
            end, name = start + timedelta(hours=1), f"{local:%-d %b, %H:%M}"
            if local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset():
                name += f" {local:%Z}"  # clocks are set back, so this hour occurs twice
        else:
            next_day = local.date() + timedelta(days=1)
            end = datetime(next_day.year, next_day.month, next_day.day, tzinfo=local.tzinfo)
            name = f"{local:%a %-d %b}"
        is_partial = start < since or end > min(until, now)
        periods.append(Period(name, stats, link(max(start, since), min(end, until)), is_partial))
    return periods


def latency_chart(periods: Sequence[Period], target_ms: int) -> Chart:
    """The bar is the p95 latency, its inner part the p50."""
    top = _round_up(max([target_ms, *(period.stats.response_latency.p95 or 0 for period in periods)]))
    bars = []
    for index, period in enumerate(periods):
        response = period.stats.response_latency
        if not response.n:
            continue
        p50, p95 = response.p50 or 0, response.p95 or 0
        text = f"p50 {p50 / 1000:.2f} s, p95 {p95 / 1000:.2f} s, {format_count(response.n, 'turn')}"
        bars.append(_bar(index, p95 / top, p50 / top, text, period))
    ticks = (f"{top / 1000:g} s", f"{top / 2000:g} s", "0")
    return Chart(PERIOD_WIDTH * len(periods), ticks, bars, round(HEIGHT * (1 - target_ms / top), 2))


def calls_chart(periods: Sequence[Period]) -> Chart:
    """The bar is all calls, its inner part the failed ones."""
    top = _round_up(max([1, *(period.stats.calls for period in periods)]))
    bars = []
    for index, period in enumerate(periods):
        calls, failed = period.stats.calls, period.stats.failed
        if calls:
            text = f"{format_count(calls, 'call')}, {failed} failed ({period.failure_rate()})"
            bars.append(_bar(index, calls / top, failed / top, text, period))
    return Chart(PERIOD_WIDTH * len(periods), (f"{top:,}", f"{top / 2:,g}", "0"), bars)


def _bar(index: int, fraction: float, inner_fraction: float, text: str, period: Period) -> Bar:
    height, inner_height = round(HEIGHT * fraction, 2), round(HEIGHT * inner_fraction, 2)
    x = index * PERIOD_WIDTH + (PERIOD_WIDTH - _BAR_WIDTH) // 2
    name = f"{period.name} (partial)" if period.is_partial else period.name
    y, inner_y = round(HEIGHT - height, 2), round(HEIGHT - inner_height, 2)
    return Bar(x, y, height, inner_y, inner_height, f"{name}: {text}", period.link, period.is_partial)


def _round_up(value: int) -> int:
    """The next round number for an axis: 1, 2, 4, 5 or 8 times a power of ten."""
    power = 1
    while True:
        for step in (1, 2, 4, 5, 8):
            if value <= step * power:
                return step * power
        power *= 10
