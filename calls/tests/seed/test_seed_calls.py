"""`seed_calls` fills an empty database with calls that pages count, and removes them completely."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.test import TransactionTestCase
from django.test.utils import override_settings
from django.utils import timezone

from calls.models import Call, CallFlag, CallHour, PhoneNumber, Turn, Utterance
from calls.staff.search import search_calls
from calls.stats.queries import report_by_hour
from calls.tests.builders import make_call
from calls.viewer import Viewer


@override_settings(DEBUG=True)
@pytest.mark.slow
class SeedCallsTests(TransactionTestCase):
    def seed(self, **options: object) -> None:
        call_command("seed_calls", stdout=StringIO(), stderr=StringIO(), **options)

    def test_the_statistics_agree_with_the_rows(self) -> None:
        self.seed(calls=60, days=3, numbers=5, failed=10)
        now = timezone.now()
        stats = report_by_hour(now - timedelta(days=4), now, simulated=False).total
        self.assertEqual((stats.calls, stats.failed), (60, 6))
        self.assertEqual(stats.response_latency.n, Turn.objects.answered().count())
        self.assertEqual(CallFlag.objects.filter(name="failed").count(), 6)
        self.assertEqual(PhoneNumber.objects.count(), 5)
        self.assertGreater(Utterance.objects.count(), 60)
        self.assertFalse(CallHour.objects.filter(dirty=True, hour__lt=now - timedelta(hours=2)).exists())

    def test_seeded_calls_are_found_like_others(self) -> None:
        self.seed(calls=5, days=1, numbers=2)
        viewer = Viewer(can_view_calls=True, can_view_numbers=True)
        for call in Call.objects.all():
            for number in (call.from_number, call.to_number):
                for text in (number, number[-4:], number[-7:], f"({number[2:5]}) {number[5:8]}-{number[8:]}"):
                    found = search_calls(Call.objects.all(), text, viewer).calls
                    self.assertIn(call.pk, {match.pk for match in found}, text)

    def test_remove_deletes_only_the_seeded_calls(self) -> None:
        real = make_call()
        with pytest.raises(CommandError):
            self.seed(calls=5)
        self.seed(calls=5, days=1, beside=True)
        self.assertEqual(Call.objects.count(), 6)
        self.seed(remove=True)
        self.assertEqual(list(Call.objects.all()), [real])
        self.assertFalse(Utterance.objects.exists())

    @override_settings(DEBUG=False)
    def test_it_rejects_a_production_database(self) -> None:
        with pytest.raises(CommandError):
            self.seed(calls=5)
        self.assertFalse(Call.objects.exists())
