"""`manage.py seed_calls`: fills a database with calls that never happened, or clears it of them.

For trying the pages out and for measuring them at any size. It writes straight to the tables, by COPY on
PostgreSQL, and leaves behind what the writer would have: columns, flags and hours summed up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection, transaction
from django.db.models import Max, Model, Q
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from calls.models import Call, CallFlag, CallHour, PhoneNumber, Turn, Utterance
from calls.seed import calls as seeding
from calls.seed.calls import SEEDED_SID
from calls.stats import hourly

BATCH = 4_000  # calls; with all that is theirs some 70,000 rows
REMOVED_AT_ONCE = 1_000
MAX_CALLS, MAX_DAYS = 10_000_000, 3_650
TABLES: tuple[type[Model], ...] = (Call, Turn, Utterance, CallFlag, CallHour, PhoneNumber)

_SEEDED = Q(call_sid__startswith=SEEDED_SID)
_CALL_FIELDS = Call._meta.concrete_fields
_CALL_COLUMNS = tuple(str(field.column) for field in _CALL_FIELDS)


class Command(BaseCommand):
    help = "Fill the database with made-up calls (their CallSids begin with CA5eed), or remove them again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--calls", type=int, default=1_000, help="how many (default: 1000)")
        parser.add_argument("--days", type=int, default=90, help="spread evenly over the last so many (90)")
        parser.add_argument("--numbers", type=int, default=200, help="of ours that were called (200)")
        parser.add_argument("--failed", type=float, default=3, help="per cent of the calls that failed (3)")
        parser.add_argument("--seed", type=int, default=0, help="same seed, same calls")
        parser.add_argument("--beside", action="store_true", help="even though there are real calls")
        parser.add_argument("--force", action="store_true", help="even though DJANGO_DEBUG is off")
        parser.add_argument("--remove", action="store_true", help="remove what was seeded, and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        began = time.monotonic()
        if options["remove"]:
            done = f"{_remove():,} calls removed"
        else:
            wanted = seeding.Wanted(
                calls=_within(options, "calls", 1, MAX_CALLS),
                days=_within(options, "days", 1, MAX_DAYS),
                numbers=_within(options, "numbers", 1, seeding.MAX_NUMBERS),
                failed_percent=_within(options, "failed", 0, 100),
                seed=options["seed"],
            )
            _refuse(beside=options["beside"], force=options["force"])
            done = _seed(wanted)
        self.stdout.write(f"{done}, in {time.monotonic() - began:.0f} s.")


def _within(options: dict[str, Any], name: str, least: int, most: int) -> Any:
    if not least <= options[name] <= most:
        raise CommandError(f"--{name} must be between {least} and {most}, not {options[name]}.")
    return options[name]


def _refuse(*, beside: bool, force: bool) -> None:
    """Nobody fills the database of a running service by mistake."""
    if not (settings.DEBUG or force):
        raise CommandError(
            "DJANGO_DEBUG is off, so people may work with this database. --force seeds it all the same."
        )
    if Call.objects.filter(_SEEDED).exists():
        raise CommandError("There are seeded calls already: seed_calls --remove comes first.")
    if not beside and Call.objects.real().exists():
        raise CommandError(
            "There are real calls in this database. --beside puts the made-up ones beside them."
        )


def _seed(wanted: seeding.Wanted) -> str:
    PhoneNumber.objects.bulk_create(seeding.phone_numbers(wanted.numbers), ignore_conflicts=True)
    first_id = _reserve_ids(wanted.calls)
    turns = utterances = 0
    with _progress("seeding", wanted.calls) as advance:
        for batch in seeding.batches(wanted, datetime.now(UTC), first_id, BATCH):
            with transaction.atomic():
                _write(Call, _CALL_COLUMNS, map(_row_of, batch.calls))
                _write(Turn, seeding.TURN_COLUMNS, batch.turns)
                _write(Utterance, seeding.UTTERANCE_COLUMNS, batch.utterances)
                CallFlag.objects.bulk_create(batch.flags)
                hourly.mark_dirty(hourly.hour_key(call) for call in batch.calls)
            turns += len(batch.turns)
            utterances += len(batch.utterances)
            advance(len(batch.calls))
    _tidy_up()
    return f"{wanted.calls:,} calls, {turns:,} turns and {utterances:,} utterances seeded"


def _remove() -> int:
    seeded = Call.objects.filter(_SEEDED).order_by("pk")
    removed, last = 0, 0
    with _progress("removing", seeded.count()) as advance:
        while calls := list(seeded.filter(pk__gt=last).only("started_at", "simulated")[:REMOVED_AT_ONCE]):
            with transaction.atomic():
                Call.objects.filter(pk__in=[call.pk for call in calls]).delete()
                hourly.mark_dirty(hourly.hour_key(call) for call in calls)
            last = calls[-1].pk
            removed += len(calls)
            advance(len(calls))
    ours = {(number.number, number.label) for number in seeding.phone_numbers(seeding.MAX_NUMBERS)}
    # Those that somebody has given another name have become somebody's own.
    PhoneNumber.objects.filter(
        pk__in=[
            number.pk
            for number in PhoneNumber.objects.filter(number__startswith=seeding.NUMBERS_BEGIN)
            if (number.number, number.label) in ours
        ]
    ).delete()
    _tidy_up()
    return removed


def _reserve_ids(count: int) -> int:
    """The first of so many ids in a row that no other call will get; children are written with them."""
    if connection.vendor != "postgresql":
        return (Call.objects.aggregate(last=Max("pk"))["last"] or 0) + 1
    sequence = "pg_get_serial_sequence('calls_call', 'id')"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT setval({sequence}, nextval({sequence}) + %s)", [count])
        return int(cursor.fetchone()[0]) - count


def _row_of(call: Call) -> seeding.Row:
    return tuple([field.get_db_prep_save(getattr(call, field.attname), connection) for field in _CALL_FIELDS])


def _write(model: type[Model], columns: Sequence[str], rows: Iterable[seeding.Row]) -> None:
    into = f"{model._meta.db_table} ({', '.join(map(connection.ops.quote_name, columns))})"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {into} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            marks = ", ".join(["%s"] * len(columns))
            cursor.executemany(f"INSERT INTO {into} VALUES ({marks})", list(rows))


def _tidy_up() -> None:
    """Sum up the hours, and tell the database what it has, which it would find out by itself in time."""
    console = Console(stderr=True)
    with console.status("summing up the hours"):
        hourly.roll_up_all()
    with console.status("analysing the tables"), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            tables = ", ".join(model._meta.db_table for model in TABLES)
            cursor.execute(f"VACUUM (ANALYZE) {tables}")
        else:
            cursor.execute("ANALYZE")


@contextmanager
def _progress(doing: str, calls: int) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield partial(progress.advance, progress.add_task(doing, total=calls))
