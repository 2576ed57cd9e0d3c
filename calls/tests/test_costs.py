"""Costs equal totals of bills that were added by hand, on every page and in every export."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.test import SimpleTestCase, TestCase, override_settings
from django.utils import timezone

from bridge.journal import (
    AssistantAnswered,
    AssistantReported,
    CallOffered,
    CarrierReported,
    Entry,
    StreamEnded,
    StreamStarted,
)
from calls import costs, reconcile
from calls.ingest import upsert
from calls.models import Call, CallHour
from calls.stats import hourly
from calls.stats.queries import report_by_day
from calls.templatetags.call_format import cost as cost_shown
from calls.templatetags.call_format import dollars
from calls.tests import cost_fixtures as fixtures
from calls.tests.builders import make_call, make_staff
from calls.tests.canned_vendor_api import CannedVendorApi
from calls.tests.cost_fixtures import BILLED_CALLS, BilledCall
from calls.tests.webhook_client import WebhookClient
from calls.vapi.webhooks import MAX_PART_CHARS, read_cost, select_stored_parts

NOW = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)


def make_entries(billed: BilledCall) -> Iterator[Entry]:
    """The entries of the bridge and of Twilio's callbacks, without amounts."""
    at = billed.started_at.timestamp()
    yield CallOffered(billed.sid, at, "+15550100134", "+15559870000")
    if billed.stream_ms is not None:
        yield StreamStarted(billed.sid, at, "MZ1")
        yield AssistantAnswered(billed.sid, at, 400, billed.vapi_id)
        yield StreamEnded(
            billed.sid, at + billed.stream_ms / 1000, billed.stream_ms, "caller-hung-up", "caller"
        )
    last = billed.twilio[-1]
    yield CarrierReported(billed.sid, at + int(last["duration"]), last["status"], 0, int(last["duration"]))


def post_report(billed: BilledCall) -> list[Any]:
    """Post the end-of-call report to the webhook. Returns the journal entries."""
    client = WebhookClient()
    message = {
        "type": "end-of-call-report",
        "endedReason": "customer-ended-call",
        "call": {"id": billed.vapi_id, "assistantOverrides": {"metadata": {"callSid": billed.sid}}},
        **billed.vapi,
    }
    send = async_to_sync(client.post)
    response = send(
        "/vapi/events", json.dumps({"message": message}), content_type="application/json",
        headers={"X-Vapi-Secret": "topsecret"},
    )  # fmt: skip
    assert response.status_code == 200
    return list(client.entries)


@override_settings(TWILIO_STREAM_PRICE_PER_MINUTE=fixtures.STREAM_PRICE_PER_MINUTE)
class BilledTests(TestCase):
    """All bills that have arrived are in the database."""

    def setUp(self) -> None:
        self.vendor = CannedVendorApi()
        self.addCleanup(self.vendor.stop)
        self.enterContext(override_settings(**self.vendor.settings()))
        for billed in BILLED_CALLS:
            self.assertEqual(upsert.apply_entries([*make_entries(billed)]), [])
            if billed.vapi_id:
                self.assertEqual(upsert.apply_entries(post_report(billed)), [])
            self.vendor.responses[billed.sid] = list(billed.twilio)
        reconcile.sync(now=NOW)
        self.calls_after_first_sync = {call.call_sid: call for call in Call.objects.all()}
        hourly.roll_up_all(fixtures.UNTIL)  # later changes must mark these hours dirty
        reconcile.sync(now=NOW)
        self.calls = {call.call_sid: call for call in Call.objects.all()}


