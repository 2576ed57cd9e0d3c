"""Hourly rollups: one `CallHour` row holds the aggregate of one hour's calls.

Whoever changes calls marks their hours dirty in the same transaction (`mark_dirty`). The aggregate of a dirty
hour is computed from its calls (`queries.py`) until some server's housekeeping rolls the hour up again
(`roll_up_oldest`). Two locks keep this correct with many processes, and writers never wait for each other:

- A writer that finds its hour dirty takes a shared lock on the row, which prevents a rollup until the writer
  has committed. Only a clean hour has to be written.
- A rollup locks the hour exclusively, skips hours that writers have locked, and reads the calls after it has
  the lock. A change that commits later finds the hour clean, or waits, and marks it dirty again.

Hours are in UTC. Real and simulated calls have separate rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction
from django.db.models.functions import TruncHour

from calls.models import Call, CallHour
from calls.stats.aggregates import Aggregate, aggregate_calls

HOUR = timedelta(hours=1)
ROLLUP_DELAY = timedelta(minutes=10)  # after an hour's end, most of its reports and callbacks have arrived

HourKey = tuple[datetime, bool]  # the start of the hour, and whether it is the row of simulated calls


def floor_to_hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def hour_key(call: Call) -> HourKey:
    return floor_to_hour(call.started_at), call.simulated


def mark_dirty(keys: Iterable[HourKey]) -> None:
    """Mark hours for a new rollup. Call it last in the transaction that changes their calls.

    At most two queries; one if all hours are dirty already.
    """
    hours = set(keys)
    if hours and (clean := hours - _lock_dirty(hours)):
        CallHour.objects.bulk_create(
            [CallHour(hour=hour, simulated=simulated) for hour, simulated in sorted(clean)],
            update_conflicts=True,
            unique_fields=["hour", "simulated"],
            update_fields=["dirty"],
        )


def _lock_dirty(keys: set[HourKey]) -> set[HourKey]:
    """The hours that are dirty, and stay dirty until this transaction ends."""
    hours = {hour for hour, _ in keys}
    if connection.vendor != "postgresql":  # SQLite has one writer at a time
        return set(CallHour.objects.filter(hour__in=hours, dirty=True).values_list("hour", "simulated"))
    with connection.cursor() as cursor:
        # An hour that is being rolled up is locked: it is skipped here, and the write waits for it.
        cursor.execute(
            "SELECT hour, simulated FROM calls_callhour WHERE dirty AND hour = ANY(%s) FOR SHARE SKIP LOCKED",
            [sorted(hours)],
        )
        return set(cursor.fetchall())


def roll_up_oldest(before: datetime) -> bool:
    """Roll up the oldest dirty hour that ended by `before`. False if there is none. Needs a transaction."""
    skip = connection.features.has_select_for_update_skip_locked
    dirty = CallHour.objects.select_for_update(skip_locked=skip).filter(dirty=True, hour__lte=before - HOUR)
    row = dirty.order_by("hour", "simulated").first()
    if row is None:
        return False
    hour = Aggregate()
    for quarter in aggregate_calls([(row.hour, row.hour + HOUR)], simulated=row.simulated).values():
        hour.add_json(quarter.to_json())
    row.figures, row.dirty = hour.to_json(), False
    row.save(update_fields=["figures", "dirty"])
    return True


def roll_up_all(now: datetime | None = None, on_progress: Callable[[int, int], None] | None = None) -> int:
    """Roll up every hour that is over, from scratch: for rows that the journal's writer did not write.

    Reads all calls. Calls `on_progress` with the number of hours done, and of all. Returns the number.
    """
    before = floor_to_hour(now or datetime.now(UTC))
    with transaction.atomic():
        CallHour.objects.update(dirty=True)
        hours = Call.objects.order_by().annotate(hour=TruncHour("started_at", tzinfo=UTC))
        mark_dirty(hours.values_list("hour", "simulated").distinct())
    total = CallHour.objects.filter(hour__lte=before - HOUR).count()
    count = 0
    while True:
        with transaction.atomic():
            if not roll_up_oldest(before):
                return count
        count += 1
        if on_progress is not None:
            on_progress(count, total)
