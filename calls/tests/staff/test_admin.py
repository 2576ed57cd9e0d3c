"""The admin's list of calls: permissions, search and bulk actions."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from django.contrib.admin.models import LogEntry
from django.db import DatabaseError
from django.test import TestCase
from django.urls import reverse

from calls.models import AuditEntry, Call, CallHour
from calls.staff import paginator as paging
from calls.stats import call_summary
from calls.tests.builders import make_call, make_staff

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

    def test_a_call_that_we_placed_is_marked_and_shows_the_callee(self) -> None:
        call = make_call(direction="outbound-api", from_number="+15559870000", to_number="+442079460018")
        page = self.get()
        row = page[page.index(call.get_absolute_url()) :].partition("</tr>")[0]
        self.assertIn('+442079460018 <span class="call-badge">outbound</span>', row)
        self.assertLess(row.index("+442079460018"), row.index("+15559870000"))

    def test_simulated_calls_are_shown_until_there_is_a_real_one(self) -> None:
        simulated = make_call(simulated=True)
        self.assertIn(simulated.get_absolute_url(), self.get())
        make_call()
        self.assertNotIn(simulated.get_absolute_url(), self.get())
        self.assertIn(simulated.get_absolute_url(), self.get("?simulated=yes"))

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

    def test_a_change_that_cannot_be_audited_is_not_made(self) -> None:
        call = make_call()
        self.client.force_login(make_staff(*MAY_SEE_ALL))
        data = {"action": "mark_for_review", "_selected_action": [call.pk]}
        failure = patch("calls.staff.audit.record", side_effect=DatabaseError)
        with failure, self.assertRaises(DatabaseError):
            self.client.post(reverse(LIST), data)
        self.assertFalse(Call.objects.filter(needs_review=True).exists())
        self.assertFalse(LogEntry.objects.exists())

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
