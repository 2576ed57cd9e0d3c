"""Percentiles, in one way everywhere: nearest rank, always with n, never an average alone.

The nearest-rank percentile is a value that was really measured. The 95th of twenty turns is the
nineteenth slowest, not a point between two. Pages show hundredths of a second, so sums over many calls
are kept as counts of hundredths: the percentile of those is the percentile of the rows as it is shown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self


def bucket(ms: int) -> int:
    """Milliseconds as pages show them: in hundredths of a second, a half rounded up."""
    return (ms + 5) // 10


def percentile(values: Iterable[int], q: float) -> int | None:
    """The smallest value that `q` percent of all values do not exceed; None where there are no values."""
    return _percentile(Counter(values), q)


def _percentile(counts: Mapping[int, int], q: float) -> int | None:
    rank = max(1, math.ceil(q / 100 * sum(counts.values())))
    for value in sorted(counts):
        rank -= counts[value]
        if rank <= 0:
            return value
    return None


@dataclass(frozen=True, slots=True)
class Summary:
    """How a set of measurements is shown, in ms."""

    n: int
    p50: int | None
    p95: int | None
    worst: int | None

    @classmethod
    def of(cls, values: Iterable[int]) -> Self:
        return cls._of(Counter(values), 1)

    @classmethod
    def of_buckets(cls, counts: Mapping[int, int]) -> Self:
        """Of counts by bucket."""
        return cls._of(counts, 10)

    @classmethod
    def _of(cls, counts: Mapping[int, int], unit: int) -> Self:
        found = [_percentile(counts, 50), _percentile(counts, 95), max(counts, default=None)]
        p50, p95, worst = (None if value is None else value * unit for value in found)
        return cls(sum(counts.values()), p50, p95, worst)

    def misses(self, target_ms: int) -> bool:
        """Whether more than one turn in twenty is slower than `target_ms`."""
        return self.p95 is not None and self.p95 > target_ms
