"""Merges journal entries into their calls in memory, and saves what a batch has changed.

Entries arrive in any order and more than once; the rows are the same in the end:

- The first end reason stays, with two exceptions: what the stream reports outranks a refusal and the reaper's
  guess, and an end that staff or a tool requested outranks what the stream reports of it.
- A status never moves back, and `started_at` never moves forward.
- An empty value does not replace a known one (`set_known`).
- Utterances, turns and events are identified by their index. The last entry with the same index wins.

Every text and JSON value is cleaned where it meets its column, in `set` and `_new`.
"""

from __future__ import annotations

from binascii import crc32
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar, assert_never

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
from calls import costs
from calls.ingest.sanitize import clean_value
from calls.models import Call, CallEvent, CallOutput, Turn, Utterance
from calls.stats import call_summary
from calls.stats.hourly import HourKey, hour_key
from calls.statuses import TERMINAL_STATUSES, later_status

LEASE = timedelta(seconds=15)
# End reasons of a call without a stream. If a stream starts nevertheless, they were wrong.
REASONS_WITHOUT_STREAM = (TICKET_REFUSED, AT_CAPACITY, DRAINING, OUT_OF_HOURS, MACHINE_ANSWERED)
# After these the call is over at Twilio, too. (After a transfer the caller is still on the line.)
REASONS_THAT_COMPLETE = (CALLER_HUNG_UP, ASSISTANT_ENDED, HUNG_UP_BY_STAFF)
# A requested end looks like one of these to the stream, which does not know of the request.
REASONS_OF_REQUESTED_END = (CALLER_HUNG_UP, STREAM_LOST, ASSISTANT_ENDED, ASSISTANT_FAILED)
REQUEST_WINDOW = timedelta(seconds=10)  # from the request to the stream's end
MAX_CLOCK_DIFFERENCE = timedelta(seconds=2)  # between the servers of the page and of the stream
MAX_DURATION_SECONDS = 2**31 - 1  # of the column
MAX_LATENCY_PART_MS = 10_000_000
MAX_OUTPUT_PAIRS = 50  # of one call

M = TypeVar("M", bound=models.Model)


def utc_datetime(unix_seconds: float) -> datetime:
    return datetime.fromtimestamp(unix_seconds, UTC)


