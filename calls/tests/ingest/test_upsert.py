"""Applying journal entries gives the same rows in any order and repetition, also with untrusted text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase as HypothesisTestCase

from bridge.journal import (
    AssistantAnswered,
    AssistantReported,
    CallOffered,
    CarrierReported,
    EndRequested,
    Entry,
    StreamEnded,
    StreamRefused,
    StreamStarted,
    TimelineEvent,
    TurnTaken,
    UtteranceSpoken,
)
from calls.ingest import upsert
from calls.ingest.sanitize import MAX_JSON_DEPTH, MAX_TEXT_CHARS, clean_json, clean_text
from calls.models import Call
from calls.tests.builders import call_sid, make_call, make_turn

T = 1_760_000_000.0
SID = "CA" + "5" * 32


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(T + seconds, UTC)


def make_all_entries(sid: str = SID) -> list[Entry]:
    """All entries of one successful call, in order."""
    vapi = f"vapi-{sid[-8:]}"
    return [
        CallOffered(sid, T, "+15550100134", "+15559870000"),
        CarrierReported(sid, T + 0.5, "ringing", 0),
        CarrierReported(sid, T + 1, "in-progress", 1),
        StreamStarted(sid, T + 2, "MZ1", "worker-1"),
        CarrierReported(sid, T + 2.1, stream_event="stream-started"),
        TimelineEvent(sid, 0, "stream-started", 0),
        AssistantAnswered(sid, T + 2.4, 412, vapi, 20),
        AssistantReported("", T + 2.6, "status-update", vapi, "in-progress"),
        UtteranceSpoken(sid, 0, "assistant", "Hello.", 500, 900),
        UtteranceSpoken(sid, 1, "caller", "I need a table.", 1500, 2500),
        TurnTaken(sid, 1, 2500, 2800, 3300, 3301, 3390, 800, 900),
        UtteranceSpoken(sid, 2, "assistant", "For how many?", 3300, 4000, True),
        TurnTaken(sid, 2, 5000),
        TurnTaken(sid, 3, 6000, 6200, 6900, 6901, None, 900, 800),
        TimelineEvent(sid, 1, "dtmf", 6500, {"digit": "5"}),
        StreamRefused(sid, T + 7, "ticket-refused"),
        StreamEnded(sid, T + 60, 58_000, "caller-hung-up", "caller", "", 1000, 500, 2900, 2800, 20, 3, 1,
                    {"hangs": 1}),
        CarrierReported(sid, T + 61, "completed", 2, 60),
        CarrierReported(sid, T + 61.1, stream_event="stream-stopped"),
        AssistantReported("", T + 70, "end-of-call-report", vapi, "", "customer-ended-call", 0.19, "A table.",
                          ({"modelLatency": 400, "voiceLatency": 120.6}, {"modelLatency": 500, "other": 1}),
                          {"success": "true", "costs": [{"cost": 0.19}]}),
        CarrierReported(sid, T + 900, "completed", None, 61, asked=True, price="-0.01700"),
    ]  # fmt: skip


def apply(entries: Sequence[Entry]) -> list[Entry]:
    with transaction.atomic():
        return upsert.apply_entries(entries)


def apply_to_call(*entries: Entry) -> Call:
    assert apply(entries) == []
    return Call.objects.get(call_sid=entries[0].call_sid)


def read_columns(call: Call) -> dict[str, Any]:
    """The columns of a call and its children, without keys and sids."""

    def read_values(row: Any) -> dict[str, Any]:
        names = [field.attname for field in row._meta.concrete_fields]
        return {name: getattr(row, name) for name in names if name not in ("id", "call_id", "call_sid")}

    return read_values(call) | {
        "vapi_call_id": bool(call.vapi_call_id),
        "utterances": [read_values(row) for row in call.utterances.all()],
        "turns": [read_values(row) for row in call.turns.all()],
        "events": [read_values(row) for row in call.events.all()],
    }


@pytest.mark.slow
class OrderTests(HypothesisTestCase):
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(data=st.data())
    def test_any_order_repetition_and_batching_give_the_same_rows(self, data: st.DataObject) -> None:
        plain, mixed = call_sid(), call_sid()
        self.assertEqual(apply(make_all_entries(plain)), [])
        entries = make_all_entries(mixed)
        again = data.draw(st.lists(st.sampled_from(entries), max_size=8))
        order = data.draw(st.permutations([*entries, *again]))
        size = data.draw(st.integers(1, len(order)))
        unmatched = [entry for cut in range(0, len(order), size) for entry in apply(order[cut : cut + size])]
        self.assertEqual(apply(unmatched), [])  # a report that came before its call is retried
        self.assertEqual(
            read_columns(Call.objects.get(call_sid=mixed)), read_columns(Call.objects.get(call_sid=plain))
        )


class CallTests(TestCase):
    def test_it_creates_the_rows_of_a_call(self) -> None:
        call = apply_to_call(*make_all_entries())
        self.assertEqual(
            (call.status, call.end_reason, call.ended_by), ("completed", "caller-hung-up", "caller")
        )
        self.assertEqual((call.started_at, call.answered_at, call.ended_at), (at(0), at(2.4), at(60)))
        self.assertEqual((call.stream_sid, call.worker, call.lease_until), ("MZ1", "worker-1", at(17)))
        self.assertEqual((call.connect_ms, call.frames_held, call.barge_ins), (412, 20, 1))
        self.assertEqual(
            (call.duration_seconds, call.twilio_price, call.stream_price, call.vapi_cost),
            (61, Decimal("-0.01700"), Decimal("0.00400"), Decimal("0.19000")),
        )
        self.assertEqual((call.summary, call.vapi_ended_reason), ("A table.", "customer-ended-call"))
        self.assertEqual(call.counters, {"hangs": 1})
        self.assertEqual(
            [row.text for row in call.utterances.all()], ["Hello.", "I need a table.", "For how many?"]
        )
        self.assertEqual(
            list(call.turns.values_list("number", "response_latency_ms", "model_ms", "voice_ms")),
            [(1, 800, 400, 121), (2, None, None, None), (3, 900, 500, None)],
        )
        self.assertEqual(
            sorted(call.events.values_list("source", "kind")),
            [("carrier", "call-completed"), ("carrier", "call-in-progress"),
             ("carrier", "call-looked-up"), ("carrier", "call-ringing"),
             ("carrier", "stream-started"), ("carrier", "stream-stopped"), ("stream", "dtmf"),
             ("stream", "stream-started"), ("vapi", "end-of-call-report"), ("vapi", "status-update")],
        )  # fmt: skip

    def test_the_query_count_does_not_depend_on_the_size_of_the_batch(self) -> None:
        apply(make_all_entries())
        with CaptureQueriesContext(connection) as queries:
            apply([UtteranceSpoken(SID, n, "caller", str(n)) for n in range(300)])
        self.assertLess(len(queries), 15)  # SQLite splits large inserts

    def test_the_last_entry_with_the_same_index_wins(self) -> None:
        call = apply_to_call(
            TurnTaken(SID, 1, 1000), TurnTaken(SID, 1, 1000, first_audio_ms=1900, response_latency_ms=900)
        )
        self.assertEqual(call.turns.get().response_latency_ms, 900)
        apply_to_call(TurnTaken(SID, 1, 1000, first_audio_ms=1900, heard_ms=2000, response_latency_ms=900))
        self.assertEqual(call.turns.get().heard_ms, 2000)

    def test_an_empty_batch_does_nothing(self) -> None:
        self.assertEqual(apply([]), [])


class EndTests(TestCase):
    def test_a_refused_call_is_ended(self) -> None:
        call = apply_to_call(CallOffered(SID, T, refused="at-capacity"))
        self.assertEqual((call.end_reason, call.ended_by, call.ended_at), ("at-capacity", "us", at(0)))
        # The caller still hears the announcement: Twilio reports the end.
        self.assertEqual(call.status, "ringing")

    def test_a_replayed_webhook_that_is_refused_changes_no_call(self) -> None:
        before = read_columns(apply_to_call(*make_all_entries()))
        after = read_columns(
            apply_to_call(CallOffered(SID, T + 900, "+15550100134", "+15559870000", refused="draining"))
        )
        self.assertEqual(after, before)

    def test_a_stream_overrules_a_refusal_in_any_order(self) -> None:
        for reason in ("ticket-refused", "at-capacity", "draining"):
            refusal: Entry = CallOffered(SID, T, refused=reason)
            for entries in ([refusal, *make_all_entries()], [*make_all_entries(), refusal]):
                call = apply_to_call(*entries)
                self.assertEqual((call.end_reason, call.ended_at), ("caller-hung-up", at(60)))
                call.delete()
        call = apply_to_call(StreamRefused(SID, T, "ticket-refused"))
        self.assertEqual(call.end_reason, "ticket-refused")
        call = apply_to_call(StreamStarted(SID, T + 1, "MZ1"))
        self.assertEqual((call.end_reason, call.ended_by, call.ended_at), ("", "", None))

    def test_a_refused_second_stream_does_not_end_the_first(self) -> None:
        call = apply_to_call(StreamStarted(SID, T, "MZ1"), StreamRefused(SID, T + 1, "ticket-refused"))
        self.assertEqual((call.end_reason, call.status), ("", "in-progress"))

    def test_the_first_end_reason_stays(self) -> None:
        call = apply_to_call(
            StreamStarted(SID, T, "MZ1"),
            StreamEnded(SID, T + 5, 5000, "assistant-failed", "assistant"),
            StreamEnded(SID, T + 6, 6000, "caller-hung-up", "caller"),
        )
        self.assertEqual(
            (call.end_reason, call.ended_by, call.ended_at), ("assistant-failed", "assistant", at(5))
        )

    def test_a_requested_end_names_the_reason_in_any_order(self) -> None:
        requested = EndRequested(SID, T + 4, "transferred", "assistant")
        ended = StreamEnded(SID, T + 5, 5000, "caller-hung-up", "caller")
        for sid, entries in (
            ("CA1", (requested, ended)),
            ("CA2", (ended, requested)),
            ("CA3", (requested, ended, requested, ended)),
        ):
            with self.subTest(sid):
                call = apply_to_call(
                    StreamStarted(sid, T, "MZ1"), *(replace(each, call_sid=sid) for each in entries)
                )
                self.assertEqual((call.end_reason, call.ended_by), ("transferred", "assistant"))

    def test_a_withdrawn_request_changes_nothing(self) -> None:
        requested = EndRequested(SID, T + 4, "transferred", "assistant")
        call = apply_to_call(StreamStarted(SID, T, "MZ1"), requested, replace(requested, withdrawn=True))
        self.assertEqual((call.end_requested, call.end_requested_at, call.ended_by), ("", None, ""))
        call = apply_to_call(StreamEnded(SID, T + 5, 5000, "caller-hung-up", "caller"))
        self.assertEqual((call.end_reason, call.ended_by), ("caller-hung-up", "caller"))
        # Withdrawing an earlier request does not withdraw a later one.
        call = apply_to_call(
            replace(requested, call_sid="CA9", at=T + 8), replace(requested, call_sid="CA9", withdrawn=True)
        )
        self.assertEqual(call.end_requested, "transferred")

    def test_a_call_stays_open_at_twilio_after_the_assistant_failed(self) -> None:
        call = apply_to_call(
            StreamStarted(SID, T, "MZ1"), StreamEnded(SID, T + 5, 5000, "assistant-failed", "assistant")
        )
        self.assertEqual(call.status, "in-progress")
        call = apply_to_call(CarrierReported(SID, T + 90, "completed", 3, 90))
        self.assertEqual(
            (call.status, call.end_reason, call.ended_at), ("completed", "assistant-failed", at(5))
        )

    def test_a_call_without_a_stream_ends_at_twilios_callback(self) -> None:
        late = CarrierReported(SID, T + 30, "no-answer", 2)
        call = apply_to_call(late, CallOffered(SID, T), replace(late, at=T + 20))
        self.assertEqual((call.status, call.end_reason, call.ended_at), ("no-answer", "", at(20)))

    def test_the_end_of_the_stream_outranks_that_of_the_reaper(self) -> None:
        apply_to_call(StreamStarted(SID, T, "MZ1"))
        with transaction.atomic():
            upsert.reap(at(100))
        call = apply_to_call(StreamEnded(SID, T + 50, 50_000, "caller-hung-up", "caller"))
        self.assertEqual((call.end_reason, call.ended_at), ("caller-hung-up", at(50)))
        self.assertEqual(call.status, "failed")  # a terminal status stays


class NumberTests(TestCase):
    """The call's numbers and direction come from any callback that contains them."""

    INBOUND = ("+15550100134", "+15559870000", "inbound")
    OUTBOUND = ("+15559870000", "+442079460018", "outbound-api")

    def apply_numbers(self, *entries: Entry) -> tuple[str, str, str]:
        call = apply_to_call(*entries)
        return call.from_number, call.to_number, call.direction

    def test_a_callback_without_a_voice_webhook_fills_the_row(self) -> None:
        for number, numbers in enumerate((self.INBOUND, self.OUTBOUND)):
            sid = f"CA{number:032d}"
            for status in ("no-answer", "busy", "canceled", "failed", "completed", "ringing"):
                for was_looked_up in (False, True):
                    with self.subTest(numbers, status=status, was_looked_up=was_looked_up):
                        Call.objects.all().delete()
                        names = dict(zip(("from_number", "to_number", "direction"), numbers, strict=True))
                        report = CarrierReported(sid, T, status, 1, asked=was_looked_up, **names)  # type: ignore[arg-type]
                        self.assertEqual(self.apply_numbers(report), numbers)

    def test_the_voice_webhook_outranks_callbacks_in_any_order(self) -> None:
        offered = CallOffered(SID, T, *self.INBOUND)
        report = CarrierReported(
            SID, T + 1, "completed", 1, from_number="+1", to_number="+2", direction="outbound-api"
        )
        for entries in ((offered, report), (report, offered), (report, report, offered, report)):
            Call.objects.all().delete()
            self.assertEqual(self.apply_numbers(*entries), self.INBOUND)

    def test_a_callback_without_numbers_changes_nothing(self) -> None:
        self.assertEqual(
            self.apply_numbers(
                CallOffered(SID, T, *self.OUTBOUND), CarrierReported(SID, T + 1, "completed", 1)
            ),
            self.OUTBOUND,
        )


