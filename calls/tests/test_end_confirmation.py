"""Confirmation of ends: which calls are asked for, what ends them, and when it gives up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

from django.db import OperationalError
from django.test import TestCase, override_settings

from calls.end_confirmation import PAUSES_SECONDS, TWILIO, VAPI, EndConfirmer, find_unconfirmed
from calls.models import Call
from calls.tests.builders import make_call
from calls.tests.canned_vendor_api import CannedVendorApi
from calls.twilio.client import TWILIO_API

NOW = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)
ENDED: dict[str, Any] = {
    "started_at": NOW - timedelta(minutes=2),
    "ended_at": NOW - timedelta(seconds=20),
    "end_reason": "caller-hung-up",
}
UNREPORTED = ENDED | {"vapi_call_id": "v1"}
OPEN = ENDED | {"status": "in-progress"}


class EndTestCase(TestCase):
    def setUp(self) -> None:
        self.vendor = CannedVendorApi()
        self.addCleanup(self.vendor.stop)
        self.enterContext(override_settings(**self.vendor.settings()))
        self.time = 0.0
        self.changed: set[str] = set()
        self.confirmer = EndConfirmer(on_change=self.changed.update, clock=lambda: self.time)

    def run_until_idle(self, rounds: int = 8) -> int:
        """Run as often as its pauses allow. Returns the number of requests."""
        before = len(self.vendor.requests)
        for _ in range(rounds):
            self.confirmer.run_once(NOW)
            self.time += max(PAUSES_SECONDS)
        return len(self.vendor.requests) - before


class FindTests(EndTestCase):
    def test_it_finds_the_ends_that_nobody_has_reported(self) -> None:
        for values, vendors in (
            (UNREPORTED, [VAPI]),
            (OPEN, [TWILIO]),
            (UNREPORTED | OPEN, [TWILIO, VAPI]),
            (UNREPORTED | {"end_reason": "worker-lost", "status": "failed"}, [VAPI]),
            (UNREPORTED | {"reported_at": NOW}, []),
            (UNREPORTED | {"vapi_ended_reason": "customer-ended-call"}, []),
            (UNREPORTED | {"ended_at": NOW - timedelta(seconds=5)}, []),
            (UNREPORTED | {"ended_at": NOW - timedelta(minutes=11)}, []),
            (UNREPORTED | {"vapi_call_id": ""}, []),
            (UNREPORTED | {"ended_at": None, "end_reason": "", "status": "in-progress"}, []),
            # Twilio dials the fallback number, or speaks.
            (OPEN | {"end_reason": "assistant-failed"}, []),
        ):
            with self.subTest(values=values):
                call = make_call(**values)
                found = [end.vendor for end in find_unconfirmed(NOW)]
                self.assertEqual(found, vendors)
                call.delete()

    def test_it_asks_only_whom_it_can_ask(self) -> None:
        make_call(**UNREPORTED | OPEN, simulated=True)
        for settings, vendors in (
            ({}, [TWILIO, VAPI]),
            ({"TWILIO_BASE_URL": TWILIO_API}, [VAPI]),  # Twilio does not know simulated calls
            ({"TWILIO_AUTH_TOKENS": ()}, [VAPI]),
            ({"VAPI_API_KEY": ""}, [TWILIO]),
            ({"VAPI_SOCKET_URL": "wss://agent.example.com/"}, [TWILIO]),
        ):
            with self.subTest(settings=settings), override_settings(**settings):
                self.assertEqual([end.vendor for end in find_unconfirmed(NOW)], vendors)


class VapiTests(EndTestCase):
    def test_a_call_that_is_over_is_asked_for_once(self) -> None:
        make_call(**UNREPORTED)
        self.vendor.responses["v1"] = [{"status": "ended"}]
        self.assertEqual(self.run_until_idle(), 1)
        self.assertEqual(self.vendor.control_messages, [])

    def test_a_call_that_runs_is_ended_and_confirmed(self) -> None:
        make_call(**UNREPORTED)
        self.vendor.responses["v1"] = [{"status": "in-progress"}, {"status": "ended"}]
        self.assertEqual(self.run_until_idle(), 3)
        self.assertEqual([message for _, message in self.vendor.control_messages], [{"type": "end-call"}])
        self.assertFalse(Call.objects.get().needs_review)

    def test_a_call_that_vapi_does_not_know_does_not_run(self) -> None:
        make_call(**UNREPORTED)
        self.vendor.responses["v1"] = [404]
        self.assertEqual(self.run_until_idle(), 1)
        self.assertFalse(Call.objects.get().needs_review)

    def test_it_waits_between_attempts(self) -> None:
        make_call(**UNREPORTED)
        self.vendor.responses["v1"] = [503]
        self.confirmer.run_once(NOW)
        self.time = PAUSES_SECONDS[0] - 0.1
        self.confirmer.run_once(NOW)
        self.assertEqual(len(self.vendor.requests), 1)
        self.time = PAUSES_SECONDS[0]
        self.confirmer.run_once(NOW)
        self.assertEqual(len(self.vendor.requests), 2)

    def test_an_end_that_cannot_be_confirmed_needs_review(self) -> None:
        call = make_call(**UNREPORTED)
        self.vendor.responses["v1"] = [503]
        with self.assertLogs("calls.end_confirmation", "ERROR") as logs:
            self.assertEqual(self.run_until_idle(), len(PAUSES_SECONDS) + 1)
        self.assertIn("is not confirmed", logs.output[0])
        call.refresh_from_db()
        self.assertTrue(call.needs_review)
        (event,) = call.events.all()
        self.assertEqual((event.source, event.kind), ("server", "end-unconfirmed"))
        self.assertEqual(event.data["vendor"], VAPI)
        self.assertEqual(self.changed, {call.call_sid})


class TwilioTests(EndTestCase):
    def test_a_call_that_runs_is_hung_up_and_confirmed(self) -> None:
        call = make_call(**OPEN)
        running = {"status": "in-progress"}
        self.vendor.responses[call.call_sid] = [running, running, {"status": "completed"}]
        self.run_until_idle()
        self.assertEqual([request.method for request in self.vendor.requests], ["GET", "POST", "GET"])
        self.assertIn(b"Status=completed", self.vendor.requests[1].body)
        call.refresh_from_db()
        self.assertEqual(
            (call.status, call.end_reason, call.needs_review), ("completed", "caller-hung-up", False)
        )

    def test_what_cannot_be_written_is_asked_for_again(self) -> None:
        call = make_call(**OPEN)
        self.vendor.responses[call.call_sid] = [{"status": "completed"}]
        with (
            mock.patch.object(self.confirmer._rows, "apply_lines", side_effect=OperationalError),
            mock.patch("calls.end_confirmation.connection"),
            self.assertLogs("calls.end_confirmation", "WARNING"),
        ):
            self.confirmer.run_once(NOW)
        self.assertEqual(self.run_until_idle(), 1)
        call.refresh_from_db()
        self.assertEqual(call.status, "completed")

    def test_confirmed_ends_do_not_hold_others_up(self) -> None:
        with mock.patch("calls.end_confirmation.MAX_CALLS", 2):
            for number in range(5):
                make_call(**UNREPORTED | {"vapi_call_id": f"v{number}"})
                self.vendor.responses[f"v{number}"] = [{"status": "ended"}]
            self.assertEqual(self.run_until_idle(), 5)

    def test_a_lost_callback_closes_the_call(self) -> None:
        call = make_call(**OPEN)
        self.vendor.responses[call.call_sid] = [{"status": "completed"}]
        self.assertEqual(self.run_until_idle(), 1)
        call.refresh_from_db()
        self.assertEqual(call.status, "completed")
