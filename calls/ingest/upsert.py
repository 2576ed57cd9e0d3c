"""Entries to rows: any order, any number of times, the same rows.

A batch is applied in one transaction. The calls it names are locked and merged in memory (`merge.py`), then
saved with the fields that changed; children are upserted in bulk by their index.
The leases that say which process carries a call are rows, too, and kept here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.db.models import QuerySet

from bridge import journal
from bridge.end_reasons import ENDED_BY, WORKER_LOST
from calls.ingest.merge import LEASE, Changes, moment
from calls.ingest.sanitize import clean_text
from calls.models import Call
from calls.stats import call_summary

LONGEST_CALL = timedelta(hours=4)  # Twilio ends every call by then
REAPED_AT_ONCE = 500

Batch = Sequence[journal.Entry]


def apply(entries: Batch) -> list[journal.Entry]:
    """Make rows of a batch; call it inside a transaction. Returns entries whose call is not known yet."""
    calls = _calls_of(entries)
    by_vapi_id = _by_vapi_id(entries, calls)
    changes = Changes()
    unplaced: list[journal.Entry] = []
    for entry in entries:
        call = calls.get(clean_sid(entry.call_sid))
        if call is None and isinstance(entry, journal.AssistantReported):
            call = by_vapi_id.get(entry.vapi_call_id)
        if call is None:
            unplaced.append(entry)
        else:
            changes.merge(call, entry)
    changes.save()
    return unplaced


def clean_sid(call_sid: str) -> str:
    return clean_text(call_sid, 64)


def _calls_of(entries: Batch) -> dict[str, Call]:
    """The batch's calls, locked, and created where they are not there yet."""
    first_seen: dict[str, float] = {}
    for entry in entries:
        if sid := clean_sid(entry.call_sid):
            at = getattr(entry, "at", None)
            first_seen[sid] = min(first_seen.get(sid, math.inf), math.inf if at is None else at)
    rows = Call.objects.select_for_update().order_by("call_sid")  # one order, so that writers cannot deadlock
    found = {call.call_sid: call for call in rows.filter(call_sid__in=first_seen)}
    missing = first_seen.keys() - found.keys()
    if missing:
        now = datetime.now(UTC)
        fresh = [
            Call(call_sid=sid, started_at=moment(first_seen[sid]) if first_seen[sid] < math.inf else now)
            for sid in sorted(missing)
        ]
        # Another process may create the same call at this moment.
        Call.objects.bulk_create(fresh, ignore_conflicts=True)
        found |= {call.call_sid: call for call in rows.filter(call_sid__in=missing)}
    return found


def _by_vapi_id(entries: Batch, calls: Mapping[str, Call]) -> dict[str, Call]:
    wanted = {
        entry.vapi_call_id
        for entry in entries
        if isinstance(entry, journal.AssistantReported) and entry.vapi_call_id and not entry.call_sid
    }
    found = {call.vapi_call_id: call for call in calls.values() if call.vapi_call_id}
    # An answer in this very batch has not reached its row yet.
    for entry in entries:
        if isinstance(entry, journal.AssistantAnswered) and entry.vapi_call_id in wanted:
            found[entry.vapi_call_id] = calls[clean_sid(entry.call_sid)]
    if unknown := wanted - found.keys():
        rows = Call.objects.select_for_update().order_by("call_sid").filter(vapi_call_id__in=unknown)
        found |= {call.vapi_call_id: call for call in rows}
    return found


def renew_leases(call_sids: Sequence[str], now: datetime) -> None:
    """This process still carries these calls."""
    if call_sids:
        Call.objects.live().filter(call_sid__in=call_sids).update(lease_until=now + LEASE)


def reap(now: datetime) -> list[str]:
    """End the calls that no process carries any more; call it inside a transaction. Returns their sids.

    A stream that ended otherwise than by caller, assistant or staff leaves its call open, for Twilio goes
    on with it. If Twilio's word never comes, the call is closed when no call can last that long.
    """
    lost = _take(Call.objects.live().filter(lease_until__lt=now, end_reason=""))
    Call.objects.filter(pk__in=lost).update(
        end_reason=WORKER_LOST, ended_by=ENDED_BY[WORKER_LOST], ended_at=now, status="failed"
    )
    stale = _take(Call.objects.open().filter(ended_at__lt=now - LONGEST_CALL).exclude(end_reason=""))
    Call.objects.filter(pk__in=stale).update(status="completed")
    call_summary.refresh(list(Call.objects.filter(pk__in=[*lost, *stale])))
    return [*lost.values(), *stale.values()]


def _take(calls: QuerySet[Call]) -> dict[int, str]:
    """Some of these calls, locked where the database can; those that another process has are left to it."""
    skip = connection.features.has_select_for_update_skip_locked
    rows = calls.select_for_update(skip_locked=skip).values_list("pk", "call_sid")
    return dict(rows[:REAPED_AT_ONCE])
