"""Entries to rows: any order, any number of times, the same rows.

A batch is applied in one transaction. The calls it names are locked and merged in memory, then saved
with the fields that changed; children are upserted in bulk by their index. Whoever ended a call first has
named the reason, and later facts only add; a status never moves back.

All text passes one sanitiser on its way in, since PostgreSQL refuses what SQLite takes.
"""

from __future__ import annotations

import math
import re
import unicodedata
from binascii import crc32
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, assert_never

from django.db import models

from bridge import journal
from bridge.endings import ENDED_BY, TICKET_REFUSED, WORKER_LOST
from calls.models import Call, CallEvent, Turn, Utterance, later_status

LEASE = timedelta(seconds=15)
MAX_TEXT = 16_000
MAX_JSON_DEPTH = 8
ENDED_IN_BRIDGE = ("caller-hung-up", "assistant-ended", "hung-up-by-staff", "transferred")

# Control characters other than tab and newline, and lone halves of surrogate pairs.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

Batch = Sequence[journal.Entry]


def clean_text(text: str, most: int = MAX_TEXT) -> str:
    """Text that every database takes: no control characters, no lone surrogates, NFC, bounded."""
    cut = _SURROGATE.sub("\ufffd", _CONTROL.sub("", text[: most * 2]))
    return unicodedata.normalize("NFC", cut)[:most]


def clean_json(value: Any, depth: int = 0) -> Any:
    """The same for JSON; NaN and infinities become null, what is too deep or strange becomes text."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case str():
            return clean_text(value, 2000)
        case Mapping() if depth < MAX_JSON_DEPTH:
            return {clean_text(str(key), 200): clean_json(item, depth + 1) for key, item in value.items()}
        case list() | tuple() if depth < MAX_JSON_DEPTH:
            return [clean_json(item, depth + 1) for item in value]
        case _:
            return clean_text(str(value), 2000)


def apply(entries: Batch) -> list[journal.Entry]:
    """Make rows of a batch; call it inside a transaction. Returns entries whose call is not known yet."""
    calls = _calls_of(entries)
    by_vapi_id = _by_vapi_id(entries, calls)
    changes = Changes()
    unplaced: list[journal.Entry] = []
    for entry in entries:
        call = calls.get(clean_sid(entry.call_sid))
        if call is None and isinstance(entry, journal.AssistantReported):
            call = by_vapi_id.get(entry.vapi_call_id)
        if call is None:
            unplaced.append(entry)
        else:
            changes.merge(call, entry)
    changes.save()
    return unplaced


def clean_sid(call_sid: str) -> str:
    return clean_text(call_sid, 64)


def _calls_of(entries: Batch) -> dict[str, Call]:
    """The batch's calls, locked, and created where they are not there yet."""
    first_seen: dict[str, float] = {}
    for entry in entries:
        if sid := clean_sid(entry.call_sid):
            at = getattr(entry, "at", None)
            first_seen[sid] = min(first_seen.get(sid, math.inf), math.inf if at is None else at)
    rows = Call.objects.select_for_update().order_by("call_sid")  # one order, so that writers cannot deadlock
    found = {call.call_sid: call for call in rows.filter(call_sid__in=first_seen)}
    missing = first_seen.keys() - found.keys()
    if missing:
        now = datetime.now(UTC)
        fresh = [
            Call(call_sid=sid, started_at=moment(first_seen[sid]) if first_seen[sid] < math.inf else now)
            for sid in sorted(missing)
        ]
        # Another process may create the same call at this moment.
        Call.objects.bulk_create(fresh, ignore_conflicts=True)
        found |= {call.call_sid: call for call in rows.filter(call_sid__in=missing)}
    return found


def _by_vapi_id(entries: Batch, calls: Mapping[str, Call]) -> dict[str, Call]:
    wanted = {
        entry.vapi_call_id
        for entry in entries
        if isinstance(entry, journal.AssistantReported) and entry.vapi_call_id and not entry.call_sid
    }
    found = {call.vapi_call_id: call for call in calls.values() if call.vapi_call_id}
    # An answer in this very batch has not reached its row yet.
    for entry in entries:
        if isinstance(entry, journal.AssistantAnswered) and entry.vapi_call_id in wanted:
            found[entry.vapi_call_id] = calls[clean_sid(entry.call_sid)]
    if unknown := wanted - found.keys():
        rows = Call.objects.select_for_update().order_by("call_sid").filter(vapi_call_id__in=unknown)
        found |= {call.vapi_call_id: call for call in rows}
    return found


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


