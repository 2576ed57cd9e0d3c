"""Which stretch of time a page is about: today, the last 24 hours, 7 or 30 days, or from one day to another.

Days are those of the viewer's zone. Pure but for the current zone; the time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.utils import timezone

NAMES = {"today": "Today", "24h": "Last 24 hours", "7d": "Last 7 days", "30d": "Last 30 days"}
_LENGTHS = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}
DEFAULT = "24h"
LONGEST = timedelta(days=366)
_BY_HOUR = timedelta(hours=49)  # two days, also when the clocks change; longer ones are shown by day


class BadRange(ValueError):
    """What was asked for is no stretch of time; says why."""


@dataclass(frozen=True, slots=True)
class Range:
    """From `since` until just before `until`. `name` is empty for one that was typed."""

    name: str
    label: str
    since: datetime
    until: datetime

    @property
    def by_hour(self) -> bool:
        return self.until - self.since <= _BY_HOUR


def named(name: str, now: datetime) -> Range:
    if name not in NAMES:
        raise BadRange(f"There is no range “{name[:20]}”.")
    since = now - _LENGTHS[name] if name in _LENGTHS else _midnight(timezone.localdate(now))
    return Range(name, NAMES[name], since, now)


def chosen(asked: Mapping[str, str], now: datetime) -> Range:
    """By `range`, or by `since` and `until` (days, both included). Raises `BadRange`."""
    first, last = asked.get("since", "").strip(), asked.get("until", "").strip()
    if not first and not last:
        return named(asked.get("range") or DEFAULT, now)
    today = timezone.localdate(now)
    until_day = _day(last) if last else today
    since_day = _day(first) if first else until_day
    if since_day > until_day:
        raise BadRange("The first day lies behind the last one.")
    if since_day > today:
        raise BadRange("That lies in the future.")
    if until_day - since_day >= LONGEST:
        raise BadRange("A range is a year at most.")
    label = f"{since_day:%-d %b %Y}" + (f" to {until_day:%-d %b %Y}" if until_day > since_day else "")
    return Range("", label, _midnight(since_day), min(now, _midnight(until_day + timedelta(days=1))))


def _day(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise BadRange(f"“{text[:20]}” is no date; write it as 2026-11-24.") from None
    if not 2000 <= day.year <= 2999:  # beyond lie dates that no zone can reckon with
        raise BadRange(f"The year {day.year} is not in our books.")
    return day


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=timezone.get_current_timezone())
