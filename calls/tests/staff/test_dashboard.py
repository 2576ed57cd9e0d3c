"""The dashboard: figures with their change, one number, hours that are not counted yet, the menu."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from unittest.mock import patch

from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import SimpleTestCase, TestCase
from django.utils import timezone

from calls.models import CallHour, PhoneNumber
from calls.staff.figures import Figure, build_figures
from calls.stats import call_summary, hourly, queries
from calls.stats.aggregates import Aggregate
from calls.stats.flags import FLAGS
from calls.stats.queries import CallStats
from calls.tests.builders import make_call, make_staff, make_turn

OURS, OTHER_OURS = "+15559870000", "+15559870001"
LINKS = dict.fromkeys(("all", *FLAGS), "/calls/")


def make_stats(
    calls: int = 0,
    failed: int = 0,
    latencies: tuple[int, ...] = (),
    cost: str | None = None,
    unbilled: int = 0,
) -> CallStats:
    """`latencies` are hundredths of a second."""
    aggregate = Aggregate(calls=calls, answered=calls - failed, unbilled_calls=unbilled)
    aggregate.failure_reasons["assistant-failed"] = failed
    aggregate.response_latency.update(latencies)
    aggregate.cost = Decimal(cost) if cost else None
    return CallStats.of(aggregate)


class FigureTests(SimpleTestCase):
    def figures(self, now: CallStats, before: CallStats) -> dict[str, Figure]:
        figures = build_figures(now, before, target_ms=1200, links=LINKS)
        return {figure.title: figure for figure in figures}

    def test_each_figure_says_how_it_changed(self) -> None:
        now = make_stats(200, 10, (90, 150), "30.00")
        before = make_stats(100, 2, (80, 160), "20.00")
        expected = {
            "Calls": ("200", "+100 %", None),
            "Answered": ("95.0 %", "-3.0 points", True),
            "Failed": ("10", "+3.0 points", True),
            "Response latency p50": ("0.90 s", "+0.10 s", True),
            "Response latency p95": ("1.50 s", "-0.10 s", False),
            "Cost": ("$30.00", "+50 %", None),
        }
        figures = self.figures(now, before)
        for title, (value, text, is_worse) in expected.items():
            with self.subTest(title):
                figure = figures[title]
                assert figure.change is not None
                self.assertEqual(
                    (figure.value, figure.change.text, figure.change.is_worse), (value, text, is_worse)
                )
        self.assertEqual(figures["Response latency p95"].tone, "is-slow")
        self.assertEqual(figures["Failed"].notes, ["5.0 % of the calls"])

    def test_a_change_needs_something_to_compare_with(self) -> None:
        for now, before in (
            (make_stats(10, 1, (90,), "1.00"), make_stats()),
            (make_stats(), make_stats(10, 1, (90,), "1.00")),
        ):
            changes = {title: figure.change for title, figure in self.figures(now, before).items()}
            changes.pop("Calls")  # no calls are 100 % fewer
            self.assertEqual(set(changes.values()), {None})

    def test_costs_are_compared_when_all_bills_have_arrived(self) -> None:
        cost = self.figures(make_stats(10, cost="1.00", unbilled=2), make_stats(10, cost="1.00"))["Cost"]
        self.assertEqual((cost.value, cost.change), ("$1.00 so far", None))
        self.assertIn("2 calls with a pending bill", cost.notes)

    def test_an_unchanged_figure_is_not_worse(self) -> None:
        stats = make_stats(10, 1, (90,))
        for title in ("Answered", "Failed", "Response latency p50"):
            change = self.figures(stats, stats)[title].change
            assert change is not None
            self.assertEqual((change.text, change.is_worse), ("no change", None), title)

    def test_a_change_that_rounds_to_nothing_is_none(self) -> None:
        figures = self.figures(make_stats(10_001, 1_000, (90,)), make_stats(10_000, 1_000, (90,)))
        for title in ("Calls", "Answered", "Failed"):
            change = figures[title].change
            assert change is not None
            self.assertEqual(change.text, "no change", title)


class DashboardTests(TestCase):
    def setUp(self) -> None:
        self.client.force_login(make_staff("view_call", "view_numbers"))

    def get_page(self, query: str = "") -> str:
        response = self.client.get(f"/{query}")
        self.assertEqual(response.status_code, 200)
        return response.content.decode()

    def shown(self, page: str) -> list[int]:
        table = page[page.index("<h2>Recent calls</h2>") :]
        return [int(pk) for pk in re.findall(r'href="/calls/(\d+)/', table)]

    def test_recent_calls_are_those_of_the_range(self) -> None:
        now = timezone.now()
        recent, older = make_call(), make_call(started_at=now - timedelta(days=3))
        self.assertEqual(self.shown(self.get_page("?range=24h")), [recent.pk])
        self.assertEqual(self.shown(self.get_page("?range=7d")), [recent.pk, older.pk])
        day = f"{timezone.localtime(older.started_at):%Y-%m-%d}"
        self.assertEqual(self.shown(self.get_page(f"?since={day}&until={day}")), [older.pk])
        self.assertIn("No calls in this time range.", self.get_page("?since=2020-01-01&until=2020-01-02"))

    def test_charts_have_a_scale_and_mark_the_hour_or_day_that_is_not_over(self) -> None:
        call = make_call()
        make_turn(call, response_latency_ms=1800)
        call_summary.update_summaries([call])
        for query in ("?range=today", "?range=24h", "?range=7d"):
            page = self.get_page(query)
            for chart in re.findall(r'<figure class="trend">.*?</figure>', page, re.DOTALL):
                self.assertRegex(chart, r'class="ticks.*?<span>\d+( s)?</span>.*<span>0</span>')
                self.assertEqual(chart.count('class="is-partial"'), 1, query)
                self.assertIn("(until now)", chart)

    def test_one_number_is_counted_alone_in_both_directions(self) -> None:
        number = PhoneNumber.objects.create(number=OURS, label="Front desk")
        PhoneNumber.objects.create(number=OTHER_OURS)
        calls = [
            make_call(to_number=OURS),
            make_call(to_number=OURS, end_reason="assistant-failed"),
            make_call(direction="outbound-api", from_number=OURS, to_number="+442079460018"),
            make_call(to_number=OTHER_OURS),
            make_call(direction="outbound-api", from_number=OTHER_OURS, to_number=OURS),
        ]
        for call in calls:
            make_turn(call)
        call_summary.update_summaries(calls)
        for _ in range(2):
            page = self.get_page(f"?number={number.pk}")
            self.assertEqual(sorted(self.shown(page)), [call.pk for call in calls[:3]])
            self.assertRegex(page, r"<dt>Calls</dt><dd><a [^>]*>3</a>")
            self.assertRegex(page, r"<dt>Failed</dt><dd><a [^>]*>1</a>")
            self.assertIn("3 turns", page)
            self.assertIn(f"number={number.pk}", page)
            self.assertIn("Last 24 hours: Front desk", page)
            hourly.roll_up_all(timezone.now() + timedelta(hours=2))
        for unknown in ("99999", "x", "-1", "1" * 40):
            self.assertRegex(self.get_page(f"?number={unknown}"), r"<dt>Calls</dt><dd><a [^>]*>5</a>")

    def test_each_reason_of_a_failure_links_to_its_calls(self) -> None:
        failed = make_call(end_reason="assistant-failed")
        not_connected = make_call(direction="outbound-api", status="failed", end_reason="")
        call_summary.update_summaries([failed, not_connected])
        failures = re.search(r'<ul class="failures">.*?</ul>', self.get_page(), re.DOTALL)
        assert failures is not None
        self.assertIn("The call could not be connected.", failures[0])
        links = dict(re.findall(r'href="(/calls/\?[^"]*ended=([a-z-]*)[^"]*)"', failures[0]))
        self.assertEqual(sorted(links.values()), ["assistant-failed", "not-connected"])
        for link, reason in links.items():
            page = self.client.get(link.replace("&amp;", "&")).content.decode()
            expected = failed if reason == "assistant-failed" else not_connected
            self.assertEqual(re.findall(r'<a href="/calls/(\d+)/[^"]*"><time', page), [str(expected.pk)])

    def test_calls_that_are_not_counted_yet_are_named(self) -> None:
        """As after an import: no hour is rolled up, and there are more calls than a page may read."""
        noon = timezone.now().replace(minute=0, second=0, microsecond=0)
        calls = [make_call(started_at=noon - timedelta(hours=hour, minutes=-1)) for hour in range(1, 6)]
        call_summary.update_summaries(calls)
        with patch.object(queries, "MAX_CALLS_READ", 3):
            page = self.get_page()
            self.assertIn("are still being counted", page)
            self.assertRegex(page, r"<dt>Calls</dt><dd><a [^>]*>3</a>")
            with self.assertNumQueries(8):
                report = queries.report_by_hour(noon - timedelta(hours=24), noon, simulated=False)
            self.assertEqual((report.total.calls, report.counted_since), (3, noon - timedelta(hours=3)))
            hourly.roll_up_all(noon)
            self.assertFalse(CallHour.objects.filter(dirty=True).exists())
            page = self.get_page()
            self.assertNotIn("are still being counted", page)
            self.assertRegex(page, r"<dt>Calls</dt><dd><a [^>]*>5</a>")

    def test_the_menu_shows_what_the_role_may_open(self) -> None:
        for role, expected in (
            ("viewer", {"Dashboard", "Calls", "Setup"}),
            ("operator", {"Dashboard", "Calls", "Numbers", "Setup"}),
            ("admin", {"Dashboard", "Calls", "Numbers", "Setup", "Staff"}),
        ):
            user: User = make_staff()
            call_command("create_roles", user=user.username, role=role)
            self.client.force_login(user)
            page = self.get_page()
            paths = {
                "Dashboard": 'href="/"', "Calls": 'href="/calls/"', "Setup": 'href="/set-up"',
                "Numbers": 'href="/admin/calls/phonenumber/"', "Staff": 'href="/admin/auth/user/"',
            }  # fmt: skip
            menu = page[: page.index('class="calls"')]
            self.assertEqual({name for name, path in paths.items() if path in menu}, expected, role)
