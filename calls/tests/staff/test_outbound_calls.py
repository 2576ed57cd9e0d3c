"""An outbound call on every page: who called whom, and who ended it."""

from __future__ import annotations

import re
from typing import Any

from django.contrib.auth.models import User
from django.test import TestCase
from django.utils import timezone

from calls.models import Call, PhoneNumber
from calls.staff.live.board import render_board
from calls.stats import call_summary
from calls.stats.flags import find_flags
from calls.tests.builders import make_call, make_event, make_staff, make_turn, make_utterance
from calls.viewer import Viewer

OURS, CALLEE, CALLER = "+15559870000", "+442079460018", "+15550100134"
LIST = "/calls/"


def make_outbound(**changes: Any) -> Call:
    values: dict[str, Any] = {"direction": "outbound-api", "from_number": OURS, "to_number": CALLEE}
    return make_call(**(values | changes))


def extract_text(html: str) -> str:
    """The text without tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


class OutboundPageTests(TestCase):
    def setUp(self) -> None:
        self.user: User = make_staff("view_call", "view_numbers")
        self.client.force_login(self.user)
        PhoneNumber.objects.create(number=OURS, label="Front desk")
        self.call = make_outbound(answered_at=timezone.now(), stream_sid="MZ1")
        make_utterance(self.call)
        make_utterance(self.call, speaker="assistant", text="Hello.", interrupted=True)
        make_turn(self.call)
        make_event(self.call, kind="dtmf", data={"digit": "1"})
        make_event(self.call, kind="stream-ended", data={"reason": "caller-hung-up"}, at_ms=9000)
        make_event(self.call, kind="tool-called", data={"tool": "note", "arguments": {"for": "the caller"}})
        call_summary.update_summaries([self.call])

    def get_page(self, path: str) -> str:
        response = self.client.get(path)
        self.assertEqual(response.status_code, 200)
        return extract_text(response.content.decode())

    def test_the_lists_show_the_callee_and_our_number(self) -> None:
        for path in ("/", LIST):
            with self.subTest(path):
                page = self.get_page(path)
                self.assertIn(f"→ outbound {CALLEE} Front desk", page)
                self.assertIn("Callee hung up", page)

    def test_viewers_see_the_callee_masked(self) -> None:
        self.client.force_login(make_staff("view_call", username="viewer"))
        PhoneNumber.objects.all().delete()
        for path in ("/", LIST, self.call.get_absolute_url(), f"/admin/calls/call/{self.call.pk}/change/"):
            with self.subTest(path):
                page = self.get_page(path)
                self.assertNotIn(CALLEE, page)
                self.assertNotIn(OURS, page)
                self.assertIn("+44 …0018", page)

    def test_the_call_page_names_both_sides(self) -> None:
        page = self.get_page(self.call.get_absolute_url())
        self.assertIn(f"Front desk ({OURS}) → {CALLEE} outbound", page)
        for text in (
            "The callee hung up.", "Ended by: callee.", "Callee Hi, I need to", "interrupted by the callee",
            "Callee pressed 1", "Frames to callee",
        ):  # fmt: skip
            self.assertIn(text, page)
        self.assertIn("the caller", page, "tool arguments are not rewritten")
        self.assertNotRegex(page, r"caller (hung up|pressed)|by the caller")

    def test_an_inbound_call_names_the_caller(self) -> None:
        page = self.get_page(make_call().get_absolute_url())
        self.assertIn(f"{CALLER} → Front desk ({OURS})", page)
        self.assertIn("The caller hung up.", page)
        self.assertNotIn("callee", page.lower())

    def test_the_admin_form_names_both_sides(self) -> None:
        page = self.get_page(f"/admin/calls/call/{self.call.pk}/change/")
        self.assertRegex(page, rf"(?i)caller or callee:? {re.escape(CALLEE)}")
        self.assertRegex(page, rf"(?i)number:? {re.escape(OURS)}")

    def test_the_number_filter_finds_both_directions(self) -> None:
        inbound, unrelated = make_call(), make_call(to_number="+15559870001", from_number=OURS)
        page = self.client.get(f"{LIST}?number={PhoneNumber.objects.get().pk}").content.decode()
        for call, is_found in ((self.call, True), (inbound, True), (unrelated, False)):
            self.assertEqual(call.get_absolute_url() in page, is_found, call)

    def test_the_live_board_names_both_sides(self) -> None:
        Call.objects.update(status="in-progress", end_reason="", started_at=timezone.now())
        self.assertIn(f"Front desk → {CALLEE}", extract_text(render_board(Viewer.for_user(self.user))))


class NeverAnsweredTests(TestCase):
    def test_only_calls_that_the_assistant_could_have_answered_are_flagged(self) -> None:
        for changes, is_flagged in (
            ({"status": "completed", "end_reason": "assistant-unreachable"}, True),
            ({"status": "completed", "end_reason": "caller-hung-up"}, True),
            ({"status": "failed", "end_reason": "worker-lost"}, True),
            ({"status": "busy"}, False),
            ({"status": "no-answer"}, False),
            ({"status": "canceled"}, False),
            ({"status": "completed", "end_reason": "machine-answered"}, False),
            ({"status": "completed", "end_reason": "out-of-hours"}, False),
            ({"status": "ringing"}, False),
            ({"status": "initiated"}, False),
        ):
            for make in (make_call, make_outbound):
                with self.subTest(changes, make=make.__name__):
                    call = make(**({"end_reason": ""} | changes))
                    self.assertEqual("never-answered" in find_flags(call), is_flagged)
        self.assertNotIn("never-answered", find_flags(make_outbound(status="failed", end_reason="")))
