"""The page of a call: text that was not played, why a turn was slow, neighbors, notes, activity."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from unittest import mock

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.db import DatabaseError
from django.test import SimpleTestCase, TestCase
from django.urls import reverse
from django.utils import timezone

from calls.models import AuditEntry, Call, Turn, Utterance
from calls.models.staff import ACTION_LABELS
from calls.staff.audit import OPENED
from calls.staff.call_detail import render_call, split_heard
from calls.staff.staff_messages import SAY
from calls.staff.waterfall import Waterfall
from calls.tests.builders import make_call, make_event, make_staff, make_turn, make_utterance
from calls.viewer import Viewer


class SplitHeardTests(SimpleTestCase):
    def split(self, **changes: object) -> tuple[str, str]:
        values = {"text": "one two three four", "started_ms": 1000, "ended_ms": 2000, "interrupted": True}
        return split_heard(Utterance(**(values | changes)))

    def test_the_text_is_split_by_the_share_of_audio_played(self) -> None:
        self.assertEqual(self.split(unheard_ms=1000), ("one two", "three four"))
        self.assertEqual(self.split(unheard_ms=3000), ("one", "two three four"))
        self.assertEqual(self.split(unheard_ms=10), ("one two three four", ""))

    def test_missing_times_leave_the_text_whole(self) -> None:
        unsplit = ("one two three four", "")
        self.assertEqual(self.split(unheard_ms=None), unsplit)
        self.assertEqual(self.split(unheard_ms=1000, interrupted=False), unsplit)
        self.assertEqual(self.split(unheard_ms=1000, started_ms=None), unsplit)

    def test_nothing_is_heard_when_no_audio_was_played(self) -> None:
        self.assertEqual(self.split(unheard_ms=1000, ended_ms=1000), ("", "one two three four"))


class HeadTests(TestCase):
    def setUp(self) -> None:
        self.client.force_login(make_staff("view_call"))

    def test_the_page_says_first_why_the_slowest_turn_was_slow(self) -> None:
        for changes, sentence in (
            ({"response_latency_ms": 6500, "model_ms": 3700}, "took 6.50 s, of which the model took 3.70 s."),
            ({"response_latency_ms": 6500, "voice_ms": 4000}, "of which the voice took 4.00 s."),
            ({"response_latency_ms": 6500}, "took 6.50 s. There is no breakdown of it."),
            ({"response_latency_ms": 900}, "Slowest response: turn 1, 0.90 s."),
        ):
            call = make_call()
            make_turn(call, **{"model_ms": None, "voice_ms": None, **changes})
            page = self.client.get(call.get_absolute_url()).content.decode()
            self.assertIn(sentence, page)
            self.assertLess(page.index(sentence), page.index("Transcript"))

    def test_ids_can_be_copied_and_lead_to_other_calls(self) -> None:
        call = make_call(stream_sid="MZ1", vapi_call_id="v-1", assistant_id="a-1")
        page = self.client.get(call.get_absolute_url()).content.decode()
        for text in (call.call_sid, "MZ1", "v-1", "a-1"):
            self.assertIn(f'data-copy="{text}"', page)
        self.assertIn(f'href="/calls/?caller={call.pk}">All calls of this caller</a>', page)
        self.assertIn('href="/calls/?assistant=a-1">', page)


class NoteTests(TestCase):
    def setUp(self) -> None:
        self.call = make_call()
        self.url = reverse("call_note", args=[self.call.pk])
        self.user = make_staff("view_call", "change_call")
        self.client.force_login(self.user)

    def test_a_note_is_saved_and_audited(self) -> None:
        data = {"outcome": "booked", "note": "<b>Thursday</b>", "needs_review": "on"}
        page = self.client.post(self.url, data, follow=True).content.decode()
        self.assertIn("&lt;b&gt;Thursday", page)
        self.assertIn("Changes saved.", page)
        self.call.refresh_from_db()
        self.assertEqual((self.call.outcome, self.call.needs_review), ("booked", True))
        self.assertEqual(LogEntry.objects.get().object_id, str(self.call.pk))
        entry = AuditEntry.objects.get(action="note")
        self.assertEqual((entry.username, entry.detail), (self.user.username, "outcome, note, needs review"))

    def test_an_unchanged_note_is_not_logged(self) -> None:
        self.client.post(self.url, {"outcome": "", "note": ""})
        self.assertFalse(LogEntry.objects.exists())

    def test_a_change_that_cannot_be_audited_is_not_saved(self) -> None:
        failure = mock.patch("calls.staff.audit.record", side_effect=DatabaseError)
        with failure, self.assertRaises(DatabaseError):
            self.client.post(self.url, {"outcome": "booked", "note": ""})
        self.call.refresh_from_db()
        self.assertEqual((self.call.outcome, LogEntry.objects.count()), ("", 0))

    def test_it_rejects_an_outcome_that_is_too_long(self) -> None:
        page = self.client.post(self.url, {"outcome": "x" * 65, "note": ""}, follow=True).content.decode()
        self.assertIn("Outcome: Ensure this value has at most 64 characters", page)


class AuditTests(TestCase):
    def test_opening_a_call_is_recorded_once_a_minute(self) -> None:
        call = make_call()
        make_utterance(call)
        self.client.force_login(make_staff("view_call"))
        for _ in range(3):
            self.client.get(call.get_absolute_url())
        self.assertEqual(AuditEntry.objects.get().action, "opened")
        self.client.force_login(make_staff("view_call", "view_auditentry"))
        page = self.client.get(call.get_absolute_url()).content.decode()
        self.assertIn("Audit log", page)
        self.assertIn("Opened the call", page)
        self.assertEqual(AuditEntry.objects.count(), 2)

    def test_each_action_that_the_code_records_has_a_label(self) -> None:
        recorded = set()
        for path in (settings.BASE_DIR / "calls").rglob("*.py"):
            if "tests" not in path.parts:
                recorded |= set(re.findall(r"audit\.record\(request\.user, \"([a-z-]+)\"", path.read_text()))
        self.assertGreaterEqual(len(recorded), 6)
        self.assertEqual(recorded - ACTION_LABELS.keys(), set())
        self.assertEqual({SAY, OPENED} - ACTION_LABELS.keys(), set())


class EndTests(TestCase):
    """The header and the timeline show the call's end reason, also if the stream reported another."""

    def test_the_end_reason_is_shown_in_the_header_and_the_timeline(self) -> None:
        self.client.force_login(make_staff("view_call"))
        for end_reason, ended_by, sentence in (
            ("hung-up-by-staff", "staff", "Staff ended the call."),
            ("transferred", "staff", "The caller was transferred to a person, as requested."),
            ("transferred", "assistant", "The caller was transferred to a person, as requested."),
            ("caller-hung-up", "caller", "The caller hung up."),
            ("worker-lost", "us", "The server that handled the call stopped in the middle of it."),
        ):
            with self.subTest(end_reason, ended_by=ended_by):
                call = make_call(end_reason=end_reason, ended_by=ended_by)
                make_event(call, kind="stream-ended", data={"reason": "caller-hung-up"}, at_ms=9000)
                page = self.client.get(call.get_absolute_url()).content.decode()
                shown = page[page.index('id="call-head"') : page.index("<details id=")]
                self.assertEqual(shown.count(sentence), 2, "in the header and in the timeline")
                shown_side = "this server" if ended_by == "us" else ended_by
                self.assertIn(f"Ended by: {shown_side}.", shown)
                if end_reason != "caller-hung-up":
                    self.assertNotIn("hung up", shown)