class BatchChanges:
    """What a batch changes, collected before anything is written."""

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}  # all calls of the batch
        self._changed_fields: dict[int, set[str]] = defaultdict(set)
        self._utterances: dict[tuple[int, int], Utterance] = {}
        self._turns: dict[tuple[int, int], Turn] = {}
        self._events: dict[tuple[int, str, int], CallEvent] = {}
        self._calls_to_break_down: dict[int, Call] = {}  # calls whose turns or reported latencies changed
        self._reported_outputs: dict[int, set[str]] = {}  # Vapi's structured outputs, as `name: value`
        self._previous_hours: set[HourKey] = set()  # the hours that counted these calls before the batch

    def set(self, call: Call, **values: Any) -> None:
        """Set columns of the call; a value that is equal already changes nothing."""
        for name, value in values.items():
            current = getattr(call, name)
            if value == current:
                continue
            value = clean_value(Call, name, value)
            if value != current:
                setattr(call, name, value)
                self._changed_fields[call.pk].add(name)

    def set_known(self, call: Call, **values: Any) -> None:
        """Set columns of the call, except those whose value is empty once cleaned."""
        for name, value in values.items():
            if cleaned := clean_value(Call, name, value):
                self.set(call, **{name: cleaned})

    def merge(self, call: Call, entry: journal.Entry) -> None:
        """Merge one entry into its call."""
        if call.pk not in self._calls:
            self._calls[call.pk] = call
            self._previous_hours.add(hour_key(call))
        at = getattr(entry, "at", None)
        if at is not None and utc_datetime(at) < call.started_at:
            self.set(call, started_at=utc_datetime(at))
        match entry:
            case journal.CallOffered():
                self._on_call_offered(call, entry)
            case journal.StreamStarted():
                self._on_stream_started(call, entry)
            case journal.StreamRefused():
                if not call.stream_sid and not call.end_reason:
                    self._end(call, entry.reason, entry.at)
            case journal.AssistantAnswered():
                self.set_known(call, vapi_call_id=entry.vapi_call_id)
                self.set(
                    call,
                    answered_at=utc_datetime(entry.at),
                    connect_ms=max(0, entry.connect_ms),
                    frames_held=max(call.frames_held, entry.frames_held),
                )
            case journal.UtteranceSpoken():
                values = {name: getattr(entry, name) for name in _UTTERANCE_FIELDS}
                self._utterances[call.pk, entry.index] = _new(Utterance, call=call, **values)
            case journal.TurnTaken():
                self._calls_to_break_down[call.pk] = call
                values = {name: getattr(entry, name) for name in _TURN_FIELDS}
                self._turns[call.pk, entry.number] = _new(Turn, call=call, **values)
            case journal.TimelineEvent():
                self._add_event(call, entry.source, entry.index, entry.kind, entry.data, entry.at_ms)
            case journal.StreamEnded():
                self._on_stream_ended(call, entry)
            case journal.CarrierReported():
                self._on_carrier_reported(call, entry)
            case journal.AssistantReported():
                self._on_assistant_reported(call, entry)
            case journal.EndRequested():
                self._on_end_requested(call, entry)
            case journal.LiveNote():
                raise ValueError("a LiveNote has no row")
            case _:
                assert_never(entry)

    def _on_call_offered(self, call: Call, entry: journal.CallOffered) -> None:
        self.set_known(
            call,
            from_number=entry.from_number,
            to_number=entry.to_number,
            caller_name=entry.caller_name,
            direction=entry.direction,
            answered_by=entry.answered_by,
            simulated=entry.simulated,
            release=entry.release,
        )
        if entry.refused and not call.end_reason and not call.stream_sid:
            self._end(call, entry.refused, entry.at)

    def _on_stream_started(self, call: Call, entry: journal.StreamStarted) -> None:
        if call.end_reason in REASONS_WITHOUT_STREAM:
            self.set(call, end_reason="", ended_by="", ended_at=None)
        self.set_known(call, assistant_id=entry.assistant_id)
        self.set(
            call,
            stream_sid=entry.stream_sid,
            worker=entry.worker,
            status=later_status(call.status, "in-progress"),
            # The lease may have been renewed since: a repeated entry does not shorten it.
            lease_until=call.lease_until or utc_datetime(entry.at) + LEASE,
        )

    def _on_stream_ended(self, call: Call, entry: journal.StreamEnded) -> None:
        ended_at = utc_datetime(entry.at)
        reason, ended_by = entry.end_reason, entry.ended_by
        if _was_requested(call, reason, ended_at):
            reason = call.end_requested
            ended_by = call.ended_by or ENDED_BY.get(reason, "staff")
        if call.end_reason in ("", *REASONS_WITHOUT_STREAM, WORKER_LOST):
            self.set(call, end_reason=reason, ended_by=ended_by, ended_at=ended_at)
        self.set(
            call,
            vapi_ended_reason=call.vapi_ended_reason or entry.vapi_ended_reason,
            vapi_close_code=entry.vapi_close_code,
            time_to_first_audio_ms=entry.time_to_first_audio_ms,
            frames_to_assistant=entry.frames_to_assistant,
            frames_to_caller=entry.frames_to_caller,
            frames_held=max(call.frames_held, entry.frames_held),
            frames_dropped=entry.frames_dropped,
            barge_ins=entry.barge_ins,
            counters=entry.counters,
            stream_price=_stream_price(entry.at_ms),
        )
        if reason in REASONS_THAT_COMPLETE:
            self.set(call, status=later_status(call.status, "completed"))

    def _on_end_requested(self, call: Call, entry: journal.EndRequested) -> None:
        requested_at = utc_datetime(entry.at)
        if entry.withdrawn:
            if call.end_requested_at == requested_at:
                self.set(call, end_requested="", end_requested_at=None)
                self.set(call, ended_by=call.ended_by if call.end_reason else "")
            return
        self.set(call, end_requested=entry.end_reason, end_requested_at=requested_at)
        # The stream's end may have been merged first: another process may have handled the stream.
        if call.ended_at is not None and _was_requested(call, call.end_reason, call.ended_at):
            self.set(call, end_reason=call.end_requested, ended_by=entry.ended_by)
        elif not call.end_reason:
            self.set(call, ended_by=entry.ended_by)

    def _on_carrier_reported(self, call: Call, entry: journal.CarrierReported) -> None:
        if not (call.from_number or call.to_number):
            self.set_known(
                call,
                from_number=entry.from_number,
                to_number=entry.to_number,
                direction=entry.direction,
                simulated=entry.simulated,
            )
        status = entry.status.strip().lower()
        if status:
            self.set(call, status=later_status(call.status, status))
        if status in TERMINAL_STATUSES and not call.end_reason:
            # No stream has reported its end: the time of the callback is the best that there is.
            self._set_ended_at(call, entry.at)
        if entry.duration_seconds is not None:
            longest = max(entry.duration_seconds, call.duration_seconds or 0)
            self.set(call, duration_seconds=min(longest, MAX_DURATION_SECONDS))
        if entry.answered_by:
            self.set(call, answered_by=entry.answered_by)
        # Callbacks have no price. One without a price that arrives late does not erase the price.
        if (price := costs.parse_bill(entry.price)) is not None:
            self.set(call, twilio_price=price, price_unit=entry.price_unit)
        if entry.asked and entry.duration_seconds and call.stream_sid and call.stream_price is None:
            # The server died before it could report the stream's end: the stream was no longer than the call.
            self.set(call, stream_price=_stream_price(entry.duration_seconds * 1000))
        kind = entry.stream_event or f"call-{status or 'unknown'}"
        data = {"sequence": entry.sequence, "detail": entry.detail}
        if entry.asked:  # the answer to a request of ours, not a callback
            kind = "call-looked-up"
            data |= {"status": status, "duration": entry.duration_seconds, "price": entry.price}
            data["currency"] = entry.price_unit
        data = {name: value for name, value in data.items() if value not in (None, "")}
        self._add_event(call, "carrier", _event_index(kind, entry.sequence), kind, data)

    def _on_assistant_reported(self, call: Call, entry: journal.AssistantReported) -> None:
        """A report outranks a status update, whichever came first. Of two reports the later one wins."""
        at = utc_datetime(entry.at)
        is_report = entry.kind == "end-of-call-report"
        self.set(call, vapi_call_id=call.vapi_call_id or entry.vapi_call_id)
        if not call.assistant_id:  # a call of an earlier version, or one that Vapi took on its own
            self.set_known(call, assistant_id=entry.assistant_id)
        if call.reported_at is None or (is_report and at >= call.reported_at):
            self.set_known(call, vapi_ended_reason=entry.ended_reason, summary=entry.summary)
            if is_report:
                self.set(call, reported_at=at)
            if (cost := costs.parse_bill(entry.cost)) is not None and cost >= 0:
                self.set(call, vapi_cost=cost)
            parts = dict(entry.kept)
            self.set_known(call, recording_urls=parts.pop("recording_urls", {}))
            report = {**call.vapi_report, **parts}
            if "structured_outputs" in parts:
                self._reported_outputs[call.pk] = _format_outputs(parts["structured_outputs"])
            if entry.turn_latencies:
                report["turn_latencies"] = entry.turn_latencies
                self._calls_to_break_down[call.pk] = call
            self.set(call, vapi_report=report)
        data = {"status": entry.status, "reason": entry.ended_reason}
        data = {name: value for name, value in data.items() if value}
        self._add_event(call, "vapi", _event_index(entry.kind, entry.status), entry.kind, data)

    def _end(self, call: Call, reason: str, at: float) -> None:
        self.set(call, end_reason=reason, ended_by=ENDED_BY.get(reason, "us"))
        self._set_ended_at(call, at)

    def _set_ended_at(self, call: Call, at: float) -> None:
        self.set(call, ended_at=min(utc_datetime(at), call.ended_at or utc_datetime(at)))

    def _add_event(
        self,
        call: Call,
        source: str,
        index: int,
        kind: str,
        data: Mapping[str, Any],
        at_ms: int | None = None,
    ) -> None:
        event = _new(CallEvent, call=call, source=source, index=index, kind=kind, at_ms=at_ms, data=data)
        self._events[call.pk, event.source, event.index] = event

    def save(self) -> None:
        """Write the batch. Call it inside a transaction."""
        for pk, fields in self._changed_fields.items():
            fields |= {_COMPUTED[name] for name in fields & _COMPUTED.keys()}
            self._calls[pk].save(update_fields=sorted(fields))
        _upsert(Utterance, self._utterances.values(), ("call", "index"))
        _upsert(Turn, self._turns.values(), ("call", "number"), update=_TURN_FIELDS)
        _upsert(CallEvent, self._events.values(), ("call", "source", "index"))
        self._save_outputs()
        self._assign_vapi_latencies()
        # A call in progress gets no summary yet. Its hour is marked dirty, and its former one if its start
        # changed.
        ended = [call for call in self._calls.values() if call.end_reason or call.is_over]
        hours = self._previous_hours | {hour_key(call) for call in self._calls.values()}
        call_summary.update_summaries(ended, hours=hours)

    def _save_outputs(self) -> None:
        """The last report's outputs replace those of an earlier one."""
        for pk, pairs in self._reported_outputs.items():
            CallOutput.objects.filter(call_id=pk).exclude(pair__in=pairs).delete()
            call = self._calls[pk]
            rows = [CallOutput(call=call, pair=pair, started_at=call.started_at) for pair in sorted(pairs)]
            _upsert(CallOutput, rows, ("call", "pair"))

    def _assign_vapi_latencies(self) -> None:
        """Copy Vapi's latency breakdown onto the turns, where Vapi counted as many turns as we did."""
        reports = {
            pk: call.vapi_report.get("turn_latencies", []) for pk, call in self._calls_to_break_down.items()
        }
        reports = {pk: breakdown for pk, breakdown in reports.items() if breakdown}
        if not reports:
            return
        turns: dict[int, list[Turn]] = defaultdict(list)
        for turn in Turn.objects.filter(call_id__in=reports).answered().order_by("number"):
            turns[turn.call_id].append(turn)
        changed = []
        for pk, breakdown in reports.items():
            if len(breakdown) != len(turns[pk]):
                # Then no item can be assigned to a turn. An earlier batch may have assigned some: clear them.
                breakdown = [{}] * len(turns[pk])
            pairs = zip(turns[pk], breakdown, strict=True)
            changed += [turn for turn, parts in pairs if _set_vapi_latencies(turn, parts)]
        Turn.objects.bulk_update(changed, list(_VAPI_LATENCIES))