class CostTests(BilledTests):
    def test_a_price_that_arrives_late_is_stored(self) -> None:
        sid = BILLED_CALLS[0].sid
        self.assertIsNone(self.calls_after_first_sync[sid].twilio_price)
        self.assertEqual(self.calls_after_first_sync[sid].cost(), Decimal("0.13140"))
        self.assertEqual(self.calls_after_first_sync[sid].missing_bills(), ["Twilio"])
        self.assertEqual(self.calls[sid].twilio_price, Decimal("-0.01700"))
        self.assertEqual(self.calls[sid].missing_bills(), [])

    def test_a_call_costs_the_sum_of_its_bills(self) -> None:
        for billed in BILLED_CALLS:
            with self.subTest(billed.sid):
                call = self.calls[billed.sid]
                self.assertEqual(call.stream_price, billed.stream_price)
                self.assertEqual(call.cost(), billed.cost)
                self.assertEqual(cost_shown(call), billed.shown)

    def test_the_total_is_the_sum_of_all_calls(self) -> None:
        for _ in range(2):
            stats = report_by_day(fixtures.SINCE, fixtures.UNTIL, simulated=False).total
            self.assertEqual(stats.cost, fixtures.TOTAL)
            self.assertEqual(stats.unbilled_calls, fixtures.UNBILLED_CALLS)
            self.assertEqual(stats.fully_billed_cost, fixtures.FULLY_BILLED_COST)
            self.assertEqual(stats.fully_billed_us, fixtures.FULLY_BILLED_SECONDS * 1_000_000)
            assert stats.cost_per_minute is not None
            self.assertEqual(stats.cost_per_minute.quantize(costs.PRECISION), fixtures.PER_MINUTE)
            self.assertGreater(hourly.roll_up_all(fixtures.UNTIL), 3)

    def test_a_day_costs_the_sum_of_its_calls_in_the_viewers_time_zone(self) -> None:
        for rolled_up in (False, True):
            for zone, expected in fixtures.BY_DAY.items():
                with self.subTest(zone, rolled_up=rolled_up), timezone.override(ZoneInfo(zone)):
                    days = report_by_day(fixtures.SINCE, fixtures.UNTIL, simulated=False).periods
                    found = {f"{day:%Y-%m-%d}": part.cost for day, part in days if part.cost is not None}
                    self.assertEqual(found, expected)
            hourly.roll_up_all(fixtures.UNTIL)

    def test_hours_of_an_earlier_version_count_for_the_total_but_not_per_minute(self) -> None:
        hourly.roll_up_all(fixtures.UNTIL)
        for row in CallHour.objects.all():
            row.figures = {
                name: value
                for name, value in row.figures.items()
                if name not in ("awaited", "settled_cost", "settled_us")
            }
            row.save()
        stats = report_by_day(fixtures.SINCE, fixtures.UNTIL, simulated=False).total
        self.assertEqual((stats.cost, stats.cost_per_minute), (fixtures.TOTAL, None))

    def test_an_expensive_call_is_flagged(self) -> None:
        self.assertEqual([call.call_sid for call in Call.objects.flagged("over-cost")], [BILLED_CALLS[3].sid])

    def test_the_query_for_missing_bills_agrees_with_the_method(self) -> None:
        self.assertEqual(
            {call.call_sid for call in Call.objects.filter(costs.HAS_MISSING_BILL)},
            {call.call_sid for call in self.calls.values() if call.missing_bills()},
        )
        self.assertEqual(Call.objects.filter(costs.HAS_MISSING_BILL).count(), fixtures.UNBILLED_CALLS)


@pytest.mark.slow
class PageTests(BilledTests):
    def setUp(self) -> None:
        super().setUp()
        self.client.force_login(make_staff("view_call", "view_numbers", "export_call"))

    def get_page(self, url: str) -> str:
        response = self.client.get(url)
        self.assertEqual(response.status_code, 200)
        return response.content.decode()

    def test_the_call_page_shows_the_costs(self) -> None:
        for billed in BILLED_CALLS:
            with self.subTest(billed.sid):
                page = self.get_page(self.calls[billed.sid].get_absolute_url())
                amount, _, so_far = billed.shown.partition(" ")
                self.assertIn(f'<b class="cost">{amount}</b>', page)
                per_minute = re.search(r"(\$[\d.]+)/min", page)
                self.assertEqual(per_minute[1] if per_minute else "", billed.per_minute)
                self.assertEqual("so far (Twilio pending" in page, bool(so_far))
        page = self.get_page(self.calls[BILLED_CALLS[0].sid].get_absolute_url())
        self.assertIn("(Twilio $0.017, media stream $0.008, Vapi $0.12; $0.15/min)", page)

    def test_the_list_shows_the_costs(self) -> None:
        page = self.get_page("/calls/?started_at__gte=2026-11-15T00:00:00%2B00:00")
        shown = re.findall(r'<td class="cell-cost[^>]*>([^<]*)</td>', page)
        self.assertEqual(shown, [billed.shown for billed in reversed(BILLED_CALLS)])

    def test_the_dashboard_shows_the_costs(self) -> None:
        for zone, days in fixtures.DAYS_SHOWN.items():
            self.client.cookies["tz"] = zone
            with self.subTest(zone):
                page = self.get_page("/?since=2026-11-15&until=2026-11-18")
                self.assertIn(f"<dt>Cost</dt><dd>{fixtures.TOTAL_SHOWN} so far</dd>", page)
                self.assertIn(f"{fixtures.PER_MINUTE_SHOWN} per minute", page)
                self.assertIn("1 call with a pending bill", page)
                table = page.partition("Show as table")[2].partition("</table>")[0]
                cells = [
                    re.findall(r"<t[dh][^>]*>(?:<a[^>]*>)?([^<]*)", line) for line in table.split("<tr>")[2:]
                ]
                self.assertEqual({line[0]: (line[-2], line[-1]) for line in cells}, days)

    def test_the_exported_csv_has_the_costs(self) -> None:
        url = "/calls/export?started_at__gte=2026-11-15T00:00:00%2B00:00&format=csv"
        response = self.client.get(url)

        async def read_all() -> bytes:
            return b"".join([piece async for piece in response])  # type: ignore[attr-defined]

        table = list(csv.DictReader(io.StringIO(async_to_sync(read_all)().decode())))
        self.assert_costs({line["call_sid"]: (line["cost"] or None, line["missing_bills"]) for line in table})

    def test_the_exported_json_lines_have_the_costs(self) -> None:
        out = io.StringIO()
        call_command("export_calls", "--since=2026-11-15", stdout=out, stderr=io.StringIO())
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        self.assert_costs({line["call_sid"]: (line["cost"], line["missing_bills"]) for line in lines})
        self.assertEqual(sum(Decimal(line["cost"] or 0) for line in lines), fixtures.TOTAL)

    def assert_costs(self, found: dict[str, Any]) -> None:
        for billed in BILLED_CALLS:
            cost = None if billed.cost is None else str(billed.cost)
            to_come = "Twilio" if billed.shown.endswith("so far") else ""
            self.assertEqual(found[billed.sid], (cost, to_come))


