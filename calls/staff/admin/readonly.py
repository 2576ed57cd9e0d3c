"""A mixin for rows that staff may read and never change."""

from __future__ import annotations

from django.db.models import Model
from django.http import HttpRequest


class ReadOnlyMixin:
    """For rows that the bridge or the pages write."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
