"""Which calls are incomplete: Twilio or Vapi may know something that their rows do not have."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import BooleanField, Case, Q, When

from calls.models import Call
from calls.statuses import NEVER_CONNECTED_STATUSES, OPEN_STATUSES, TERMINAL_STATUSES
from calls.twilio.client import TWILIO_API

GRACE_PERIOD = timedelta(minutes=1)  # after a call, while callbacks and reports may still be under way


@dataclass(frozen=True, slots=True)
class IncompleteCall:
    """One incomplete call: what its row has, and which vendors to ask."""

    call_sid: str
    vapi_call_id: str
    status: str
    started_at: datetime
    has_ended: bool  # by our records: the media stream, or the call itself
    has_duration: bool
    has_price: bool
    has_stream_price: bool  # or needs none
    has_report: bool
    ask_twilio: bool
    ask_vapi: bool


def find_incomplete_calls(
    now: datetime, days: int = 3, limit: int = 1000, grace: timedelta = GRACE_PERIOD
) -> list[IncompleteCall]:
    """The calls of the last days for which a vendor may know more than we do, newest first. One query."""
    since = now - grace
    # The process that handles a call renews its lease, and will report the end itself.
    abandoned = Q(lease_until__lt=since) | Q(lease_until=None, started_at__lt=since)
    is_open = Q(status__in=OPEN_STATUSES) & (Q(ended_at__lt=since) | Q(ended_at=None) & abandoned)
    is_over = Q(status__in=TERMINAL_STATUSES) & (Q(ended_at__lt=since) | Q(ended_at=None))
    connected = ~Q(status__in=NEVER_CONNECTED_STATUSES) & ~Q(duration_seconds=0)
    unbilled = connected & (Q(twilio_price=None) | Q(duration_seconds=None))
    unbilled_stream = ~Q(stream_sid="") & Q(stream_price=None)
    from_twilio = is_open | is_over & (unbilled | unbilled_stream)
    if settings.TWILIO_BASE_URL == TWILIO_API:  # which does not know simulated calls
        from_twilio &= Q(simulated=False)
    from_vapi = (is_open | is_over) & ~Q(vapi_call_id="") & (Q(reported_at=None) | Q(vapi_cost=None))
    calls: Any = (
        Call.objects.since(now - timedelta(days=days))
        .filter(from_twilio | from_vapi)
        .annotate(
            ask_twilio=Case(When(from_twilio, then=True), default=False, output_field=BooleanField()),
            ask_vapi=Case(When(from_vapi, then=True), default=False, output_field=BooleanField()),
        )
        .newest_first()
    )
    return [
        IncompleteCall(
            call_sid=call.call_sid,
            vapi_call_id=call.vapi_call_id,
            status=call.status,
            started_at=call.started_at,
            has_ended=call.ended_at is not None or call.is_over,
            has_duration=call.duration_seconds is not None,
            has_price=call.twilio_price is not None,
            has_stream_price=call.stream_price is not None or not call.stream_sid,
            has_report=call.reported_at is not None,
            ask_twilio=call.ask_twilio,
            ask_vapi=call.ask_vapi,
        )
        for call in calls[:limit]
    ]
