"""`manage.py export_calls`: write the calls of a time range to a file, streamed row by row."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import CommandError, CommandParser

from calls.management import progress
from calls.management.database import DatabaseCommand
from calls.models import AuditEntry, Call
from calls.querysets import CallQuerySet
from calls.staff import export
from calls.viewer import Viewer

CHUNK_CALLS = 200  # read at a time, with their transcripts
UNRESTRICTED = Viewer(can_view_calls=True, can_view_numbers=True)


class Command(DatabaseCommand):
    help = (
        "Exports calls as CSV, or as JSON Lines with transcripts and turns, oldest first. Nothing is "
        "masked: the file contains full phone numbers and all transcripts. Simulated calls are excluded "
        "as soon as there is a real call."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", type=_parse_bounds, help="2026-11-24 (UTC) or 2026-11-24T09:30+01:00")
        parser.add_argument("--until", type=_parse_bounds, help="exclusive; a date includes the whole day")
        parser.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
        parser.add_argument("--output", default="-", help="a file, replaced on success; -: standard output")
        parser.add_argument("--simulated", action="store_true", help="include simulated calls")

    def handle(self, *args: Any, **options: Any) -> None:
        since: datetime | None = options["since"] and options["since"][0]
        until: datetime | None = options["until"] and options["until"][1]
        if since and until and since >= until:
            raise CommandError("--since must be before --until.")
        file_format, output = options["format"], options["output"]
        calls = _select_calls(since, until, include_simulated=options["simulated"])
        AuditEntry.objects.create(
            username="manage.py", action="export", detail=f"{file_format} {since or ''} to {until or ''}"
        )
        try:
            with progress.progress_bar("Exporting calls") as bar:
                if bar.is_visible:
                    bar.set_total(calls.count())
                if output == "-":
                    count = _write(self.stdout, calls, file_format, bar)  # type: ignore[arg-type]
                    self.stdout.flush()
                else:
                    with _replace_file(Path(output)) as file:
                        count = _write(file, calls, file_format, bar)
        except BrokenPipeError:  # the reader closed the pipe, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except OSError as problem:
            raise CommandError(f"--output: {problem.strerror}: {output}") from None
        self.stderr.write(f"{count} call{'' if count == 1 else 's'} exported", self.style.SUCCESS)


def _select_calls(since: datetime | None, until: datetime | None, *, include_simulated: bool) -> CallQuerySet:
    calls = Call.objects.all() if include_simulated else Call.objects.real_or_simulated()
    if since:
        calls = calls.filter(started_at__gte=since)
    if until:
        calls = calls.filter(started_at__lt=until)
    return calls.order_by("started_at", "id")


def _write(file: TextIO, calls: CallQuerySet, file_format: str, bar: progress.ProgressBar) -> int:
    """Write all calls and return their number."""
    if file_format == "jsonl":
        calls = calls.prefetch_related("utterances", "turns")
    count = 0

    def count_calls() -> Iterator[Call]:
        nonlocal count
        for call in calls.iterator(chunk_size=CHUNK_CALLS):
            yield call
            count += 1
            bar.advance(1)

    serialize = export.csv_lines if file_format == "csv" else export.transcript_lines
    with closing(serialize(count_calls(), UNRESTRICTED)) as lines:  # closes the query if the reader stops
        for line in lines:
            file.write(line)
    return count


@contextmanager
def _replace_file(path: Path) -> Iterator[TextIO]:
    """Write to a temporary file that replaces `path` on success. Readable by its owner only."""
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _parse_bounds(text: str) -> tuple[datetime, datetime]:
    """Start and end of a date; for an exact time both are that time."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is not a date. Write it as 2026-11-24.") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment, moment
    start = datetime.combine(day, time(), UTC)
    return start, start + timedelta(days=1)
