"""The figures on the dashboard, each with its change from the period before. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from calls.stats.percentiles import LatencySummary
from calls.stats.queries import CallStats
from calls.templatetags.call_format import amounts, dollars, seconds


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference from the period before. `is_worse` is None where neither direction is better."""

    text: str
    is_worse: bool | None = None


NO_CHANGE = Difference("no change")


@dataclass(frozen=True, slots=True)
class Figure:
    """`notes` say what the figure counts. `tone` is a CSS class."""

    title: str
    value: str
    notes: list[str] = field(default_factory=list)
    change: Difference | None = None
    link: str = ""
    tone: str = ""


def build_figures(
    now: CallStats, before: CallStats, *, target_ms: int, links: Mapping[str, str]
) -> list[Figure]:
    """`links` leads to the calls behind a figure: `all` of them, and by name of a flag."""
    is_slow = now.response_latency.misses_target(target_ms)
    return [
        Figure("Calls", f"{now.calls:,}", [], _relative(now.calls, before.calls), links["all"]),
        Figure(
            "Answered",
            percent(now.answered, now.calls),
            [f"{now.answered:,} of {now.calls:,}"],
            _points(now.answered, now.calls, before.answered, before.calls, more_is_worse=False),
        ),
        Figure(
            "Failed",
            f"{now.failed:,}",
            [f"{percent(now.failed, now.calls)} of the calls"] if now.calls else [],
            _points(now.failed, now.calls, before.failed, before.calls, more_is_worse=True),
            links["failed"],
            "is-failed" if now.failed else "",
        ),
        _latency("Response latency p50", now.response_latency, before.response_latency, "p50", "turn"),
        _latency(
            "Response latency p95",
            now.response_latency,
            before.response_latency,
            "p95",
            "turn",
            f"target {seconds(target_ms)}",
            tone="is-slow" if is_slow else "",
        ),
        _latency(
            "Time to first audio p95", now.time_to_first_audio, before.time_to_first_audio, "p95", "call"
        ),
        Figure(
            "Interruptions by callers",
            f"{now.barge_ins:,}",
            [f"in {format_count(now.barge_in_calls, 'call')}"],
            _relative(now.barge_ins, before.barge_ins),
        ),
        _cost(now, before),
        Figure(
            "Longest silence",
            seconds(now.longest_silence_ms),
            link=links["long-silence"] if now.flags["long-silence"] else "",
        ),
    ]


def percent(part: int, whole: int) -> str:
    """`98.8 %`; of nothing: `–`."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _latency(
    title: str,
    now: LatencySummary,
    before: LatencySummary,
    name: str,
    unit: str,
    note: str = "",
    tone: str = "",
) -> Figure:
    value, value_before = getattr(now, name), getattr(before, name)
    change = None
    if value is not None and value_before is not None:
        hundredths = round((value - value_before) / 10)
        change = Difference(f"{hundredths / 100:+.2f} s", hundredths > 0) if hundredths else NO_CHANGE
    notes = ([note] if note else []) + [format_count(now.n, unit)]
    return Figure(title, seconds(value), notes, change, tone=tone)


def _cost(now: CallStats, before: CallStats) -> Figure:
    value = amounts(now.costs)
    notes = []
    if now.cost_per_minute is not None:
        notes.append(f"{dollars(now.cost_per_minute)} per minute")
    elif not now.costs:
        notes.append("pending")
    if now.unbilled_calls:
        notes.append(f"{format_count(now.unbilled_calls, 'call')} with a pending bill")
        value += " so far" if now.costs else ""
    change = None
    has_foreign = now.foreign_costs or before.foreign_costs
    if now.cost is not None and before.cost is not None and not now.unbilled_calls and not has_foreign:
        change = _relative(float(now.cost), float(before.cost))
    return Figure("Cost", value, notes, change)


def _relative(now: float, before: float) -> Difference | None:
    if not before:
        return None
    percentage = round(100 * (now - before) / before)
    return Difference(f"{percentage:+d} %") if percentage else NO_CHANGE


def _points(
    part: int, whole: int, part_before: int, whole_before: int, *, more_is_worse: bool
) -> Difference | None:
    if not whole or not whole_before:
        return None
    points = round(100 * part / whole - 100 * part_before / whole_before, 1)
    return Difference(f"{points:+.1f} points", (points > 0) is more_is_worse) if points else NO_CHANGE


def format_count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"
