from __future__ import annotations

import pytest
from django.test import TestCase

from calls.staff.waterfall import WIDTH, Waterfall, build_waterfalls
from calls.stats import percentiles
from calls.tests.builders import make_call, make_turn


@pytest.mark.parametrize(
    ("q", "value"), [(0, 15), (5, 15), (30, 20), (40, 20), (50, 35), (95, 50), (100, 50)]
)
def test_a_percentile_is_the_nearest_rank(q: float, value: int) -> None:
    assert percentiles.percentile([40, 15, 50, 20, 35], q) == value


def test_without_values_there_is_no_percentile() -> None:
    assert percentiles.percentile([], 50) is None
    assert percentiles.LatencySummary.of([]) == percentiles.LatencySummary(0, None, None, None)
    assert not percentiles.LatencySummary.of([]).misses_target(1200)


def test_the_target_is_missed_when_more_than_one_in_twenty_is_slow() -> None:
    assert not percentiles.LatencySummary.of([900] * 19 + [5000]).misses_target(1200)
    assert percentiles.LatencySummary.of([900] * 18 + [5000] * 2).misses_target(1200)


class WaterfallTests(TestCase):
    def test_it_draws_the_parts_of_a_turn_side_by_side(self) -> None:
        turn = make_turn(make_call())
        parts = Waterfall(turn, scale_ms=1200, target_ms=1200).parts()
        self.assertEqual(
            [(p.kind, p.ms) for p in parts],
            [("endpointing", 300), ("model-voice", 580), ("bridge", 2), ("line", 48)],
        )
        self.assertAlmostEqual(parts[-1].x + parts[-1].width, 930 / 1200 * WIDTH, delta=0.5)

    def test_it_does_not_guess_a_part_that_was_not_measured(self) -> None:
        turn = make_turn(make_call(), endpointed_ms=None, heard_ms=None)
        waterfall = Waterfall(turn, scale_ms=1200, target_ms=800)
        self.assertEqual([part.kind for part in waterfall.parts()], ["no-breakdown", "bridge"])
        self.assertTrue(waterfall.is_slow)
        self.assertIn("880 ms", waterfall.describe())

    def test_it_draws_nothing_for_a_turn_that_was_never_answered(self) -> None:
        turn = make_turn(make_call(), first_audio_ms=None, response_latency_ms=None)
        waterfall = Waterfall(turn, scale_ms=1200, target_ms=1200)
        self.assertEqual(waterfall.parts(), [])
        self.assertIn("not answered", waterfall.describe())

    def test_all_turns_have_the_same_scale_which_includes_the_slowest(self) -> None:
        call = make_call()
        turns = [make_turn(call), make_turn(call, first_audio_ms=None, sent_ms=None, heard_ms=None)]
        self.assertEqual([w.scale_ms for w in build_waterfalls(turns, 600)], [930, 930])
        self.assertEqual([w.scale_ms for w in build_waterfalls(turns, 1200)], [1200, 1200])
        self.assertEqual(build_waterfalls([], 1200), [])
