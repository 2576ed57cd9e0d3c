from __future__ import annotations

import itertools
from datetime import timedelta
from unittest import mock

from django.db import IntegrityError, transaction
from django.test import TestCase
from django.utils import timezone

from calls.models import OPEN_STATUSES, TERMINAL_STATUSES, Call, CallEvent, PhoneNumber, later_status
from calls.tests.builders import make_call, make_event, make_turn, make_utterance


class StatusTests(TestCase):
    def test_it_never_moves_back_whatever_the_order(self) -> None:
        heard = ("initiated", "ringing", "in-progress", "completed")
        for order in itertools.permutations(heard):
            call = make_call(status="queued")
            for status in order:
                Call.objects.advance(call.call_sid, status)
            call.refresh_from_db()
            self.assertEqual(call.status, "completed", order)

    def test_it_keeps_the_first_terminal_status(self) -> None:
        for first, second in itertools.permutations(TERMINAL_STATUSES, 2):
            self.assertEqual(later_status(first, second), first)
            call = make_call(status=first)
            self.assertFalse(Call.objects.advance(call.call_sid, second))
            call.refresh_from_db()
            self.assertEqual(call.status, first)

    def test_it_does_not_believe_a_status_that_it_does_not_know(self) -> None:
        self.assertEqual(later_status("ringing", "exploded"), "ringing")
        call = make_call(status="ringing")
        self.assertFalse(Call.objects.advance(call.call_sid, "exploded"))

    def test_it_takes_any_known_status_for_one_that_it_does_not_know(self) -> None:
        self.assertEqual(later_status("", "ringing"), "ringing")

    def test_it_tells_whether_it_moved(self) -> None:
        call = make_call(status="ringing")
        self.assertTrue(Call.objects.advance(call.call_sid, "in-progress"))
        self.assertFalse(Call.objects.advance(call.call_sid, "in-progress"))
        self.assertFalse(Call.objects.advance("CA-unknown", "completed"))

    def test_it_knows_what_is_over(self) -> None:
        for status in OPEN_STATUSES:
            self.assertFalse(Call(status=status).is_over)
        for status in TERMINAL_STATUSES:
            self.assertTrue(Call(status=status).is_over)


class ConstraintTests(TestCase):
    def refuses(self, make: object, *args: object, **changes: object) -> None:
        with self.assertRaises(IntegrityError), transaction.atomic():
            make(*args, **changes)  # type: ignore[operator]

    def test_it_has_one_row_for_one_call_sid(self) -> None:
        self.refuses(make_call, call_sid=make_call().call_sid)

    def test_it_refuses_a_status_that_twilio_does_not_have(self) -> None:
        self.refuses(make_call, status="exploded")

    def test_it_has_one_row_for_one_index(self) -> None:
        call = make_call()
        make_utterance(call, index=3)
        self.refuses(make_utterance, call, index=3)
        make_turn(call, number=3)
        self.refuses(make_turn, call, number=3)
        make_event(call, index=3)
        self.refuses(make_event, call, index=3)

    def test_it_numbers_the_events_of_each_source_by_themselves(self) -> None:
        call = make_call()
        for source in ("stream", "carrier", "vapi"):
            make_event(call, index=0, source=source)
        self.assertEqual(CallEvent.objects.count(), 3)

    def test_it_knows_two_speakers(self) -> None:
        self.refuses(make_utterance, make_call(), speaker="user")

    def test_it_counts_turns_from_one_and_time_forwards(self) -> None:
        self.refuses(make_turn, make_call(), number=0)
        self.refuses(make_turn, make_call(), response_latency_ms=-1)

    def test_it_keeps_a_turn_that_was_never_answered(self) -> None:
        turn = make_turn(make_call(), first_audio_ms=None, response_latency_ms=None)
        self.assertFalse(turn.was_answered)


class QuestionTests(TestCase):
    def test_it_finds_the_live_the_open_and_the_terminal(self) -> None:
        live, ringing, over = (make_call(status=s) for s in ("in-progress", "ringing", "completed"))
        self.assertEqual(list(Call.objects.live()), [live])
        self.assertEqual(set(Call.objects.open()), {live, ringing})
        self.assertEqual(list(Call.objects.terminal()), [over])
        self.assertTrue(live.is_live)

    def test_it_finds_what_failed_in_the_same_way_as_the_row_says_it(self) -> None:
        reasons = ("caller-hung-up", "assistant-unreachable", "at-capacity", "limit-reached", "")
        calls = [make_call(end_reason=reason) for reason in reasons]
        calls.append(make_call(end_reason="", status="failed"))
        self.assertEqual(set(Call.objects.failed()), {call for call in calls if call.is_failed})
        self.assertEqual(Call.objects.failed().count(), 3)

    def test_it_finds_the_answered(self) -> None:
        answered = make_call(answered_at=timezone.now())
        make_call()
        self.assertEqual(list(Call.objects.answered()), [answered])

    def test_it_shows_simulated_calls_until_there_is_a_real_one(self) -> None:
        simulated = make_call(simulated=True)
        self.assertEqual(list(Call.objects.shown()), [simulated])
        real = make_call()
        self.assertEqual(list(Call.objects.shown()), [real])

    def test_it_finds_by_the_beginning_of_a_sid_or_a_number(self) -> None:
        call = make_call(from_number="+4420794600", vapi_call_id="0198c5d1-7777")
        make_call(from_number="anonymous", to_number="")
        for beginning in ("+4420", "0198c", call.call_sid, "+155598"):
            self.assertEqual(list(Call.objects.found_by(beginning)), [call], beginning)
        self.assertFalse(Call.objects.found_by("%").exists())

    def test_it_finds_what_many_begin_with_newest_first(self) -> None:
        calls = [make_call(from_number=f"+4420794600{n}", started_at=timezone.now()) for n in range(3)]
        make_call(from_number="+4930", call_sid="CB" + "0" * 32)
        with mock.patch("calls.models.MANY", 2):
            for beginning in ("+44", "CA"):
                found = Call.objects.found_by(beginning).newest_first()
                self.assertEqual(list(found), calls[::-1], beginning)
            self.assertFalse(Call.objects.found_by("%").exists())

    def test_it_orders_the_newest_first(self) -> None:
        moment = timezone.now()
        older = make_call(started_at=moment - timedelta(hours=1))
        newer = [make_call(started_at=moment), make_call(started_at=moment)]
        self.assertEqual(list(Call.objects.newest_first()), [newer[1], newer[0], older])

    def test_it_measures_its_length(self) -> None:
        moment = timezone.now()
        self.assertEqual(make_call(duration_seconds=128).length(), timedelta(seconds=128))
        self.assertIsNone(make_call().length())
        early = make_call(started_at=moment, ended_at=moment - timedelta(seconds=1))
        self.assertEqual(early.length(), timedelta())

    def test_it_speaks_of_a_reason_that_it_does_not_know(self) -> None:
        self.assertIn("sun-exploded", Call(end_reason="sun-exploded").ended_in_words())
        self.assertEqual(Call(status="ringing").ended_in_words(), "Ringing.")

    def test_its_name_masks_the_number(self) -> None:
        call = make_call(from_number="+15550100134")
        self.assertNotIn("0100134", str(call))
        self.assertIn("0134", str(call))
        self.assertNotIn("9870000", str(PhoneNumber(number="+15559870000", label="Front desk")))
        self.assertEqual(str(make_utterance(call, text="Hello")), "caller: Hello")
        self.assertEqual(str(make_turn(call)), "turn 1")
        self.assertEqual(str(make_event(call, kind="dtmf")), "dtmf")