class MergeTests(TestCase):
    def test_the_start_never_moves_forward(self) -> None:
        call = apply_to_call(CallOffered(SID, T), CallOffered(SID, T + 600))
        self.assertEqual(call.started_at, at(0))

    def test_a_status_never_moves_back(self) -> None:
        call = apply_to_call(
            CarrierReported(SID, T, "completed", 3, 10), CarrierReported(SID, T, "ringing", 0)
        )
        self.assertEqual(call.status, "completed")
        self.assertEqual(apply_to_call(CarrierReported(SID, T, "unknown", 9)).status, "completed")

    def test_the_longest_duration_wins(self) -> None:
        call = apply_to_call(
            *(CarrierReported(SID, T, "completed", n, length) for n, length in enumerate((10, 60, -5)))
        )
        self.assertEqual(call.duration_seconds, 60)

    def test_an_empty_value_does_not_replace_a_known_one(self) -> None:
        call = apply_to_call(
            AssistantReported(SID, T, "status-update", "vapi-1"), AssistantAnswered(SID, T, 300)
        )
        self.assertEqual(call.vapi_call_id, "vapi-1")

    def test_an_invalid_cost_is_ignored(self) -> None:
        for cost in (float("nan"), float("inf"), -1.0, 1e9):
            self.assertIsNone(
                apply_to_call(AssistantReported(SID, T, "end-of-call-report", cost=cost)).vapi_cost
            )

    def test_a_report_finds_its_call_by_vapis_call_id(self) -> None:
        report = AssistantReported("", T, "end-of-call-report", "vapi-1", summary="Well.")
        self.assertEqual(apply([report]), [report])
        self.assertFalse(Call.objects.exists())
        call = make_call(vapi_call_id="vapi-1")
        self.assertEqual(apply([report]), [])
        call.refresh_from_db()
        self.assertEqual(call.summary, "Well.")

    def test_it_returns_entries_without_a_call(self) -> None:
        without_call = TimelineEvent("", 0, "unknown")
        self.assertEqual(apply([without_call, AssistantReported("", T, "status-update")])[0], without_call)

    def test_vapis_latencies_need_the_same_number_of_turns(self) -> None:
        parts: tuple[dict[str, Any], ...] = ({"modelLatency": 400},)
        call = apply_to_call(
            TurnTaken(SID, 1, 1000, response_latency_ms=800),
            AssistantReported(SID, T, "end-of-call-report", turn_latencies=parts),
        )
        self.assertEqual(call.turns.get().model_ms, 400)
        apply_to_call(TurnTaken(SID, 2, 3000, response_latency_ms=700))
        self.assertEqual(list(call.turns.values_list("model_ms", flat=True)), [None, None])

    def test_an_invalid_latency_is_ignored(self) -> None:
        make_turn(make_call(call_sid=SID))
        invalid = {"modelLatency": "fast", "voiceLatency": float("nan"), "transcriberLatency": -1}
        call = apply_to_call(AssistantReported(SID, T, "end-of-call-report", turn_latencies=(invalid,)))
        turn = call.turns.get()
        self.assertEqual((turn.model_ms, turn.voice_ms, turn.transcriber_ms), (None, None, None))
        call = apply_to_call(AssistantReported(SID, T, "end-of-call-report", turn_latencies=(5,)))  # type: ignore[arg-type]
        self.assertIsNone(call.turns.get().model_ms)


