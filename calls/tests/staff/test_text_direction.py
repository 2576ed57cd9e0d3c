"""Right-to-left text: each text has its own direction, and none changes the direction of the page."""

from __future__ import annotations

from django.test import TestCase
from django.utils import timezone

from calls.ingest.sanitize import clean_json, clean_text
from calls.models import PhoneNumber
from calls.staff.live.board import render_board
from calls.tests.builders import make_call, make_staff, make_utterance
from calls.viewer import Viewer

HEBREW, ARABIC = "שלום, אני רוצה לקבוע תור ל-12:30", "مرحبا، أريد حجز موعد"
OVERRIDES = [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]


class DirectionTests(TestCase):
    def setUp(self) -> None:
        self.client.force_login(make_staff("view_call", "change_call"))

    def test_each_text_on_the_call_page_has_its_own_direction(self) -> None:
        PhoneNumber.objects.create(number="+15559870000", label=HEBREW)
        call = make_call(caller_name=ARABIC, summary=HEBREW, note=ARABIC, outcome=HEBREW)
        make_utterance(call, text=HEBREW)
        make_utterance(call, text=ARABIC, speaker="assistant")
        page = self.client.get(call.get_absolute_url()).content.decode()
        for html in (
            f'<span class="said" dir="auto">{HEBREW}', f'<span class="said" dir="auto">{ARABIC}',
            f"(<bdi>{ARABIC}</bdi>)", f"<bdi>{HEBREW}</bdi>", f'<p dir="auto">{HEBREW}</p>',
            f'dir="auto" rows="3">{ARABIC}</textarea>',
        ):  # fmt: skip
            self.assertIn(html, page)

    def test_each_text_of_the_lists_has_its_own_direction(self) -> None:
        PhoneNumber.objects.create(number="+15559870000", label=HEBREW)
        make_utterance(make_call(), text=HEBREW)
        self.assertIn(f"<bdi>{HEBREW}</bdi>", self.client.get("/").content.decode())
        found = self.client.get("/calls/", {"q": "שלום"}).content.decode()
        self.assertIn('<span dir="auto"><mark>שלום</mark>', found)

    def test_each_text_of_the_live_board_has_its_own_direction(self) -> None:
        PhoneNumber.objects.create(number="+15559870000", label=HEBREW)
        for text in (HEBREW, ARABIC, f"Hello {HEBREW}"):
            now = timezone.now()
            call = make_call(
                status="in-progress", end_reason="", ended_by="", started_at=now, answered_at=now
            )
            make_utterance(call, text=text)
            board = render_board(Viewer(can_view_calls=True))
            self.assertIn(f'<span dir="auto">{text}</span>', board)
            self.assertIn(f"<bdi>{HEBREW}</bdi>", board)

    def test_characters_that_override_the_direction_are_removed(self) -> None:
        for char in OVERRIDES:
            self.assertEqual(clean_text(f"a{char}b"), "ab")
            self.assertEqual(clean_json({f"k{char}": [f"a{char}b"]}), {"k": ["ab"]})
        marks = "\u200e\u200f\u061c"  # they affect adjacent characters only
        self.assertEqual(clean_text(f"a{marks}b"), f"a{marks}b")
