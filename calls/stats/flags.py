"""Reasons to look at a call: one table, from which rows, counts, filters and words all come.

A flag is a row (`CallFlag`) as long as its reason holds. Most are read off the call itself whenever it
changes (`flags_of`); `no-report` takes time to become true, and the writer's rounds see to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calls.models import Call

SLOW_TURN_MS = 4_000
LONG_SILENCE_MS = 10_000
COST_DOLLARS = Decimal(1)
TALKED_OVER = 2  # barge-ins of one call
REPORT_AFTER = timedelta(minutes=10)  # Vapi's report comes within a minute or two, or not at all
REPORT_LOOK_BACK = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Flag:
    """`name` is in rows and URLs, `words` complete "<n> calls: ..."; `holds` reads the call alone."""

    name: str
    words: str
    holds: Callable[[Call], bool]


FAILED, NO_REPORT = "failed", "no-report"

FLAGS: dict[str, Flag] = {
    flag.name: flag
    for flag in (
        Flag(FAILED, "failed", lambda call: call.is_failed),
        Flag(
            "slow-turn",
            f"an answer took over {SLOW_TURN_MS // 1000} s",
            lambda call: (call.worst_latency_ms or 0) > SLOW_TURN_MS,
        ),
        Flag(
            "long-silence",
            f"silent for over {LONG_SILENCE_MS // 1000} s",
            lambda call: (call.longest_silence_ms or 0) > LONG_SILENCE_MS,
        ),
        Flag("cut-by-us", "cut by us", lambda call: call.ended_by == "us" and bool(call.stream_sid)),
        Flag(NO_REPORT, "no report from Vapi", lambda call: False),
        Flag(
            "never-answered",
            "the assistant never answered",
            lambda call: call.is_over and call.answered_at is None,
        ),
        Flag("over-cost", f"cost over ${COST_DOLLARS}", lambda call: (call.cost() or 0) > COST_DOLLARS),
        Flag("talked-over", "the caller cut in twice or more", lambda call: call.barge_ins >= TALKED_OVER),
    )
}


def flags_of(call: Call) -> set[str]:
    """What holds of the call, by its own columns; `no-report` is not among them."""
    return {name for name, flag in FLAGS.items() if flag.holds(call)}


def report_is_missing(call: Call, now: datetime) -> bool:
    """Whether Vapi's report of this call should have come by now and has not."""
    return (
        bool(call.vapi_call_id)
        and call.ended_at is not None
        and now - call.ended_at > REPORT_AFTER
        and call.reported_at is None
    )