class StreamTests(TestCase):
    def test_a_stream_is_billed_when_it_ends_also_in_a_simulated_call(self) -> None:
        for ms, price in ((1, "0.00400"), (60_000, "0.00400"), (60_001, "0.00800"), (61_000, "0.00800")):
            call = make_call(simulated=True, status="in-progress", end_reason="", stream_sid="MZ1")
            upsert.apply_entries([StreamEnded(call.call_sid, 0, ms, "caller-hung-up", "caller")])
            call.refresh_from_db()
            self.assertEqual((call.stream_price, call.cost()), (Decimal(price), Decimal(price)))
            self.assertEqual(call.missing_bills(), [])

    @override_settings(TWILIO_STREAM_PRICE_PER_MINUTE=Decimal(0))
    def test_a_stream_price_of_zero_is_stored(self) -> None:
        call = make_call(status="in-progress", end_reason="", stream_sid="MZ1")
        upsert.apply_entries([StreamEnded(call.call_sid, 0, 61_000, "caller-hung-up", "caller")])
        call.refresh_from_db()
        self.assertEqual(call.stream_price, 0)

    def test_a_stream_whose_server_died_is_billed_by_the_calls_duration(self) -> None:
        call = make_call(status="failed", end_reason="worker-lost", stream_sid="MZ1")
        lookup = CarrierReported(
            call.call_sid, 0, "completed", duration_seconds=61, asked=True, price="-0.01700"
        )
        upsert.apply_entries([lookup])
        call.refresh_from_db()
        self.assertEqual(call.stream_price, Decimal("0.00800"))
        upsert.apply_entries([StreamEnded(call.call_sid, 0, 30_000, "caller-hung-up", "caller"), lookup])
        call.refresh_from_db()
        self.assertEqual(call.stream_price, Decimal("0.00400"), "the stream's own duration is exact")


class ReportTests(TestCase):
    """Reports that Vapi sends more than once, in any order."""

    def setUp(self) -> None:
        self.call = make_call(vapi_call_id="v1")

    def apply(self, *reports: AssistantReported) -> Call:
        self.assertEqual(upsert.apply_entries(reports), [])
        self.call.refresh_from_db()
        return self.call

    def make_report(self, at: float, **facts: Any) -> AssistantReported:
        return AssistantReported(self.call.call_sid, at, "end-of-call-report", "v1", **facts)

    def test_the_later_report_wins_in_any_order(self) -> None:
        early = self.make_report(100, cost=0.1, summary="Early.", kept={"success": "false"})
        late = self.make_report(200, cost=0.3, summary="Late.", kept={"success": "true"})
        for order in ((early, late), (late, early), (late, late, early, early)):
            call = self.apply(*order)
            self.assertEqual(
                (call.vapi_cost, call.summary, call.success()), (Decimal("0.3"), "Late.", "true")
            )

    def test_values_that_a_later_report_lacks_stay(self) -> None:
        first = self.make_report(
            100, cost=0.1, summary="Well.", kept={"success": "8", "costs": [{"cost": 0.1}]}
        )
        call = self.apply(first, self.make_report(200, kept={"structured_data": {"day": "Thursday"}}))
        self.assertEqual((call.vapi_cost, call.summary, call.success()), (Decimal("0.1"), "Well.", "8"))
        self.assertEqual(call.vapi_report["structured_data"], {"day": "Thursday"})
        self.assertEqual(call.events.filter(kind="end-of-call-report").count(), 1)

    def test_a_report_outranks_a_later_status(self) -> None:
        status = AssistantReported(
            self.call.call_sid, 300, "status-update", "v1", "ended", "assistant-ended-call"
        )
        report = self.make_report(200, ended_reason="customer-ended-call")
        for order in ((report, status), (status, report)):
            self.assertEqual(self.apply(*order).vapi_ended_reason, "customer-ended-call")

    def test_a_success_evaluation_that_is_not_text_is_ignored(self) -> None:
        for invalid in (7, None, ["true"], {"a": 1}):
            self.call.vapi_report = {"success": invalid}
            self.assertEqual(self.call.success(), "")
        self.call.vapi_report = []
        self.assertEqual(self.call.success(), "")