class UntrustedTextTests(TestCase):
    def test_text_that_databases_reject_is_cleaned_and_stored(self) -> None:
        untrusted = "a\x00b\ud800c\x1bd\ne"
        clean = "ab\ufffdcd\ne"
        call = apply_to_call(
            CallOffered(SID, T, untrusted, untrusted),
            UtteranceSpoken(SID, 0, "caller", untrusted),
            TimelineEvent(
                SID, 0, untrusted, data={untrusted: [untrusted, float("nan"), float("-inf"), {"x": 1.5}]}
            ),
            StreamStarted(SID, T, untrusted, untrusted * 50),
            AssistantReported(SID, T, untrusted, untrusted, untrusted, untrusted * 100, None, untrusted),
            CarrierReported(SID, T, untrusted, None, None, untrusted, untrusted),
            StreamEnded(SID, T, 0, untrusted, "us", untrusted * 100, counters={untrusted: 1}),
        )
        self.assertEqual((call.from_number, call.utterances.get().text, call.summary), (clean, clean, clean))
        event = call.events.get(source="stream")
        self.assertEqual((event.kind, event.data), (clean, {clean: [clean, None, None, {"x": 1.5}]}))
        self.assertEqual((call.counters, call.end_reason), ({clean: 1}, clean))

    def test_sids_that_clean_to_the_same_text_are_one_call(self) -> None:
        apply([CallOffered("CA\x001", T), CallOffered("CA1", T)])
        self.assertEqual(Call.objects.get().call_sid, "CA1")


