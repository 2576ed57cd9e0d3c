"""What is known of one simulated call: both far ends' records, the rows, and the server's log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from django.db import connections

from calls.demo.lag import Lag
from calls.models import Call
from sandbox.twilio.carrier import CallRecord
from sandbox.vapi.record import AssistantCall


@dataclass(frozen=True, slots=True)
class TurnRow:
    number: int
    response_latency_ms: int | None
    bridge_overhead_us: int | None
    heard_ms: int | None
    interrupted: bool


@dataclass(frozen=True, slots=True)
class UtteranceRow:
    speaker: str
    text: str
    interrupted: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """What the database has of one call."""

    url: str
    status: str
    end_reason: str
    ended_by: str
    connect_ms: int | None
    frames_to_assistant: int
    frames_to_caller: int
    frames_held: int
    frames_dropped: int
    barge_ins: int
    simulated: bool
    priced: bool  # the assistant's end-of-call report has arrived
    duration_known: bool
    turns: Sequence[TurnRow]
    utterances: Sequence[UtteranceRow]

    @property
    def latencies_ms(self) -> list[int]:
        return [turn.response_latency_ms for turn in self.turns if turn.response_latency_ms is not None]


@dataclass(frozen=True, slots=True)
class Evidence:
    record: CallRecord
    call: AssistantCall | None  # None: the assistant was never reached
    rows: Rows | None  # None: no row of this call was found in time
    log: Sequence[str]  # the server's lines
    refused: Sequence[str]  # requests of ours that the assistant refused
    audio_format: str
    disclosure: str  # what a caller has to hear first
    lag: Lag = field(default_factory=Lag)  # of the machine, while the call went on


def read_rows(call_sid: str) -> Rows | None:
    """Four queries, on a thread of the caller's choice, whose connection is closed again."""
    try:
        call = Call.objects.filter(call_sid=call_sid).first()
        return None if call is None else _rows_of(call)
    finally:
        connections.close_all()


def _rows_of(call: Call) -> Rows:
    return Rows(
        url=call.get_absolute_url(),
        status=call.status,
        end_reason=call.end_reason,
        ended_by=call.ended_by,
        connect_ms=call.connect_ms,
        frames_to_assistant=call.frames_to_assistant,
        frames_to_caller=call.frames_to_caller,
        frames_held=call.frames_held,
        frames_dropped=call.frames_dropped,
        barge_ins=call.barge_ins,
        simulated=call.simulated,
        priced=call.vapi_cost is not None,
        duration_known=call.duration_seconds is not None,
        turns=[
            TurnRow(
                turn.number,
                turn.response_latency_ms,
                turn.bridge_overhead_us,
                turn.heard_ms,
                turn.interrupted,
            )
            for turn in call.turns.order_by("number")
        ],
        utterances=[
            UtteranceRow(said.speaker, said.text, said.interrupted)
            for said in call.utterances.order_by("index")
        ],
    )
