"""When a number is answered by the assistant: `Mon-Fri 08:00-18:00, Sat 09:00-12:00`, read and decided.

Hours are those of the clock on the wall, as on the sign at a door: where the clocks go forward an hour of
the night is not there, where they go back one comes twice, and the sign need not know. Items are separated
by commas. Days without times take the times of the next item, times without days the days of the item
before, so that `Mon, Thu 08:00-12:00, 14:00-18:00` is four spans. `22:00-06:00` ends on the next morning.

Pure: the moment and the zone are arguments.
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
_HYPHEN = re.compile(r"\s*[-\u2010-\u2015]\s*")  # what word processors make of it, too
_EXAMPLE = "Mon-Fri 08:00-18:00, Sat 09:00-12:00"

Span = tuple[int, int]  # minutes since Monday's midnight, the second not included


class BadHours(ValueError):
    """Hours that cannot be read; the message is a sentence for whoever wrote them."""


@dataclass(frozen=True, slots=True)
class OpeningHours:
    """The spans of a week, and whose clock they go by."""

    spans: tuple[Span, ...]
    zone: tzinfo

    def is_open(self, at: float) -> bool:
        """Whether it is open at this moment, in seconds since 1970."""
        there = datetime.fromtimestamp(at, self.zone)
        minute = there.weekday() * DAY + there.hour * 60 + there.minute
        return any(begin <= minute < end for begin, end in self.spans)


def parse_hours(text: str) -> tuple[Span, ...]:
    """The spans of a week. Raises `BadHours`; a text without any item has no hours and is refused, too."""
    if len(text) > MAX_CHARACTERS:
        raise BadHours(f"These hours are longer than {MAX_CHARACTERS} characters.")
    found: list[Span] = []
    days: list[int] = list(range(7))  # times that come first are for every day
    waiting: list[int] = []  # days whose times are still to come
    said = ""
    for item in _HYPHEN.sub("-", text).replace(";", ",").replace("\n", ",").split(","):
        if not (item := item.strip()):
            continue
        match = _ITEM.fullmatch(item)
        if match is None:
            raise BadHours(f"“{item[:40]}” cannot be read as hours. Write them as in {_EXAMPLE}.")
        if match["days"]:
            waiting += _days(match["days"])
            said = match["days"]
        if match["times"]:
            days, waiting = waiting or days, []
            found += _spans(days, *_times(match["times"]))
    if waiting:
        raise BadHours(f"{said} has no times. Write them as in {_EXAMPLE}.")
    if not found:
        raise BadHours(f"These are no hours. Write them as in {_EXAMPLE}.")
    if len(found) > MAX_SPANS:
        raise BadHours(f"These are more than {MAX_SPANS} spans of a week.")
    return tuple(sorted(set(found)))


def _days(text: str) -> list[int]:
    first, _, last = text.partition("-")
    begin = _day(first)
    if not last:
        return [begin]
    return [(begin + later) % 7 for later in range((_day(last) - begin) % 7 + 1)]


def _day(name: str) -> int:
    for names in (_SHORT, _DAYS):
        if name.lower() in names:
            return names.index(name.lower())
    raise BadHours(f"“{name[:40]}” is no day of the week. Write Mon, Tue, Wed, Thu, Fri, Sat or Sun.")


def _times(text: str) -> tuple[int, int]:
    first, hyphen, last = text.partition("-")
    if not hyphen:
        raise BadHours(f"“{text[:40]}” has no end. Write both times, as in 08:00-18:00.")
    begin, end = _minute(first), _minute(last)
    if begin == DAY:
        raise BadHours("24:00 can only be an end. A day begins at 00:00.")
    if begin == end:
        raise BadHours(f"{text} is no time at all. The whole day is 00:00-24:00.")
    return begin, end


def _minute(text: str) -> int:
    match = _TIME.fullmatch(text)
    minute = int(match[1]) * 60 + int(match[2]) if match and int(match[2]) < 60 else DAY + 1
    if minute > DAY:
        raise BadHours(f"“{text[:40]}” is no time of day. Write it with minutes, as in 08:00.")
    return minute


def _spans(days: list[int], begin: int, end: int) -> list[Span]:
    """One span for each day; what goes beyond Sunday's midnight is Monday's."""
    found: list[Span] = []
    for day in days:
        first, last = day * DAY + begin, day * DAY + end + (DAY if end < begin else 0)
        found.append((first, min(last, WEEK)))
        if last > WEEK:
            found.append((0, last - WEEK))
    return found
