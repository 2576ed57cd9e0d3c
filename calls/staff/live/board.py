"""The live board: calls in progress, read from their rows and the latest live notes.

The number of queries and cache lookups does not depend on the number of calls. Without the cache the board
shows the rows alone. The dashboard, pages that poll, and `/live` all serve the same HTML.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar, cast

from django.conf import settings
from django.db.models import F, Model, Q, QuerySet, Window
from django.db.models.functions import RowNumber
from django.template.loader import render_to_string
from django.utils import timezone

from bridge.end_reasons import HUNG_UP_BY_STAFF
from bridge.journal import LiveNote
from calls import drain
from calls.end_reasons import name_party
from calls.models import MAX_CALL_AGE, Call, PhoneNumber, Turn, Utterance
from calls.staff.live.publisher import get_notes
from calls.staff.staff_messages import fetch_staff_messages, is_by_staff
from calls.viewer import Viewer

MAX_ROWS = 50
LINES_PER_CALL = 2  # final utterances; the partial one follows them
SILENT_SECONDS = 5

T = TypeVar("T", bound=Model)

FLOORS = {"caller": "Caller speaking", "assistant": "Assistant speaking"}


@dataclass(frozen=True, slots=True)
class LiveRow:
    """One call in progress. Phone numbers are masked unless the viewer may see them."""

    call: Call
    caller: str
    number_label: str
    state: str
    lines: tuple[Utterance, ...]
    note: LiveNote | None
    latency_ms: int | None  # of the last answered turn
    seconds: int  # since Twilio requested instructions for the call
    fallback_number: str  # for a transfer; empty: none is set
    can_say: bool
    messages: tuple[str, ...] = ()  # that staff had the assistant say, normalized

    @property
    def spoken(self) -> list[tuple[Utterance, bool]]:
        """The last utterances, and whether staff had the assistant say them."""
        return [(line, is_by_staff(line, self.messages)) for line in self.lines]

    @property
    def partial(self) -> str:
        """What is being said; empty once it is among the last utterances, which are stored separately."""
        if self.note is None or not self.note.partial:
            return ""
        last = next((line for line in reversed(self.lines) if line.speaker == self.note.speaker), None)
        is_stored = last is not None and last.text.strip().casefold().endswith(self.note.partial.casefold())
        return "" if is_stored else self.note.partial

    @property
    def floor(self) -> str:
        """Who is speaking; empty when nobody is or when there is no live note."""
        return name_party(FLOORS.get(self.note.floor, ""), self.call.party) if self.note else ""

    @property
    def timer(self) -> str:
        minutes, seconds = divmod(self.seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

    @property
    def silent_since(self) -> datetime | None:
        """Since when nobody has spoken; None while somebody speaks or when there is no live note."""
        if self.note is None or self.note.floor or self.call.answered_at is None:
            return None
        return datetime.fromtimestamp(self.note.floor_since, UTC)

    @property
    def silent_seconds(self) -> int:
        since = self.silent_since
        return max(0, int((timezone.now() - since).total_seconds())) if since else 0

    @property
    def is_silent(self) -> bool:
        return self.silent_seconds >= SILENT_SECONDS


def live_rows(viewer: Viewer) -> list[LiveRow]:
    """Calls with a live stream, newest first.

    A call whose stream has ended is left out, even while Twilio plays an apology or dials the fallback
    number: we receive no live data for that part.
    """
    now = timezone.now()
    live = Call.objects.live().filter(end_reason="").since(now - MAX_CALL_AGE)
    calls = list(live.newest_first()[:MAX_ROWS])
    if not calls:
        return []
    notes = get_notes([call.call_sid for call in calls])
    our_numbers = {call.our_number for call in calls}
    numbers = {row.number: row for row in PhoneNumber.objects.filter(number__in=our_numbers)}
    lines = defaultdict(list)
    for utterance in _latest_per_call(Utterance.objects.filter(call__in=calls), "index", LINES_PER_CALL):
        lines[utterance.call_id].append(utterance)
    latencies = {
        turn.call_id: turn.response_latency_ms
        for turn in _latest_per_call(Turn.objects.filter(call__in=calls).answered(), "number", 1)
    }
    messages = fetch_staff_messages(calls)
    rows = []
    for call in calls:
        number, note = numbers.get(call.our_number), notes.get(call.call_sid)
        noted_latency_ms = note.latency_ms if note else None
        rows.append(
            LiveRow(
                call=call,
                caller=viewer.display_number(call.their_number),
                number_label=number.label
                if number and number.label
                else viewer.display_number(call.our_number),
                state=_state(call),
                lines=tuple(lines[call.pk]),
                note=note,
                latency_ms=latencies.get(call.pk) if noted_latency_ms is None else noted_latency_ms,
                seconds=max(0, int((now - call.started_at).total_seconds())),
                fallback_number=viewer.display_number(PhoneNumber.fallback_for(number)),
                can_say=bool(call.vapi_call_id) and not settings.VAPI_SOCKET_URL,
                messages=tuple(messages[call.pk]),
            )
        )
    return rows


def render_board(viewer: Viewer) -> str:
    context = board_context(viewer)
    names = ("calls/_live_board.html", "calls/_live_lines.html")
    return "".join(render_to_string(name, context) for name in names)


def board_context(viewer: Viewer) -> dict[str, object]:
    """What `_live_board.html` and `_live_lines.html` need."""
    rows, now = live_rows(viewer), timezone.now()
    status = drain.get_status(now)
    return {
        "live": rows,
        "viewer": viewer,
        "now": now,
        "max_live": MAX_ROWS,
        "drain": status,
    }


def _state(call: Call) -> str:
    if call.end_requested == HUNG_UP_BY_STAFF:
        return "Hanging up"
    if call.end_requested:
        return "Transferring"
    return "Connected" if call.answered_at else "Connecting assistant"


def _latest_per_call(rows: QuerySet[T], order: str, limit: int) -> QuerySet[T]:
    """The last `limit` rows of each call, in ascending order. One query."""
    rank = Window(RowNumber(), partition_by=F("call_id"), order_by=F(order).desc())
    ranked = cast("QuerySet[T]", rows.annotate(rank=rank))
    return ranked.filter(Q(rank__lte=limit)).order_by("call_id", order)
