"""Opening hours of a number, such as `Mon-Fri 08:00-18:00, Sat 09:00-12:00`: parser and check.

Times are local wall-clock times. When daylight saving time starts or ends, an hour is missing or occurs
twice; the opening hours stay the same. Items are separated by commas. Days without times take the times of
the next item, times without days the days of the item before: `Mon, Thu 08:00-12:00, 14:00-18:00` is four
spans. `22:00-06:00` ends on the next morning.

Pure: the time and the zone are arguments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, tzinfo

MAX_CHARACTERS = 1000
MAX_SPANS = 100

DAY = 24 * 60
WEEK = 7 * DAY
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SHORT = tuple(name[:3] for name in _DAYS)
_ITEM = re.compile(r"(?P<days>[^\W\d]+(?:-[^\W\d]+)?)?\s*(?P<times>\d\S*)?")
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})", re.ASCII)
_HYPHEN = re.compile(r"\s*[-\u2010-\u2015]\s*")  # with the dashes that word processors insert
_EXAMPLE = "Mon-Fri 08:00-18:00, Sat 09:00-12:00"

Span = tuple[int, int]  # minutes since Monday's midnight, the second not included


class BadHours(ValueError):
    """The text is not valid. The message is a sentence that can be displayed to the user who wrote it."""


@dataclass(frozen=True, slots=True)
class OpeningHours:
    """The open spans of a week, and their time zone."""

    spans: tuple[Span, ...]
    zone: tzinfo

    def is_open(self, at: float) -> bool:
        """Whether it is open at this time, in Unix seconds."""
        local = datetime.fromtimestamp(at, self.zone)
        minute = local.weekday() * DAY + local.hour * 60 + local.minute
        return any(begin <= minute < end for begin, end in self.spans)


def parse_hours(text: str) -> tuple[Span, ...]:
    """The spans of a week. Raises `BadHours`, also for a text without any item."""
    if len(text) > MAX_CHARACTERS:
        raise BadHours(f"The opening hours are longer than {MAX_CHARACTERS} characters.")
    spans: list[Span] = []
    days: list[int] = list(range(7))  # times before any day apply to every day
    pending: list[int] = []  # days without times so far, such as `Sat` in `Sat, Sun 10:00-14:00`
    pending_text = ""
    for item in _HYPHEN.sub("-", text).replace(";", ",").replace("\n", ",").split(","):
        if not (item := item.strip()):
            continue
        match = _ITEM.fullmatch(item)
        if match is None:
            raise BadHours(f"“{item[:40]}” is not valid. Write them as in {_EXAMPLE}.")
        if match["days"]:
            pending += _days(match["days"])
            pending_text = match["days"]
        if match["times"]:
            days, pending = pending or days, []
            spans += _spans(days, *_times(match["times"]))
    if pending:
        raise BadHours(f"{pending_text} has no times. Write them as in {_EXAMPLE}.")
    if not spans:
        raise BadHours(f"No opening hours were given. Write them as in {_EXAMPLE}.")
    if len(spans) > MAX_SPANS:
        raise BadHours(f"There are more than {MAX_SPANS} spans in the week.")
    return tuple(sorted(set(spans)))


def _days(text: str) -> list[int]:
    first, _, last = text.partition("-")
    begin = _day(first)
    if not last:
        return [begin]
    return [(begin + offset) % 7 for offset in range((_day(last) - begin) % 7 + 1)]


def _day(name: str) -> int:
    for names in (_SHORT, _DAYS):
        if name.lower() in names:
            return names.index(name.lower())
    raise BadHours(f"“{name[:40]}” is not a day of the week. Write Mon, Tue, Wed, Thu, Fri, Sat or Sun.")


def _times(text: str) -> tuple[int, int]:
    first, hyphen, last = text.partition("-")
    if not hyphen:
        raise BadHours(f"“{text[:40]}” has no end. Write both times, as in 08:00-18:00.")
    begin, end = _minute(first), _minute(last)
    if begin == DAY:
        raise BadHours("24:00 is only valid as an end. A day begins at 00:00.")
    if begin == end:
        raise BadHours(f"{text} is an empty range. The whole day is 00:00-24:00.")
    return begin, end


def _minute(text: str) -> int:
    match = _TIME.fullmatch(text)
    minute = int(match[1]) * 60 + int(match[2]) if match and int(match[2]) < 60 else DAY + 1
    if minute > DAY:
        raise BadHours(f"“{text[:40]}” is not a time of day. Write it with minutes, as in 08:00.")
    return minute


def _spans(days: list[int], begin: int, end: int) -> list[Span]:
    """One span for each day; the part after Sunday's midnight becomes a span on Monday."""
    spans: list[Span] = []
    for day in days:
        first, last = day * DAY + begin, day * DAY + end + (DAY if end < begin else 0)
        spans.append((first, min(last, WEEK)))
        if last > WEEK:
            spans.append((0, last - WEEK))
    return spans
