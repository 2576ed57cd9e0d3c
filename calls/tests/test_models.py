from __future__ import annotations

import itertools
from datetime import timedelta
from functools import reduce
from unittest import mock

from django.db import IntegrityError, transaction
from django.test import SimpleTestCase, TestCase, override_settings
from django.utils import timezone

from calls.models import Call, CallEvent, PhoneNumber
from calls.querysets import CallQuerySet
from calls.statuses import OPEN_STATUSES, TERMINAL_STATUSES, later_status
from calls.tests.builders import make_call, make_event, make_turn, make_utterance


class StatusTests(SimpleTestCase):
    def test_a_status_never_moves_back_whatever_the_order(self) -> None:
        for order in itertools.permutations(("initiated", "ringing", "in-progress", "completed")):
            self.assertEqual(reduce(later_status, order, "queued"), "completed", order)

    def test_the_first_terminal_status_stays(self) -> None:
        for first, second in itertools.permutations(TERMINAL_STATUSES, 2):
            self.assertEqual(later_status(first, second), first)

    def test_an_unknown_status_does_not_replace_a_known_one(self) -> None:
        self.assertEqual(later_status("ringing", "unknown"), "ringing")

    def test_a_known_status_replaces_an_unknown_one(self) -> None:
        self.assertEqual(later_status("", "ringing"), "ringing")

    def test_a_call_with_a_terminal_status_is_over(self) -> None:
        for status in OPEN_STATUSES:
            self.assertFalse(Call(status=status).is_over)
        for status in TERMINAL_STATUSES:
            self.assertTrue(Call(status=status).is_over)


class ConstraintTests(TestCase):
    def assert_rejected(self, build: object, *args: object, **changes: object) -> None:
        with self.assertRaises(IntegrityError), transaction.atomic():
            build(*args, **changes)  # type: ignore[operator]

    def test_it_rejects_a_second_row_for_a_call_sid(self) -> None:
        self.assert_rejected(make_call, call_sid=make_call().call_sid)

    def test_it_rejects_an_unknown_status(self) -> None:
        self.assert_rejected(make_call, status="unknown")

    def test_it_rejects_a_second_child_with_the_same_index(self) -> None:
        call = make_call()
        make_utterance(call, index=3)
        self.assert_rejected(make_utterance, call, index=3)
        make_turn(call, number=3)
        self.assert_rejected(make_turn, call, number=3)
        make_event(call, index=3)
        self.assert_rejected(make_event, call, index=3)

    def test_each_source_numbers_its_own_events(self) -> None:
        call = make_call()
        for source in ("stream", "carrier", "vapi"):
            make_event(call, index=0, source=source)
        self.assertEqual(CallEvent.objects.count(), 3)

    def test_it_rejects_an_unknown_speaker(self) -> None:
        self.assert_rejected(make_utterance, make_call(), speaker="user")

    def test_it_rejects_turn_zero_and_a_negative_latency(self) -> None:
        self.assert_rejected(make_turn, make_call(), number=0)
        self.assert_rejected(make_turn, make_call(), response_latency_ms=-1)

    def test_it_accepts_a_turn_without_an_answer(self) -> None:
        turn = make_turn(make_call(), first_audio_ms=None, response_latency_ms=None)
        self.assertFalse(turn.was_answered)


