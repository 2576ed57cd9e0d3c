"""Statistics agree with the rows, whether their hours are rolled up or not."""

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
from calls.ingest import upsert
from calls.models import Call, CallHour
from calls.stats import call_summary, hourly
from calls.stats.aggregates import Aggregate
from calls.stats.percentiles import LatencySummary, bucket
from calls.stats.queries import CallStats, report_by_day, report_by_hour
from calls.tests.builders import call_sid, make_call, make_turn

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


def make_random_calls(n: int, *, seed: int = 1) -> None:
    random = Random(seed)
    for _ in range(n):
        failed = random.random() < 0.2
        call = make_call(
            started_at=NOW - timedelta(minutes=random.randrange(0, 3 * 24 * 60)),
            answered_at=None if failed else NOW,
            end_reason="assistant-unreachable" if failed else "caller-hung-up",
            ended_by="assistant" if failed else "caller",
            duration_seconds=random.randrange(5, 300),
            vapi_cost=Decimal(random.randrange(1, 200)) / 100,
            twilio_price=-Decimal(random.randrange(1, 20)) / 100,
            time_to_first_audio_ms=random.randrange(300, 2000),
            barge_ins=random.randrange(3),
        )
        for _ in range(random.randrange(4)):
            make_turn(call, response_latency_ms=random.choice([None, random.randrange(200, 6000)]))
        call_summary.update_summaries([call])


def get_stats(since: datetime, until: datetime) -> CallStats:
    return report_by_hour(since, until, simulated=False).total


@pytest.mark.slow
class CallStatsTests(TestCase):
    def test_stats_are_the_same_before_and_after_the_rollup(self) -> None:
        make_random_calls(60)
        since, until = NOW - 2 * DAY - 17 * MINUTE, NOW - 3 * MINUTE
        before = get_stats(since, until)
        self.assertGreater(hourly.roll_up_all(NOW), 20)
        after = get_stats(since, until)
        self.assertEqual(before, after)
        inside = Call.objects.filter(started_at__gte=since, started_at__lt=until)
        self.assertEqual(after.calls, inside.count())
        self.assertEqual(after.failed, inside.failed().count())
        self.assertEqual(after.failure_reasons, {"assistant-unreachable": after.failed})
        self.assertEqual(after.cost, sum(call.cost() or 0 for call in inside))
        self.assertEqual(after.barge_ins, sum(call.barge_ins for call in inside))
        self.assertAlmostEqual(after.minutes * 60, sum(call.duration_seconds or 0 for call in inside))
        latencies = [
            turn.response_latency_ms
            for call in inside
            for turn in call.turns.filter(response_latency_ms__isnull=False)
        ]
        expected = LatencySummary.of([bucket(each or 0) * 10 for each in latencies])
        self.assertEqual(after.response_latency, expected)

    def test_hours_and_days_add_up_to_the_period(self) -> None:
        make_random_calls(40)
        hourly.roll_up_all(NOW)
        since = NOW - 2 * DAY - 17 * MINUTE
        total = get_stats(since, NOW)
        for zone in ("UTC", "Asia/Kathmandu", "America/St_Johns"):
            with timezone.override(zone):
                for parts in (
                    report_by_hour(since, NOW, simulated=False).periods,
                    report_by_day(since, NOW, simulated=False).periods,
                ):
                    self.assertEqual(sum(part.calls for _, part in parts), total.calls)
                    self.assertEqual(
                        sum(part.response_latency.n for _, part in parts), total.response_latency.n
                    )

    def test_a_changed_call_counts_at_once(self) -> None:
        make_random_calls(5)
        hourly.roll_up_all(NOW)
        call = Call.objects.order_by("started_at")[0]
        call.vapi_cost = Decimal(50)
        call.save()
        call_summary.update_summaries([call])
        self.assertGreaterEqual(get_stats(NOW - 4 * DAY, NOW).cost or 0, 50)

    def test_simulated_calls_are_counted_separately(self) -> None:
        for simulated in (True, False):
            call_summary.update_summaries([make_call(started_at=NOW, simulated=simulated)])
        for _ in range(2):
            for simulated in (True, False):
                self.assertEqual(report_by_hour(NOW - DAY, NOW + DAY, simulated=simulated).total.calls, 1)
            hourly.roll_up_all(NOW + DAY)

    def test_the_query_count_does_not_grow_with_the_rows(self) -> None:
        make_random_calls(3)
        hourly.roll_up_all(NOW - DAY)
        for n in (3, 30):
            with self.assertNumQueries(8):
                get_stats(NOW - 2 * DAY - MINUTE, NOW)
            make_random_calls(n, seed=n)

    def test_rolled_up_hours_are_not_computed_again(self) -> None:
        make_random_calls(30)
        hourly.roll_up_all(NOW)
        with self.assertNumQueries(2):
            get_stats(NOW.replace(minute=0) - 2 * DAY, NOW.replace(minute=0))

    def test_no_calls_have_empty_stats(self) -> None:
        self.assertEqual(hourly.roll_up_all(NOW), 0)
        self.assertEqual(get_stats(NOW - DAY, NOW), CallStats.of(Aggregate()))
        self.assertEqual(get_stats(NOW, NOW - DAY).calls, 0)

    def test_calls_before_the_first_rollup_count(self) -> None:
        make_call(started_at=NOW - 3 * DAY)
        call_summary.update_summaries([make_call(started_at=NOW)])
        self.assertEqual(get_stats(NOW - 4 * DAY, NOW + DAY).calls, 2)

    def test_a_call_without_an_end_counts(self) -> None:
        for hours_ago in (6, 2):
            call_summary.update_summaries([make_call(started_at=NOW - timedelta(hours=hours_ago))])
        upsert.apply_entries([CallOffered(call_sid(), (NOW - timedelta(hours=4)).timestamp())])
        self.assertEqual(get_stats(NOW - DAY, NOW).calls, 3)

    def test_the_migration_marks_the_hours_of_older_calls(self) -> None:
        calls = [make_call(started_at=NOW - timedelta(hours=n), simulated=n == 10) for n in (20, 15, 10, 1)]
        import_module("calls.migrations.0004_old_hours").mark_hours(apps, None)
        call_summary.update_summaries([calls[0], calls[-1]])
        self.assertEqual(CallHour.objects.filter(dirty=True).count(), 4)
        self.assertEqual(get_stats(NOW - DAY, NOW).calls, 3)

    def test_many_dirty_hours_become_one_interval(self) -> None:
        for n in range(0, 480, 2):
            CallHour.objects.create(hour=NOW.replace(minute=0) - n * timedelta(hours=1))
        make_call(started_at=NOW - DAY)
        with self.assertNumQueries(8):
            self.assertEqual(get_stats(NOW - 20 * DAY, NOW).calls, 1)

    def test_days_are_in_the_viewers_time_zone(self) -> None:
        make_call(started_at=datetime(2026, 11, 19, 23, 30, tzinfo=UTC))
        berlin = ZoneInfo("Europe/Berlin")
        with timezone.override(berlin):
            days = report_by_day(NOW - 2 * DAY, NOW, simulated=False).periods
        counted = {day.date().isoformat(): stats.calls for day, stats in days if stats.calls}
        self.assertEqual(counted, {"2026-11-20": 1})
        self.assertEqual(days[0][0], datetime(2026, 11, 18, tzinfo=berlin))


