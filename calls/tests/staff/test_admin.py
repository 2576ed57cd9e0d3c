"""The call list: permissions, search, bulk actions and export."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode

from asgiref.sync import async_to_sync
from django.contrib.admin.models import LogEntry
from django.test import SimpleTestCase, TestCase
from django.urls import reverse

from calls.models import AuditEntry, Call, CallHour
from calls.staff import export
from calls.staff import paginator as paging
from calls.staff.export import escape_formula
from calls.stats import call_summary
from calls.tests.builders import make_call, make_staff, make_utterance

LIST = "admin:calls_call_changelist"
MAY_SEE_ALL = ("view_call", "view_numbers", "export_call", "change_call")


class ListTests(TestCase):
    def get(self, query: str = "", *permissions: str) -> str:
        self.client.force_login(make_staff(*(permissions or MAY_SEE_ALL)))
        response = self.client.get(reverse(LIST) + query)
        self.assertEqual(response.status_code, 200)
        return response.content.decode()

    def test_numbers_are_masked_for_those_who_may_not_see_them(self) -> None:
        make_call(from_number="+15550100134", to_number="+15559870000")
        page = self.get("", "view_call")
        self.assertIn("+1 555 …0134", page)
        self.assertNotIn("5550100134", page)
        self.assertIn("+15550100134", self.get())

    def test_masked_numbers_cannot_be_guessed_by_searching_for_a_prefix(self) -> None:
        call = make_call(from_number="+15550100134")
        self.assertNotIn(call.get_absolute_url(), self.get("?q=%2B15550100", "view_call"))
        self.assertIn(call.get_absolute_url(), self.get("?q=%2B15550100"))
        self.assertIn(call.get_absolute_url(), self.get(f"?q={call.call_sid[:20]}", "view_call"))

    def test_a_search_for_words_shows_the_matching_line(self) -> None:
        call = make_call()
        make_utterance(call, text="I look for the lighthouse <b>keeper</b>")
        page = self.get("?q=lighthouse")
        self.assertIn("<mark>lighthouse</mark>", page)
        self.assertIn("&lt;b&gt;keeper", page)

    def test_simulated_calls_are_shown_until_there_is_a_real_one(self) -> None:
        simulated = make_call(simulated=True)
        self.assertIn(simulated.get_absolute_url(), self.get())
        make_call()
        self.assertNotIn(simulated.get_absolute_url(), self.get())
        self.assertIn(simulated.get_absolute_url(), self.get("?simulated=yes"))

    def test_a_time_bound_from_a_link_can_be_removed(self) -> None:
        call = make_call(started_at=datetime(2026, 11, 19, tzinfo=UTC))
        for name, day in (("started_at__gte", 20), ("started_at__lt", 18)):
            bound = datetime(2026, 11, day, 10, tzinfo=UTC)
            page = self.get(f"?{urlencode({'ended': 'caller-hung-up', name: bound.isoformat()})}")
            self.assertNotIn(call.get_absolute_url(), page)
            before_the_bound = page[: page.index(f'title="{day} Nov 2026, 10:00"')]
            remove = re.findall(r'<a href="([^"]*)" title="All"', before_the_bound)[-1]
            self.assertEqual(remove, "?ended=caller-hung-up")
            self.assertIn(call.get_absolute_url(), self.get(remove))

    def test_a_capped_list_says_that_it_is_capped(self) -> None:
        for _ in range(4):
            make_call()
        with patch.object(paging, "MAX_ROWS", 3):
            self.assertIn("Only the first 3 calls are listed.", self.get())

    def test_the_form_masks_numbers_too(self) -> None:
        call = make_call(from_number="+15550100134")
        self.client.force_login(make_staff("view_call"))
        for name in ("admin:calls_call_change", "admin:calls_call_history"):
            page = self.client.get(reverse(name, args=[call.pk])).content.decode()
            self.assertNotIn("5550100134", page)

    def test_many_calls_are_marked_for_review_in_one_action(self) -> None:
        calls = [make_call(), make_call(), make_call(needs_review=True)]
        self.client.force_login(make_staff(*MAY_SEE_ALL))
        data: dict[str, Any] = {"action": "mark_for_review", "_selected_action": [call.pk for call in calls]}
        self.client.post(reverse(LIST), data)
        self.assertEqual(Call.objects.filter(needs_review=True).count(), 3)
        self.assertEqual(LogEntry.objects.count(), 2, "the third was marked already")
        self.assertEqual(AuditEntry.objects.get().detail, "Marked for review: 2 calls")
        self.client.post(reverse(LIST), data | {"action": "mark_reviewed"})
        self.assertFalse(Call.objects.filter(needs_review=True).exists())

    def test_many_calls_get_an_outcome_in_one_action(self) -> None:
        self.client.force_login(make_staff(*MAY_SEE_ALL))
        calls = [make_call(), make_call(outcome="booked"), make_call()]
        data = {"action": "set_outcome", "_selected_action": [call.pk for call in calls[:2]]}
        self.client.post(reverse(LIST), data | {"outcome": " booked "})
        self.assertEqual([call.outcome for call in Call.objects.order_by("pk")], ["booked", "booked", ""])
        (entry,) = LogEntry.objects.all()
        self.assertEqual((entry.object_id, entry.change_message), (str(calls[0].pk), "Outcome “booked”."))
        response = self.client.post(reverse(LIST), data, follow=True)
        self.assertContains(response, "Enter an outcome next to the action.")
        self.assertEqual(Call.objects.filter(outcome="booked").count(), 2)

    def test_viewers_cannot_mark_calls(self) -> None:
        call = make_call()
        self.client.force_login(make_staff("view_call"))
        self.client.post(reverse(LIST), {"action": "mark_for_review", "_selected_action": [call.pk]})
        self.assertFalse(Call.objects.filter(needs_review=True).exists())

    def test_deleting_a_call_marks_its_hour_for_recounting(self) -> None:
        call = make_call()
        call_summary.update_summaries([call])
        CallHour.objects.update(dirty=False)
        self.client.force_login(make_staff("view_call", "delete_call", is_superuser=True))
        data: dict[str, Any] = {"action": "delete_selected", "_selected_action": [call.pk], "post": "yes"}
        self.client.post(reverse(LIST), data)
        self.assertFalse(Call.objects.exists())
        self.assertTrue(CallHour.objects.get().dirty)


class ExportTests(TestCase):
    URL = "/admin/calls/call/export/"

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