class LiveUpdateTests(TestCase):
    """The page of a call that is dialed, connected and over."""

    def test_it_is_updated_from_the_first_status_to_the_end(self) -> None:
        self.client.force_login(make_staff("view_call", "act_on_call"))
        viewer = Viewer(can_view_calls=True, can_act=True)
        for status, end_reason, is_updated, has_menu in (
            ("queued", "", True, False),
            ("ringing", "", True, False),
            ("in-progress", "", True, True),
            ("in-progress", "caller-hung-up", False, False),
            ("completed", "caller-hung-up", False, False),
            ("failed", "", False, False),
        ):
            with self.subTest(status, end_reason=end_reason):
                call = make_call(status=status, end_reason=end_reason, vapi_call_id="vapi-1")
                page = self.client.get(call.get_absolute_url()).content.decode()
                self.assertEqual(f'data-live="/live?call={call.pk}"' in page, is_updated)
                for html in (page, render_call(call, viewer)):
                    self.assertEqual(f"/calls/{call.pk}/say" in html, has_menu)
                self.assertIn('<div id="call-actions">', render_call(call, viewer))
                self.assertNotIn(f"/calls/{call.pk}/say", render_call(call, replace(viewer, can_act=False)))


class SlownessTests(SimpleTestCase):
    """The sentence on top of the page that says why the slowest turn was slow."""

    def test_it_names_the_part_that_took_longest(self) -> None:
        for changes, sentence in (
            ({"response_latency_ms": 6500, "model_ms": 3700, "voice_ms": 900},
             "Turn 5 took 6.50 s, of which the model took 3.70 s."),
            ({"response_latency_ms": 6500, "model_ms": 300, "voice_ms": 4000, "transcriber_ms": 100},
             "Turn 5 took 6.50 s, of which the voice took 4.00 s."),
            ({"response_latency_ms": 6500, "model_ms": 300, "voice_ms": 200, "transcriber_ms": 3000},
             "Turn 5 took 6.50 s, of which the transcriber took 3.00 s."),
            ({"response_latency_ms": 6500, "model_ms": 300, "endpointed_ms": 6500},
             "Turn 5 took 6.50 s, of which endpointing took 1.50 s."),
            ({"response_latency_ms": 2000, "model_ms": 100, "endpointing_ms": 1700},
             "Turn 5 took 2.00 s, of which endpointing took 1.70 s."),
            # Longer than the whole: it ran while the caller spoke.
            ({"response_latency_ms": 2000, "model_ms": 2500, "voice_ms": 400},
             "Turn 5 took 2.00 s, of which the voice took 0.40 s."),
            ({"response_latency_ms": 2000}, "Turn 5 took 2.00 s. There is no breakdown of it."),
            ({"response_latency_ms": 2000, "transcriber_ms": 50},
             "Turn 5 took 2.00 s. There is no breakdown of it."),
            ({"response_latency_ms": 1200, "model_ms": 900}, "Slowest response: turn 5, 1.20 s."),
            ({"response_latency_ms": None}, "Turn 5 was not answered."),
        ):  # fmt: skip
            turn = Turn(number=5, end_of_speech_ms=5000, **changes)
            self.assertEqual(Waterfall(turn, scale_ms=7000, target_ms=1200).explain(), sentence)