class RollupTests(TestCase):
    def test_the_oldest_dirty_hour_is_rolled_up_first(self) -> None:
        noon = NOW.replace(minute=0)
        hourly.mark_dirty([(noon, False), (noon - timedelta(hours=1), False)])
        with transaction.atomic():
            self.assertTrue(hourly.roll_up_oldest(noon))
            self.assertFalse(hourly.roll_up_oldest(noon))
        self.assertEqual(CallHour.objects.get(dirty=False).hour, noon - timedelta(hours=1))

    def test_mark_dirty_marks_a_clean_hour(self) -> None:
        CallHour.objects.create(hour=NOW.replace(minute=0), dirty=False, figures={"calls": 1})
        hourly.mark_dirty([(NOW.replace(minute=0), False)])
        self.assertTrue(CallHour.objects.get().dirty)
        with self.assertNumQueries(1):
            hourly.mark_dirty([(NOW.replace(minute=0), False)])


class BucketTests(SimpleTestCase):
    def test_a_bucket_is_a_rounded_hundredth_of_a_second(self) -> None:
        self.assertEqual([bucket(ms) for ms in (0, 4, 5, 14, 925, 935, 1200)], [0, 0, 1, 1, 93, 94, 120])

    def test_percentiles_of_buckets_are_those_of_the_values(self) -> None:
        random = Random(7)
        values = [random.randrange(0, 5000) for _ in range(999)]
        summary = LatencySummary.of_buckets(Counter(bucket(each) for each in values))
        self.assertEqual(summary, LatencySummary.of([bucket(each) * 10 for each in values]))