def _format_outputs(outputs: Any) -> set[str]:
    """The outputs that are a single value; a list or an object is shown on the call's page alone."""
    pairs = set()
    for name, value in outputs.items() if isinstance(outputs, Mapping) else ():
        if isinstance(value, bool):
            value = "yes" if value else "no"
        if isinstance(value, str | int | float) and value != "":
            pair = clean_value(CallOutput, "pair", f"{name}: {value}")
            pairs.add(str(pair))
    return set(sorted(pairs)[:MAX_OUTPUT_PAIRS])


def _stream_price(duration_ms: int) -> Decimal:
    return costs.compute_stream_price(duration_ms, settings.TWILIO_STREAM_PRICE_PER_MINUTE)


def _was_requested(call: Call, reason: str, ended_at: datetime) -> bool:
    """Whether the stream ended because staff or a tool had just requested it."""
    requested_at = call.end_requested_at
    if not call.end_requested or requested_at is None or reason not in REASONS_OF_REQUESTED_END:
        return False
    return -MAX_CLOCK_DIFFERENCE <= ended_at - requested_at <= REQUEST_WINDOW


def _set_vapi_latencies(turn: Turn, parts: Any) -> bool:
    """Set the turn's columns from one item of Vapi's `turnLatencies`. Whether that changed any."""
    before = [getattr(turn, column) for column in _VAPI_LATENCIES]
    for column, key in _VAPI_LATENCIES.items():
        value = parts.get(key) if isinstance(parts, Mapping) else None
        is_valid = isinstance(value, int | float) and 0 <= value < MAX_LATENCY_PART_MS
        setattr(turn, column, round(value) if is_valid and value is not None else None)
    return before != [getattr(turn, column) for column in _VAPI_LATENCIES]