class ConcurrentWritersTests(TransactionTestCase):
    """Several processes at once, simulated by threads with their own connections."""

    def run_concurrently(self, work: Callable[[], object], times: int = 4) -> list[Any]:
        ready = threading.Barrier(times)

        def run_in_thread() -> object:
            try:
                ready.wait(10)
                return work()
            finally:
                connection.close()

        with ThreadPoolExecutor(times) as threads:
            return [each.result(30) for each in [threads.submit(run_in_thread) for _ in range(times)]]

    def test_concurrent_writers_create_a_call_once(self) -> None:
        apply([entry for entry in make_all_entries() if entry.call_sid])
        once = read_columns(Call.objects.get())
        Call.objects.all().delete()
        self.run_concurrently(lambda: apply([entry for entry in make_all_entries() if entry.call_sid]))
        self.assertEqual(read_columns(Call.objects.get()), once)

    def test_only_one_of_several_reapers_ends_a_call(self) -> None:
        for _ in range(20):
            make_call(status="in-progress", end_reason="", lease_until=at(0))

        def reap() -> list[str]:
            with transaction.atomic():
                return upsert.reap(at(100))

        ended: list[str] = sum(self.run_concurrently(reap), [])
        ended += reap()  # a call that another reaper had locked is left for the next run
        self.assertEqual((len(ended), len(set(ended))), (20, 20))


