"""Call exports as CSV or JSON, streamed row by row so that memory use does not grow with the export.

Spreadsheets execute a cell that begins with `=`, `+`, `-` or `@` as a formula, and callers control what
they say and how they are named. Such cells get a leading apostrophe, which spreadsheets read as "text". Where
semicolons or tabs separate cells, a formula can begin in the middle of a cell, so an apostrophe is inserted
there, too. Numbers are not text and stay as they are. (Available libraries guard against `=` only and build
the whole file in memory.)
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import Any

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse

from calls.models import Call
from calls.querysets import CallQuerySet
from calls.viewer import Viewer

MAX_ROWS = 100_000
CHUNK_ROWS = 500
BYTE_ORDER_MARK = "\ufeff"  # without it, Excel reads UTF-8 as the code page of the computer
# The start of a cell in any dialect, before a sign that begins a formula. Some programs treat the full-width
# signs the same way.
_FORMULA = re.compile(r"""(?:^|[;|\t\r\n])[\s"']*(?=[=+\-@＝＋－＠])|^(?=[\t\r\n])""")  # noqa: RUF001

_COLUMNS = (
    "started_at", "call_sid", "vapi_call_id", "direction", "from_number", "to_number", "caller_name",
    "status", "end_reason", "ended_by", "vapi_ended_reason", "answered_at", "ended_at", "duration_seconds",
    "connect_ms", "time_to_first_audio_ms", "turn_count", "p50_latency_ms", "worst_latency_ms",
    "longest_silence_ms",
    "barge_ins", "frames_to_assistant", "frames_to_caller", "frames_held", "frames_dropped", "twilio_price",
    "price_unit",
    "stream_price", "vapi_cost", "cost", "missing_bills", "success", "summary",
    "outcome", "note", "needs_review", "simulated", "assistant_id", "release",
)  # fmt: skip

_AMOUNTS = ("twilio_price", "stream_price", "vapi_cost", "cost")

_UTTERANCE_FIELDS = ("index", "speaker", "text", "started_ms", "ended_ms", "interrupted", "unheard_ms")
_TURN_FIELDS = (
    "number", "end_of_speech_ms", "endpointed_ms", "first_audio_ms", "sent_ms", "heard_ms",
    "response_latency_ms", "bridge_overhead_us", "interrupted", "model_ms", "voice_ms", "transcriber_ms",
    "endpointing_ms",
)  # fmt: skip


def escape_formula(cell: Any) -> Any:
    """The cell without a formula in it. A number stays a number, None is empty."""
    if cell is None:
        return ""
    return cell if isinstance(cell, int | float) else _FORMULA.sub(r"\g<0>'", str(cell))


def serialize_call(call: Call, viewer: Viewer) -> dict[str, Any]:
    """The exported columns of a call. Times are UTC, amounts are text, in dollars unless `price_unit` names
    the currency of Twilio's price (then there is no `cost`), numbers may be masked."""
    row: dict[str, Any] = {}
    for name in _COLUMNS:
        value = getattr(call, name)
        value = value() if callable(value) else value
        if name in ("from_number", "to_number"):
            value = viewer.display_number(value)
        elif isinstance(value, datetime):
            value = value.astimezone(UTC).isoformat()
        elif isinstance(value, Decimal):
            value = f"{value:f}"
        elif isinstance(value, list):
            value = ", ".join(value)
        row[name] = value
    row["price_unit"] = call.currency
    return row


class _Echo:
    """A file-like object for `csv` whose `write` returns the line instead of storing it."""

    @staticmethod
    def write(line: str) -> str:
        return line


def csv_lines(calls: Iterable[Call], viewer: Viewer) -> Generator[str]:
    writer = csv.writer(_Echo())
    yield BYTE_ORDER_MARK + writer.writerow(_COLUMNS)
    for call in calls:
        row = serialize_call(call, viewer)
        # Amounts are digits of our own, so a minus sign begins no formula.
        cells = [row[name] if name in _AMOUNTS else escape_formula(row[name]) for name in _COLUMNS]
        yield writer.writerow(cells)


def json_document(calls: Iterator[Call], viewer: Viewer) -> Iterator[str]:
    """One JSON object for the whole export: `{"calls": [...]}`."""
    before = '{"calls": [\n'
    for call in calls:
        yield before + json.dumps(serialize_call(call, viewer))
        before = ",\n"
    yield (before if before.startswith("{") else "") + "\n]}\n"


def transcript_lines(calls: Iterable[Call], viewer: Viewer) -> Generator[str]:
    """JSON Lines with transcript, turns and Vapi's report. Prefetch `utterances` and `turns`."""
    for call in calls:
        row = serialize_call(call, viewer) | {
            "report": call.vapi_report,
            "transcript": [
                {name: getattr(utterance, name) for name in _UTTERANCE_FIELDS}
                for utterance in call.utterances.all()
            ],
            "turns": [{name: getattr(turn, name) for name in _TURN_FIELDS} for turn in call.turns.all()],
        }
        yield json.dumps(row) + "\n"


FORMATS: dict[str, tuple[str, Callable[[Iterator[Call], Viewer], Iterator[str]]]] = {
    "csv": ("text/csv; charset=utf-8", csv_lines),
    "json": ("application/json", json_document),
}


def download(calls: CallQuerySet, file_format: str, viewer: Viewer, *, name: str) -> StreamingHttpResponse:
    """A file with the newest `MAX_ROWS` of these calls. `file_format` is a key of `FORMATS`."""
    content_type, serialize = FORMATS[file_format]
    rows = calls.newest_first()[:MAX_ROWS].iterator(chunk_size=CHUNK_ROWS)
    response = StreamingHttpResponse(_stream_chunks(serialize(rows, viewer)), content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}.{file_format}"'
    return response


async def _stream_chunks(lines: Iterator[str]) -> AsyncIterator[str]:
    """Read some hundred rows at a time on Django's thread.

    Under ASGI Django would consume a plain iterator completely before it sends anything.
    """

    def read_chunk() -> str:
        return "".join(islice(lines, CHUNK_ROWS))

    read = sync_to_async(read_chunk)
    while text := await read():
        yield text