class CallTests(TestCase):
    def test_it_filters_live_and_open_calls(self) -> None:
        live, ringing, _ = (make_call(status=s) for s in ("in-progress", "ringing", "completed"))
        self.assertEqual(list(Call.objects.live()), [live])
        self.assertEqual(set(Call.objects.open()), {live, ringing})
        self.assertTrue(live.is_live)

    def test_the_filter_for_failed_calls_agrees_with_is_failed(self) -> None:
        reasons = ("caller-hung-up", "assistant-unreachable", "at-capacity", "limit-reached", "")
        calls = [make_call(end_reason=reason) for reason in reasons]
        calls.append(make_call(end_reason="", status="failed"))
        self.assertEqual(set(Call.objects.failed()), {call for call in calls if call.is_failed})
        self.assertEqual(Call.objects.failed().count(), 3)

    def test_pages_count_simulated_calls_until_there_is_a_real_one(self) -> None:
        simulated = make_call(simulated=True)
        self.assertEqual(list(Call.objects.real_or_simulated()), [simulated])
        real = make_call()
        self.assertEqual(list(Call.objects.real_or_simulated()), [real])

    def search(self, prefix: str) -> CallQuerySet:
        columns = ("call_sid", "vapi_call_id", "from_number", "to_number")
        return Call.objects.search_prefixes([(column, prefix) for column in columns])

    def test_it_searches_sids_and_numbers_by_prefix(self) -> None:
        call = make_call(from_number="+4420794600", vapi_call_id="0198c5d1-7777")
        make_call(from_number="anonymous", to_number="")
        for prefix in ("+4420", "0198c", call.call_sid, "+155598"):
            self.assertEqual(list(self.search(prefix)), [call], prefix)
        self.assertFalse(self.search("%").exists())

    def test_a_prefix_with_many_matches_finds_the_newest_first(self) -> None:
        calls = [make_call(from_number=f"+4420794600{n}", started_at=timezone.now()) for n in range(3)]
        make_call(from_number="+4930", call_sid="CB" + "0" * 32)
        with mock.patch("calls.querysets.MANY_MATCHES", 2):
            for prefix in ("+44", "CA"):
                found = self.search(prefix).newest_first()
                self.assertEqual(list(found), calls[::-1], prefix)
            self.assertFalse(self.search("%").exists())

    def test_it_orders_the_newest_first(self) -> None:
        now = timezone.now()
        older = make_call(started_at=now - timedelta(hours=1))
        newer = [make_call(started_at=now), make_call(started_at=now)]
        self.assertEqual(list(Call.objects.newest_first()), [newer[1], newer[0], older])

    def test_its_duration_is_that_of_twilio_or_else_by_our_clock(self) -> None:
        now = timezone.now()
        self.assertEqual(make_call(duration_seconds=128).duration(), timedelta(seconds=128))
        self.assertIsNone(make_call().duration())
        early = make_call(started_at=now, ended_at=now - timedelta(seconds=1))
        self.assertEqual(early.duration(), timedelta())

    def test_it_names_an_end_reason_that_is_not_in_the_table(self) -> None:
        self.assertIn("unknown-reason", Call(end_reason="unknown-reason").status_sentence())
        self.assertEqual(Call(status="ringing").status_sentence(), "Ringing.")

    def test_its_string_masks_the_number(self) -> None:
        call = make_call(from_number="+15550100134")
        self.assertNotIn("0100134", str(call))
        self.assertIn("0134", str(call))
        self.assertNotIn("9870000", str(PhoneNumber(number="+15559870000", label="Front desk")))
        self.assertEqual(str(make_utterance(call, text="Hello")), "caller: Hello")
        self.assertEqual(str(make_turn(call)), "turn 1")
        self.assertEqual(str(make_event(call, kind="dtmf")), "dtmf")

    def test_our_number_depends_on_the_direction(self) -> None:
        numbers = {"from_number": "+1", "to_number": "+2"}
        inbound, outbound = Call(**numbers), Call(direction="outbound-api", **numbers)
        self.assertEqual((inbound.our_number, inbound.their_number), ("+2", "+1"))
        self.assertEqual((outbound.our_number, outbound.their_number), ("+1", "+2"))

    @override_settings(FALLBACK_NUMBER="+15550100199")
    def test_the_fallback_is_that_of_the_number_or_else_of_the_settings(self) -> None:
        own = PhoneNumber(fallback_number="+15550101111")
        self.assertEqual(PhoneNumber.fallback_for(own), "+15550101111")
        own.active = False
        for number in (own, PhoneNumber(), None):
            self.assertEqual(PhoneNumber.fallback_for(number), "+15550100199")
