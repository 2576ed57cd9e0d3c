"""Bills as the vendors send them, and their totals, added by hand.

Nothing here is computed: if you change an amount, add the totals by hand. Twilio's prices are those of a
local number ($0.0085 for each started minute) and of a media stream ($0.004); Vapi's are made up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

STREAM_PRICE_PER_MINUTE = Decimal("0.004")
UNTIL = datetime(2026, 11, 19, tzinfo=UTC)
SINCE = datetime(2026, 11, 15, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class BilledCall:
    """A call, the vendors' bills for it, and its expected cost."""

    sid: str
    started_at: datetime
    twilio: tuple[dict[str, Any], ...]  # Twilio's responses, one per request; the last one repeats
    cost: Decimal | None
    shown: str  # on pages
    per_minute: str  # on the call's page; empty: not shown
    stream_ms: int | None = None  # None: no media stream
    stream_price: Decimal | None = None
    vapi_id: str = ""
    vapi: dict[str, Any] = field(default_factory=dict)  # the part of the report with the cost


BILLED_CALLS = (
    BilledCall(
        # A second over the minute: Twilio bills two minutes, for the call and for the stream.
        sid="CA00000000000000000000000000000061",
        started_at=datetime(2026, 11, 16, 23, 30, 0, tzinfo=UTC),
        twilio=(
            {"status": "completed", "duration": "61", "price": None, "price_unit": "USD"},
            {"status": "completed", "duration": "61", "price": "-0.01700", "price_unit": "USD"},
        ),
        stream_ms=60_400,
        stream_price=Decimal("0.00800"),
        vapi_id="0198c5d1-0061-7000-8000-000000000001",
        vapi={"cost": 0.1234},
        cost=Decimal("0.14840"),
        shown="$0.15",
        per_minute="$0.15",
    ),
    BilledCall(
        sid="CA00000000000000000000000000000060",
        started_at=datetime(2026, 11, 17, 4, 10, 0, tzinfo=UTC),
        twilio=({"status": "completed", "duration": "60", "price": "-0.00850", "price_unit": "USD"},),
        stream_ms=60_000,
        stream_price=Decimal("0.00400"),
        vapi_id="0198c5d1-0060-7000-8000-000000000001",
        vapi={"costBreakdown": {"stt": 0.02, "llm": 0.05, "tts": 0.03, "total": 0.1}},
        cost=Decimal("0.11250"),
        shown="$0.11",
        per_minute="$0.11",
    ),
    BilledCall(
        sid="CA00000000000000000000000000000001",
        started_at=datetime(2026, 11, 17, 10, 0, 0, tzinfo=UTC),
        twilio=({"status": "completed", "duration": "1", "price": "-0.00850", "price_unit": "USD"},),
        stream_ms=700,
        stream_price=Decimal("0.00400"),
        vapi_id="0198c5d1-0001-7000-8000-000000000001",
        vapi={"cost": 0, "costs": [{"type": "vapi", "cost": 0.0004}, {"type": "model", "cost": 0.0011}]},
        cost=Decimal("0.01400"),
        shown="$0.014",
        per_minute="$0.84",
    ),
    BilledCall(
        # Ten minutes and a second, and expensive. Starts in the last second of the day in Kolkata.
        sid="CA00000000000000000000000000000601",
        started_at=datetime(2026, 11, 17, 18, 29, 59, tzinfo=UTC),
        twilio=({"status": "completed", "duration": "601", "price": "-0.09350", "price_unit": "USD"},),
        stream_ms=600_001,
        stream_price=Decimal("0.04400"),
        vapi_id="0198c5d1-0601-7000-8000-000000000001",
        vapi={"cost": 1.2345},
        cost=Decimal("1.37200"),
        shown="$1.37",
        per_minute="$0.14",
    ),
    BilledCall(
        # Rejected: only Twilio bills it. Starts in the first second of the day in New York.
        sid="CA00000000000000000000000000000004",
        started_at=datetime(2026, 11, 18, 5, 0, 0, tzinfo=UTC),
        twilio=({"status": "completed", "duration": "4", "price": "-0.00850", "price_unit": "USD"},),
        cost=Decimal("0.00850"),
        shown="$0.0085",
        per_minute="$0.13",
    ),
    BilledCall(
        # No answer: no bill is expected.
        sid="CA00000000000000000000000000000000",
        started_at=datetime(2026, 11, 18, 5, 30, 0, tzinfo=UTC),
        twilio=({"status": "no-answer", "duration": "0", "price": None, "price_unit": "USD"},),
        cost=None,
        shown="–",
        per_minute="",
    ),
    BilledCall(
        # Twilio's price has not arrived yet.
        sid="CA00000000000000000000000000000120",
        started_at=datetime(2026, 11, 18, 6, 0, 0, tzinfo=UTC),
        twilio=({"status": "completed", "duration": "120", "price": None, "price_unit": "USD"},),
        stream_ms=119_000,
        stream_price=Decimal("0.00800"),
        vapi_id="0198c5d1-0120-7000-8000-000000000001",
        vapi={"cost": 0.2},
        cost=Decimal("0.20800"),
        shown="$0.21 so far",
        per_minute="",
    ),
)

# All calls: 0.14840 + 0.11250 + 0.01400 + 1.37200 + 0.00850 + 0.20800.
TOTAL = Decimal("1.86340")
TOTAL_SHOWN = "$1.86"
# Without the last call, which has a missing bill: 1.65540 dollars for 61 + 60 + 1 + 601 + 4 = 727 seconds.
FULLY_BILLED_COST, FULLY_BILLED_SECONDS = Decimal("1.65540"), 727
PER_MINUTE = Decimal("0.13662")  # 1.65540 * 60 / 727 = 0.136621...
PER_MINUTE_SHOWN = "$0.14"
UNBILLED_CALLS = 1

# By day, in the viewer's time zone.
BY_DAY = {
    "UTC": {
        "2026-11-16": Decimal("0.14840"),
        "2026-11-17": Decimal("1.49850"),
        "2026-11-18": Decimal("0.21650"),
    },
    "America/New_York": {
        "2026-11-16": Decimal("0.26090"),
        "2026-11-17": Decimal("1.38600"),
        "2026-11-18": Decimal("0.21650"),
    },
    "Asia/Kolkata": {
        "2026-11-17": Decimal("1.64690"),
        "2026-11-18": Decimal("0.21650"),
    },
}
# The same in the dashboard's table: the cost of the day, and per minute.
DAYS_SHOWN = {
    "UTC": {
        "Mon 16 Nov": ("$0.15", "$0.15"),
        "Tue 17 Nov": ("$1.50", "$0.14"),
        "Wed 18 Nov": ("$0.22", "$0.13"),
    },
    "America/New_York": {
        "Mon 16 Nov": ("$0.26", "$0.13"),
        "Tue 17 Nov": ("$1.39", "$0.14"),
        "Wed 18 Nov": ("$0.22", "$0.13"),
    },
    "Asia/Kolkata": {"Tue 17 Nov": ("$1.65", "$0.14"), "Wed 18 Nov": ("$0.22", "$0.13")},
}
