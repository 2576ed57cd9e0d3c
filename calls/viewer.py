"""What one of the staff may see and do, asked once per request and handed to whatever makes a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin

from calls.masking import mask_number


@dataclass(frozen=True, slots=True)
class Viewer:
    """By permission, not by role: an admin may cut a role of their own."""

    sees_calls: bool = False
    sees_numbers: bool = False  # whole, that is; everybody sees them masked
    annotates: bool = False  # outcome, note, needs review
    exports: bool = False
    acts: bool = False  # on live calls
    tests: bool = False  # may place a test call
    audits: bool = False  # sees who looked at a call

    @classmethod
    def of(cls, user: AbstractBaseUser | PermissionsMixin | AnonymousUser) -> Self:
        """One or two queries for a user who has not been asked before, none after."""
        if not (getattr(user, "is_active", False) and getattr(user, "is_staff", False)):
            return cls()
        may = user.has_perm  # type: ignore[union-attr]
        return cls(
            sees_calls=may("calls.view_call"),
            sees_numbers=may("calls.view_numbers"),
            annotates=may("calls.change_call"),
            exports=may("calls.export_call"),
            acts=may("calls.act_on_call"),
            tests=may("calls.place_test_call"),
            audits=may("calls.view_auditentry"),
        )

    def number(self, number: str) -> str:
        """A phone number as this viewer may read it; empty when there is none."""
        return number if self.sees_numbers else mask_number(number)