class Changes:
    """What a batch changes, gathered before anything is written."""

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}
        self._fields: dict[int, set[str]] = defaultdict(set)
        self._utterances: dict[tuple[int, int], Utterance] = {}
        self._turns: dict[tuple[int, int], Turn] = {}
        self._events: dict[tuple[int, str, int], CallEvent] = {}
        self._vendor_turns: dict[int, Sequence[Mapping[str, Any]]] = {}

    def set(self, call: Call, **values: Any) -> None:
        for name, value in values.items():
            if getattr(call, name) != value:
                setattr(call, name, value)
                self._calls[call.pk] = call
                self._fields[call.pk].add(name)

    def merge(self, call: Call, entry: journal.Entry) -> None:
        """One entry into its call."""
        at = getattr(entry, "at", None)
        if at is not None and moment(at) < call.started_at:
            self.set(call, started_at=moment(at))
        match entry:
            case journal.CallOffered():
                self._offered(call, entry)
            case journal.StreamStarted():
                if call.end_reason == TICKET_REFUSED:
                    self.set(call, end_reason="", ended_by="", ended_at=None)  # that was another stream's
                status = later_status(call.status, "in-progress")
                lease = moment(entry.at) + LEASE if call.lease_until is None else call.lease_until
                self.set(call, stream_sid=clean_text(entry.stream_sid, 64), worker=entry.worker[:128])
                self.set(call, status=status, lease_until=lease)
            case journal.StreamRefused():
                if not call.stream_sid and not call.end_reason:
                    self._end(call, entry.reason, entry.at)
            case journal.AssistantAnswered():
                self.set(
                    call,
                    answered_at=moment(entry.at),
                    connect_ms=max(0, entry.connect_ms),
                    vapi_call_id=clean_text(entry.vapi_call_id, 64),
                    frames_held=max(call.frames_held, entry.frames_held),
                )
            case journal.UtteranceSpoken():
                self._utterances[call.pk, entry.index] = Utterance(
                    call=call,
                    index=entry.index,
                    speaker=entry.speaker,
                    text=clean_text(entry.text),
                    started_ms=entry.started_ms,
                    ended_ms=entry.ended_ms,
                    interrupted=entry.interrupted,
                )
            case journal.TurnTaken():
                self._turns[call.pk, entry.number] = Turn(
                    call=call, **{name: getattr(entry, name) for name in _TURN_FIELDS}
                )
            case journal.Happened():
                self._event(call, entry.source, entry.index, entry.kind, entry.at_ms, entry.data)
            case journal.StreamEnded():
                self._stream_ended(call, entry)
            case journal.CarrierReported():
                self._carrier(call, entry)
            case journal.AssistantReported():
                self._vapi(call, entry)
            case _:
                assert_never(entry)

    def _offered(self, call: Call, entry: journal.CallOffered) -> None:
        self.set(
            call,
            from_number=clean_text(entry.from_number, 64),
            to_number=clean_text(entry.to_number, 64),
            direction=clean_text(entry.direction, 16),
            simulated=entry.simulated or call.simulated,
        )
        if entry.refused and not call.end_reason and not call.stream_sid:
            self._end(call, entry.refused, entry.at)

    def _end(self, call: Call, reason: str, at: float) -> None:
        self.set(call, end_reason=reason, ended_by=ENDED_BY.get(reason, "us"))
        if call.ended_at is None:
            self.set(call, ended_at=moment(at))

    def _stream_ended(self, call: Call, entry: journal.StreamEnded) -> None:
        # The call's own account outranks a refused stream and the reaper's guess.
        if call.end_reason in ("", TICKET_REFUSED, WORKER_LOST):
            self.set(call, end_reason=entry.end_reason, ended_by=entry.ended_by, ended_at=moment(entry.at))
        self.set(
            call,
            vapi_ended_reason=call.vapi_ended_reason or clean_text(entry.vapi_ended_reason, 255),
            vapi_close_code=entry.vapi_close_code,
            time_to_first_audio_ms=entry.time_to_first_audio_ms,
            frames_to_assistant=entry.frames_to_assistant,
            frames_to_caller=entry.frames_to_caller,
            frames_held=entry.frames_held,
            frames_dropped=entry.frames_dropped,
            barge_ins=entry.barge_ins,
            counters=clean_json(entry.counters),
        )
        if entry.end_reason in ENDED_IN_BRIDGE:
            self.set(call, status=later_status(call.status, "completed"))

    def _carrier(self, call: Call, entry: journal.CarrierReported) -> None:
        status = entry.status.strip().lower()
        if status:
            self.set(call, status=later_status(call.status, status))
        if entry.duration_seconds is not None:
            longest = max(entry.duration_seconds, call.duration_seconds or 0)
            self.set(call, duration_seconds=min(longest, 2**31 - 1))
        kind = entry.stream_event or f"call-{status or 'unknown'}"
        data = {"sequence": entry.sequence, "detail": entry.detail}
        known = {name: value for name, value in data.items() if value not in (None, "")}
        self._event(call, "carrier", _index(kind, entry.sequence), kind, None, known)

    def _vapi(self, call: Call, entry: journal.AssistantReported) -> None:
        reason = clean_text(entry.ended_reason, 255)
        self.set(
            call,
            vapi_call_id=call.vapi_call_id or clean_text(entry.vapi_call_id, 64),
            vapi_ended_reason=reason or call.vapi_ended_reason,
            summary=clean_text(entry.summary) or call.summary,
        )
        if entry.cost is not None and math.isfinite(entry.cost) and 0 <= entry.cost < 10_000:
            self.set(call, vapi_cost=Decimal(str(round(entry.cost, 5))))
        if entry.turn_latencies:
            self.set(call, vapi_report={"turn_latencies": clean_json(entry.turn_latencies)})
        if call.vapi_report:
            self._vendor_turns[call.pk] = call.vapi_report.get("turn_latencies", [])
        data = {"status": entry.status, "reason": reason}
        known = {name: value for name, value in data.items() if value}
        self._event(call, "vapi", _index(entry.kind, entry.status), entry.kind, None, known)

    def _event(
        self, call: Call, source: str, index: int, kind: str, at_ms: int | None, data: Mapping[str, Any]
    ) -> None:
        self._events[call.pk, source, index] = CallEvent(
            call=call,
            source=source[:16],
            index=index,
            kind=clean_text(kind, 64),
            at_ms=at_ms,
            data=clean_json(data),
        )

    def save(self) -> None:
        for pk, call in self._calls.items():
            call.save(update_fields=sorted(self._fields[pk]))
        _upsert(Utterance, self._utterances.values(), ("call", "index"))
        _upsert(Turn, self._turns.values(), ("call", "number"), only=_TURN_FIELDS)
        _upsert(CallEvent, self._events.values(), ("call", "source", "index"))
        touched = {pk for pk, _ in self._turns}
        for pk in touched | self._vendor_turns.keys():
            self._split_latencies(pk)

    def _split_latencies(self, pk: int) -> None:
        """The vendor's own latencies, onto the turns, when it counted as many as we did."""
        split = self._vendor_turns.get(pk)
        if split is None:
            report = Call.objects.filter(pk=pk).values_list("vapi_report", flat=True).first() or {}
            split = report.get("turn_latencies", [])
        if not split:
            return
        turns = list(Turn.objects.filter(call_id=pk).answered().order_by("number"))
        if len(turns) != len(split):
            return
        for turn, parts in zip(turns, split, strict=True):
            for column, name in _VENDOR_PARTS.items():
                value = parts.get(name) if isinstance(parts, Mapping) else None
                usable = isinstance(value, int | float) and 0 <= value < 10_000_000
                setattr(turn, column, round(float(value)) if usable and value is not None else None)
        Turn.objects.bulk_update(turns, list(_VENDOR_PARTS))


