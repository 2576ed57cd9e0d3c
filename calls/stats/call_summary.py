"""A call's summary columns and flags, computed from its turns and utterances.

Lists, filters and hourly rollups need these for many calls at once, so they are columns and `CallFlag` rows.
They are updated in the transaction that ends the call or changes it afterwards. A call in progress has no
summary: its page reads its rows. Idempotent; a fixed number of queries.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime

from django.db import connection

from calls.models import Call, CallFlag, Turn, Utterance
from calls.stats.flags import NO_REPORT, REPORT_DEADLINE, REPORT_LOOK_BACK, find_flags, is_report_missing
from calls.stats.hourly import HourKey, hour_key, mark_dirty
from calls.stats.percentiles import percentile

_COLUMNS = ("turn_count", "p50_latency_ms", "worst_latency_ms", "longest_silence_ms")
MAX_LATE_CALLS = 500  # flagged in one run of housekeeping


def compute_longest_silence(utterances: Iterable[tuple[int | None, int | None]]) -> int | None:
    """The longest time without speech, in ms. None without a silence whose start and end are known.

    `utterances` are pairs of start and end, in the order of their index. An utterance without a known start
    is placed after the one before it. A silence in which it may have started or ended does not count:
    somebody spoke, and it is not known when.
    """
    placed: list[tuple[int, int | None, int | None]] = []
    position = 0
    for started, ended in utterances:
        position = position if started is None else started
        placed.append((position, started, ended))
    longest: int | None = None
    silent_from: int | None = None
    for _, started, ended in sorted(placed, key=lambda utterance: utterance[0]):
        if started is not None and silent_from is not None:
            longest = max(longest or 0, started - silent_from)
        if ended is not None and silent_from is not None:
            ended = max(ended, silent_from)
        silent_from = ended
    return longest


def update_summaries(calls: Collection[Call], *, hours: Iterable[HourKey] = ()) -> None:
    """Update the columns and flags of these calls and mark their hours dirty. Call it last in a transaction.

    `hours` are further hours that changed: those that counted a call before, or that have a call in progress.
    """
    if calls:
        _update_columns(calls)
        _update_flags(calls)
    mark_dirty({hour_key(call) for call in calls} | set(hours))


def _update_columns(calls: Collection[Call]) -> None:
    latencies: dict[int, list[int | None]] = defaultdict(list)
    turns = Turn.objects.filter(call__in=calls).order_by()
    for call_id, latency_ms in turns.values_list("call_id", "response_latency_ms"):
        latencies[call_id].append(latency_ms)
    speech: dict[int, list[tuple[int | None, int | None]]] = defaultdict(list)
    utterances = Utterance.objects.filter(call__in=calls).order_by("call_id", "index")
    for call_id, started, ended in utterances.values_list("call_id", "started_ms", "ended_ms"):
        speech[call_id].append((started, ended))
    changed = []
    for call in calls:
        before = [getattr(call, name) for name in _COLUMNS]
        answered = [value for value in latencies[call.pk] if value is not None]
        call.turn_count = len(latencies[call.pk])
        call.p50_latency_ms = percentile(answered, 50)
        call.worst_latency_ms = max(answered, default=None)
        call.longest_silence_ms = compute_longest_silence(speech[call.pk])
        if before != [getattr(call, name) for name in _COLUMNS]:
            changed.append(call)
    Call.objects.bulk_update(changed, _COLUMNS)


def _update_flags(calls: Collection[Call]) -> None:
    stored: dict[int, dict[str, CallFlag]] = defaultdict(dict)
    for flag in CallFlag.objects.filter(call__in=calls).order_by():
        stored[flag.call_id][flag.name] = flag
    stale: list[int] = []
    missing: list[CallFlag] = []
    for call in calls:
        names = find_flags(call)
        if call.reported_at is None and NO_REPORT in stored[call.pk]:
            names.add(NO_REPORT)  # set by housekeeping (`flag_missing_reports`)
        for name, flag in stored[call.pk].items():
            if name not in names or flag.started_at != call.started_at:
                stale.append(flag.pk)
        for name in names:
            existing = stored[call.pk].get(name)
            if existing is None or existing.started_at != call.started_at:
                missing.append(CallFlag(call=call, name=name, started_at=call.started_at))
    if stale:
        CallFlag.objects.filter(pk__in=stale).delete()
    CallFlag.objects.bulk_create(missing, ignore_conflicts=True)


def flag_missing_reports(now: datetime) -> int:
    """Flag the last day's calls whose report from Vapi is overdue. Call it in a transaction."""
    skip = connection.features.has_select_for_update_skip_locked
    unreported = (
        # Locked, so that a report that arrives at the same time leaves no flag behind.
        Call.objects.select_for_update(skip_locked=skip)
        .filter(
            started_at__gte=now - REPORT_LOOK_BACK,
            ended_at__lt=now - REPORT_DEADLINE,
            reported_at__isnull=True,
        )
        .exclude(vapi_call_id="")
        .exclude(flags__name=NO_REPORT)
    )
    oldest = unreported.order_by("started_at")[:MAX_LATE_CALLS]
    late = [call for call in oldest if is_report_missing(call, now)]
    flags = [CallFlag(call=call, name=NO_REPORT, started_at=call.started_at) for call in late]
    CallFlag.objects.bulk_create(flags, ignore_conflicts=True)
    mark_dirty({hour_key(call) for call in late})
    return len(late)
