"""Syncs calls with Twilio and Vapi over real HTTP: missing values are requested until they are available."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import TestCase, override_settings

from bridge.journal import CarrierReported, StreamEnded
from calls import reconcile
from calls.demo.server_process import ROOT
from calls.incomplete_calls import find_incomplete_calls
from calls.ingest import upsert
from calls.models import Call
from calls.reconcile import Backoff, SyncResult
from calls.tests.builders import make_call, make_turn
from calls.tests.canned_vendor_api import CannedVendorApi
from calls.tests.live_server import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    Database,
    make_server,
    poll_until,
    temporary_database,
)
from calls.twilio import client as twilio_client
from sandbox.faults import VapiFaults
from sandbox.twilio.caller import HangUp, Listen, Say
from sandbox.twilio.rest.resources import Call as TwilioCall
from sandbox.twilio.rest.server import TwilioRestSimulator
from sandbox.vapi.server import VapiSimulator

NOW = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
SHORT_BACKOFF = Backoff(first_seconds=0.01, longest_seconds=0.02, total_seconds=0.1)
BILL = {"status": "completed", "duration": "61", "price": "-0.01700", "price_unit": "USD"}
NO_PRICE = BILL | {"price": None}
REPORT: dict[str, Any] = {
    "status": "ended",
    "endedReason": "customer-ended-call",
    "cost": 0.19,
    "costBreakdown": {"total": 0.19},
    "analysis": {"summary": "Moved to Thursday.", "successEvaluation": "true"},
    "artifact": {"performanceMetrics": {"turnLatencies": [{"modelLatency": 420, "voiceLatency": 180}]}},
}
ENDED = {"started_at": NOW - HOUR, "ended_at": NOW - HOUR + MINUTE}


class SyncTests(TestCase):
    def setUp(self) -> None:
        self.vendor = CannedVendorApi()
        self.addCleanup(self.vendor.stop)
        self.enterContext(override_settings(**self.vendor.settings()))

    def make_call(self, **changes: Any) -> Call:
        return make_call(**(ENDED | changes))

    def make_billed_call(self, **changes: Any) -> Call:
        """A call for which nothing is missing from Twilio."""
        return self.make_call(duration_seconds=61, twilio_price=Decimal("-0.017"), **changes)

    def sync(self, **changes: Any) -> SyncResult:
        return reconcile.sync(now=NOW, backoff=SHORT_BACKOFF, **changes)

    def request_count(self) -> int:
        return len(self.vendor.requests)


class TwilioTests(SyncTests):
    def test_a_price_is_requested_until_it_is_available(self) -> None:
        call = self.make_call()
        self.vendor.responses[call.call_sid] = [NO_PRICE, NO_PRICE, BILL]
        result = self.sync()
        self.assertEqual((dict(result.filled), dict(result.still_open)), ({"durations": 1}, {"prices": 1}))
        result = self.sync()
        self.assertEqual((dict(result.filled), dict(result.still_open)), ({}, {"prices": 1}))
        result = self.sync()
        self.assertEqual((dict(result.filled), dict(result.still_open)), ({"prices": 1}, {}))
        call.refresh_from_db()
        self.assertEqual((call.twilio_price, call.duration_seconds), (Decimal("-0.01700"), 61))
        self.assertEqual(self.sync(), SyncResult())
        self.assertEqual(self.request_count(), 3)
        (event,) = call.events.all()
        self.assertEqual(
            (event.kind, event.data),
            ("call-looked-up", {"status": "completed", "duration": 61, "price": "-0.01700"}),
        )

    def test_a_call_that_is_over_at_twilio_is_closed_here(self) -> None:
        lost = self.make_call(status="ringing", end_reason="", ended_by="", ended_at=None)
        self.vendor.responses[lost.call_sid] = [
            BILL | {"end_time": "Wed, 18 Nov 2026 11:05:00 +0000", "answered_by": "human"}
        ]
        self.assertEqual(dict(self.sync().filled), {"ends": 1, "durations": 1, "prices": 1})
        lost.refresh_from_db()
        self.assertEqual(
            (lost.status, lost.ended_at, lost.answered_by),
            ("completed", datetime(2026, 11, 18, 11, 5, tzinfo=UTC), "human"),
        )

    def test_an_end_is_not_before_the_start(self) -> None:
        lost = self.make_call(status="ringing", end_reason="", ended_by="", ended_at=None)
        self.vendor.responses[lost.call_sid] = [BILL | {"end_time": "Wed, 18 Nov 2026 10:59:58 +0000"}]
        self.sync()
        lost.refresh_from_db()
        self.assertEqual((lost.started_at, lost.ended_at), (NOW - HOUR, NOW - HOUR))

    def test_an_unanswered_call_needs_no_price(self) -> None:
        for status in ("busy", "no-answer", "canceled", "failed"):
            call = self.make_call(status="queued", end_reason="", ended_by="", ended_at=None)
            self.vendor.responses[call.call_sid] = [{"status": status, "duration": None, "price": None}]
        self.assertEqual(dict(self.sync().filled), {"ends": 4, "durations": 4})
        self.assertEqual(self.sync().calls, 0)
        self.assertFalse(any(call.missing_bills() for call in Call.objects.all()))

    def test_a_call_in_progress_is_not_requested(self) -> None:
        in_progress = {"status": "in-progress", "end_reason": "", "ended_by": "", "ended_at": None}
        self.make_call(**in_progress, lease_until=NOW + timedelta(seconds=10))
        # Housekeeping is about to end this one.
        self.make_call(**in_progress, lease_until=NOW - timedelta(seconds=30))
        self.make_call(**in_progress, started_at=NOW - timedelta(seconds=30))
        # Callbacks for this one may still arrive.
        self.make_call(started_at=NOW - MINUTE, ended_at=NOW - timedelta(seconds=50))
        self.assertEqual((self.sync().calls, self.request_count()), (0, 0))

    def test_a_transferred_call_stays_open_until_it_is_over_at_twilio(self) -> None:
        call = self.make_call(status="in-progress", end_reason="transferred", ended_by="staff")
        self.vendor.responses[call.call_sid] = [NO_PRICE | {"status": "in-progress", "duration": None}, BILL]
        self.assertEqual(dict(self.sync().still_open), {"calls": 1})
        self.assertEqual(dict(self.sync().filled), {"ends": 1, "durations": 1, "prices": 1})

    def test_a_stream_without_a_reported_end_is_priced_by_the_call(self) -> None:
        call = self.make_billed_call(status="failed", end_reason="worker-lost", stream_sid="MZ1")
        self.vendor.responses[call.call_sid] = [BILL]
        self.assertEqual(dict(self.sync().filled), {"stream prices": 1})
        call.refresh_from_db()
        self.assertEqual(call.stream_price, Decimal("0.00800"))
        self.assertEqual(self.sync().calls, 0)

    def test_a_price_keeps_its_currency_and_is_requested_once(self) -> None:
        for unit, stored in (
            ("EUR", "EUR"),
            ("eur", "EUR"),
            ("JPY", "JPY"),
            ("USD", ""),
            ("", ""),
            (None, ""),
        ):
            with self.subTest(unit=unit):
                call = self.make_call()
                self.vendor.responses[call.call_sid] = [BILL | {"price_unit": unit}]
                self.assertEqual(dict(self.sync().failed), {})
                call.refresh_from_db()
                self.assertEqual((call.twilio_price, call.price_unit), (Decimal(BILL["price"]), stored))
                self.assertEqual(self.sync().calls, 0)
                call.delete()

    def test_a_price_without_a_valid_currency_is_requested_again(self) -> None:
        call = self.make_call()
        self.vendor.responses[call.call_sid] = [BILL | {"price_unit": "euros"}]
        self.assertEqual(dict(self.sync().failed), {"Twilio sent a price without a valid currency": 1})
        call.refresh_from_db()
        self.assertEqual((call.twilio_price, call.duration_seconds), (None, 61))
        self.assertEqual(self.sync().calls, 1)

    def test_a_late_callback_changes_nothing(self) -> None:
        call = self.make_call()
        self.vendor.responses[call.call_sid] = [BILL]
        self.sync()
        upsert.apply_entries([CarrierReported(call.call_sid, NOW.timestamp(), "completed", 3, 61)])
        upsert.apply_entries(
            [StreamEnded(call.call_sid, NOW.timestamp(), 60_400, "caller-hung-up", "caller")]
        )
        call.refresh_from_db()
        self.assertEqual((call.twilio_price, call.duration_seconds), (Decimal("-0.01700"), 61))

    def test_simulated_calls_are_not_requested_from_twilios_api(self) -> None:
        self.make_call(simulated=True)
        with override_settings(TWILIO_BASE_URL=twilio_client.TWILIO_API):
            self.assertEqual(find_incomplete_calls(NOW), [])
        self.assertEqual(len(find_incomplete_calls(NOW)), 1)  # the simulator knows it


class VapiTests(SyncTests):
    def test_a_missing_report_is_fetched_and_merged(self) -> None:
        call = self.make_billed_call(vapi_call_id="v1")
        make_turn(call)
        self.vendor.responses["v1"] = [REPORT]
        self.assertEqual(dict(self.sync().filled), {"reports": 1})
        call.refresh_from_db()
        self.assertEqual(
            (call.vapi_cost, call.summary, call.success(), call.vapi_ended_reason),
            (Decimal("0.19"), "Moved to Thursday.", "true", "customer-ended-call"),
        )
        self.assertEqual((call.reported_at, call.turns.get().model_ms), (NOW, 420))
        self.assertEqual([event.kind for event in call.events.all()], ["end-of-call-report"])
        self.assertEqual((self.sync().calls, self.request_count()), (0, 1))

    def test_a_report_without_a_cost_is_requested_again(self) -> None:
        call = self.make_billed_call(vapi_call_id="v1")
        self.vendor.responses["v1"] = [{**REPORT, "cost": None, "costBreakdown": None}] * 2 + [REPORT]
        results = [self.sync() for _ in range(4)]
        self.assertEqual(
            [dict(result.filled) for result in results], [{"reports": 1}, {}, {"costs at Vapi": 1}, {}]
        )
        self.assertEqual(dict(results[1].still_open), {"costs at Vapi": 1})
        call.refresh_from_db()
        self.assertEqual(call.vapi_cost, Decimal("0.19"))

    def test_a_call_that_is_still_in_progress_at_vapi_is_ended(self) -> None:
        call = self.make_billed_call(vapi_call_id="v1")
        self.vendor.responses["v1"] = [{"status": "in-progress"}, REPORT]
        self.assertEqual(dict(self.sync().filled), {"ends at Vapi": 1})
        self.assertEqual(self.vendor.control_messages, [("/v1/control?secret=s", {"type": "end-call"})])
        self.assertEqual(dict(self.sync().filled), {"reports": 1})
        call.refresh_from_db()
        self.assertEqual(call.vapi_cost, Decimal("0.19"))

    def test_a_call_in_progress_at_twilio_is_not_ended_at_vapi(self) -> None:
        call = self.make_call(
            status="in-progress", end_reason="", ended_by="", ended_at=None, vapi_call_id="v1"
        )
        self.vendor.responses[call.call_sid] = [{"status": "in-progress"}, BILL]
        self.vendor.responses["v1"] = [{"status": "in-progress"}]
        self.sync()
        self.assertEqual(self.vendor.control_messages, [])
        self.sync()
        self.assertEqual(self.vendor.control_messages, [("/v1/control?secret=s", {"type": "end-call"})])

    def test_a_control_url_on_another_host_is_not_followed(self) -> None:
        self.make_billed_call(vapi_call_id="v1")
        self.vendor.responses["v1"] = [
            {"status": "in-progress", "monitor": {"controlUrl": "https://evil.example.com/x"}}
        ]
        with self.assertLogs("calls.vapi.client"):
            (reason,) = self.sync().failed
        self.assertIn("VAPI_ALLOWED_HOSTS", reason)

    def test_a_response_that_is_not_a_call_is_a_failure(self) -> None:
        self.make_billed_call(vapi_call_id="v1")
        for response in (b"<html>", b"[]", {"status": 7}):
            self.vendor.responses["v1"] = [response]
            self.assertEqual(
                dict(self.sync().failed),
                {"Vapi: The response of Vapi was cut off or is not JSON": 1},
                response,
            )


class BackoffTests(SyncTests):
    def test_it_retries_while_a_vendor_is_busy(self) -> None:
        call = self.make_call(vapi_call_id="v1")
        self.vendor.responses[call.call_sid] = [429, 503, BILL]
        self.vendor.responses["v1"] = [502, 429, REPORT]
        result = reconcile.sync(now=NOW, backoff=Backoff(0.01, 0.02, 5))
        self.assertEqual(dict(result.filled), {"durations": 1, "prices": 1, "reports": 1})
        self.assertEqual((result.failed.total(), result.unavailable), (0, {}))
        self.assertEqual(self.request_count(), 6)

    def test_it_gives_up_after_the_last_retry(self) -> None:
        call = self.make_call()
        self.vendor.responses[call.call_sid] = [503]
        result = self.sync()
        ((reason, count),) = result.failed.items()
        self.assertEqual((count, result.unavailable), (1, {}))
        self.assertIn("failed with status 503", reason)
        self.assertGreater(self.request_count(), 1)

    def test_an_unknown_call_is_a_failure_without_retries(self) -> None:
        self.make_call(vapi_call_id="v1")
        result = self.sync()
        self.assertEqual(dict(result.failed), {"Twilio: call not found": 1, "Vapi: call not found": 1})
        self.assertEqual((self.request_count(), result.unavailable), (2, {}))

    def test_rejected_credentials_stop_requests_to_that_vendor_only(self) -> None:
        self.vendor.token = "another"
        for n in range(30):
            self.make_call(vapi_call_id=f"v{n}")
            self.vendor.responses[f"v{n}"] = [REPORT]
        result = self.sync()
        self.assertEqual(result.unavailable.keys(), {"Twilio"})
        self.assertIn("TWILIO_AUTH_TOKEN", result.unavailable["Twilio"])
        self.assertEqual(dict(result.filled), {"reports": 30})
        self.assertLessEqual(self.request_count(), 30 + reconcile.CONCURRENT_REQUESTS)

    def test_requests_to_an_unreachable_vendor_stop(self) -> None:
        for _ in range(30):
            self.make_call()
        with override_settings(TWILIO_BASE_URL="http://127.0.0.1:1"):
            result = self.sync()
        self.assertEqual(result.unavailable, {"Twilio": "Cannot connect to Twilio."})
        self.assertLessEqual(result.failed.total(), reconcile.CONCURRENT_REQUESTS)

    @override_settings(TWILIO_AUTH_TOKENS=[], VAPI_API_KEY="")
    def test_without_credentials_no_request_is_sent(self) -> None:
        self.make_call(vapi_call_id="v1")
        self.assertEqual(self.sync().unavailable.keys(), {"Twilio", "Vapi"})
        self.assertEqual(self.request_count(), 0)

    def test_a_run_is_bounded_and_starts_with_the_newest_calls(self) -> None:
        old = self.make_call(started_at=NOW - timedelta(days=4))
        calls = [self.make_call(started_at=NOW - n * HOUR) for n in (1, 2, 3)]
        for call in (old, *calls):
            self.vendor.responses[call.call_sid] = [BILL]
        self.assertEqual(
            [call.call_sid for call in find_incomplete_calls(NOW, 3, 2)], [c.call_sid for c in calls[:2]]
        )
        self.assertEqual((self.sync(timeout_seconds=0).skipped, self.request_count()), (3, 0))
        self.assertEqual(self.sync(limit=2).calls, 2)
        self.assertEqual(self.sync().calls, 1)
        self.assertEqual(self.sync(days=5).calls, 1)

    def test_many_calls_are_written_in_batches(self) -> None:
        calls = [self.make_call(started_at=NOW - HOUR - n * MINUTE) for n in range(reconcile.BATCH_SIZE + 3)]
        for call in calls:
            self.vendor.responses[call.call_sid] = [BILL]
        progress: list[int] = []
        totals: list[int] = []
        result = self.sync(on_progress=progress.append, on_total=totals.append)
        self.assertEqual(result.filled["prices"], reconcile.BATCH_SIZE + 3)
        self.assertEqual((progress, totals), ([reconcile.BATCH_SIZE, 3], [reconcile.BATCH_SIZE + 3]))


class CommandTests(SyncTests):
    def run_command(self, *arguments: str) -> tuple[str, str, int]:
        out, err = io.StringIO(), io.StringIO()
        try:
            call_command("sync_calls", *arguments, stdout=out, stderr=err)
        except SystemExit as end:
            return out.getvalue(), err.getvalue(), int(str(end.code))
        return out.getvalue(), err.getvalue(), 0

    def make_recent_call(self, **changes: Any) -> Call:
        started_at = datetime.now(UTC) - HOUR
        return make_call(started_at=started_at, ended_at=started_at + MINUTE, **changes)

    def test_it_prints_a_summary_line(self) -> None:
        call = self.make_recent_call()
        self.vendor.responses[call.call_sid] = [BILL]
        out, err, code = self.run_command()
        self.assertRegex(
            out,
            r"^1 incomplete call; requests 1 \(Twilio 1\); filled 2 \(durations 1, prices 1\); "
            r"still open 0; failed 0; [\d.]+ s\n$",
        )
        self.assertEqual((err, code), ("", 0))
        self.assertRegex(self.run_command()[0], r"^0 incomplete calls; [\d.]+ s\n$")

    def test_it_prints_json(self) -> None:
        call = self.make_recent_call()
        self.vendor.responses[call.call_sid] = [NO_PRICE]
        facts = json.loads(self.run_command("--json")[0])
        self.assertGreaterEqual(facts.pop("seconds"), 0)
        self.assertEqual(
            facts,
            {"calls": 1, "requests": {"Twilio": 1}, "filled": {"durations": 1}, "still_open": {"prices": 1},
             "failed": {}, "unavailable": {}, "skipped": 0},
        )  # fmt: skip

    def test_it_fails_when_credentials_are_rejected(self) -> None:
        self.make_recent_call()
        self.vendor.token = "another"
        out, err, code = self.run_command()
        self.assertEqual(code, 1)
        self.assertIn("Twilio rejected our credentials", err)
        self.assertNotIn("another", out + err)

    def test_it_rejects_options_out_of_bounds(self) -> None:
        for wrong in ("--days=0", "--limit=0", "--seconds=99999", "--after=-1", "--every=-1"):
            with pytest.raises(CommandError):
                call_command("sync_calls", wrong)


def test_a_summary_counts_skipped_calls() -> None:
    result = SyncResult(calls=2, skipped=1)
    result.requests["Twilio"] += 1
    assert result.summary().endswith("; skipped (out of time) 1")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with temporary_database(tmp_path / "rows") as database:
        yield database


ROW = (
    "SELECT status, duration_seconds, twilio_price, stream_price, vapi_cost, summary, reported_at"
    " FROM calls_call WHERE call_sid = %s"
)


@pytest.mark.slow
async def test_a_call_without_callbacks_and_report_becomes_complete(
    database: Database, tmp_path: Path
) -> None:
    """Against the simulators: no status callback, no report, and a late price."""
    faults = VapiFaults(delay_ms=(200, 300), no_reports=True)
    async with (
        VapiSimulator(faults=faults, listen="energy") as assistant,
        TwilioRestSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as api,
        await asyncio.to_thread(
            make_server, assistant.base_url, database.url, tmp_path / "journal", REDIS_URL="",
            TWILIO_BASE_URL=api.base_url,
        ) as server,
    ):  # fmt: skip
        simulator = server.twilio_simulator(registry=api, status_url=None)
        record = await simulator.place_call((Listen(), Say("correct"), Listen(), HangUp()))
        sid = record.call_sid
        ended = "SELECT call_sid FROM calls_call WHERE ended_at IS NOT NULL"
        assert await poll_until(lambda: database.select(ended), bool, 20) == [(sid,)]
        await assistant.until(lambda: not assistant.active_calls(), 10)

        def sync() -> dict[str, Any]:
            return dict(json.loads(server.run("manage.py", "sync_calls", "--after=0", "--json")))

        first = await asyncio.to_thread(sync)
        assert first["filled"] == {"durations": 1, "reports": 1}
        assert first["still_open"] == {"prices": 1}
        api.set_price(sid, "0.01700")
        second = await asyncio.to_thread(sync)
        assert (second["filled"], second["still_open"]) == ({"prices": 1}, {})
        assert (await asyncio.to_thread(sync))["calls"] == 0

        ((status, length, price, stream, cost, summary, reported_at),) = database.select(ROW, sid)
        assert (status, length) == ("completed", api.call(sid).duration)
        assert (round(float(price), 5), round(float(stream), 5)) == (-0.017, 0.004)
        assert cost is not None and float(cost) > 0
        assert summary.startswith("The caller said") and reported_at


@pytest.mark.slow
async def test_with_the_option_every_it_repeats_until_sigterm(database: Database, tmp_path: Path) -> None:
    async with TwilioRestSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as api:
        server = await asyncio.to_thread(
            make_server, "http://127.0.0.1:1", database.url, tmp_path / "journal", REDIS_URL="",
            TWILIO_BASE_URL=api.base_url,
        )  # fmt: skip
        call = TwilioCall("CA1", ACCOUNT_SID, "+15550100134", "+15559870000")
        call.status, call.duration = "completed", 61
        api.add_call(call)
        fill = "from calls.models import Call; Call.objects.create(call_sid='CA1', status='completed')"
        await asyncio.to_thread(server.run, "manage.py", "shell", "-v0", "-c", fill)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "manage.py", "sync_calls", "--after=0", "--every=1",
            cwd=ROOT, env=server.environment, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            first = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
            assert "filled 1 (durations 1); still open 1 (prices 1)" in first
            api.set_price("CA1", "0.01700")
            query = "SELECT twilio_price FROM calls_call WHERE twilio_price IS NOT NULL"
            ((price,),) = await poll_until(lambda: database.select(query), bool, 20)
            assert round(float(price), 5) == -0.017
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 10) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
