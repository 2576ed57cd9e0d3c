"""The calls that are on the line now, as staff see them: rows, and beside them the notes of the moment.

A fixed number of queries and one look into the cache, however many calls there are; without the cache the
rows are shown as they are. The same HTML goes into the dashboard, to whoever polls, and to `/live`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar, cast

from django.conf import settings
from django.db.models import F, Model, Q, QuerySet, Window
from django.db.models.functions import RowNumber
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils import timezone

from bridge.context import BridgeContext
from bridge.journal import LiveNote
from calls.models import Call, PhoneNumber, Turn, Utterance
from calls.staff.live.publisher import notes_of
from calls.viewer import Viewer

MAX_ROWS = 50
SINCE = timedelta(hours=4)  # Twilio ends every call by then
LINES = 2  # final ones; the partial words come below them
SILENT_SECONDS = 5

T = TypeVar("T", bound=Model)

FLOORS = {"caller": "caller speaking", "assistant": "assistant speaking", "": "nobody speaking"}


@dataclass(frozen=True, slots=True)
class LiveRow:
    """One call that is on the line."""

    call: Call
    caller: str  # as the viewer may read it
    number_label: str
    state: str
    lines: tuple[Utterance, ...]
    note: LiveNote | None
    latency_ms: int | None  # of the last turn that was answered
    seconds: int  # since Twilio asked what to do with it
    person: str  # who would take it over, as the viewer may read it; empty: nobody
    can_say: bool

    @property
    def floor(self) -> str:
        """Who has it, in words; empty when nobody told."""
        return FLOORS.get(self.note.floor, "") if self.note else ""

    @property
    def timer(self) -> str:
        minutes, seconds = divmod(self.seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

    @property
    def silent_since(self) -> datetime | None:
        """Since when nobody speaks; None while somebody does, or when nobody told."""
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
    """The newest first. What came after the assistant, a person or an apology, is Twilio's to tell."""
    now = timezone.now()
    live = Call.objects.live().filter(end_reason="").since(now - SINCE)
    calls = list(live.newest_first()[:MAX_ROWS])
    if not calls:
        return []
    notes = notes_of([call.call_sid for call in calls])
    numbers = {row.number: row for row in PhoneNumber.objects.filter(number__in=set(map(our_number, calls)))}
    lines = defaultdict(list)
    for utterance in _latest(Utterance.objects.filter(call__in=calls), "index", LINES):
        lines[utterance.call_id].append(utterance)
    latencies = {
        turn.call_id: turn.response_latency_ms
        for turn in _latest(Turn.objects.filter(call__in=calls).answered(), "number", 1)
    }
    rows = []
    for call in calls:
        number, note = numbers.get(our_number(call)), notes.get(call.call_sid)
        told = note.latency_ms if note else None
        rows.append(
            LiveRow(
                call=call,
                caller=viewer.number(their_number(call)),
                number_label=number.label if number and number.label else viewer.number(our_number(call)),
                state=_state(call),
                lines=tuple(lines[call.pk]),
                note=note,
                latency_ms=latencies.get(call.pk) if told is None else told,
                seconds=max(0, int((now - call.started_at).total_seconds())),
                person=viewer.number(fallback_number(number)),
                can_say=bool(call.vapi_call_id) and not settings.VAPI_SOCKET_URL,
            )
        )
    return rows


def board_html(viewer: Viewer, bridge: BridgeContext | None = None) -> str:
    context = board_context(viewer, bridge)
    names = ("calls/_live_board.html", "calls/_live_lines.html")
    return "".join(render_to_string(name, context) for name in names)


def board_context(viewer: Viewer, bridge: BridgeContext | None) -> dict[str, object]:
    """What `_live_board.html` and `_live_lines.html` need."""
    door = bridge and bridge.admission
    return {
        "live": live_rows(viewer),
        "viewer": viewer,
        "now": timezone.now(),
        "most_live": MAX_ROWS,
        "lines": door and (door.live_calls, door.config.max_concurrent_calls),
        "accepting": door and door.accepting,
    }


def get_bridge(request: HttpRequest) -> BridgeContext | None:
    """This process's bridge; None where a page is asked for without a server, as tests do."""
    bridge: BridgeContext | None = getattr(request, "scope", {}).get("bridge")
    return bridge


def our_number(call: Call) -> str:
    return call.from_number if call.direction.startswith("outbound") else call.to_number


def their_number(call: Call) -> str:
    return call.to_number if call.direction.startswith("outbound") else call.from_number


def fallback_number(number: PhoneNumber | None) -> str:
    """The person who stands in when a call to `number` needs one; empty: nobody."""
    known = number.fallback_number if number and number.active else ""
    return known or str(settings.FALLBACK_NUMBER)


def _state(call: Call) -> str:
    if call.end_requested == "hung-up-by-staff":
        return "hanging up"
    if call.end_requested:
        return "being handed over"
    return "on the line" if call.answered_at else "reaching the assistant"


def _latest(rows: QuerySet[T], order: str, most: int) -> QuerySet[T]:
    """The last few rows of each call, in their order: one query."""
    back = Window(RowNumber(), partition_by=F("call_id"), order_by=F(order).desc())
    numbered = cast("QuerySet[T]", rows.annotate(back=back))
    return numbered.filter(Q(back__lte=most)).order_by("call_id", order)
