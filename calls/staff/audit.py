"""Who of the staff looked at a call, and who did something about one."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.utils import timezone

from calls.models import AuditEntry, Call

OPENED = "opened"
AGAIN_AFTER = timedelta(minutes=1)  # a page that is reloaded is one look


def note(
    user: AbstractBaseUser | AnonymousUser, action: str, call: Call | None = None, detail: str = ""
) -> None:
    """Write it down; what cannot be written down must not be done, so errors are raised."""
    AuditEntry.objects.create(
        call=call,
        call_sid=call.call_sid if call else "",
        user_id=user.pk,
        username=user.get_username()[:150],
        action=action,
        detail=detail[:255],
    )


def opened(user: AbstractBaseUser | AnonymousUser, call: Call) -> None:
    """Somebody looks at a call: one entry a minute at most."""
    recent = AuditEntry.objects.filter(
        call=call, action=OPENED, at__gte=timezone.now() - AGAIN_AFTER, username=user.get_username()[:150]
    )
    if not recent.exists():
        note(user, OPENED, call)
