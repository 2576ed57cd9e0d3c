"""Nearest-rank percentiles, always shown together with the number of values.

A nearest-rank percentile is a value that was measured: the 95th of twenty turns is the nineteenth slowest,
not a point between two. Pages show hundredths of a second, so aggregates count latencies in buckets of a
hundredth. A percentile of the buckets is the percentile of the rows, as pages show it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

BUCKET_MS = 10


def bucket(ms: int) -> int:
    """Milliseconds in hundredths of a second, rounded half up, as pages show them."""
    return (ms + BUCKET_MS // 2) // BUCKET_MS


def percentile(values: Iterable[int], q: float) -> int | None:
    """The smallest value that at least `q` percent of the values do not exceed. None without values."""
    return _percentile(Counter(values), q)


def _percentile(counts: Mapping[int, int], q: float) -> int | None:
    rank = max(1, math.ceil(q / 100 * sum(counts.values())))
    for value in sorted(counts):
        rank -= counts[value]
        if rank <= 0:
            return value
    return None


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Percentiles of some latencies, in ms."""

    n: int
    p50: int | None
    p95: int | None
    worst: int | None

    @classmethod
    def of(cls, values_ms: Iterable[int]) -> Self:
        return cls._of(Counter(values_ms), 1)

    @classmethod
    def of_buckets(cls, counts: Mapping[int, int]) -> Self:
        """From the number of values in each bucket."""
        return cls._of(counts, BUCKET_MS)

    @classmethod
    def _of(cls, counts: Mapping[int, int], unit_ms: int) -> Self:
        values = [_percentile(counts, 50), _percentile(counts, 95), max(counts, default=None)]
        p50, p95, worst = (None if value is None else value * unit_ms for value in values)
        return cls(sum(counts.values()), p50, p95, worst)

    def misses_target(self, target_ms: int) -> bool:
        """Whether the 95th percentile is over the target."""
        return self.p95 is not None and self.p95 > target_ms
