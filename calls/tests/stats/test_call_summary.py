"""A call's summary columns, flags and dirty hours follow its rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from django.test import SimpleTestCase, TestCase

from bridge.journal import (
    AssistantAnswered,
    AssistantReported,
    CallOffered,
    StreamEnded,
    StreamStarted,
    TurnTaken,
    UtteranceSpoken,
)
from calls.ingest import upsert
from calls.models import Call, CallFlag, CallHour
from calls.stats import call_summary
from calls.stats.call_summary import compute_longest_silence
from calls.stats.flags import FLAGS, REPORT_DEADLINE, find_flags
from calls.tests.builders import make_call, make_turn, make_utterance

NOON = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


class LongestSilenceTests(SimpleTestCase):
    def test_a_single_utterance_has_no_silence(self) -> None:
        self.assertIsNone(compute_longest_silence([]))
        self.assertIsNone(compute_longest_silence([(0, 900)]))

    def test_it_is_between_an_end_and_the_next_start(self) -> None:
        self.assertEqual(compute_longest_silence([(5000, 6000), (0, 1000), (6500, 7000)]), 4000)

    def test_overlapping_speech_is_not_silence(self) -> None:
        self.assertEqual(compute_longest_silence([(0, 9000), (1000, 2000), (9500, 9900)]), 500)
        self.assertEqual(compute_longest_silence([(0, 9000), (1000, 2000)]), 0)

    def test_an_utterance_without_times_makes_the_silence_around_it_unknown(self) -> None:
        for unknown, silence in (((None, None), None), ((1500, None), 500), ((None, 30_500), 0)):
            with self.subTest(unknown):
                self.assertEqual(compute_longest_silence([(0, 1000), unknown, (30_000, 31_000)]), silence)
        self.assertEqual(compute_longest_silence([(0, 1000), (None, None), (9000, 9500), (9900, 9950)]), 400)


class UpdateSummariesTests(TestCase):
    def flags(self, call: Call) -> set[str]:
        return set(call.flags.values_list("name", flat=True))

    def test_it_computes_the_columns_from_the_rows(self) -> None:
        call = make_call()
        for latency_ms in (800, 900, None, 5000):
            make_turn(call, response_latency_ms=latency_ms)
        make_utterance(call, started_ms=0, ended_ms=1000)
        make_utterance(call, started_ms=14_000, ended_ms=15_000)
        make_utterance(call, started_ms=None, ended_ms=None)
        call_summary.update_summaries([call])
        call.refresh_from_db()
        self.assertEqual((call.turn_count, call.p50_latency_ms, call.worst_latency_ms), (4, 900, 5000))
        self.assertEqual(call.longest_silence_ms, 13_000)
        self.assertLessEqual({"slow-turn", "long-silence"}, self.flags(call))

    def test_a_flag_is_removed_with_its_reason(self) -> None:
        call = make_call(vapi_cost=Decimal("1.20"))
        call_summary.update_summaries([call])
        self.assertIn("over-cost", self.flags(call))
        call.vapi_cost = Decimal("0.20")
        call_summary.update_summaries([call])
        self.assertNotIn("over-cost", self.flags(call))

    def test_a_flag_has_the_start_of_its_call(self) -> None:
        call = make_call(end_reason="assistant-failed", ended_by="assistant", started_at=NOON)
        call_summary.update_summaries([call])
        call.started_at = NOON - timedelta(hours=2)
        call_summary.update_summaries([call])
        self.assertEqual(CallFlag.objects.get(call=call, name="failed").started_at, call.started_at)

    def test_it_marks_the_old_and_the_new_hour_dirty(self) -> None:
        CallHour.objects.create(hour=NOON.replace(minute=0), dirty=False)
        CallHour.objects.create(hour=NOON.replace(hour=9, minute=0), dirty=False)
        call = make_call(started_at=NOON)
        call_summary.update_summaries([call], hours=[(NOON.replace(hour=9, minute=0), False)])
        self.assertEqual(CallHour.objects.filter(dirty=True).count(), 2)

    def test_it_is_idempotent(self) -> None:
        call = make_call(end_reason="limit-reached", ended_by="us", stream_sid="MZ1", barge_ins=2)
        make_turn(call)
        call_summary.update_summaries([call])
        first = self.flags(call)
        call_summary.update_summaries([Call.objects.get(pk=call.pk)])
        self.assertEqual(self.flags(call), first)
        self.assertLessEqual({"cut-by-us", "talked-over", "never-answered"}, first)

    def test_the_query_count_does_not_depend_on_the_number_of_calls(self) -> None:
        calls = [make_call(answered_at=NOON) for _ in range(20)]
        with self.assertNumQueries(5):  # turns, utterances, flags, hours
            call_summary.update_summaries(calls)


class FlagTests(SimpleTestCase):
    def test_every_flag_but_one_depends_on_the_call_alone(self) -> None:
        bad = Call(
            status="failed", ended_by="us", stream_sid="MZ1", barge_ins=2, worst_latency_ms=4001,
            longest_silence_ms=10_001, vapi_cost=Decimal("1.01"),
        )  # fmt: skip
        self.assertEqual(find_flags(bad), FLAGS.keys() - {"no-report"})

    def test_a_successful_call_has_no_flag(self) -> None:
        good = Call(status="completed", end_reason="caller-hung-up", ended_by="caller", answered_at=NOON)
        self.assertEqual(find_flags(good), set())


class MissingReportTests(TestCase):
    def test_it_flags_a_call_once_its_report_is_overdue(self) -> None:
        call = make_call(vapi_call_id="v1", started_at=NOON, ended_at=NOON)
        self.assertEqual(call_summary.flag_missing_reports(NOON + REPORT_DEADLINE), 0)
        self.assertEqual(call_summary.flag_missing_reports(NOON + REPORT_DEADLINE + timedelta(seconds=1)), 1)
        self.assertEqual(call_summary.flag_missing_reports(NOON + REPORT_DEADLINE + timedelta(seconds=9)), 0)
        call_summary.update_summaries([call])
        self.assertTrue(call.flags.filter(name="no-report").exists(), "an update must keep the flag")

    def test_a_late_report_removes_the_flag(self) -> None:
        call = make_call(vapi_call_id="v1", started_at=NOON, ended_at=NOON)
        call_summary.flag_missing_reports(NOON + timedelta(hours=1))
        upsert.apply_entries([AssistantReported(call.call_sid, NOON.timestamp(), "end-of-call-report", "v1")])
        self.assertFalse(call.flags.filter(name="no-report").exists())

    def test_a_call_without_the_assistant_needs_no_report(self) -> None:
        make_call(vapi_call_id="", started_at=NOON, ended_at=NOON)
        self.assertEqual(call_summary.flag_missing_reports(NOON + timedelta(hours=1)), 0)


class JournalTests(TestCase):
    def test_the_batch_that_ends_a_call_updates_its_summary(self) -> None:
        sid, at = "CA" + "d" * 32, NOON.timestamp()
        upsert.apply_entries(
            [CallOffered(sid, at), StreamStarted(sid, at, "MZ1"), AssistantAnswered(sid, at, 100)]
        )
        upsert.apply_entries([TurnTaken(sid, 1, 1000, response_latency_ms=4500)])
        call = Call.objects.get()
        self.assertEqual(call.turn_count, 0, "no summary while the call is in progress")
        upsert.apply_entries(
            [
                UtteranceSpoken(sid, 0, "caller", "hello", 0, 1000),
                StreamEnded(sid, at, 9000, "caller-hung-up", "caller"),
            ]
        )
        call.refresh_from_db()
        self.assertEqual((call.turn_count, call.worst_latency_ms), (1, 4500))
        self.assertEqual(list(call.flags.values_list("name", flat=True)), ["slow-turn"])
        self.assertTrue(CallHour.objects.get(hour=NOON.replace(minute=0)).dirty)

    def test_a_call_in_progress_marks_its_hour_dirty(self) -> None:
        sid, at = "CA" + "d" * 32, NOON.timestamp()
        for entry in (CallOffered(sid, at), TurnTaken(sid, 1, 1000, response_latency_ms=900)):
            CallHour.objects.update(dirty=False)
            upsert.apply_entries([entry])
            self.assertTrue(CallHour.objects.get(hour=NOON.replace(minute=0)).dirty)

    def test_a_call_that_moves_to_another_hour_marks_both_dirty(self) -> None:
        sid = "CA" + "d" * 32
        upsert.apply_entries([CallOffered(sid, NOON.timestamp())])
        CallHour.objects.update(dirty=False)
        upsert.apply_entries([CallOffered(sid, (NOON - timedelta(hours=1)).timestamp())])
        self.assertEqual(CallHour.objects.filter(dirty=True).count(), 2)

    def test_the_reaper_updates_flags(self) -> None:
        now = datetime.now(UTC)
        call = make_call(
            status="in-progress", end_reason="", ended_by="", lease_until=now - timedelta(minutes=1)
        )
        upsert.reap(now)
        self.assertIn("failed", call.flags.values_list("name", flat=True))