class CleanTests(SimpleTestCase):
    def test_text_is_bounded(self) -> None:
        self.assertEqual(len(clean_text("x" * 100_000)), MAX_TEXT_CHARS)
        self.assertEqual(len(clean_text("\u0958" * 300, 100)), 100)  # in NFC each is two characters

    def test_text_is_normalized(self) -> None:
        self.assertEqual(clean_text("Zoe\u0308"), "Zo\u00eb")

    def test_tabs_and_newlines_stay(self) -> None:
        self.assertEqual(clean_text("a\tb\nc\rd\x7f"), "a\tb\ncd")

    def test_json_is_bounded_in_depth_and_size(self) -> None:
        deep: Any = "end"
        for _ in range(50):
            deep = [deep]
        cleaned, depth = clean_json(deep), 0
        while isinstance(cleaned, list):
            cleaned, depth = cleaned[0], depth + 1
        self.assertEqual(depth, MAX_JSON_DEPTH)
        self.assertEqual(len(clean_json(list(range(5000)))), 1000)
        self.assertEqual(len(clean_json({str(n): n for n in range(5000)})), 1000)
        self.assertEqual(clean_json({1: {2}}), {"1": "{2}"})

    @given(st.text(st.characters(codec=None, exclude_categories=()), max_size=200))
    def test_cleaning_is_idempotent(self, text: str) -> None:
        clean = clean_text(text)
        clean.encode()
        self.assertNotIn("\x00", clean)
        self.assertEqual(clean_text(clean), clean)


