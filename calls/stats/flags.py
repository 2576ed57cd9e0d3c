"""Flags: reasons why a call needs attention. One table for the rows, the counts, the filters and the labels.

A call has a `CallFlag` row as long as the reason applies. Most flags depend on the call's columns alone and
are updated whenever these change (`find_flags`). `no-report` depends on time, so housekeeping sets it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from bridge.end_reasons import MACHINE_ANSWERED, OUT_OF_HOURS
from calls.costs import DOLLARS
from calls.models import Call
from calls.statuses import NEVER_CONNECTED_STATUSES

SLOW_TURN_MS = 4_000
LONG_SILENCE_MS = 10_000
MAX_COST_DOLLARS = Decimal(1)
MANY_BARGE_INS = 2
REPORT_DEADLINE = timedelta(minutes=10)  # after the call. Vapi's report takes a minute or two, or never comes
REPORT_LOOK_BACK = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Flag:
    """`name` is used in rows and URLs. `label` follows a number of calls: "3 failed"."""

    name: str
    label: str
    applies_to: Callable[[Call], bool]


def _was_not_for_assistant(call: Call) -> bool:
    """Nobody picked up our call, a machine did, or the number is closed at that time."""
    was_not_connected = call.is_outbound and call.status == "failed" and not call.end_reason
    return (
        call.status in NEVER_CONNECTED_STATUSES
        or was_not_connected
        or call.end_reason in (MACHINE_ANSWERED, OUT_OF_HOURS)
    )


FAILED, NO_REPORT = "failed", "no-report"

FLAGS: dict[str, Flag] = {
    flag.name: flag
    for flag in (
        Flag(FAILED, "failed", lambda call: call.is_failed),
        Flag(
            "slow-turn",
            f"response over {SLOW_TURN_MS // 1000} s",
            lambda call: (call.worst_latency_ms or 0) > SLOW_TURN_MS,
        ),
        Flag(
            "long-silence",
            f"silence over {LONG_SILENCE_MS // 1000} s",
            lambda call: (call.longest_silence_ms or 0) > LONG_SILENCE_MS,
        ),
        Flag(
            "cut-by-us", "ended by this server", lambda call: call.ended_by == "us" and bool(call.stream_sid)
        ),
        Flag(NO_REPORT, "no report from Vapi", lambda call: False),
        Flag(
            "never-answered",
            "assistant never answered",
            lambda call: call.is_over and call.answered_at is None and not _was_not_for_assistant(call),
        ),
        Flag(
            "over-cost",
            f"cost over ${MAX_COST_DOLLARS}",
            lambda call: call.costs().get(DOLLARS, 0) > MAX_COST_DOLLARS,
        ),
        Flag(
            "talked-over",
            f"{MANY_BARGE_INS} or more interruptions",
            lambda call: call.barge_ins >= MANY_BARGE_INS,
        ),
    )
}


def find_flags(call: Call) -> set[str]:
    """Names of the flags that apply to the call, by its own columns; `no-report` is never among them."""
    return {name for name, flag in FLAGS.items() if flag.applies_to(call)}


def is_report_missing(call: Call, now: datetime) -> bool:
    """Whether Vapi's report of this call is overdue."""
    return (
        bool(call.vapi_call_id)
        and call.ended_at is not None
        and now - call.ended_at > REPORT_DEADLINE
        and call.reported_at is None
    )
