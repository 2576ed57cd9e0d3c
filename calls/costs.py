"""What a call is billed for, by whom, and which bills are still to come.

Three bills make a call's cost. Twilio's price of the call comes some time after its end, below zero, when
it is asked for (`sync.py`). Vapi's cost comes with the end-of-call report. Twilio bills the media stream
apart, and names no price for one stream: it is our own reckoning, by the started minute, at the price
that the settings name. Amounts are dollars.

Without a query, a clock or a setting.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import TYPE_CHECKING

from django.db.models import Q

if TYPE_CHECKING:
    from calls.models import Call

EXACT = Decimal("0.00001")  # as bills are kept in rows
MOST = 10_000  # no call costs so much
MINUTE_MS = 60_000
NEVER_CONNECTED = ("busy", "no-answer", "canceled")  # Twilio's words for calls that it has no price for


def amount(text: str | float | None) -> Decimal | None:
    """A bill as it is kept: exact to a thousandth of a cent. None for what is none, or cannot be one."""
    try:
        found = Decimal(str(text)) if text not in (None, "") else None
    except InvalidOperation:
        return None
    if found is None or not found.is_finite() or abs(found) >= MOST:
        return None
    return found.quantize(EXACT, ROUND_HALF_UP)


def started_minutes(ms: int) -> int:
    """61 seconds are two minutes; whatever was opened is one."""
    return max(1, -(-ms // MINUTE_MS))


def stream_price(ms: int, per_minute: Decimal) -> Decimal:
    """What a media stream of this length costs."""
    return (started_minutes(ms) * per_minute).quantize(EXACT, ROUND_HALF_UP)


def per_minute(cost: Decimal, us: int) -> Decimal | None:
    """Dollars a minute, of what lasted so many microseconds; under a second there is nothing to tell."""
    return cost * MINUTE_MS * 1000 / us if us >= 1_000_000 else None


def to_come(call: Call) -> list[str]:
    """Whose bills have not come yet, of those that will: what the call cost is known "so far".

    Twilio has no price for a call that nobody answered, and knows a simulated one only in a sandbox.
    """
    return [
        name
        for name, missing in (
            (
                "Twilio",
                call.twilio_price is None
                and not call.simulated
                and call.status not in NEVER_CONNECTED
                and call.duration_seconds != 0,
            ),
            ("media stream", bool(call.stream_sid) and call.stream_price is None),
            ("Vapi", bool(call.vapi_call_id) and call.vapi_cost is None),
        )
        if missing
    ]


# The same for queries: calls of which some bill is still to come.
TO_COME = (
    (Q(twilio_price=None, simulated=False) & ~Q(status__in=NEVER_CONNECTED) & ~Q(duration_seconds=0))
    | (~Q(stream_sid="") & Q(stream_price=None))
    | (~Q(vapi_call_id="") & Q(vapi_cost=None))
)
BILLED = Q(twilio_price__isnull=False) | Q(stream_price__isnull=False) | Q(vapi_cost__isnull=False)
