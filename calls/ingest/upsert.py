"""Applies journal entries to the database: in any order and any number of times, the rows are the same.

A batch is applied in one transaction. Its calls are locked, merged in memory (`merge.py`) and saved with the
fields that changed; utterances, turns and events are upserted in bulk. Leases, which say until when the
process of a call counts as alive, are renewed here, and calls with an expired lease are ended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from django.db import connection
from django.db.models import QuerySet

from bridge import journal
from bridge.end_reasons import ENDED_BY, WORKER_LOST
from calls.ingest.merge import LEASE, BatchChanges, utc_datetime
from calls.ingest.sanitize import clean_value
from calls.models import MAX_CALL_AGE, Call
from calls.stats import call_summary

MAX_REAPED = 500  # calls, at one time

Batch = Sequence[journal.Entry]


def apply_entries(entries: Batch) -> list[journal.Entry]:
    """Make rows of a batch. Call it in a transaction. Returns the entries whose call is not known yet."""
    calls = _lock_calls(entries)
    calls_by_vapi_id = _lock_calls_by_vapi_id(entries, calls)
    changes = BatchChanges()
    unmatched: list[journal.Entry] = []
    for entry in entries:
        call = calls.get(_call_sid(entry))
        if call is None and isinstance(entry, journal.AssistantReported):
            call = calls_by_vapi_id.get(entry.vapi_call_id)
        if call is None:
            unmatched.append(entry)
        else:
            changes.merge(call, entry)
    changes.save()
    return unmatched


def _call_sid(entry: journal.Entry) -> str:
    return str(clean_value(Call, "call_sid", entry.call_sid))


def _lock_calls(entries: Batch) -> dict[str, Call]:
    """The batch's calls by CallSid, locked. Missing ones are created."""
    first_seen: dict[str, float] = {}
    for entry in entries:
        if sid := _call_sid(entry):
            at = getattr(entry, "at", None)
            first_seen[sid] = min(first_seen.get(sid, math.inf), math.inf if at is None else at)
    rows = Call.objects.select_for_update().order_by("call_sid")  # always this order: writers cannot deadlock
    calls = {call.call_sid: call for call in rows.filter(call_sid__in=first_seen)}
    missing = first_seen.keys() - calls.keys()
    if missing:
        now = datetime.now(UTC)
        created = [
            Call(
                call_sid=sid, started_at=utc_datetime(first_seen[sid]) if first_seen[sid] < math.inf else now
            )
            for sid in sorted(missing)
        ]
        # Another process may create the same call at the same time.
        Call.objects.bulk_create(created, ignore_conflicts=True)
        calls |= {call.call_sid: call for call in rows.filter(call_sid__in=missing)}
    return calls


def _lock_calls_by_vapi_id(entries: Batch, calls: Mapping[str, Call]) -> dict[str, Call]:
    """The calls of reports that name only Vapi's call id, locked."""
    ids = {
        entry.vapi_call_id
        for entry in entries
        if isinstance(entry, journal.AssistantReported) and entry.vapi_call_id and not entry.call_sid
    }
    by_id = {call.vapi_call_id: call for call in calls.values() if call.vapi_call_id}
    # An id from an entry of this batch is not in its row yet.
    for entry in entries:
        if isinstance(entry, journal.AssistantAnswered) and entry.vapi_call_id in ids:
            by_id[entry.vapi_call_id] = calls[_call_sid(entry)]
    if unknown := ids - by_id.keys():
        rows = Call.objects.select_for_update().order_by("call_sid").filter(vapi_call_id__in=unknown)
        by_id |= {call.vapi_call_id: call for call in rows}
    return by_id


def renew_leases(call_sids: Sequence[str], now: datetime) -> None:
    """Extend the leases of the calls that this process handles."""
    if call_sids:
        Call.objects.live().filter(call_sid__in=call_sids).update(lease_until=now + LEASE)


def reap(now: datetime) -> list[str]:
    """End the calls that no process handles any more. Call it in a transaction. Returns their CallSids.

    A stream that ended, but not by caller, assistant or staff, leaves its call open, because Twilio goes on
    with it. If Twilio's final status never arrives, the call is closed when no call can last that long.
    """
    lost = _lock_some(Call.objects.live().filter(lease_until__lt=now, end_reason=""))
    Call.objects.filter(pk__in=lost).update(
        end_reason=WORKER_LOST, ended_by=ENDED_BY[WORKER_LOST], ended_at=now, status="failed"
    )
    ended_long_ago = Call.objects.open().filter(ended_at__lt=now - MAX_CALL_AGE)
    stale = _lock_some(ended_long_ago.exclude(end_reason=""))
    Call.objects.filter(pk__in=stale).update(status="completed")
    call_summary.update_summaries(list(Call.objects.filter(pk__in=[*lost, *stale])))
    return [*lost.values(), *stale.values()]


def _lock_some(calls: QuerySet[Call]) -> dict[int, str]:
    """Lock some of these calls. Returns their CallSids by primary key.

    Calls that another process has locked are skipped, where the database can do that.
    """
    skip = connection.features.has_select_for_update_skip_locked
    rows = calls.select_for_update(skip_locked=skip).values_list("pk", "call_sid")
    return dict(rows[:MAX_REAPED])
