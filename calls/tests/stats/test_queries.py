"""Sums of many calls equal the rows, whether they were summed up before or not."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from random import Random
from zoneinfo import ZoneInfo

import pytest
from django.apps import apps
from django.db import transaction
from django.test import SimpleTestCase, TestCase
from django.utils import timezone

from bridge.journal import CallOffered
from calls.ingest import upsert as rows
from calls.models import Call, CallHour
from calls.stats import call_summary as call_summary
from calls.stats import hourly as hours
from calls.stats import queries as figures
from calls.stats.aggregates import Sums
from calls.stats.percentiles import Summary, bucket
from calls.stats.queries import Figures
from calls.tests.builders import call_sid, make_call, make_turn

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


def some_calls(n: int, *, seed: int = 1) -> None:
    draw = Random(seed)
    for _ in range(n):
        failed = draw.random() < 0.2
        call = make_call(
            started_at=NOW - timedelta(minutes=draw.randrange(0, 3 * 24 * 60)),
            answered_at=None if failed else NOW,
            end_reason="assistant-unreachable" if failed else "caller-hung-up",
            ended_by="assistant" if failed else "caller",
            duration_seconds=draw.randrange(5, 300),
            vapi_cost=Decimal(draw.randrange(1, 200)) / 100,
            twilio_price=-Decimal(draw.randrange(1, 20)) / 100,
            time_to_first_audio_ms=draw.randrange(300, 2000),
            barge_ins=draw.randrange(3),
        )
        for _ in range(draw.randrange(4)):
            make_turn(call, response_latency_ms=draw.choice([None, draw.randrange(200, 6000)]))
        call_summary.refresh([call])


def total(since: datetime, until: datetime) -> Figures:
    return figures.figures(since, until, simulated=False)


@pytest.mark.slow
class FiguresTests(TestCase):
    def test_they_are_the_same_before_and_after_summing_up(self) -> None:
        some_calls(60)
        since, until = NOW - 2 * DAY - 17 * MINUTE, NOW - 3 * MINUTE
        before = total(since, until)
        self.assertGreater(hours.sum_up_all(NOW), 20)
        after = total(since, until)
        self.assertEqual(before, after)
        inside = Call.objects.filter(started_at__gte=since, started_at__lt=until)
        self.assertEqual(after.calls, inside.count())
        self.assertEqual(after.failed, inside.failed().count())
        self.assertEqual(after.end_reasons, {"assistant-unreachable": after.failed})
        self.assertEqual(after.cost, sum(call.cost() or 0 for call in inside))
        self.assertEqual(after.barge_ins, sum(call.barge_ins for call in inside))
        self.assertAlmostEqual(after.minutes * 60, sum(call.duration_seconds or 0 for call in inside))
        latencies = [
            turn.response_latency_ms
            for call in inside
            for turn in call.turns.filter(response_latency_ms__isnull=False)
        ]
        shown = Summary.of([bucket(each or 0) * 10 for each in latencies])
        self.assertEqual(after.response, shown)

    def test_hours_and_days_add_up_to_the_whole(self) -> None:
        some_calls(40)
        hours.sum_up_all(NOW)
        since = NOW - 2 * DAY - 17 * MINUTE
        whole = total(since, NOW)
        for zone in ("UTC", "Asia/Kathmandu", "America/St_Johns"):
            with timezone.override(zone):
                for parts in (
                    figures.by_hour(since, NOW, simulated=False),
                    figures.by_day(since, NOW, simulated=False),
                ):
                    self.assertEqual(sum(part.calls for _, part in parts), whole.calls)
                    self.assertEqual(sum(part.response.n for _, part in parts), whole.response.n)

    def test_a_call_that_changes_is_seen_at_once(self) -> None:
        some_calls(5)
        hours.sum_up_all(NOW)
        call = Call.objects.order_by("started_at")[0]
        call.vapi_cost = Decimal(50)
        call.save()
        call_summary.refresh([call])
        self.assertGreaterEqual(total(NOW - 4 * DAY, NOW).cost or 0, 50)

    def test_simulated_calls_are_counted_apart(self) -> None:
        for simulated in (True, False):
            call_summary.refresh([make_call(started_at=NOW, simulated=simulated)])
        for _ in range(2):
            for simulated in (True, False):
                self.assertEqual(figures.figures(NOW - DAY, NOW + DAY, simulated=simulated).calls, 1)
            hours.sum_up_all(NOW + DAY)

    def test_the_query_count_does_not_grow_with_the_rows(self) -> None:
        some_calls(3)
        hours.sum_up_all(NOW - DAY)
        for n in (3, 30):
            with self.assertNumQueries(7):
                total(NOW - 2 * DAY - MINUTE, NOW)
            some_calls(n, seed=n)

    def test_what_is_summed_up_is_not_read_again(self) -> None:
        some_calls(30)
        hours.sum_up_all(NOW)
        with self.assertNumQueries(2):
            total(NOW.replace(minute=0) - 2 * DAY, NOW.replace(minute=0))

    def test_nothing_is_nothing(self) -> None:
        self.assertEqual(hours.sum_up_all(NOW), 0)
        self.assertEqual(total(NOW - DAY, NOW), Figures.of(Sums()))
        self.assertEqual(total(NOW, NOW - DAY).calls, 0)

    def test_calls_of_before_the_first_sum_are_read(self) -> None:
        make_call(started_at=NOW - 3 * DAY)
        call_summary.refresh([make_call(started_at=NOW)])
        self.assertEqual(total(NOW - 4 * DAY, NOW + DAY).calls, 2)

    def test_a_call_that_nobody_ended_is_counted(self) -> None:
        for hours_ago in (6, 2):
            call_summary.refresh([make_call(started_at=NOW - timedelta(hours=hours_ago))])
        rows.apply([CallOffered(call_sid(), (NOW - timedelta(hours=4)).timestamp())])
        self.assertEqual(total(NOW - DAY, NOW).calls, 3)

    def test_older_calls_get_their_hours_when_the_database_is_migrated(self) -> None:
        calls = [make_call(started_at=NOW - timedelta(hours=n), simulated=n == 10) for n in (20, 15, 10, 1)]
        import_module("calls.migrations.0004_old_hours").mark_hours(apps, None)
        call_summary.refresh([calls[0], calls[-1]])
        self.assertEqual(CallHour.objects.filter(dirty=True).count(), 4)
        self.assertEqual(total(NOW - DAY, NOW).calls, 3)

    def test_many_torn_hours_are_one_range(self) -> None:
        for n in range(0, 480, 2):
            CallHour.objects.create(hour=NOW.replace(minute=0) - n * timedelta(hours=1))
        make_call(started_at=NOW - DAY)
        with self.assertNumQueries(7):
            self.assertEqual(total(NOW - 20 * DAY, NOW).calls, 1)

    def test_days_are_those_of_the_viewer(self) -> None:
        make_call(started_at=datetime(2026, 11, 19, 23, 30, tzinfo=UTC))
        berlin = ZoneInfo("Europe/Berlin")
        with timezone.override(berlin):
            days = figures.by_day(NOW - 2 * DAY, NOW, simulated=False)
        counted = {day.date().isoformat(): found.calls for day, found in days if found.calls}
        self.assertEqual(counted, {"2026-11-20": 1})
        self.assertEqual(days[0][0], datetime(2026, 11, 18, tzinfo=berlin))


class SummingUpTests(TestCase):
    def test_the_oldest_dirty_hour_comes_first_and_young_ones_wait(self) -> None:
        noon = NOW.replace(minute=0)
        hours.mark([(noon, False), (noon - timedelta(hours=1), False)])
        with transaction.atomic():
            self.assertTrue(hours.sum_up_oldest(noon))
            self.assertFalse(hours.sum_up_oldest(noon))
        self.assertEqual(CallHour.objects.get(dirty=False).hour, noon - timedelta(hours=1))

    def test_a_mark_on_a_clean_hour_makes_it_dirty(self) -> None:
        CallHour.objects.create(hour=NOW.replace(minute=0), dirty=False, figures={"calls": 1})
        hours.mark([(NOW.replace(minute=0), False)])
        self.assertTrue(CallHour.objects.get().dirty)
        with self.assertNumQueries(1):
            hours.mark([(NOW.replace(minute=0), False)])


class BucketTests(SimpleTestCase):
    def test_a_bucket_is_what_a_page_shows(self) -> None:
        self.assertEqual([bucket(ms) for ms in (0, 4, 5, 14, 925, 935, 1200)], [0, 0, 1, 1, 93, 94, 120])

    def test_percentiles_of_buckets_are_those_of_the_values(self) -> None:
        draw = Random(7)
        values = [draw.randrange(0, 5000) for _ in range(999)]
        found = Summary.of_buckets(Counter(bucket(each) for each in values))
        self.assertEqual(found, Summary.of([bucket(each) * 10 for each in values]))