class AmountTests(SimpleTestCase):
    def test_a_bill_is_stored_as_sent(self) -> None:
        for text, stored in (
            ("-0.01700", "-0.01700"), ("0", "0.00000"), (0.19, "0.19000"), ("0.000005", "0.00001"),
            (None, None), ("", None), ("free", None), ("NaN", None), ("Infinity", None),
            ("-10000", "-10000.00000"), ("-1000000", None),
            (float("nan"), None), (1e300, None),
        ):  # fmt: skip
            self.assertEqual(costs.parse_bill(text), None if stored is None else Decimal(stored))

    def test_a_started_minute_is_billed(self) -> None:
        for ms, minutes in ((0, 1), (1, 1), (60_000, 1), (60_001, 2), (61_000, 2), (120_000, 2)):
            self.assertEqual(costs.count_started_minutes(ms), minutes)

    def test_a_half_cent_is_rounded_up(self) -> None:
        for amount, shown in (
            ("0.125", "$0.13"), ("0.135", "$0.14"), ("0.0125", "$0.013"), ("0", "$0.00"),
            ("1234.5", "$1,234.50"), ("0.1", "$0.10"), ("0.09999", "$0.100"), ("0.0085", "$0.0085"),
            ("0.004", "$0.004"), ("0.00999", "$0.010"), ("0.00996", "$0.010"), ("0.00001", "$0.000"),
        ):  # fmt: skip
            self.assertEqual(dollars(Decimal(amount)), shown)

    def test_under_a_second_there_is_no_cost_per_minute(self) -> None:
        self.assertIsNone(costs.compute_cost_per_minute(Decimal(1), 999_999))
        self.assertEqual(costs.compute_cost_per_minute(Decimal(1), 30_000_000), 2)


@pytest.mark.parametrize(
    ("bill", "cost"),
    [
        ({"cost": 0.19}, 0.19),
        ({"cost": 0.19, "costBreakdown": {"total": 0.5}}, 0.19),
        ({"costBreakdown": {"total": 0.5}, "costs": [{"cost": 0.4}]}, 0.5),
        ({"costs": [{"cost": 0.1}, {"cost": 0.2}, {"cost": "odd"}, 3]}, 0.3),
        ({"cost": 0, "costs": [{"cost": 0.1}, {"cost": 0.2}]}, 0.3),
        ({"cost": 0}, 0.0),
        ({"call": {"cost": 0.07}}, 0.07),
        ({"artifact": {"costBreakdown": {"total": 0.08}}}, 0.08),
        ({"cost": True, "costBreakdown": 3, "costs": {"cost": 1}}, None),
        ({"cost": -1, "costs": []}, None),
        ({}, None),
    ],
)
def test_the_cost_is_read_from_every_field_that_may_contain_it(
    bill: dict[str, Any], cost: float | None
) -> None:
    assert read_cost(bill) == cost


def test_report_parts_are_stored_unchanged_and_oversized_ones_are_dropped() -> None:
    analysis = {"successEvaluation": "true", "structuredData": {"day": "Thursday", "n": float("nan")}}
    costs = [{"type": "vapi", "cost": 0.1}]
    assert select_stored_parts({"analysis": analysis, "costs": costs, "costBreakdown": {"total": 0.1}}) == {
        "success": "true",
        "structured_data": {"day": "Thursday", "n": None},
        "costs": costs,
        "cost_breakdown": {"total": 0.1},
    }
    many = {f"field {n}": "x" * 1000 for n in range(MAX_PART_CHARS // 1000)}
    assert select_stored_parts(
        {"call": {"analysis": {"successEvaluation": True, "structuredData": many}}}
    ) == {"success": "true"}
    invalid = {"analysis": {"successEvaluation": ["odd"]}, "costs": 3, "costBreakdown": "odd"}
    assert select_stored_parts(invalid) == {}
