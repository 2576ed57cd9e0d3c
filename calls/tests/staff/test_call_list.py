"""The list of calls: filters, search, sorting, pages, saved views and the export of what is listed."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import timedelta
from functools import partial
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode

from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import connection
from django.test import SimpleTestCase, TestCase
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from calls import end_reasons
from calls.models import AuditEntry, Call, PhoneNumber, SavedView
from calls.staff import call_list, export, saved_views, search
from calls.staff import paginator as paging
from calls.staff.export import escape_formula
from calls.stats import call_summary
from calls.tests.builders import make_call, make_staff, make_turn, make_utterance

MAY_SEE_ALL = ("view_call", "view_numbers", "export_call", "change_call")
OURS, OTHER_OURS = "+15559870000", "+15559870001"


class ListTestCase(TestCase):
    def setUp(self) -> None:
        self.user: User = make_staff(*MAY_SEE_ALL)
        self.client.force_login(self.user)

    def get(self, query: str = "") -> str:
        response = self.client.get(reverse("call_list") + query)
        self.assertEqual(response.status_code, 200, query)
        return response.content.decode()

    def list_pks(self, query: str = "") -> list[int]:
        """Ids of the calls on the page, in its order."""
        return [int(pk) for pk in re.findall(r'<a href="/calls/(\d+)/[^"]*"><time', self.get(query))]


class FilterTests(ListTestCase):
    """One call for each kind of filter; every query names those that it must list, newest first."""

    def setUp(self) -> None:
        super().setUp()
        now = timezone.now()
        self.number = PhoneNumber.objects.create(number=OURS, label="Front desk")
        PhoneNumber.objects.create(number=OTHER_OURS)
        changes: dict[str, dict[str, Any]] = {
            "plain": {},
            "failed": {"end_reason": "assistant-failed", "ended_by": "assistant"},
            "outbound": {"direction": "outbound-api", "from_number": OURS, "to_number": "+442079460018"},
            "busy": {
                "direction": "outbound-dial",
                "from_number": OTHER_OURS,
                "status": "busy",
                "end_reason": "",
            },
            "live": {"status": "in-progress", "end_reason": "", "to_number": OTHER_OURS},
            "slow": {"worst_latency_ms": 4500, "duration_seconds": 10},
            "quick": {"worst_latency_ms": 1200, "duration_seconds": 90},
            "booked": {"outcome": "booked", "from_number": "+442079460018", "needs_review": True},
            "simulated": {"simulated": True},
            "old": {"started_at": now - timedelta(days=10), "to_number": OTHER_OURS},
        }
        self.calls: dict[str, Call] = {}
        for age, (name, values) in enumerate(changes.items()):
            self.calls[name] = make_call(**({"started_at": now - timedelta(minutes=age)} | values))
        make_turn(self.calls["slow"], response_latency_ms=4500)
        call_summary.update_summaries([self.calls[name] for name in ("failed", "slow")])

    def list_names(self, query: str) -> str:
        by_id = {call.pk: name for name, call in self.calls.items()}
        return " ".join(by_id[pk] for pk in self.list_pks(query))

    def test_each_filter_lists_the_calls_that_match(self) -> None:
        number, booked = self.number.pk, self.calls["booked"].pk
        day = f"{timezone.localtime():%Y-%m-%d}"
        for query, expected in (
            ("", "plain failed outbound busy live slow quick booked old"),
            ("?ended=failed", "failed"),
            ("?ended=assistant-failed", "failed"),
            ("?ended=live", "live"),
            ("?ended=busy", "busy"),
            ("?ended=no-answer", ""),
            ("?flag=failed", "failed"),
            ("?flag=slow-turn", "slow"),
            ("?flag=unknown", ""),
            ("?direction=outbound", "outbound busy"),
            ("?direction=inbound", "plain failed live slow quick booked old"),
            ("?direction=unknown", ""),
            (f"?number={number}", "plain failed outbound slow quick booked"),
            (f"?number={number}&direction=outbound", "outbound"),
            ("?number=99999", ""), ("?number=x", ""), ("?number=-1", ""), (f"?number={'9' * 30}", ""),
            (f"?caller={booked}", "outbound booked"),
            ("?caller=99999999", ""), ("?caller=x", ""),
            ("?slower=1200", "slow"), ("?slower=1199", "slow quick"), ("?slower=5000", ""),
            ("?slower=x", ""), ("?slower=1e3", ""),
            ("?outcome=booked", "booked"), ("?outcome=resolved", ""), ("?outcome=%00booked", "booked"),
            ("?review=yes", "booked"), ("?review=no", ""),
            ("?simulated=yes", "simulated"),
            ("?simulated=no", "plain failed outbound busy live slow quick booked old"),
            ("?simulated=all", "plain failed outbound busy live slow quick booked simulated old"),
            ("?range=24h", "plain failed outbound busy live slow quick booked"),
            ("?range=30d&direction=outbound", "outbound busy"),
            ("?range=nonsense&ended=failed", "failed"),
            (f"?since=2026-01-01&until={day}&ended=failed", "failed"),
            ("?until=2020-01-01", ""),
            ("?since=2999-01-01&ended=failed", "failed"),
            ("?started_at__gte=2020-01-01T00:00:00%2B00:00&ended=failed", "failed"),
            ("?started_at__gte=2020-01-01T00:00:00+00:00&ended=failed", "failed"),
            ("?started_at__gte=nonsense&ended=failed", "failed"),
            ("?started_at__gte=9999-12-31T23:59:59-12:00&ended=failed", "failed"),
            ("?started_at__gte=2199-01-01T00:00:00Z", ""),
            ("?started_at__lt=2020-01-01T00:00:00Z", ""),
            ("?unknown=1&ended=failed", "failed"),
            ("?sort=length", "slow quick"), ("?sort=-length", "quick slow"),
            ("?sort=-slowest", "slow quick"), ("?sort=slowest", "quick slow"),
            ("?sort=time&ended=failed", "failed"), ("?sort=password&ended=failed", "failed"),
        ):  # fmt: skip
            for many_matches in (5_000, 1):
                with (
                    self.subTest(query, many_matches=many_matches),
                    patch("calls.querysets.MANY_MATCHES", many_matches),
                ):
                    self.assertEqual(self.list_names(query), expected)

    def test_every_choice_of_every_menu_opens_a_list(self) -> None:
        page = self.get("?q=appointment&range=7d")
        urls = {url.replace("&amp;", "&") for url in re.findall(r'href="(/calls/\?[^"]*)"', page)}
        self.assertGreater(len(urls), len(end_reasons.END_REASONS) + 20)
        for url in urls:
            with self.subTest(url):
                self.assertEqual(self.client.get(url).status_code, 200)

    def test_a_filter_is_a_chip_that_can_be_removed(self) -> None:
        page = self.get(f"?ended=failed&caller={self.calls['plain'].pk}&slower=1500&q=x&sort=-slowest")
        for text in (
            "Status: <bdi>Failed (any reason)</bdi>", "Caller or callee: <bdi>+15550100134</bdi>",
            "Slowest response: <bdi>Over 1.50 s</bdi>",
        ):  # fmt: skip
            self.assertIn(text, page)
        removed = re.search(r'class="remove" href="([^"]*)" aria-label="Remove the filter Status"', page)
        assert removed is not None
        self.assertNotIn("ended=", removed[1])
        for parameter in ("caller=", "slower=1500", "q=x", "sort=-slowest"):
            self.assertIn(parameter, removed[1])

    def test_a_time_bound_from_a_link_can_be_removed(self) -> None:
        day = timedelta(days=1)
        for name, bound in (
            ("started_at__gte", timezone.now() - day), ("started_at__lt", timezone.now() - 9 * day),
        ):  # fmt: skip
            query = f"?{urlencode({'outcome': 'booked', name: bound.isoformat()})}"
            remove = re.search(
                r'class="remove" href="([^"]*)" aria-label="Remove the filter Time"', self.get(query)
            )
            assert remove is not None, name
            self.assertEqual(remove[1], "/calls/?outcome=booked")

    def test_clearing_the_filters_keeps_the_search(self) -> None:
        page = self.get("?ended=failed&range=7d&q=nobody")
        self.assertIn("No call with these filters matches “<bdi>nobody</bdi>”.", page)
        self.assertIn('<a href="/calls/?q=nobody">Search all calls</a>', page)

    def test_a_range_that_is_not_valid_is_named(self) -> None:
        for query, message in (
            ("?since=nonsense", "is not a date"), ("?range=nonsense", "Unknown range"),
            ("?since=2026-02-01&until=2026-01-01", "after the last day"),
        ):  # fmt: skip
            self.assertIn(message, self.get(query))

    def test_the_admin_has_the_same_filters(self) -> None:
        for query, count in (
            ("?ended=failed", 1), ("?direction=outbound", 2), (f"?caller={self.calls['booked'].pk}", 2),
            ("?slower=1300", 1), ("?outcome=booked", 1), ("?simulated=all", 10), ("?slower=x", 0), ("", 9),
        ):  # fmt: skip
            with self.subTest(query):
                response = self.client.get(reverse("admin:calls_call_changelist") + query)
                self.assertEqual(response.context["cl"].result_count, count)

    def test_the_link_to_the_admin_keeps_search_filters_and_time(self) -> None:
        link = re.search(r'href="(/admin/calls/call/[^"]*)"', self.get("?ended=failed&range=24h&q=%2B15550"))
        assert link is not None
        response = self.client.get(link[1].replace("&amp;", "&"))
        self.assertEqual(response.context["cl"].result_count, 1)


class HiddenCallsTests(ListTestCase):
    def test_it_says_that_simulated_calls_are_excluded_and_leads_to_them(self) -> None:
        note, link = "Simulated calls are excluded.", "simulated=yes"
        simulated = make_call(simulated=True)
        call_summary.update_summaries([simulated])
        self.assertNotIn(note, self.get(), "nothing is excluded while there is no other call")
        call_summary.update_summaries([make_call()])
        for query in ("", "?direction=inbound", "?direction=outbound"):
            page = self.get(query)
            self.assertIn(note, page, query)
            self.assertIn(link, page)
        for query in ("?simulated=yes", "?simulated=all"):
            self.assertNotIn(note, self.get(query))


class DatePickerTests(ListTestCase):
    def test_its_form_filters_by_days_and_keeps_the_other_filters(self) -> None:
        now = timezone.now()
        recent, older = make_call(started_at=now), make_call(started_at=now - timedelta(days=3))
        page = self.get("?direction=inbound&range=7d")
        (form,) = (form for form in re.findall(r"<form.*?</form>", page, re.DOTALL) if 'type="date"' in form)
        names = set(re.findall(r'<input type="date" name="(\w+)"', form))
        kept = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\w*)"', form))
        self.assertEqual((names, kept), ({"since", "until"}, {"direction": "inbound"}))
        day = f"{timezone.localtime(older.started_at):%Y-%m-%d}"
        found = self.get(f"?direction=inbound&since={day}&until={day}")
        self.assertIn(older.get_absolute_url(), found)
        self.assertNotIn(recent.get_absolute_url(), found)


class SearchTests(ListTestCase):
    def test_it_finds_calls_by_words_numbers_and_ids(self) -> None:
        call = make_call(end_reason="assistant-failed")
        make_utterance(call, text="I look for the lighthouse keeper")
        for query, found in (
            ("?q=%2B155501", True), ("?q=00155501", True), ("?q=tel:%2B1 555-01", True), ("?q=%2B44", False),
            (f"?q={call.call_sid[:30]}", True), ("?q=nobody", False), ("?q=keeper light", True),
            ("?q=lighthouse 1234567", False), ("?q=lighthouse&ended=caller-hung-up", False), ("?q=%00", True),
        ):  # fmt: skip
            with self.subTest(query):
                self.assertEqual(self.list_pks(query), [call.pk] if found else [])

    def test_the_line_that_matches_is_shown_with_its_speaker(self) -> None:
        inbound = make_call()
        outbound = make_call(direction="outbound-api", from_number=OURS, to_number="+442079460018")
        make_utterance(inbound, speaker="assistant", text="The lighthouse <b>keeper</b> is out.")
        make_utterance(outbound, text="I look for the lighthouse.")
        page = self.get("?q=lighthouse")
        self.assertIn('Assistant: <span dir="auto">The <mark>lighthouse</mark> &lt;b&gt;keeper', page)
        self.assertIn('Callee: <span dir="auto">I look for the <mark>lighthouse</mark>.', page)

    def test_masked_numbers_cannot_be_guessed(self) -> None:
        call = make_call()
        query = f"?caller={call.pk}"
        self.client.force_login(make_staff("view_call"))
        self.assertEqual(self.list_pks("?q=%2B15550100"), [])
        self.assertEqual(self.list_pks(query), [call.pk])
        for page in (self.get(), self.get(query)):
            self.assertIn("+1 555 …0134", page)
            self.assertNotIn("5550100134", page)


class RowTests(ListTestCase):
    def test_a_row_shows_direction_label_and_outcome(self) -> None:
        PhoneNumber.objects.create(number=OURS, label="Front desk")
        make_call(
            outcome="booked", summary="Moved to Thursday.", needs_review=True, duration_seconds=128,
            direction="outbound-api", from_number=OURS, to_number="+442079460018",
        )  # fmt: skip
        page = " ".join(re.sub(r"<[^>]*>", " ", self.get()).split())
        expected = (
            "→ outbound +442079460018 Front desk 2:08 Callee hung up needs review booked Moved to Thursday."
        )
        self.assertIn(expected, page)

    def test_times_are_short(self) -> None:
        now = timezone.localtime()
        for started_at, text in (
            (now.replace(hour=0, minute=0), "Today 00:00"),
            (
                now.replace(year=now.year - 1, day=1),
                f"{now.replace(year=now.year - 1, day=1):%a %-d %b %Y %H:%M}",
            ),
        ):
            call = make_call(started_at=started_at)
            with self.subTest(text):
                self.assertRegex(self.get(), rf'href="/calls/{call.pk}/"><time [^>]*>{text}</time>')

    def test_every_status_and_reason_has_a_label_of_at_most_four_words(self) -> None:
        labels = [reason.label for reason in end_reasons.END_REASONS.values()]
        for label in (*labels, *end_reasons.STATUS_LABELS.values()):
            self.assertRegex(label, r"^[A-Z]\w+( [a-z]+){0,3}$")
        self.assertEqual(len(set(labels)), len(labels))

    def test_the_first_page_explains_how_to_get_a_call(self) -> None:
        self.assertIn("No calls yet", self.get())
        self.assertIn("make demo", self.get())

    def test_pages_link_to_each_other_and_the_count_is_capped(self) -> None:
        for _ in range(5):
            make_call()
        with patch.object(call_list, "PAGE_SIZE", 2):
            first, second = self.get("?direction=inbound"), self.list_pks("?direction=inbound&page=2")
            self.assertIn('rel="next" href="/calls/?direction=inbound&amp;page=2"', first)
            self.assertIn("Page 1 of 3", first)
            self.assertEqual(len(second), 2)
            self.assertEqual(len(self.list_pks("?page=99")), 1, "the last page")
            self.assertEqual(len(self.list_pks("?page=x")), 2, "the first page")
        for most, text in ((4, "Only the first 4 calls are listed."), (5, "5 calls.")):
            with patch.object(paging, "MAX_ROWS", most):
                self.assertIn(text, self.get())

    def test_it_says_when_older_calls_may_have_the_words_too(self) -> None:
        for _ in range(3):
            make_utterance(make_call(), text="what is the price")
            make_call(direction="outbound-api")
        text = "The search covers the newest calls with these words only"
        self.assertNotIn(text, self.get("?q=price"))
        with (
            patch.object(search, "MAX_SEARCHED_CALLS", 2),
            patch.object(search, "find_call_ids", partial(search.find_call_ids, max_lines=2)),
        ):
            self.assertEqual(self.get("?q=price").count(text), 2, "below the list, and in the export menu")
            self.assertIn(text, self.get("?q=price&direction=outbound"), "and where it finds none")

    def test_the_number_of_queries_does_not_depend_on_the_number_of_calls(self) -> None:
        make_utterance(make_call())
        for query in ("", "?q=appointment&direction=inbound&ended=caller-hung-up&sort=-time"):
            self.get(query)
            with CaptureQueriesContext(connection) as few:
                self.get(query)
            for _ in range(12):
                make_utterance(make_call(outcome="booked"))
            with self.assertNumQueries(len(few)):
                self.get(query)


class SavedViewTests(ListTestCase):
    def save(self, **data: str) -> str:
        return self.client.post(reverse("saved_views"), data, follow=True).content.decode()

    def test_a_view_is_saved_opened_replaced_and_deleted(self) -> None:
        make_call(end_reason="assistant-failed")
        page = self.save(name="  Broken\x00 ones ", query="ended=failed&q=x%26y&unknown=1")
        view = SavedView.objects.get()
        self.assertEqual((view.name, view.query), ("Broken ones", "q=x%26y&ended=failed"))
        self.assertIn(f'href="{view.get_absolute_url().replace("&", "&amp;")}"', page)
        self.save(name="Broken ones", query="ended=live")
        view.refresh_from_db()
        self.assertEqual(view.query, "ended=live")
        self.client.post(reverse("saved_view_delete", args=[view.pk]))
        self.assertFalse(SavedView.objects.exists())

    def test_views_belong_to_their_user(self) -> None:
        self.save(name="Mine", query="ended=failed")
        self.client.force_login(make_staff("view_call"))
        self.assertNotIn("Mine", self.get())
        self.client.post(reverse("saved_view_delete", args=[SavedView.objects.get().pk]))
        self.assertTrue(SavedView.objects.exists())

    def test_what_cannot_be_saved_is_named(self) -> None:
        self.assertIn("Enter a name for the view.", self.save(name=" ", query="ended=failed"))
        long = "&".join(f"{name}={'ü' * 200}" for name in ("q", "ended", "outcome"))
        self.assertIn("too long", self.save(name="Long", query=long))
        with patch.object(saved_views, "MAX_VIEWS", 1):
            self.save(name="One", query="")
            self.assertIn("Delete one first.", self.save(name="Two", query=""))
            self.assertIn("View “One” saved.", self.save(name="One", query="ended=failed"))
        self.assertEqual(SavedView.objects.count(), 1)

    def test_the_views_for_everyone_are_valid(self) -> None:
        page = self.get()
        for name, query in saved_views.DEFAULT_VIEWS:
            self.assertIn(name, page)
            self.assertNotIn('role="alert"', self.get(f"?{query}"))


class ExportTests(TestCase):
    URL = "/calls/export"

    def export(self, query: str, *permissions: str) -> str:
        self.client.force_login(make_staff(*(permissions or MAY_SEE_ALL)))
        response = self.client.get(self.URL + query)
        self.assertEqual(response.status_code, 200)

        async def read_all() -> bytes:
            return b"".join([piece async for piece in response])  # type: ignore[attr-defined]

        return async_to_sync(read_all)().decode()

    def test_csv_follows_the_filters_and_escapes_formulas(self) -> None:
        make_call(caller_name="=1+1", note="@SUM(A1)\n'quoted', \"twice\"", end_reason="assistant-failed")
        make_call(end_reason="caller-hung-up")
        rows = list(csv.DictReader(io.StringIO(self.export("?format=csv&ended=assistant-failed"))))
        self.assertEqual(len(rows), 1)
        self.assertEqual(rows[0]["caller_name"], "'=1+1")
        self.assertEqual(rows[0]["note"], "'@SUM(A1)\n'quoted', \"twice\"")
        self.assertEqual(rows[0]["from_number"], "'+15550100134")

    def test_json_has_the_values_unescaped(self) -> None:
        make_call(caller_name="=1+1")
        make_call()
        calls = json.loads(self.export("?format=json"))["calls"]
        self.assertEqual([call["caller_name"] for call in calls], ["", "=1+1"])
        self.assertEqual(json.loads(self.export("?format=json&flag=over-cost")), {"calls": []})

    def test_numbers_are_masked_for_those_who_may_not_see_them(self) -> None:
        make_call()
        self.assertNotIn("15550100134", self.export("?format=csv", "view_call", "export_call"))

    def test_it_is_limited_and_streamed_in_chunks(self) -> None:
        for _ in range(7):
            make_call()
        with patch.object(export, "MAX_ROWS", 5), patch.object(export, "CHUNK_ROWS", 2):
            self.assertEqual(len(self.export("?format=csv").strip().split("\n")), 6)

    def test_it_leaves_an_audit_entry(self) -> None:
        self.export("?format=csv&ended=failed")
        entry = AuditEntry.objects.get()
        self.assertEqual((entry.action, entry.detail), ("export", "csv ended=failed"))

    def test_it_needs_the_permission_to_export(self) -> None:
        self.client.force_login(make_staff("view_call"))
        self.assertEqual(self.client.get(self.URL).status_code, 403)

    def test_an_unknown_format_is_not_found(self) -> None:
        self.client.force_login(make_staff(*MAY_SEE_ALL))
        self.assertEqual(self.client.get(self.URL + "?format=xls").status_code, 404)


class EscapeFormulaTests(SimpleTestCase):
    def test_text_that_starts_like_a_formula_is_escaped(self) -> None:
        for text in ("=1", "+1555", "-1", "@x", "\tx", "\rx", "\nx", "＝1", "＋1", "－1", "＠x"):  # noqa: RUF001
            self.assertEqual(escape_formula(text), "'" + text)

    def test_other_values_are_unchanged(self) -> None:
        for value, text in ((None, ""), (12, 12), (-1.5, -1.5), ("a=b", "a=b"), ("", ""), (False, False)):
            self.assertEqual(escape_formula(value), text)
