"""Percentiles, in one way everywhere: nearest rank, always with n, never an average alone.

The nearest-rank percentile is a value that was really measured. The 95th of twenty turns is the
nineteenth slowest, not a point between two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from calls.models import CallQuerySet, Turn

MAX_VALUES = 200_000  # of one summary; the newest, where there are more


def percentile(values: Iterable[int], q: float) -> int | None:
    """The smallest value that `q` percent of all values do not exceed; None where there are no values."""
    ranked = sorted(values)
    if not ranked:
        return None
    rank = max(1, math.ceil(q / 100 * len(ranked)))
    return ranked[min(rank, len(ranked)) - 1]


@dataclass(frozen=True, slots=True)
class Summary:
    """How a set of measurements is shown."""

    n: int
    p50: int | None
    p95: int | None
    worst: int | None

    @classmethod
    def of(cls, values: Sequence[int]) -> Self:
        return cls(
            n=len(values),
            p50=percentile(values, 50),
            p95=percentile(values, 95),
            worst=max(values, default=None),
        )

    def misses(self, target_ms: int) -> bool:
        """Whether more than one turn in twenty is slower than `target_ms`."""
        return self.p95 is not None and self.p95 > target_ms


def response_latency(calls: CallQuerySet) -> Summary:
    """Of all answered turns of these calls. One query."""
    turns = Turn.objects.filter(call__in=calls.order_by()).answered().order_by("-id")
    values = turns.values_list("response_latency_ms", flat=True)[:MAX_VALUES]
    return Summary.of([value for value in values if value is not None])


def first_word(calls: CallQuerySet) -> Summary:
    """From the stream's start to the first audible word of the assistant. One query."""
    values = calls.newest_first().filter(time_to_first_audio_ms__isnull=False)
    found = values.values_list("time_to_first_audio_ms", flat=True)[:MAX_VALUES]
    return Summary.of([value for value in found if value is not None])