_COMPUTED = {"from_number": "from_reversed", "to_number": "to_reversed"}  # columns that follow others
_UTTERANCE_FIELDS = ("index", "speaker", "text", "started_ms", "ended_ms", "interrupted", "unheard_ms")
_TURN_FIELDS = (
    "number", "end_of_speech_ms", "endpointed_ms", "first_audio_ms", "sent_ms", "heard_ms",
    "response_latency_ms", "bridge_overhead_us", "interrupted",
)  # fmt: skip
_VAPI_LATENCIES = {
    "model_ms": "modelLatency",
    "voice_ms": "voiceLatency",
    "transcriber_ms": "transcriberLatency",
    "endpointing_ms": "endpointingLatency",
}


def _event_index(*parts: object) -> int:
    """An index made of the event's content, so that the same report delivered twice is one row."""
    return crc32(repr(parts).encode()) >> 1


def _new(model: type[M], **values: Any) -> M:
    """An unsaved row of cleaned values."""
    return model(**{name: clean_value(model, name, value) for name, value in values.items()})


def _upsert(
    model: type[models.Model],
    rows: Iterable[models.Model],
    unique: Sequence[str],
    update: Sequence[str] | None = None,
) -> None:
    """Insert the rows; update those that exist. `update` names the columns to update, by default all."""
    rows = list(rows)
    if not rows:
        return
    names = update or [field.name for field in model._meta.concrete_fields if not field.primary_key]
    model._default_manager.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=list(unique),
        update_fields=[name for name in names if name not in unique],
    )
