"""A filtered list as CSV or JSON, row by row, so that its length costs no memory.

A spreadsheet takes a cell that begins with `=` and its like for a formula and runs it, and what a caller
says, or is called, is not ours. Such a cell gets an apostrophe in front, which spreadsheets read as "text".
(Libraries at hand guard against `=` alone and build the whole file first.)
"""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import Any

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse

from calls.models import Call, CallQuerySet
from calls.viewer import Viewer

MOST_ROWS = 100_000
AT_ONCE = 500
# Full-width signs are the same to some programs.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001

_COLUMNS = (
    "started_at", "call_sid", "vapi_call_id", "direction", "from_number", "to_number", "caller_name",
    "status", "end_reason", "ended_by", "vapi_ended_reason", "answered_at", "ended_at", "duration_seconds",
    "connect_ms", "time_to_first_audio_ms", "turn_count", "p50_latency_ms", "worst_latency_ms",
    "longest_silence_ms",
    "barge_ins", "frames_to_assistant", "frames_to_caller", "frames_held", "frames_dropped", "twilio_price",
    "stream_price", "vapi_cost", "cost", "bills_to_come", "success", "summary",
    "outcome", "note", "needs_review", "simulated",
)  # fmt: skip

_SAID = ("index", "speaker", "text", "started_ms", "ended_ms", "interrupted", "unheard_ms")
_TURN = (
    "number", "end_of_speech_ms", "endpointed_ms", "first_audio_ms", "sent_ms", "heard_ms",
    "response_latency_ms", "bridge_overhead_us", "interrupted", "model_ms", "voice_ms", "transcriber_ms",
    "endpointing_ms",
)  # fmt: skip


def escape_formula(cell: Any) -> str:
    """As text that no spreadsheet runs."""
    text = "" if cell is None else str(cell)
    return f"'{text}" if text.startswith(_FORMULA) else text


def facts_of(call: Call, viewer: Viewer) -> dict[str, Any]:
    """A call as this viewer may take it along; times are UTC, money is dollars as text."""
    facts: dict[str, Any] = {}
    for name in _COLUMNS:
        value = getattr(call, name)
        value = value() if callable(value) else value
        if name in ("from_number", "to_number"):
            value = viewer.number(value)
        elif isinstance(value, datetime):
            value = value.astimezone(UTC).isoformat()
        elif isinstance(value, Decimal):
            value = f"{value:f}"
        elif isinstance(value, list):
            value = ", ".join(value)
        facts[name] = value
    return facts


class _Line:
    """What `csv` writes to: it gives the line back."""

    @staticmethod
    def write(line: str) -> str:
        return line


def csv_lines(calls: Iterable[Call], viewer: Viewer) -> Generator[str]:
    writer = csv.writer(_Line())
    yield writer.writerow(_COLUMNS)
    for call in calls:
        yield writer.writerow([escape_formula(value) for value in facts_of(call, viewer).values()])


def json_lines(calls: Iterator[Call], viewer: Viewer) -> Iterator[str]:
    """One JSON object in all: `{"calls": [...]}`."""
    before = '{"calls": [\n'
    for call in calls:
        yield before + json.dumps(facts_of(call, viewer))
        before = ",\n"
    yield (before if before.startswith("{") else "") + "\n]}\n"


def whole_lines(calls: Iterable[Call], viewer: Viewer) -> Generator[str]:
    """One JSON object a line, with all that was said and how fast; prefetch `utterances` and `turns`."""
    for call in calls:
        facts = facts_of(call, viewer) | {
            "report": call.vapi_report,
            "transcript": [{name: getattr(said, name) for name in _SAID} for said in call.utterances.all()],
            "turns": [{name: getattr(turn, name) for name in _TURN} for turn in call.turns.all()],
        }
        yield json.dumps(facts) + "\n"


FORMATS: dict[str, tuple[str, Callable[[Iterator[Call], Viewer], Iterator[str]]]] = {
    "csv": ("text/csv; charset=utf-8", csv_lines),
    "json": ("application/json", json_lines),
}


def download(calls: CallQuerySet, form: str, viewer: Viewer, *, name: str) -> StreamingHttpResponse:
    """The newest `MOST_ROWS` of these calls as a file. `form` is one of `FORMATS`."""
    content_type, lines = FORMATS[form]
    rows = calls.newest_first()[:MOST_ROWS].iterator(chunk_size=AT_ONCE)
    response = StreamingHttpResponse(_in_pieces(lines(rows, viewer)), content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}.{form}"'
    return response


async def _in_pieces(lines: Iterator[str]) -> AsyncIterator[str]:
    """Read on Django's thread, some hundred rows at a time; a plain iterator is read to its end first."""

    def some() -> str:
        return "".join(islice(lines, AT_ONCE))

    piece = sync_to_async(some)
    while text := await piece():
        yield text
