"""Lists of millions of rows: nobody counts them, and nobody reads past the first few thousand."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

from django.core.paginator import Paginator
from django.db.models import QuerySet

MOST = 5_000  # rows that can be paged through; beyond, filters help more than pages


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts no further than `MOST`: the cost of a list does not grow with its table."""

    @cached_property
    def count(self) -> int:
        rows = cast("QuerySet[Any]", self.object_list)
        return rows.order_by()[:MOST].count()

    @property
    def is_capped(self) -> bool:
        return self.count >= MOST
