"""Time ranges of pages, and the charts of a range."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from calls.middleware import find_zone
from calls.staff import charts
from calls.stats import time_ranges
from calls.stats.aggregates import Aggregate
from calls.stats.queries import CallStats

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
LATER = (NOW + timedelta(days=30),) * 2  # the end of a range, and the present, after all its periods


def test_the_default_is_the_last_24_hours() -> None:
    result = time_ranges.parse_range({}, NOW)
    assert (result.since, result.until, result.is_hourly) == (NOW - timedelta(days=1), NOW, True)


def test_today_starts_at_the_viewers_midnight() -> None:
    with timezone.override("Asia/Kathmandu"):
        result = time_ranges.parse_range({"range": "today"}, NOW)
    assert result.since == datetime(2026, 11, 19, 18, 15, tzinfo=UTC)


def test_both_typed_days_are_included() -> None:
    result = time_ranges.parse_range({"since": "2026-11-01", "until": "2026-11-02"}, NOW)
    assert result.since == datetime(2026, 11, 1, tzinfo=UTC)
    assert result.until == datetime(2026, 11, 3, tzinfo=UTC)
    assert result.label == "1 Nov 2026 to 2 Nov 2026"


def test_the_last_day_may_be_today_and_ends_now() -> None:
    assert time_ranges.parse_range({"since": "2026-11-19"}, NOW).until == NOW
    assert time_ranges.parse_range({"until": "2026-11-20"}, NOW).since == datetime(2026, 11, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"range": "<script>"}, "Unknown range"),
        ({"since": "yesterday"}, "not a date"),
        ({"since": "2026-11-10", "until": "2026-11-01"}, "after the last"),
        ({"since": "2027-01-01", "until": "2027-01-02"}, "future"),
        ({"since": "2020-01-01"}, "longer than a year"),
        ({"since": "0001-01-01"}, "2000 and 2999"),
        ({"until": "9999-12-31"}, "2000 and 2999"),
    ],
)
def test_an_invalid_range_says_why(params: dict[str, str], message: str) -> None:
    with pytest.raises(time_ranges.InvalidRange, match=message):
        time_ranges.parse_range(params, NOW)


def test_a_time_zone_must_be_a_known_name() -> None:
    zone = find_zone("Europe%2FBerlin")
    assert zone is not None and zone.key == "Europe/Berlin"
    for name in ("", "../../etc/passwd", "/etc/localtime", "Europe", "x" * 500, "Europe/Berlin\x00"):
        assert find_zone(name) is None


def make_stats(calls: int = 0, failed: int = 0, latencies: tuple[int, ...] = ()) -> CallStats:
    aggregate = Aggregate(calls=calls)
    aggregate.failure_reasons["assistant-failed"] = failed
    aggregate.response_latency.update(latencies)
    return CallStats.of(aggregate)


@pytest.mark.parametrize(
    "name", ["Asia/Calcutta", "Asia/Saigon", "Europe/Kiev", "US/Pacific", "America/Buenos_Aires"]
)
def test_old_names_of_zones_are_known_without_the_systems_time_zone_files(name: str) -> None:
    """Browsers still report them, and Debian ships them in a separate package."""
    zoneinfo.reset_tzpath(to=())
    try:
        assert name in zoneinfo.available_timezones()
        assert zoneinfo.ZoneInfo.no_cache(name).utcoffset(NOW)
    finally:
        zoneinfo.reset_tzpath()


@pytest.mark.parametrize(
    ("zone", "first", "names"),
    [
        ("Europe/Berlin", datetime(2026, 10, 25, 0, tzinfo=UTC), ["02:00 CEST", "02:00 CET", "03:00"]),
        ("America/New_York", datetime(2026, 11, 1, 5, tzinfo=UTC), ["01:00 EDT", "01:00 EST", "02:00"]),
        ("Europe/Berlin", datetime(2026, 3, 29, 0, tzinfo=UTC), ["01:00", "03:00", "04:00"]),
        ("America/Sao_Paulo", datetime(2026, 10, 25, 3, tzinfo=UTC), ["00:00", "01:00", "02:00"]),
    ],
)
def test_an_hour_that_occurs_twice_has_the_zone_in_its_names(
    zone: str, first: datetime, names: list[str]
) -> None:
    with timezone.override(zone):
        parts = [(first + timedelta(hours=hour), make_stats()) for hour in range(3)]
        periods = charts.build_periods(parts, first, *LATER, by_hour=True, link=lambda begins, ends: "")
    assert [period.name.partition(", ")[2] for period in periods] == names


def make_periods(*parts: CallStats, by_hour: bool = True) -> list[charts.Period]:
    step = timedelta(hours=1) if by_hour else timedelta(days=1)
    since = NOW.replace(hour=0, minute=0)
    return charts.build_periods(
        [(since + step * n, part) for n, part in enumerate(parts)],
        since,
        *LATER,
        by_hour=by_hour,
        link=lambda begins, ends: f"{begins:%d %H}-{ends:%d %H}",
    )


def test_the_height_of_a_bar_is_proportional_and_the_bar_links_to_its_hour() -> None:
    chart = charts.calls_chart(make_periods(make_stats(10, 5), make_stats(), make_stats(4)))
    assert (chart.ticks, chart.width, len(chart.bars)) == (("10", "5", "0"), 30, 2)
    first, last = chart.bars
    assert (first.height, first.y, first.inner_height, first.inner_y) == (100, 0, 50, 50)
    assert (last.x, last.height, last.link) == (21, 40, "20 02-20 03")
    assert "10 calls, 5 failed (50.0 %)" in first.label


def test_the_latency_chart_shows_the_target_and_a_bar_for_each_hour_with_turns() -> None:
    chart = charts.latency_chart(make_periods(make_stats(1, 0, (80, 90, 200)), make_stats(1)), 1000)
    assert chart.ticks == ("2 s", "1 s", "0")
    assert chart.target_y == 50
    assert len(chart.bars) == 1, "an hour without turns has no bar"
    assert "p50 0.90 s, p95 2.00 s, 3 turns" in chart.bars[0].label


def test_a_day_has_25_hours_when_the_clocks_are_set_back() -> None:
    with timezone.override("Europe/Berlin"):
        begins = datetime(2026, 10, 25, tzinfo=timezone.get_current_timezone())
        (period,) = charts.build_periods(
            [(begins, make_stats(1))],
            begins,
            *LATER,
            by_hour=False,
            link=lambda _, ends: ends.astimezone(UTC).isoformat(),
        )
    assert period.name == "Sun 25 Oct"
    assert datetime.fromisoformat(period.link) - begins.astimezone(UTC) == timedelta(hours=25)


@pytest.mark.parametrize(
    ("value", "top"), [(1, "1"), (3, "4"), (5, "5"), (7, "8"), (9, "10"), (1201, "2,000"), (81, "100")]
)
def test_the_top_of_an_axis_is_a_round_number(value: int, top: str) -> None:
    assert charts.calls_chart(make_periods(make_stats(value))).ticks[0] == top


def test_a_period_that_is_cut_or_not_over_is_partial_and_links_to_its_part() -> None:
    hour = NOW.replace(minute=0)
    starts = [hour - timedelta(hours=2), hour - timedelta(hours=1), hour]
    since, now = starts[0] + timedelta(minutes=10), hour + timedelta(minutes=30)
    periods = charts.build_periods(
        [(start, make_stats(1)) for start in starts], since, now, now, by_hour=True,
        link=lambda begins, ends: f"{begins:%H:%M}-{ends:%H:%M}",
    )  # fmt: skip
    assert [period.is_partial for period in periods] == [True, False, True]
    assert [period.link for period in periods] == [
        f"{since:%H:%M}-{starts[1]:%H:%M}", f"{starts[1]:%H:%M}-{hour:%H:%M}", f"{hour:%H:%M}-{now:%H:%M}",
    ]  # fmt: skip
    assert "(partial)" in charts.calls_chart(periods).bars[2].label


@pytest.mark.parametrize(
    ("params", "since", "until", "label"),
    [
        ({"range": "24h"}, "2026-11-18T12:30", "2026-11-19T12:30", "the 24 hours before"),
        ({"range": "7d"}, "2026-11-06T12:30", "2026-11-13T12:30", "the 7 days before"),
        ({"range": "today"}, "2026-11-19T00:00", "2026-11-19T12:30", "yesterday until this time"),
        (
            {"since": "2026-11-18", "until": "2026-11-18"},
            "2026-11-17T00:00",
            "2026-11-18T00:00",
            "the day before",
        ),
        (
            {"since": "2026-11-16", "until": "2026-11-18"},
            "2026-11-13T00:00",
            "2026-11-16T00:00",
            "the 3 days before",
        ),
        # Until now, so as much of the first days.
        ({"since": "2026-11-19"}, "2026-11-17T00:00", "2026-11-18T12:30", "the 2 days before"),
    ],
)
def test_the_range_before_is_as_long(params: dict[str, str], since: str, until: str, label: str) -> None:
    before = time_ranges.previous_range(time_ranges.parse_range(params, NOW))
    assert f"{before.since:%Y-%m-%dT%H:%M}" == since
    assert f"{before.until:%Y-%m-%dT%H:%M}" == until
    assert before.label == label


def test_the_range_before_begins_at_midnight_across_a_clock_change() -> None:
    with timezone.override("Europe/Berlin"):
        params = {"since": "2026-10-26", "until": "2026-10-26"}
        before = time_ranges.previous_range(time_ranges.parse_range(params, NOW))
        assert before.until.astimezone(UTC) - before.since.astimezone(UTC) == timedelta(hours=25)
