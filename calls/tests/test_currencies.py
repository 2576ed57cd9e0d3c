"""Twilio bills in the currency of the account: every amount keeps its currency, and no sum mixes two."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.test import SimpleTestCase, TestCase
from django.utils import timezone

from calls import costs
from calls.models import Call
from calls.staff.export import serialize_call
from calls.stats import hourly
from calls.stats.flags import find_flags
from calls.stats.queries import report_by_day, report_by_hour
from calls.templatetags.call_format import amounts, bill
from calls.templatetags.call_format import cost as format_cost
from calls.tests.builders import make_call, make_staff
from calls.viewer import Viewer

EUR, JPY, USD = Decimal("-0.0110"), Decimal("-3"), Decimal("-0.017")


@pytest.mark.parametrize(
    ("code", "currency"),
    [
        ("EUR", "EUR"), ("eur ", "EUR"), ("USD", "USD"), ("", "USD"), (None, "USD"),
        ("euros", None), ("E1R", None), ("€", None), ("ÉUR", None),
    ],
)  # fmt: skip
def test_a_currency_is_a_code_of_three_letters(code: str | None, currency: str | None) -> None:
    assert costs.parse_currency(code) == currency


class AmountTests(SimpleTestCase):
    def test_each_currency_has_its_own_total_with_dollars_first(self) -> None:
        total = costs.add_bills([(EUR, "EUR"), (USD, "USD"), (EUR, "EUR"), (None, "JPY"), (JPY, "CHF")])
        self.assertEqual(
            list(total.items()),
            [("USD", Decimal("0.017")), ("CHF", Decimal("3")), ("EUR", Decimal("0.0220"))],
        )

    def test_amounts_name_every_currency_but_dollars(self) -> None:
        self.assertEqual(amounts({}), "–")
        self.assertEqual(amounts({"USD": Decimal("0.1634")}), "$0.16")
        self.assertEqual(amounts({"USD": Decimal("0.1634"), "EUR": Decimal("0.0110")}), "$0.16 + EUR 0.011")
        self.assertEqual(bill(EUR, "EUR"), "EUR 0.011")
        self.assertEqual(bill(USD), "$0.017")


class CallTests(TestCase):
    def setUp(self) -> None:
        self.now = timezone.now().replace(minute=0, second=0, microsecond=0)
        self.dollars = self.make(USD, "")
        self.euros = self.make(EUR, "EUR")
        self.yen = self.make(JPY, "JPY")

    def make(self, price: Decimal, unit: str) -> Call:
        return make_call(
            started_at=self.now - timedelta(hours=2), duration_seconds=60, status="completed",
            twilio_price=price, price_unit=unit, vapi_call_id="v", vapi_cost=Decimal("0.1"),
        )  # fmt: skip

    def test_a_call_costs_an_amount_in_each_currency(self) -> None:
        self.assertEqual((self.dollars.cost(), format_cost(self.dollars)), (Decimal("0.117"), "$0.12"))
        self.assertEqual((self.euros.cost(), format_cost(self.euros)), (None, "$0.10 + EUR 0.011"))
        self.assertEqual(format_cost(self.yen), "$0.10 + JPY 3.00")
        for call in (self.dollars, self.euros, self.yen):
            self.assertEqual(call.missing_bills(), [])
        self.assertNotIn("over-cost", find_flags(self.yen))

    def test_totals_never_mix_currencies_before_and_after_the_rollup(self) -> None:
        since, until = self.now - timedelta(days=2), self.now
        for rolled_up in (False, True):
            for report in (report_by_hour, report_by_day):
                with self.subTest(report.__name__, rolled_up=rolled_up):
                    total = report(since, until, simulated=False).total
                    self.assertEqual(total.cost, Decimal("0.317"))
                    self.assertEqual(total.foreign_costs, {"EUR": Decimal("0.011"), "JPY": Decimal("3")})
                    self.assertEqual((total.calls, total.unbilled_calls), (3, 0))
                    # A minute's price is that of the calls that are billed in dollars alone.
                    self.assertEqual(total.cost_per_minute, Decimal("0.117"))
            hourly.roll_up_all(until)

    def test_pages_and_exports_show_the_currency(self) -> None:
        self.client.force_login(make_staff("view_call"))
        page = self.client.get(self.euros.get_absolute_url()).content.decode()
        self.assertIn("$0.10 + EUR 0.011", page)
        self.assertIn("(Twilio EUR 0.011, Vapi $0.10)", page)
        dashboard = self.client.get("/").content.decode()
        self.assertIn("$0.32 + EUR 0.011 + JPY 3.00", dashboard)
        row = serialize_call(self.euros, Viewer())
        self.assertEqual((row["twilio_price"], row["price_unit"], row["cost"]), ("-0.0110", "EUR", None))
        self.assertEqual(serialize_call(self.dollars, Viewer())["price_unit"], "USD")
