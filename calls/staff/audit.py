"""The audit log: which member of staff opened a call or acted on one."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.utils import timezone

from calls.models import AuditEntry, Call

OPENED = "opened"
REOPEN_INTERVAL = timedelta(minutes=1)  # reloads within this time count as one view


def record(
    user: AbstractBaseUser | AnonymousUser, action: str, call: Call | None = None, detail: str = ""
) -> None:
    """Write one entry. Errors propagate on purpose: an action that cannot be audited must not happen."""
    AuditEntry.objects.create(
        call=call,
        call_sid=call.call_sid if call else "",
        user_id=user.pk,
        username=user.get_username()[:150],
        action=action,
        detail=detail[:255],
    )


def record_opened(user: AbstractBaseUser | AnonymousUser, call: Call) -> None:
    """Record that a user opened a call, at most once per `REOPEN_INTERVAL`."""
    recent = AuditEntry.objects.filter(
        call=call,
        action=OPENED,
        at__gte=timezone.now() - REOPEN_INTERVAL,
        username=user.get_username()[:150],
    )
    if not recent.exists():
        record(user, OPENED, call)
