"""`./manage.py seed_calls`: fills a database with generated calls, or removes them again.

It is for trying out the pages, and for measuring them at any size. It writes directly to the tables, with
COPY on PostgreSQL, and writes everything that the journal's writer would have: columns, flags and hourly
rollups.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
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

from calls.management.database import DatabaseCommand
from calls.models import Call, CallFlag, CallHour, PhoneNumber, Turn, Utterance
from calls.seed import calls as seeding
from calls.seed.calls import SEEDED_SID_PREFIX
from calls.stats import hourly

BATCH_CALLS = 4_000  # about 70,000 rows
REMOVE_BATCH_CALLS = 1_000
MAX_CALLS, MAX_DAYS = 10_000_000, 3_650
TABLES: tuple[type[Model], ...] = (Call, Turn, Utterance, CallFlag, CallHour, PhoneNumber)

_SEEDED = Q(call_sid__startswith=SEEDED_SID_PREFIX)
_CALL_FIELDS = Call._meta.concrete_fields
_CALL_COLUMNS = tuple(str(field.column) for field in _CALL_FIELDS)


class Command(DatabaseCommand):
    help = "Fills the database with generated calls (CallSids that start with CA5eed), or removes them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--calls", type=int, default=1_000, help="number of calls (default: 1000)")
        parser.add_argument(
            "--days", type=int, default=90, help="spread the calls over this many days (default: 90)"
        )
        parser.add_argument(
            "--numbers", type=int, default=200, help="number of our phone numbers (default: 200)"
        )
        parser.add_argument("--failed", type=float, default=3, help="percentage of failed calls (default: 3)")
        parser.add_argument(
            "--seed", type=int, default=0, help="the same seed generates the same calls (default: 0)"
        )
        parser.add_argument("--beside", action="store_true", help="seed although there are real calls")
        parser.add_argument("--force", action="store_true", help="seed although DJANGO_DEBUG is off")
        parser.add_argument(
            "--remove", action="store_true", help="remove the generated calls and nothing else"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        started_at = time.monotonic()
        if options["remove"]:
            result = f"{_remove():,} calls removed"
        else:
            seed_options = seeding.SeedOptions(
                calls=_in_range(options, "calls", 1, MAX_CALLS),
                days=_in_range(options, "days", 1, MAX_DAYS),
                numbers=_in_range(options, "numbers", 1, seeding.MAX_NUMBERS),
                failed_percent=_in_range(options, "failed", 0, 100),
                seed=options["seed"],
            )
            _check_allowed(beside=options["beside"], force=options["force"])
            result = _seed(seed_options)
        self.stdout.write(f"{result}, in {time.monotonic() - started_at:.0f} s.")


def _in_range(options: dict[str, Any], name: str, minimum: int, maximum: int) -> Any:
    if not minimum <= options[name] <= maximum:
        raise CommandError(f"--{name} must be between {minimum} and {maximum}, not {options[name]}.")
    return options[name]


def _check_allowed(*, beside: bool, force: bool) -> None:
    """Raise `CommandError` for a database that should not be seeded, such as that of a live service."""
    if not (settings.DEBUG or force):
        raise CommandError(
            "DJANGO_DEBUG is off, so this may be the database of a live service. Use --force to seed it."
        )
    if Call.objects.filter(_SEEDED).exists():
        raise CommandError(
            "The database has seeded calls already. Remove them first: ./manage.py seed_calls --remove"
        )
    if not beside and Call.objects.real().exists():
        raise CommandError("The database has real calls. Use --beside to add generated calls next to them.")


def _seed(seed_options: seeding.SeedOptions) -> str:
    PhoneNumber.objects.bulk_create(seeding.phone_numbers(seed_options.numbers), ignore_conflicts=True)
    first_id = _reserve_ids(seed_options.calls)
    turns = utterances = 0
    with _show_progress("seeding", seed_options.calls) as advance:
        for batch in seeding.generate_batches(seed_options, datetime.now(UTC), first_id, BATCH_CALLS):
            with transaction.atomic():
                _insert(Call, _CALL_COLUMNS, map(_call_row, batch.calls))
                _insert(Turn, seeding.TURN_COLUMNS, batch.turns)
                _insert(Utterance, seeding.UTTERANCE_COLUMNS, batch.utterances)
                CallFlag.objects.bulk_create(batch.flags)
                hourly.mark_dirty(hourly.hour_key(call) for call in batch.calls)
            turns += len(batch.turns)
            utterances += len(batch.utterances)
            advance(len(batch.calls))
    _roll_up_and_analyze()
    return f"{seed_options.calls:,} calls, {turns:,} turns and {utterances:,} utterances seeded"


def _remove() -> int:
    seeded = Call.objects.filter(_SEEDED).order_by("pk")
    removed, last = 0, 0
    with _show_progress("removing", seeded.count()) as advance:
        while calls := list(seeded.filter(pk__gt=last).only("started_at", "simulated")[:REMOVE_BATCH_CALLS]):
            with transaction.atomic():
                Call.objects.filter(pk__in=[call.pk for call in calls]).delete()
                hourly.mark_dirty(hourly.hour_key(call) for call in calls)
            last = calls[-1].pk
            removed += len(calls)
            advance(len(calls))
    seeded_numbers = {(number.number, number.label) for number in seeding.phone_numbers(seeding.MAX_NUMBERS)}
    # A number whose label was changed is in use: keep it.
    PhoneNumber.objects.filter(
        pk__in=[
            number.pk
            for number in PhoneNumber.objects.filter(number__startswith=seeding.SEEDED_NUMBER_PREFIX)
            if (number.number, number.label) in seeded_numbers
        ]
    ).delete()
    _roll_up_and_analyze()
    return removed


def _reserve_ids(count: int) -> int:
    """Reserve consecutive primary keys for the calls; children need them. Returns the first."""
    if connection.vendor != "postgresql":
        return (Call.objects.aggregate(last=Max("pk"))["last"] or 0) + 1
    sequence = "pg_get_serial_sequence('calls_call', 'id')"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT setval({sequence}, nextval({sequence}) + %s)", [count])
        return int(cursor.fetchone()[0]) - count


def _call_row(call: Call) -> seeding.Row:
    # `pre_save`, as when a call is saved: some columns are computed from others.
    return tuple(
        [field.get_db_prep_save(field.pre_save(call, add=True), connection) for field in _CALL_FIELDS]
    )


def _insert(model: type[Model], columns: Sequence[str], rows: Iterable[seeding.Row]) -> None:
    target = f"{model._meta.db_table} ({', '.join(map(connection.ops.quote_name, columns))})"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {target} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            placeholders = ", ".join(["%s"] * len(columns))
            cursor.executemany(f"INSERT INTO {target} VALUES ({placeholders})", list(rows))


def _roll_up_and_analyze() -> None:
    """Roll up the hours, and update the planner's statistics, which autovacuum would do only later."""
    with _show_progress("rolling up hours", None) as advance:
        hourly.roll_up_all(on_progress=lambda done, total: advance(1, total=total))
    with Console(stderr=True).status("analyzing the tables"), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            tables = ", ".join(model._meta.db_table for model in TABLES)
            cursor.execute(f"VACUUM (ANALYZE) {tables}")
        else:
            cursor.execute("ANALYZE")


@contextmanager
def _show_progress(label: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A progress bar. Yields a function that takes how much was done, and optionally a new `total`."""
    columns = (
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done, **changes: progress.update(task, advance=done, **changes)
