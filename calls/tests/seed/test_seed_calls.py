"""Made-up calls fill a scratch database, look like real ones to every page, and leave without a trace."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.test import TransactionTestCase
from django.test.utils import override_settings
from django.utils import timezone

from calls.models import Call, CallFlag, CallHour, PhoneNumber, Turn, Utterance
from calls.stats.queries import figures
from calls.tests.builders import make_call


@override_settings(DEBUG=True)
@pytest.mark.slow
class SeedCallsTests(TransactionTestCase):
    def seed(self, **options: object) -> None:
        call_command("seed_calls", stdout=StringIO(), stderr=StringIO(), **options)

    def test_the_rows_agree_with_the_sums(self) -> None:
        self.seed(calls=60, days=3, numbers=5, failed=10)
        now = timezone.now()
        found = figures(now - timedelta(days=4), now, simulated=False)
        self.assertEqual((found.calls, found.failed), (60, 6))
        self.assertEqual(found.response.n, Turn.objects.answered().count())
        self.assertEqual(CallFlag.objects.filter(name="failed").count(), 6)
        self.assertEqual(PhoneNumber.objects.count(), 5)
        self.assertGreater(Utterance.objects.count(), 60)
        self.assertFalse(CallHour.objects.filter(dirty=True, hour__lt=now - timedelta(hours=2)).exists())

    def test_what_was_seeded_can_be_removed_and_nothing_else(self) -> None:
        real = make_call()
        with pytest.raises(CommandError):
            self.seed(calls=5)
        self.seed(calls=5, days=1, beside=True)
        self.assertEqual(Call.objects.count(), 6)
        self.seed(remove=True)
        self.assertEqual(list(Call.objects.all()), [real])
        self.assertFalse(Utterance.objects.exists())

    @override_settings(DEBUG=False)
    def test_a_server_of_production_is_left_alone(self) -> None:
        with pytest.raises(CommandError):
            self.seed(calls=5)
        self.assertFalse(Call.objects.exists())