class ReaperTests(TestCase):
    def reap(self, seconds: float) -> list[str]:
        with transaction.atomic():
            return upsert.reap(at(seconds))

    def test_it_ends_a_call_with_an_expired_lease(self) -> None:
        apply_to_call(StreamStarted(SID, T, "MZ1", "worker-1"))
        self.assertEqual(self.reap(14), [])
        self.assertEqual(self.reap(16), [SID])
        call = Call.objects.get()
        self.assertEqual((call.status, call.end_reason, call.ended_by), ("failed", "worker-lost", "us"))
        self.assertEqual(call.ended_at, at(16))
        self.assertEqual(self.reap(17), [])

    def test_it_leaves_a_call_with_a_renewed_lease(self) -> None:
        apply_to_call(StreamStarted(SID, T, "MZ1"))
        upsert.renew_leases([SID], at(10))
        self.assertEqual(self.reap(24), [])
        upsert.renew_leases([], at(20))
        self.assertEqual(self.reap(26), [SID])

    def test_a_repeated_start_does_not_shorten_the_lease(self) -> None:
        apply_to_call(StreamStarted(SID, T, "MZ1"))
        upsert.renew_leases([SID], at(10))
        self.assertEqual(apply_to_call(StreamStarted(SID, T, "MZ1")).lease_until, at(25))

    def test_it_leaves_ended_calls(self) -> None:
        make_call(lease_until=at(0))
        make_call(status="ringing")
        self.assertEqual(self.reap(1e6), [])

    def test_it_closes_a_call_without_a_final_status(self) -> None:
        call = apply_to_call(
            StreamStarted(SID, T, "MZ1"), StreamEnded(SID, T + 5, 5000, "stream-lost", "network")
        )
        self.assertEqual(self.reap(3600), [])
        self.assertEqual(self.reap(timedelta(hours=5).total_seconds()), [SID])
        call.refresh_from_db()
        self.assertEqual((call.status, call.end_reason, call.ended_at), ("completed", "stream-lost", at(5)))

    def test_the_command_prints_the_number_of_calls(self) -> None:
        apply_to_call(StreamStarted(SID, T, "MZ1"))
        stdout = StringIO()
        call_command("reap_calls", stdout=stdout)
        call_command("reap_calls", stdout=stdout)
        self.assertEqual(stdout.getvalue(), "1 call closed\n0 calls closed\n")
