"""Two charts of a stretch of time, drawn by the server: a bar for each hour or day, each a link to its calls.

Numbers in, geometry out. Widths and heights are in the drawing's own units; pages stretch it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from calls.stats.queries import Figures

HEIGHT = 100
SLOT = 10  # width of one hour or day
_BAR = 8  # of the slot, the rest is air


@dataclass(frozen=True, slots=True)
class Bar:
    """One slot's mark: what is high, and what of it is of another kind."""

    x: int
    y: float
    height: float
    inner_y: float
    inner_height: float
    words: str
    link: str


@dataclass(frozen=True, slots=True)
class Slot:
    """One hour or day, for the table below the charts."""

    name: str
    figures: Figures
    link: str


@dataclass(frozen=True, slots=True)
class Chart:
    width: int
    top: int  # the value at the upper edge
    bars: list[Bar]
    target_y: float | None = None

    height = HEIGHT
    bar_width = _BAR


def slots(
    parts: Sequence[tuple[datetime, Figures]], *, by_hour: bool, link: Callable[[datetime, datetime], str]
) -> list[Slot]:
    """`link` makes an address of the calls from one moment until just before another."""
    found = []
    for begins, figures in parts:
        local = timezone.localtime(begins)
        if by_hour:
            ends, name = begins + timedelta(hours=1), f"{local:%-d %b, %H:%M}"
        else:
            following = local.date() + timedelta(days=1)
            ends = datetime(following.year, following.month, following.day, tzinfo=local.tzinfo)
            name = f"{local:%a %-d %b}"
        found.append(Slot(name, figures, link(begins, ends)))
    return found


def latency_chart(found: Sequence[Slot], target_ms: int) -> Chart:
    """95 of 100 answers came within the whole bar, half of them within the inner one."""
    top = _round_up(max([target_ms, *(slot.figures.response.p95 or 0 for slot in found)]))
    bars = []
    for at, slot in enumerate(found):
        response = slot.figures.response
        if not response.n:
            continue
        p50, p95 = response.p50 or 0, response.p95 or 0
        words = f"{slot.name}: p50 {p50 / 1000:.2f} s, p95 {p95 / 1000:.2f} s, {response.n} turns"
        bars.append(_bar(at, p95 / top, p50 / top, words, slot.link))
    return Chart(SLOT * len(found), top, bars, round(HEIGHT * (1 - target_ms / top), 2))


def calls_chart(found: Sequence[Slot]) -> Chart:
    """All calls, and the failed ones at the foot of the bar."""
    top = _round_up(max([1, *(slot.figures.calls for slot in found)]))
    bars = []
    for at, slot in enumerate(found):
        calls, failed = slot.figures.calls, slot.figures.failed
        if calls:
            words = f"{slot.name}: {calls} calls, {failed} failed"
            bars.append(_bar(at, calls / top, failed / top, words, slot.link))
    return Chart(SLOT * len(found), top, bars)


def _bar(at: int, whole: float, inner: float, words: str, link: str) -> Bar:
    height, inner_height = round(HEIGHT * whole, 2), round(HEIGHT * inner, 2)
    x = at * SLOT + (SLOT - _BAR) // 2
    return Bar(
        x, round(HEIGHT - height, 2), height, round(HEIGHT - inner_height, 2), inner_height, words, link
    )


def _round_up(value: int) -> int:
    """The next number that reads well on an axis: 1, 2, 4, 5 or 8 and zeros."""
    power = 1
    while True:
        for step in (1, 2, 4, 5, 8):
            if value <= step * power:
                return step * power
        power *= 10