_TURN_FIELDS = (
    "number", "end_of_speech_ms", "endpointed_ms", "first_audio_ms", "sent_ms", "heard_ms",
    "response_latency_ms", "bridge_overhead_us", "interrupted",
)  # fmt: skip
_VENDOR_PARTS = {
    "model_ms": "modelLatency",
    "voice_ms": "voiceLatency",
    "transcriber_ms": "transcriberLatency",
    "endpointing_ms": "endpointingLatency",
}


def _index(*parts: object) -> int:
    """The same index for the same news, so that hearing it twice makes one row."""
    return crc32(repr(parts).encode()) >> 1


def _upsert(
    model: type[models.Model],
    rows: Iterable[models.Model],
    unique: Sequence[str],
    only: Sequence[str] | None = None,
) -> None:
    found = list(rows)
    if not found:
        return
    names = only or [f.name for f in model._meta.concrete_fields if not f.primary_key]
    model._default_manager.bulk_create(
        found,
        update_conflicts=True,
        unique_fields=list(unique),
        update_fields=[name for name in names if name not in unique],
    )


def renew_leases(call_sids: Sequence[str], now: datetime) -> None:
    """This process still carries these calls."""
    if call_sids:
        Call.objects.live().filter(call_sid__in=call_sids).update(lease_until=now + LEASE)


def reap(now: datetime) -> int:
    """End the calls that no process carries any more; returns how many. Twilio's own word may still come."""
    lost = Call.objects.live().filter(lease_until__lt=now, end_reason="")
    by = ENDED_BY[WORKER_LOST]
    return lost.update(end_reason=WORKER_LOST, ended_by=by, ended_at=now, status="failed", lease_until=None)
