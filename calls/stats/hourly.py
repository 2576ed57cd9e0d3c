"""One hour's calls, summed up once it is over: which hours are to be summed up again, and the summing.

Whoever changes calls marks their hours dirty in the same transaction (`mark`). A dirty hour is read from
its calls (`figures.py`) until a round of some server has summed it up (`sum_up_oldest`). Two locks keep
this true with many processes, and neither makes writers wait for each other:

- a writer that finds its hour dirty already keeps it from being summed up until it has committed, by a
  lock that writers share; only a clean hour has to be written;
- whoever sums up holds the hour alone, passes over hours that writers hold, and reads the calls after
  it has the lock. A change that commits later finds the hour clean, or waits, and marks it again.

Hours are UTC's. Real and simulated calls are summed apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction
from django.db.models.functions import TruncHour

from calls.models import Call, CallHour
from calls.stats.aggregates import Sums, read

HOUR = timedelta(hours=1)
SETTLED = timedelta(minutes=10)  # behind its end, an hour's reports and callbacks have come in, mostly

HourKey = tuple[datetime, bool]  # the hour, and whether it is that of simulated calls


def hour_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def key_of(call: Call) -> HourKey:
    return hour_of(call.started_at), call.simulated


def mark(keys: Iterable[HourKey]) -> None:
    """These hours are not what was summed up; call it last in the transaction that changes their calls.

    At most two queries; one where all of them are dirty already.
    """
    wanted = set(keys)
    if wanted and (clean := wanted - _held_dirty(wanted)):
        CallHour.objects.bulk_create(
            [CallHour(hour=hour, simulated=simulated) for hour, simulated in sorted(clean)],
            update_conflicts=True,
            unique_fields=["hour", "simulated"],
            update_fields=["dirty"],
        )


def _held_dirty(wanted: set[HourKey]) -> set[HourKey]:
    """Those that are dirty, and stay so until this transaction ends."""
    hours = {hour for hour, _ in wanted}
    if connection.vendor != "postgresql":  # SQLite has one writer at a time
        return set(CallHour.objects.filter(hour__in=hours, dirty=True).values_list("hour", "simulated"))
    with connection.cursor() as cursor:
        # Whoever is summing one up holds it: then it is passed over here, and waited for by the write.
        cursor.execute(
            "SELECT hour, simulated FROM calls_callhour WHERE dirty AND hour = ANY(%s) FOR SHARE SKIP LOCKED",
            [sorted(hours)],
        )
        return set(cursor.fetchall())


def sum_up_oldest(before: datetime) -> bool:
    """Sum up the oldest dirty hour that ended by `before`, inside a transaction. False when there is none."""
    skip = connection.features.has_select_for_update_skip_locked
    dirty = CallHour.objects.select_for_update(skip_locked=skip).filter(dirty=True, hour__lte=before - HOUR)
    row = dirty.order_by("hour", "simulated").first()
    if row is None:
        return False
    sums = Sums()
    for each in read([(row.hour, row.hour + HOUR)], simulated=row.simulated).values():
        sums.add(each.stored())
    row.figures, row.dirty = sums.stored(), False
    row.save(update_fields=["figures", "dirty"])
    return True


def sum_up_all(now: datetime | None = None) -> int:
    """Sum up every hour that is over, from nothing: for rows that did not come through the writer.

    Reads all calls. Returns how many hours there were.
    """
    before = hour_of(now or datetime.now(UTC))
    with transaction.atomic():
        CallHour.objects.update(dirty=True)
        hours = Call.objects.order_by().annotate(hour=TruncHour("started_at", tzinfo=UTC))
        mark(hours.values_list("hour", "simulated").distinct())
    done = 0
    while True:
        with transaction.atomic():
            if not sum_up_oldest(before):
                return done
        done += 1
