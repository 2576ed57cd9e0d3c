"""One entry into its call: what it changes, gathered for a batch and written at once.

Merging knows no order. Whoever ended a call first has named the reason, and the stream's own word outranks
a guess; a status never moves back, `started_at` never forward, and what is known is not lost to an empty
value. Children are told apart by their index, and of one index the later entry stands.
"""

from __future__ import annotations

from binascii import crc32
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, assert_never

from django.conf import settings
from django.db import models

from bridge import journal
from bridge.end_reasons import (
    ASSISTANT_ENDED,
    ASSISTANT_FAILED,
    AT_CAPACITY,
    CALLER_HUNG_UP,
    DRAINING,
    ENDED_BY,
    HUNG_UP_BY_STAFF,
    MACHINE_ANSWERED,
    OUT_OF_HOURS,
    STREAM_LOST,
    TICKET_REFUSED,
    WORKER_LOST,
)
from calls import costs as bills
from calls.ingest.sanitize import clean_json, clean_text
from calls.models import TERMINAL_STATUSES, Call, CallEvent, Turn, Utterance, later_status
from calls.stats import call_summary
from calls.stats.hourly import HourKey, key_of

LEASE = timedelta(seconds=15)
# Reasons of a call that had no stream. A stream of the same call proves them wrong.
NEVER_STARTED = (TICKET_REFUSED, AT_CAPACITY, DRAINING, OUT_OF_HOURS, MACHINE_ANSWERED)
# After these nothing follows at Twilio. (A caller who was transferred is still on the line.)
ENDED_IN_BRIDGE = (CALLER_HUNG_UP, ASSISTANT_ENDED, HUNG_UP_BY_STAFF)
# What staff asked for looks like one of these to the stream, which knows no better.
LOOKS_LIKE = (CALLER_HUNG_UP, STREAM_LOST, ASSISTANT_ENDED, ASSISTANT_FAILED)
ASKED_WITHIN, CLOCKS_APART = timedelta(seconds=10), timedelta(seconds=2)


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
        self._to_split: dict[int, Call] = {}  # calls whose vendor latencies meet their turns again
        self._seen: dict[int, Call] = {}
        self._hours: set[HourKey] = set()  # in which the calls seen were counted before

    def set(self, call: Call, **values: Any) -> None:
        for name, value in values.items():
            if getattr(call, name) != value:
                setattr(call, name, value)
                self._calls[call.pk] = call
                self._fields[call.pk].add(name)

    def merge(self, call: Call, entry: journal.Entry) -> None:
        """One entry into its call."""
        if call.pk not in self._seen:
            self._seen[call.pk] = call
            self._hours.add(key_of(call))
        at = getattr(entry, "at", None)
        if at is not None and moment(at) < call.started_at:
            self.set(call, started_at=moment(at))
        match entry:
            case journal.CallOffered():
                self._offered(call, entry)
            case journal.StreamStarted():
                if call.end_reason in NEVER_STARTED:
                    self.set(call, end_reason="", ended_by="", ended_at=None)
                self.set(
                    call,
                    stream_sid=clean_text(entry.stream_sid, 64),
                    worker=clean_text(entry.worker, 128),
                    status=later_status(call.status, "in-progress"),
                    # Renewed since? Then a start that is told twice does not shorten it.
                    lease_until=call.lease_until or moment(entry.at) + LEASE,
                )
            case journal.StreamRefused():
                if not call.stream_sid and not call.end_reason:
                    self._end(call, entry.reason, entry.at)
            case journal.AssistantAnswered():
                self.set(
                    call,
                    answered_at=moment(entry.at),
                    connect_ms=max(0, entry.connect_ms),
                    vapi_call_id=clean_text(entry.vapi_call_id, 64) or call.vapi_call_id,
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
                    unheard_ms=entry.unheard_ms,
                )
            case journal.TurnTaken():
                self._to_split[call.pk] = call
                self._turns[call.pk, entry.number] = Turn(
                    call=call, **{name: getattr(entry, name) for name in _TURN_FIELDS}
                )
            case journal.TimelineEvent():
                self._event(call, entry.source, entry.index, entry.kind, entry.at_ms, entry.data)
            case journal.StreamEnded():
                self._stream_ended(call, entry)
            case journal.CarrierReported():
                self._carrier(call, entry)
            case journal.AssistantReported():
                self._vapi(call, entry)
            case journal.EndRequested():
                self._end_requested(call, entry)
            case journal.LiveNote():
                raise ValueError("a note of the moment is no row")
            case _:
                assert_never(entry)

    def _offered(self, call: Call, entry: journal.CallOffered) -> None:
        self.set(
            call,
            from_number=clean_text(entry.from_number, 64) or call.from_number,
            to_number=clean_text(entry.to_number, 64) or call.to_number,
            caller_name=clean_text(entry.caller_name, 255) or call.caller_name,
            direction=clean_text(entry.direction, 16) or call.direction,
            answered_by=clean_text(entry.answered_by, 32) or call.answered_by,
            simulated=entry.simulated or call.simulated,
        )
        if entry.refused and not call.end_reason and not call.stream_sid:
            self._end(call, entry.refused, entry.at)

    def _end(self, call: Call, reason: str, at: float) -> None:
        self.set(call, end_reason=clean_text(reason, 64), ended_by=ENDED_BY.get(reason, "us"))
        self.set(call, ended_at=min(moment(at), call.ended_at or moment(at)))

    def _stream_ended(self, call: Call, entry: journal.StreamEnded) -> None:
        reason, ended_by = clean_text(entry.end_reason, 64), clean_text(entry.ended_by, 16)
        if _was_asked_for(call, reason, moment(entry.at)):
            reason = call.end_requested
            ended_by = call.ended_by or ENDED_BY.get(reason, "staff")
        # The stream's own account outranks a refusal and the reaper's guess.
        if call.end_reason in ("", *NEVER_STARTED, WORKER_LOST):
            self.set(call, end_reason=reason, ended_by=ended_by, ended_at=moment(entry.at))
        self.set(
            call,
            vapi_ended_reason=call.vapi_ended_reason or clean_text(entry.vapi_ended_reason, 255),
            vapi_close_code=entry.vapi_close_code,
            time_to_first_audio_ms=entry.time_to_first_audio_ms,
            frames_to_assistant=entry.frames_to_assistant,
            frames_to_caller=entry.frames_to_caller,
            frames_held=max(call.frames_held, entry.frames_held),
            frames_dropped=entry.frames_dropped,
            barge_ins=entry.barge_ins,
            counters=clean_json(entry.counters),
        )
        self.set(call, stream_price=_stream_price(entry.at_ms))
        if reason in ENDED_IN_BRIDGE:
            self.set(call, status=later_status(call.status, "completed"))

    def _end_requested(self, call: Call, entry: journal.EndRequested) -> None:
        if entry.withdrawn:
            if call.end_requested_at == moment(entry.at):
                self.set(call, end_requested="", end_requested_at=None)
                self.set(call, ended_by=call.ended_by if call.end_reason else "")
            return
        self.set(call, end_requested=clean_text(entry.end_reason, 64), end_requested_at=moment(entry.at))
        # The stream may have told its end first: it was carried, perhaps, by another process.
        if call.ended_at is not None and _was_asked_for(call, call.end_reason, call.ended_at):
            self.set(call, end_reason=call.end_requested, ended_by=entry.ended_by)
        elif not call.end_reason:
            self.set(call, ended_by=clean_text(entry.ended_by, 16))

    def _carrier(self, call: Call, entry: journal.CarrierReported) -> None:
        status = entry.status.strip().lower()
        if status:
            self.set(call, status=later_status(call.status, status))
        if (
            status in TERMINAL_STATUSES and not call.end_reason
        ):  # no stream told when: the callback is closest
            self.set(call, ended_at=min(moment(entry.at), call.ended_at or moment(entry.at)))
        if entry.duration_seconds is not None:
            longest = max(entry.duration_seconds, call.duration_seconds or 0)
            self.set(call, duration_seconds=min(longest, 2**31 - 1))
        if entry.answered_by:
            self.set(call, answered_by=clean_text(entry.answered_by, 32))
        if (price := bills.amount(entry.price)) is not None:  # it comes late, and a later word is no nothing
            self.set(call, twilio_price=price)
        if entry.asked and entry.duration_seconds and call.stream_sid and call.stream_price is None:
            # Its server died with it: it has lasted no longer than the call.
            self.set(call, stream_price=_stream_price(entry.duration_seconds * 1000))
        kind = clean_text(entry.stream_event or f"call-{status or 'unknown'}", 64)
        data = {"sequence": entry.sequence, "detail": entry.detail}
        if entry.asked:  # not one more callback
            kind = "call-looked-up"
            data |= {"status": status, "duration": entry.duration_seconds, "price": entry.price}
        known = {name: value for name, value in data.items() if value not in (None, "")}
        self._event(call, "carrier", _index(kind, entry.sequence), kind, None, known)

    def _vapi(self, call: Call, entry: journal.AssistantReported) -> None:
        """The report outranks any status, whichever came first, and of two reports the later stands."""
        reason, at = clean_text(entry.ended_reason, 255), moment(entry.at)
        self.set(call, vapi_call_id=call.vapi_call_id or clean_text(entry.vapi_call_id, 64))
        final = entry.kind == "end-of-call-report"
        if call.reported_at is None or (final and at >= call.reported_at):
            self.set(
                call,
                vapi_ended_reason=reason or call.vapi_ended_reason,
                summary=clean_text(entry.summary) or call.summary,
            )
            if final:
                self.set(call, reported_at=at)
            if (cost := bills.amount(entry.cost)) is not None and cost >= 0:
                self.set(call, vapi_cost=cost)
            kept = clean_json(entry.kept)
            if entry.turn_latencies:
                kept["turn_latencies"] = clean_json(entry.turn_latencies)
                self._to_split[call.pk] = call
            self.set(call, vapi_report={**call.vapi_report, **kept})
        data = {"status": entry.status, "reason": reason}
        known = {name: value for name, value in data.items() if value}
        self._event(call, "vapi", _index(entry.kind, entry.status), entry.kind, None, known)

    def _event(
        self, call: Call, source: str, index: int, kind: str, at_ms: int | None, data: Mapping[str, Any]
    ) -> None:
        source = clean_text(source, 16)
        self._events[call.pk, source, index] = CallEvent(
            call=call,
            source=source,
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
        self._split_latencies()
        # While a call goes on, nobody counts it by what it will have come to.
        over = [call for call in self._seen.values() if call.end_reason or call.is_over]
        # It is counted, though: by the hour in which it was, and by the one in which it is now.
        call_summary.refresh(over, hours=self._hours | {key_of(call) for call in self._seen.values()})

    def _split_latencies(self) -> None:
        """The vendor's own latencies, onto the turns, where it counted as many as we did."""
        reports = {pk: call.vapi_report.get("turn_latencies", []) for pk, call in self._to_split.items()}
        known = {pk: split for pk, split in reports.items() if split}
        if not known:
            return
        turns: dict[int, list[Turn]] = defaultdict(list)
        for turn in Turn.objects.filter(call_id__in=known).answered().order_by("number"):
            turns[turn.call_id].append(turn)
        changed = []
        for pk, split in known.items():
            # Counts that differ say nothing about any turn, also where they once were the same.
            parts = split if len(split) == len(turns[pk]) else [{}] * len(turns[pk])
            changed += [turn for turn, part in zip(turns[pk], parts, strict=True) if _take_parts(turn, part)]
        Turn.objects.bulk_update(changed, list(_VENDOR_PARTS))


def _stream_price(ms: int) -> Decimal:
    return bills.stream_price(ms, settings.TWILIO_STREAM_PRICE_PER_MINUTE)


def _was_asked_for(call: Call, reason: str, ended_at: datetime) -> bool:
    """Whether the stream ended because staff, or a tool of ours, had just asked for it."""
    asked_at = call.end_requested_at
    if not call.end_requested or asked_at is None or reason not in LOOKS_LIKE:
        return False
    # Page and stream may run on two machines, whose clocks differ by a little.
    return -CLOCKS_APART <= ended_at - asked_at <= ASKED_WITHIN


def _take_parts(turn: Turn, part: Any) -> bool:
    """Set a turn's vendor columns; whether that changed any."""
    before = [getattr(turn, column) for column in _VENDOR_PARTS]
    for column, name in _VENDOR_PARTS.items():
        value = part.get(name) if isinstance(part, Mapping) else None
        usable = isinstance(value, int | float) and 0 <= value < 10_000_000
        setattr(turn, column, round(value) if usable and value is not None else None)
    return before != [getattr(turn, column) for column in _VENDOR_PARTS]


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
