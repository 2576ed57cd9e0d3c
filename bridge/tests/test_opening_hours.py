"""Opening hours: parsing, error messages, and whether they include a moment."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from bridge.opening_hours import DAY, MAX_SPANS, WEEK, BadHours, OpeningHours, parse_hours

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
MON, TUE, WED, THU, FRI, SAT, SUN = (number * DAY for number in range(7))


def at(hour: int, minute: int = 0) -> int:
    return hour * 60 + minute


def is_open(text: str, moment: str, zone: ZoneInfo = BERLIN) -> bool:
    """`moment` is an ISO time; without an offset it is local time in `zone`."""
    local_or_aware = datetime.fromisoformat(moment)
    aware = local_or_aware if local_or_aware.tzinfo else local_or_aware.replace(tzinfo=zone)
    return OpeningHours(parse_hours(text), zone).is_open(aware.timestamp())


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("Mon 08:00-18:00", [(MON + at(8), MON + at(18))]),
        ("Mon-Tue 08:00-18:00, Sat 9:30-12:00",
         [(MON + at(8), MON + at(18)), (TUE + at(8), TUE + at(18)), (SAT + at(9, 30), SAT + at(12))]),
        ("mon, THURSDAY 08:00-12:00, 14:00-18:00",
         [(day + at(begin), day + at(end)) for day in (MON, THU) for begin, end in ((8, 12), (14, 18))]),
        ("Sat-Mon 10:00-11:00", [(day + at(10), day + at(11)) for day in (MON, SAT, SUN)]),
        ("Fri-Fri 10:00-11:00", [(FRI + at(10), FRI + at(11))]),
        ("00:00-24:00", [(day, day + DAY) for day in (MON, TUE, WED, THU, FRI, SAT, SUN)]),
        ("Wed 22:00-06:00", [(WED + at(22), THU + at(6))]),
        ("Sun 22:00-06:00", [(0, at(6)), (SUN + at(22), WEEK)]),
        ("Sun 22:00-24:00", [(SUN + at(22), WEEK)]),
        ("Sun 22:00-00:00", [(SUN + at(22), WEEK)]),
        ("Mon \u2013 Tue 08:00 \u2014 09:00;;\n Wed08:00-09:00,",
         [(day + at(8), day + at(9)) for day in (MON, TUE, WED)]),
        ("Mon 08:00-09:00, Mon 08:00-09:00", [(MON + at(8), MON + at(9))]),
    ],
)  # fmt: skip
def test_opening_hours_are_parsed_into_spans_of_the_week(text: str, spans: list[tuple[int, int]]) -> None:
    assert parse_hours(text) == tuple(spans)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "No opening hours were given."),
        (" , ;", "No opening hours were given."),
        ("always", "“always” is not a day of the week."),
        ("Mon-Fry 08:00-18:00", "“Fry” is not a day of the week."),
        ("Mo 08:00-18:00", "“Mo” is not a day of the week."),
        ("Mon", "Mon has no times."),
        ("Mon 08:00-18:00, Sat", "Sat has no times."),
        ("Mon 08:00", "“08:00” has no end."),
        ("Mon 8-18", "“8” is not a time of day."),
        ("Mon 08:60-18:00", "“08:60” is not a time of day."),
        ("Mon 08:00-24:01", "“24:01” is not a time of day."),
        ("Mon 08:00-25:00", "“25:00” is not a time of day."),
        ("Mon 08:00-18:00-20:00", "“18:00-20:00” is not a time of day."),
        ("Mon 08:00-", "“” is not a time of day."),
        ("Mon 24:00-06:00", "24:00 is only valid as an end."),
        ("Mon 08:00-08:00", "08:00-08:00 is an empty range."),
        ("Mon 08:00-18:00 Tue 08:00-12:00", "“Mon 08:00-18:00 Tue 08:00-12:00” is not valid."),
        ("Mon ٠٨:٠٠-١٨:٠٠", "“٠٨:٠٠” is not a time of day."),
        ("Mon-Tue-Wed 08:00-18:00", "“Mon-Tue-Wed 08:00-18:00” is not valid."),
        ("x" * 1001, "The opening hours are longer than 1000 characters."),
        (",".join(f"{n // 60}:{n % 60:02}-24:00" for n in range(MAX_SPANS // 7 + 1)), "There are more than"),
    ],
)  # fmt: skip
def test_invalid_opening_hours_are_rejected_with_a_message(text: str, message: str) -> None:
    with pytest.raises(BadHours) as error:
        parse_hours(text)
    assert str(error.value).startswith(message)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("text", "moment", "expected"),
    [
        ("Mon-Fri 08:00-18:00", "2026-11-23T08:00:00", True),  # a Monday; the start is included
        ("Mon-Fri 08:00-18:00", "2026-11-23T07:59:59", False),
        ("Mon-Fri 08:00-18:00", "2026-11-23T17:59:59", True),
        ("Mon-Fri 08:00-18:00", "2026-11-23T18:00:00", False),  # the end is excluded
        ("Mon-Fri 08:00-18:00", "2026-11-28T10:00:00", False),
        ("Mon 22:00-06:00", "2026-11-24T05:59:59", True),
        ("Mon 22:00-06:00", "2026-11-23T05:00:00", False),
        ("Sun 22:00-06:00", "2026-11-23T05:00:00", True),
        ("Sun 22:00-06:00", "2026-11-29T23:30:00", True),
        ("Sun 20:00-24:00", "2026-11-29T23:59:59", True),
        ("Sun 20:00-24:00", "2026-11-30T00:00:00", False),
    ],
)
def test_it_is_open_from_the_start_until_before_the_end(text: str, moment: str, expected: bool) -> None:
    assert is_open(text, moment) is expected


@pytest.mark.parametrize(("zone", "expected"), [(BERLIN, True), (NEW_YORK, False), (ZoneInfo("UTC"), True)])
def test_opening_hours_use_their_time_zone(zone: ZoneInfo, expected: bool) -> None:
    assert is_open("Mon-Fri 08:00-18:00", "2026-11-24T09:00:00+00:00", zone) is expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-03-27T06:30:00+00:00", False),  # 07:30 in winter
        ("2026-03-30T06:30:00+00:00", True),  # 08:30 in summer
        ("2026-10-23T06:30:00+00:00", True),
        ("2026-10-26T06:30:00+00:00", False),
    ],
)
def test_opening_hours_follow_daylight_saving_time(moment: str, expected: bool) -> None:
    assert is_open("Mon-Fri 08:00-18:00", moment) is expected


def test_a_skipped_hour_is_never_open_and_a_repeated_hour_is_open_twice() -> None:
    # 29 March 2026: 01:59:59 is followed by 03:00:00.
    assert is_open("Sun 02:00-03:00", "2026-03-29T00:59:59+00:00") is False
    assert is_open("Sun 02:00-03:00", "2026-03-29T01:00:00+00:00") is False
    assert is_open("Sat 22:00-06:00", "2026-03-29T03:59:00+00:00") is True  # 05:59
    # 25 October 2026: 02:00 to 02:59 comes twice.
    for twice in ("2026-10-25T00:30:00+00:00", "2026-10-25T01:30:00+00:00"):
        assert is_open("Sun 02:00-03:00", twice) is True


def test_opening_hours_with_the_same_spans_are_equal() -> None:
    parsed = [OpeningHours(parse_hours(text), UTC) for text in ("Mon 08:00-09:00", "monday 8:00 - 9:00")]
    assert parsed[0] == parsed[1]
