"""The page of a call: text that was not played, notes, audit log."""

from __future__ import annotations

from django.contrib.admin.models import LogEntry
from django.test import SimpleTestCase, TestCase
from django.urls import reverse

from calls.models import AuditEntry, Utterance
from calls.staff.call_detail import split_heard
from calls.tests.builders import make_call, make_event, make_staff, make_utterance


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
        self.assertIn("Activity log", page)
        self.assertEqual(AuditEntry.objects.count(), 2)


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
                shown = page[page.index('<div id="call-body">') : page.index("<details")]
                self.assertEqual(shown.count(sentence), 2, "in the header and in the timeline")
                self.assertIn(f"Ended by: {ended_by}.", shown)
                if end_reason != "caller-hung-up":
                    self.assertNotIn("hung up", shown)
