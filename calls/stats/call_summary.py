"""What a call's own rows say of it as a whole: turns, latencies, silence, flags.

Lists, filters and hourly sums need these for many calls at once, so they are columns and `CallFlag` rows,
brought up to date in the transaction that ends the call or adds to it afterwards. A call that is still
going on has no columns of this kind: its page reads its rows. Idempotent, a fixed number of queries.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime

from django.db import connection

from calls.models import Call, CallFlag, Turn, Utterance
from calls.stats.flags import NO_REPORT, REPORT_AFTER, REPORT_LOOK_BACK, flags_of, report_is_missing
from calls.stats.hourly import HourKey, key_of, mark
from calls.stats.percentiles import percentile

_COLUMNS = ("turn_count", "p50_latency_ms", "worst_latency_ms", "longest_silence_ms")


def longest_silence(spoken: Iterable[tuple[int | None, int | None]]) -> int | None:
    """The longest stretch between speech, in ms; None where there is none whose two ends are known.

    Beginnings and ends of the utterances in their order. One of unknown beginning stands behind the one
    before it, and a stretch in which it may have begun or ended counts for nothing: somebody spoke there,
    nobody knows when.
    """
    placed: list[tuple[int, int | None, int | None]] = []
    behind = 0
    for started, ended in spoken:
        behind = behind if started is None else started
        placed.append((behind, started, ended))
    longest: int | None = None
    quiet_from: int | None = None
    for _, started, ended in sorted(placed, key=lambda each: each[0]):
        if started is not None and quiet_from is not None:
            longest = max(longest or 0, started - quiet_from)
        if ended is not None and quiet_from is not None:
            ended = max(ended, quiet_from)
        quiet_from = ended
    return longest


def refresh(calls: Collection[Call], *, hours: Iterable[HourKey] = ()) -> None:
    """Bring these calls' columns, flags and hours up to date; call it last in a transaction.

    `hours` are further ones that have changed: those that a call has left, or in which one goes on.
    """
    if calls:
        _derive(calls)
        _flag(calls)
    mark({key_of(call) for call in calls} | set(hours))


def _derive(calls: Collection[Call]) -> None:
    latencies: dict[int, list[int | None]] = defaultdict(list)
    for call_id, latency_ms in (
        Turn.objects.filter(call__in=calls).order_by().values_list("call_id", "response_latency_ms")
    ):
        latencies[call_id].append(latency_ms)
    spoken: dict[int, list[tuple[int | None, int | None]]] = defaultdict(list)
    for call_id, started, ended in (
        Utterance.objects.filter(call__in=calls)
        .order_by("call_id", "index")
        .values_list("call_id", "started_ms", "ended_ms")
    ):
        spoken[call_id].append((started, ended))
    changed = []
    for call in calls:
        before = [getattr(call, name) for name in _COLUMNS]
        answered = [value for value in latencies[call.pk] if value is not None]
        call.turn_count = len(latencies[call.pk])
        call.p50_latency_ms = percentile(answered, 50)
        call.worst_latency_ms = max(answered, default=None)
        call.longest_silence_ms = longest_silence(spoken[call.pk])
        if before != [getattr(call, name) for name in _COLUMNS]:
            changed.append(call)
    Call.objects.bulk_update(changed, _COLUMNS)


def _flag(calls: Collection[Call]) -> None:
    found: dict[int, dict[str, CallFlag]] = defaultdict(dict)
    for flag in CallFlag.objects.filter(call__in=calls).order_by():
        found[flag.call_id][flag.name] = flag
    stale: list[int] = []
    missing: list[CallFlag] = []
    for call in calls:
        wanted = flags_of(call)
        if call.reported_at is None and NO_REPORT in found[call.pk]:
            wanted.add(NO_REPORT)  # the rounds found that out
        for name, flag in found[call.pk].items():
            if name not in wanted or flag.started_at != call.started_at:
                stale.append(flag.pk)
        for name in wanted:
            kept = found[call.pk].get(name)
            if kept is None or kept.started_at != call.started_at:
                missing.append(CallFlag(call=call, name=name, started_at=call.started_at))
    if stale:
        CallFlag.objects.filter(pk__in=stale).delete()
    CallFlag.objects.bulk_create(missing, ignore_conflicts=True)


def flag_missing_reports(now: datetime) -> int:
    """Flag the day's calls whose report should have come by now; call it inside a transaction."""
    skip = connection.features.has_select_for_update_skip_locked
    silent = (
        # Locked, so that a report which comes at this very moment leaves no flag behind.
        Call.objects.select_for_update(skip_locked=skip)
        .filter(
            started_at__gte=now - REPORT_LOOK_BACK,
            ended_at__lt=now - REPORT_AFTER,
            reported_at__isnull=True,
        )
        .exclude(vapi_call_id="")
        .exclude(flags__name=NO_REPORT)
    )
    late = [call for call in silent.order_by("started_at")[:500] if report_is_missing(call, now)]
    flags = [CallFlag(call=call, name=NO_REPORT, started_at=call.started_at) for call in late]
    CallFlag.objects.bulk_create(flags, ignore_conflicts=True)
    mark({key_of(call) for call in late})
    return len(late)
