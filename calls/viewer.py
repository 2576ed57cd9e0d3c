"""What a member of staff may see and do, resolved once per request and passed to templates and renderers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin

from calls.masking import WITHHELD, mask_number
from calls.phone_numbers import is_withheld


@dataclass(frozen=True, slots=True)
class Viewer:
    """Derived from permissions, not from roles, so that custom groups work too."""

    can_view_calls: bool = False
    can_view_numbers: bool = False  # without it, numbers are masked
    can_annotate: bool = False  # outcome, note, needs review
    can_export: bool = False
    can_act: bool = False  # on live calls
    can_drain: bool = False  # the servers
    can_place_test_calls: bool = False
    can_view_audit_log: bool = False
    can_view_recordings: bool = False

    @classmethod
    def for_user(cls, user: AbstractBaseUser | PermissionsMixin | AnonymousUser) -> Self:
        """One or two queries the first time, none afterwards: Django caches permissions on the user."""
        if not (getattr(user, "is_active", False) and getattr(user, "is_staff", False)):
            return cls()
        has_perm = user.has_perm  # type: ignore[union-attr]
        return cls(
            can_view_calls=has_perm("calls.view_call"),
            can_view_numbers=has_perm("calls.view_numbers"),
            can_annotate=has_perm("calls.change_call"),
            can_export=has_perm("calls.export_call"),
            can_act=has_perm("calls.act_on_call"),
            can_drain=has_perm("calls.drain_worker"),
            can_place_test_calls=has_perm("calls.place_test_call"),
            can_view_audit_log=has_perm("calls.view_auditentry"),
            can_view_recordings=has_perm("calls.view_recording"),
        )

    def display_number(self, number: str) -> str:
        """The phone number, masked unless this viewer may see it in full; empty stays empty.

        Nobody sees the code of a withheld number, which looks like a number that could be called.
        """
        if is_withheld(number):
            return WITHHELD.capitalize()
        return number if self.can_view_numbers else mask_number(number)
