"""The staff pages: dashboard, call page and admin, with Django's test client."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import TestCase, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from calls.models import Call, PhoneNumber
from calls.stats import call_summary
from calls.tests.builders import make_call, make_event, make_staff, make_turn, make_utterance

XSS = "<script>alert('x')</script>"


class PageTests(TestCase):
    def setUp(self) -> None:
        self.client.force_login(make_staff("view_call"))

    def get_page(self, url: str, status: int = 200) -> str:
        response = self.client.get(url)
        self.assertEqual(response.status_code, status)
        return response.content.decode()

    def make_full_call(self, **changes: Any) -> Any:
        call = make_call(answered_at=timezone.now(), **changes)
        make_utterance(call)
        make_utterance(call, speaker="assistant", text="Of course.", started_ms=5880, interrupted=True)
        make_turn(call)
        make_turn(call, end_of_speech_ms=9000, first_audio_ms=None, response_latency_ms=None)
        make_event(call, data={"ms": 412})
        make_event(call, source="carrier", kind="call-completed", at_ms=None)
        return call


class WordTests(TestCase):
    """The words of the pages are the usual ones."""

    def test_pages_show_the_usual_words(self) -> None:
        self.client.force_login(User.objects.create_superuser("root"))
        call = make_call(end_reason="stream-lost", ended_by="us")
        make_event(call)
        number = "/admin/calls/phonenumber/add/"
        for path, shown, gone in (
            (call.get_absolute_url(), "Ended by: ", "Who ended"),
            (call.get_absolute_url(), "<summary>Audit log</summary>", "Activity"),
            (call.get_absolute_url(), "Raw events (1)", "Everything that happened"),
            ("/calls/", "Audio connection lost", "stream-lost</"),
            (number, "Fallback number", "stands in"),
            (number, "AI disclosure", "Tells"),
            (number, "Default (o", "Unknown</option>"),
            ("/set-up", "Run all checks</button>", "Ask all"),
        ):
            with self.subTest(path, shown=shown):
                page = self.client.get(path).content.decode()
                self.assertIn(shown, page)
                self.assertNotIn(gone, page)


class DashboardTests(PageTests):
    def test_without_calls_it_shows_the_first_steps(self) -> None:
        page = self.get_page("/")
        self.assertIn("make demo", page)
        self.assertIn("simulate_call", page)

    def test_it_counts_the_last_day_and_links_to_the_calls(self) -> None:
        call = self.make_full_call(barge_ins=2, twilio_price="-0.03", vapi_cost="0.13")
        failed = make_call(end_reason="assistant-unreachable")
        make_call(started_at=timezone.now() - timedelta(hours=25), end_reason="worker-lost")
        call_summary.update_summaries(list(Call.objects.all()))
        page = self.get_page("/")
        self.assertIn(f'href="/calls/{call.pk}/"', page)
        self.assertIn(failed.get_absolute_url(), page)
        self.assertIn("The assistant could not be reached.", page)
        self.assertIn("50.0 %", page)
        self.assertIn("0.88 s", page)
        self.assertIn("ended=assistant-unreachable", page)
        self.assertNotIn("ended=worker-lost", page)

    def test_it_masks_the_callers(self) -> None:
        make_call(from_number="+15550100134")
        page = self.get_page("/")
        self.assertIn("+1 555 …0134", page)
        self.assertNotIn("+15550100134", page)

    def test_it_shows_the_labels_of_our_numbers(self) -> None:
        PhoneNumber.objects.create(number="+15559870000", label="Front desk")
        make_call(to_number="+15559870000")
        self.assertIn("Front desk", self.get_page("/"))

    def test_it_shows_simulated_calls_until_there_is_a_real_one(self) -> None:
        simulated = make_call(simulated=True)
        self.assertIn("Showing simulated calls", self.get_page("/"))
        make_call()
        self.assertNotIn(simulated.get_absolute_url(), self.get_page("/"))

    @override_settings(LATENCY_TARGET_MS=800)
    def test_it_marks_a_missed_latency_target(self) -> None:
        self.make_full_call()
        self.assertIn("is-slow", self.get_page("/"))

    def test_it_makes_the_same_number_of_queries_for_any_number_of_calls(self) -> None:
        self.make_full_call()
        self.get_page("/")
        with CaptureQueriesContext(connection) as few:
            self.get_page("/")
        for _ in range(12):
            self.make_full_call(end_reason="assistant-failed")
        with self.assertNumQueries(len(few)):
            self.get_page("/")

    def test_it_loads_no_script_or_style_from_another_host(self) -> None:
        self.make_full_call()
        page = self.get_page("/")
        self.assertNotIn('src="http', page)
        self.assertNotIn('rel="stylesheet" href="http', page)
        self.assertIn("calls/calls.css", page)


class CallPageTests(PageTests):
    def test_it_shows_transcript_and_latency(self) -> None:
        call = self.make_full_call(
            summary="Moved.\nTo Thursday.",
            counters={"frames_late": 3},
            end_reason="stream-lost",
            duration_seconds=128,
        )
        page = self.get_page(call.get_absolute_url())
        for text in (
            "Hi, I need to move my appointment.",
            "Of course.",
            "interrupted by the caller",
            "0.88 s",
            "not answered",
            "model and voice 580 ms",
            "connection was lost.",
            "stream started",
            "2 min 08 s",
            "call completed",
            "ms 412",
            "Frames late",
            "Moved.<br>To Thursday.",
            call.call_sid,
        ):
            self.assertIn(text, page)

    def test_it_explains_vapis_ended_reason(self) -> None:
        call = make_call(vapi_ended_reason="call.start.error-get-assistant")
        self.assertIn("Check VAPI_ASSISTANT_ID.", self.get_page(call.get_absolute_url()))

    def test_it_opens_for_a_call_without_any_data(self) -> None:
        call = make_call(status="ringing", end_reason="", from_number="", to_number="", counters=[])
        page = self.get_page(call.get_absolute_url())
        self.assertIn("No transcript yet.", page)
        self.assertIn("No turns yet.", page)

    def test_it_escapes_untrusted_text(self) -> None:
        call = make_call(
            from_number=XSS, to_number=XSS, summary=XSS, end_reason=XSS, vapi_ended_reason=XSS,
            call_sid=XSS, vapi_call_id=XSS, counters={XSS: XSS},
        )  # fmt: skip
        make_utterance(call, text=XSS)
        make_event(call, kind=XSS, data={XSS: XSS})
        make_event(call, index=9, data=[XSS])
        for url in (call.get_absolute_url(), "/"):
            self.assertNotIn("<script>alert", self.get_page(url))

    def test_it_makes_the_same_number_of_queries_for_any_number_of_turns(self) -> None:
        call = self.make_full_call()
        self.get_page(call.get_absolute_url())
        with CaptureQueriesContext(connection) as few:
            self.get_page(call.get_absolute_url())
        for _ in range(30):
            make_utterance(call)
            make_turn(call)
            make_event(call, index=call.events.count() + 1)
        with self.assertNumQueries(len(few)):
            self.get_page(call.get_absolute_url())

    def test_it_limits_the_raw_events(self) -> None:
        call = make_call()
        for index in range(502):
            make_event(call, index=index, kind=f"event-{index}")
        page = self.get_page(call.get_absolute_url())
        self.assertIn("first 500", page)
        self.assertNotIn("event 501", page)

    def test_an_unknown_call_is_not_found(self) -> None:
        self.get_page("/calls/999/", status=404)


class AccessTests(TestCase):
    def test_it_redirects_anonymous_users_to_the_login_page(self) -> None:
        call = make_call()
        for url in ("/", call.get_absolute_url()):
            self.assertRedirects(self.client.get(url), f"/admin/login/?next={url}")

    def test_it_needs_staff_with_the_permission_to_view_calls(self) -> None:
        self.client.force_login(User.objects.create_user("guest"))
        self.assertEqual(self.client.get("/").status_code, 302)
        self.client.force_login(make_staff())
        self.assertEqual(self.client.get("/").status_code, 403)


@pytest.mark.slow
class AdminTests(TestCase):
    def setUp(self) -> None:
        self.client.force_login(User.objects.create_superuser("root"))
        self.call = make_call(end_reason="assistant-failed", ended_by="assistant")
        make_utterance(self.call, text="I need a lighthouse keeper")
        make_turn(self.call)
        make_event(self.call)
        self.number = PhoneNumber.objects.create(number="+15559870000", label="Front desk")
        call_summary.update_summaries([self.call])

    def test_every_list_and_row_opens(self) -> None:
        for name in ("call", "utterance", "turn", "callevent", "phonenumber"):
            response = self.client.get(reverse(f"admin:calls_{name}_changelist"))
            self.assertEqual(response.status_code, 200, name)
        for name, row in (
            ("calls_call", self.call),
            ("calls_utterance", self.call.utterances.get()),
            ("calls_turn", self.call.turns.get()),
            ("calls_callevent", self.call.events.get()),
            ("calls_phonenumber", PhoneNumber.objects.get()),
            ("auth_user", User.objects.get(username="root")),
        ):
            self.assertEqual(
                self.client.get(reverse(f"admin:{name}_change", args=[row.pk])).status_code, 200, name
            )
        for url in (
            "admin:index",
            "admin:auth_user_changelist",
            "admin:auth_user_add",
            "admin:calls_phonenumber_add",
        ):
            self.assertEqual(self.client.get(reverse(url)).status_code, 200, url)

    def test_staff_can_change_their_own_fields_only(self) -> None:
        url = reverse("admin:calls_call_change", args=[self.call.pk])
        empty = {
            f"{name}-{field}": 0
            for name in ("utterances", "turns")
            for field in ("TOTAL_FORMS", "INITIAL_FORMS")
        }
        self.client.post(
            url, empty | {"outcome": "moved", "note": "ok", "status": "busy", "call_sid": "other"}
        )
        self.call.refresh_from_db()
        self.assertEqual((self.call.outcome, self.call.status), ("moved", "completed"))
        self.assertEqual(self.client.get(reverse("admin:calls_call_add")).status_code, 403)
