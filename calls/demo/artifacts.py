"""The artifacts of a simulated call: records of both simulators, database rows, log of the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from django.db import connections

from calls.demo.loop_lag import LoopLag
from calls.models import Call
from sandbox.twilio.record import TwilioCallRecord
from sandbox.vapi.record import VapiCallRecord

MAX_CLEAR_DELAY_MS = 20


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
class CallRows:
    """The database rows of one call."""

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
    has_vapi_cost: bool  # set by Vapi's end-of-call report
    has_duration: bool  # set by Twilio's status callback
    turns: Sequence[TurnRow]
    utterances: Sequence[UtteranceRow]

    @property
    def latencies_ms(self) -> list[int]:
        return [turn.response_latency_ms for turn in self.turns if turn.response_latency_ms is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallArtifacts:
    twilio: TwilioCallRecord
    vapi: VapiCallRecord | None  # None: the call did not reach Vapi
    rows: CallRows | None  # None: no row of this call was found in time
    log: Sequence[str]  # lines of the server
    rejected_requests: Sequence[str]  # requests that Vapi rejected
    audio_format: str
    disclosure: str  # what the caller must hear first
    lag: LoopLag = field(default_factory=LoopLag)  # of the simulators, during the call

    @property
    def max_clear_delay_ms(self) -> float:
        return MAX_CLEAR_DELAY_MS + self.lag.max_ms

    @property
    def true_latencies_ms(self) -> list[float]:
        """Response latency of each answer, measured by the simulators.

        From the caller's last loud frame to the assistant's first audible chunk.
        """
        answers = self.vapi.answers if self.vapi else ()
        return [
            (reply.first_audible_sent_at - utterance.ended_at) * 1000
            for utterance, reply in zip(self.twilio.utterances, answers, strict=False)
            if reply.first_audible_sent_at is not None and utterance.ended_at is not None
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteArtifacts(CallArtifacts):
    """The artifacts of a call that reached Vapi and has a row."""

    vapi: VapiCallRecord
    rows: CallRows


def read_rows(call_sid: str) -> CallRows | None:
    """Runs four queries. Closes the connections of the current thread."""
    try:
        call = Call.objects.filter(call_sid=call_sid).first()
        return None if call is None else _make_call_rows(call)
    finally:
        connections.close_all()


def _make_call_rows(call: Call) -> CallRows:
    return CallRows(
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
        has_vapi_cost=call.vapi_cost is not None,
        has_duration=call.duration_seconds is not None,
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
            UtteranceRow(utterance.speaker, utterance.text, utterance.interrupted)
            for utterance in call.utterances.order_by("index")
        ],
    )
