"""What a call costs: the bills that make up its cost, and which of them have not arrived yet.

There are three. Twilio's price of the call becomes known some time after its end, as a negative number,
and only on request (`reconcile.py`). Vapi's cost is in the end-of-call report. Twilio bills the media
stream separately and reports no price for a single stream, so it is computed here, by the started minute,
at the price in the settings. Vapi bills in dollars, Twilio in the currency of the account: each amount keeps
its currency, and amounts of different currencies are never added up.

Pure: no queries, no clock, no settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, Protocol

from django.db.models import Q

from calls.statuses import NEVER_CONNECTED_STATUSES

DOLLARS = "USD"
PRECISION = Decimal("0.00001")  # of the columns that store bills
MAX_BILL = 1_000_000  # of any currency; a larger amount is an error of the vendor's
MINUTE_MS = 60_000


class BilledCall(Protocol):
    """The columns of a `Call` that say which bills it gets."""

    simulated: Any
    status: Any
    duration_seconds: Any
    stream_sid: Any
    vapi_call_id: Any
    twilio_price: Any
    stream_price: Any
    vapi_cost: Any


def parse_bill(amount: str | float | None) -> Decimal | None:
    """A vendor's amount, rounded to a thousandth of a cent. None where it is empty or not plausible."""
    try:
        value = Decimal(str(amount)) if amount not in (None, "") else None
    except InvalidOperation:
        return None
    if value is None or not value.is_finite() or abs(value) >= MAX_BILL:
        return None
    return value.quantize(PRECISION, ROUND_HALF_UP)


def parse_currency(code: str | None) -> str | None:
    """An ISO 4217 code in capital letters; dollars where it is empty, None where it is not a code."""
    code = (code or DOLLARS).strip().upper()
    return code if len(code) == 3 and code.isascii() and code.isalpha() else None


def add_bills(bills: Iterable[tuple[Decimal | None, str]]) -> dict[str, Decimal]:
    """The total of each currency, dollars first. Twilio's amounts are negative, totals are not."""
    totals: dict[str, Decimal] = {}
    for amount, currency in bills:
        if amount is not None:
            totals[currency] = totals.get(currency, Decimal()) + abs(amount)
    return dict(sorted(totals.items(), key=lambda item: (item[0] != DOLLARS, item[0])))


def count_started_minutes(duration_ms: int) -> int:
    """The minutes that are billed: 61 seconds are two, and every stream is at least one."""
    return max(1, -(-duration_ms // MINUTE_MS))


def compute_stream_price(duration_ms: int, price_per_minute: Decimal) -> Decimal:
    """What a media stream of this duration costs."""
    return (count_started_minutes(duration_ms) * price_per_minute).quantize(PRECISION, ROUND_HALF_UP)


def compute_cost_per_minute(cost: Decimal, duration_us: int) -> Decimal | None:
    """The cost of a minute, in the currency of `cost`. None under a second, where it would mean nothing."""
    return cost * MINUTE_MS * 1000 / duration_us if duration_us >= 1_000_000 else None


def find_missing_bills(call: BilledCall) -> list[str]:
    """Names of the bills that are expected and have not arrived. `HAS_MISSING_BILL` is the same in a query.

    Twilio reports no price for a call that nobody answered, and for simulated calls only the simulator has
    a price.
    """
    expects_twilio = (
        not call.simulated and call.status not in NEVER_CONNECTED_STATUSES and call.duration_seconds != 0
    )
    bills = (
        ("Twilio", expects_twilio, call.twilio_price),
        ("media stream", bool(call.stream_sid), call.stream_price),
        ("Vapi", bool(call.vapi_call_id), call.vapi_cost),
    )
    return [name for name, is_expected, bill in bills if is_expected and bill is None]


HAS_MISSING_BILL = (
    (Q(twilio_price=None, simulated=False) & ~Q(status__in=NEVER_CONNECTED_STATUSES) & ~Q(duration_seconds=0))
    | (~Q(stream_sid="") & Q(stream_price=None))
    | (~Q(vapi_call_id="") & Q(vapi_cost=None))
)
HAS_BILL = Q(twilio_price__isnull=False) | Q(stream_price__isnull=False) | Q(vapi_cost__isnull=False)
