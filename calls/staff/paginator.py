"""A paginator for tables with millions of rows: it counts and pages through the first few thousand only."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

from django.core.paginator import Paginator
from django.db.models import QuerySet

MAX_ROWS = 5_000  # that can be paged through; filters find the rest


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Stops counting at `MAX_ROWS`, so that the cost of a list does not grow with its table."""

    @cached_property
    def count(self) -> int:
        return min(self._count_beyond_cap, MAX_ROWS)

    @property
    def is_capped(self) -> bool:
        return self._count_beyond_cap > MAX_ROWS

    @cached_property
    def _count_beyond_cap(self) -> int:
        """One more than the cap tells whether there are more."""
        rows = cast("QuerySet[Any]", self.object_list)
        return rows.order_by()[: MAX_ROWS + 1].count()
