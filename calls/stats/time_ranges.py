"""The time range of a page: today, the last 24 hours, 7 or 30 days, or a first and a last day.

Days are in the viewer's time zone. Pure, except for the current time zone: the time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.utils import timezone

RANGE_LABELS = {"today": "Today", "24h": "Last 24 hours", "7d": "Last 7 days", "30d": "Last 30 days"}
_LENGTHS = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}
DEFAULT_RANGE = "24h"
MAX_RANGE = timedelta(days=366)
_MAX_HOURLY = timedelta(hours=49)  # two days, also when the clocks change; longer ranges are shown by day


class InvalidRange(ValueError):
    """The parameters are not a valid range. The message is for the user."""


@dataclass(frozen=True, slots=True)
class Range:
    """From `since` until just before `until`. `name` is empty for a range of typed days."""

    name: str
    label: str
    since: datetime
    until: datetime

    @property
    def is_hourly(self) -> bool:
        """Whether the range is shown hour by hour rather than day by day."""
        return self.until - self.since <= _MAX_HOURLY

    @property
    def last_day(self) -> date:
        return timezone.localtime(self.until - timedelta(microseconds=1)).date()


def named_range(name: str, now: datetime) -> Range:
    """A range of `RANGE_LABELS` that ends now. Raises `InvalidRange`."""
    if name not in RANGE_LABELS:
        raise InvalidRange(f"Unknown range “{name[:20]}”.")
    since = now - _LENGTHS[name] if name in _LENGTHS else _midnight(timezone.localdate(now))
    return Range(name, RANGE_LABELS[name], since, now)


def parse_range(params: Mapping[str, str], now: datetime) -> Range:
    """From the query parameters `since` and `until` (days, both included), else `range`.

    Raises `InvalidRange`.
    """
    first, last = params.get("since", "").strip(), params.get("until", "").strip()
    if not first and not last:
        return named_range(params.get("range") or DEFAULT_RANGE, now)
    today = timezone.localdate(now)
    until_day = _day(last) if last else today
    since_day = _day(first) if first else until_day
    if since_day > until_day:
        raise InvalidRange("The first day is after the last day.")
    if since_day > today:
        raise InvalidRange("The range is in the future.")
    if until_day - since_day >= MAX_RANGE:
        raise InvalidRange("The range is longer than a year.")
    label = f"{since_day:%-d %b %Y}" + (f" to {until_day:%-d %b %Y}" if until_day > since_day else "")
    return Range("", label, _midnight(since_day), min(now, _midnight(until_day + timedelta(days=1))))


def previous_range(when: Range) -> Range:
    """The range of the same length before it, to compare with. Of today: yesterday until the same time."""
    if when.name in _LENGTHS:
        label = f"the {when.label.lower().removeprefix('last ')} before"
        return Range("", label, when.since - _LENGTHS[when.name], when.since)
    first, last = timezone.localtime(when.since), timezone.localtime(when.until)
    days = when.last_day.toordinal() - first.date().toordinal() + 1
    if when.name:
        label = "yesterday until this time"
    else:
        label = "the day before" if days == 1 else f"the {days} days before"
    return Range("", label, _earlier(first, days), _earlier(last, days))


def _earlier(local: datetime, days: int) -> datetime:
    """The same time of day, so many days earlier."""
    return (local.replace(tzinfo=None) - timedelta(days=days)).replace(tzinfo=local.tzinfo)


def _day(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise InvalidRange(f"“{text[:20]}” is not a date. Use the format 2026-11-24.") from None
    if not 2000 <= day.year <= 2999:  # time zones cannot convert dates near the ends of the calendar
        raise InvalidRange("The year must be between 2000 and 2999.")
    return day


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=timezone.get_current_timezone())