class NeighborTests(TestCase):
    """Previous and next follow the list from which the page was opened."""

    def setUp(self) -> None:
        self.client.force_login(make_staff("view_call", "change_call"))
        now = timezone.now()
        # In pairs of the same time and the same duration, which only the id tells apart.
        self.calls = [
            make_call(
                started_at=now - timedelta(hours=number // 2),
                duration_seconds=None if number == 5 else number % 4 // 2,
                direction="outbound-api" if number % 3 == 0 else "inbound",
            )
            for number in range(6)
        ]

    def get_links(self, call: Call, query: str) -> tuple[str | None, str | None]:
        page = self.client.get(call.get_absolute_url(), {"list": query} if query else {}).content.decode()
        matches = [re.search(rf'rel="{rel}" href="/calls/(\d+)/', page) for rel in ("prev", "next")]
        return tuple(match and match[1] for match in matches)  # type: ignore[return-value]

    def test_they_are_the_neighbors_in_the_list(self) -> None:
        make_call(simulated=True)
        for query in (
            "", "sort=time", "sort=-length", "sort=length", "direction=outbound",
            "direction=inbound&sort=-length",
        ):  # fmt: skip
            page = self.client.get(f"/calls/?{query}").content.decode()
            listed = re.findall(r'<a href="/calls/(\d+)/[^"]*"><time', page)
            self.assertGreater(len(listed), 1)
            for number, pk in enumerate(listed):
                with self.subTest(query, number=number):
                    expected = (
                        listed[number - 1] if number else None,
                        listed[number + 1] if number + 1 < len(listed) else None,
                    )
                    self.assertEqual(self.get_links(Call.objects.get(pk=pk), query), expected)

    def test_a_call_without_the_sorted_value_has_none(self) -> None:
        self.assertEqual(self.get_links(self.calls[5], "sort=-length"), (None, None))

    def test_a_simulated_call_has_simulated_neighbors(self) -> None:
        simulated = [make_call(simulated=True) for _ in range(2)]
        self.assertEqual(self.get_links(simulated[0], ""), (str(simulated[1].pk), None))

    def test_the_list_is_kept_when_a_note_is_saved(self) -> None:
        path = reverse("call_note", args=[self.calls[0].pk]) + "?list=ended%3Dfailed"
        response = self.client.post(path, {"note": "ok"})
        self.assertEqual(response["Location"], f"{self.calls[0].get_absolute_url()}?list=ended%3Dfailed")

    def test_raw_events_are_in_the_order_of_time(self) -> None:
        call = self.calls[0]
        for kind, source, at_ms in (
            ("third", "stream", 900), ("last", "carrier", None), ("first", "vapi", 100),
            ("second", "stream", 500),
        ):  # fmt: skip
            make_event(call, kind=kind, source=source, at_ms=at_ms)
        page = self.client.get(call.get_absolute_url()).content.decode()
        raw = page[page.index("Raw events (4)") :]
        self.assertEqual(
            re.findall(r'<td class="nowrap">(\w+)</td>', raw), ["first", "second", "third", "last"]
        )
