"""`manage.py export_calls`: calls of some days as a file, row by row, so that its length costs no memory."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError, CommandParser

from calls.management import progress
from calls.models import AuditEntry, Call, CallQuerySet
from calls.staff import export
from calls.viewer import Viewer

AT_ONCE = 200  # calls, with all that was said in them
EVERYTHING = Viewer(sees_calls=True, sees_numbers=True)


class Command(BaseCommand):
    help = (
        "Writes calls as CSV, or as JSON lines with transcripts and turns, the oldest first. Nothing is "
        "masked: whole numbers and all words are in it, for whoever has this shell may see them. "
        "Simulated calls are left out once there is a real one."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", type=_moment, help="2026-11-24 (UTC), or 2026-11-24T09:30+01:00")
        parser.add_argument("--until", type=_moment, help="until just before; a day alone is meant whole")
        parser.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
        parser.add_argument("--output", default="-", help="a file, replaced when all is written; -: stdout")
        parser.add_argument("--simulated", action="store_true", help="simulated calls, too")

    def handle(self, *args: Any, **options: Any) -> None:
        since: datetime | None = options["since"] and options["since"][0]
        until: datetime | None = options["until"] and options["until"][1]
        if since and until and since >= until:
            raise CommandError("--since must lie before --until.")
        form, output = options["format"], options["output"]
        calls = _calls(since, until, simulated=options["simulated"])
        AuditEntry.objects.create(
            username="manage.py", action="export", detail=f"{form} {since or ''} to {until or ''}"
        )
        try:
            with progress.shown("exporting") as bar:
                if bar.is_watched:
                    bar.total(calls.count())
                if output == "-":
                    written = _write(self.stdout, calls, form, bar)  # type: ignore[arg-type]
                    self.stdout.flush()
                else:
                    with _replaced(Path(output)) as file:
                        written = _write(file, calls, form, bar)
        except BrokenPipeError:  # whoever read it has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except OSError as problem:
            raise CommandError(f"--output: {problem.strerror}: {output}") from None
        self.stderr.write(f"{written} call{'' if written == 1 else 's'} exported", self.style.SUCCESS)


def _calls(since: datetime | None, until: datetime | None, *, simulated: bool) -> CallQuerySet:
    calls = Call.objects.all() if simulated else Call.objects.shown()
    if since:
        calls = calls.filter(started_at__gte=since)
    if until:
        calls = calls.filter(started_at__lt=until)
    return calls.order_by("started_at", "id")


def _write(file: TextIO, calls: CallQuerySet, form: str, bar: progress.Bar) -> int:
    if form == "jsonl":
        calls = calls.prefetch_related("utterances", "turns")
    count = 0

    def counted() -> Iterator[Call]:
        nonlocal count
        for call in calls.iterator(chunk_size=AT_ONCE):
            yield call
            count += 1
            bar.advance(1)

    lines = (export.csv_lines if form == "csv" else export.whole_lines)(counted(), EVERYTHING)
    with closing(lines):  # also where nobody reads on: with it the query
        for line in lines:
            file.write(line)
    return count


@contextmanager
def _replaced(path: Path) -> Iterator[TextIO]:
    """A file that is there whole or not at all, and for nobody else to read."""
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _moment(text: str) -> tuple[datetime, datetime]:
    """From when, and until when; both are the same but for a day, which has a beginning and an end."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is no day; write it as 2026-11-24.") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment, moment
    begin = datetime.combine(day, time(), UTC)
    return begin, begin + timedelta(days=1)
