"""A call to be judged, and how a check says no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from calls.demo.evidence import Rows
from calls.demo.lag import Lag
from sandbox.twilio.carrier import CallRecord
from sandbox.vapi.record import AssistantCall

CLEAR_WITHIN_MS = 20


@dataclass(frozen=True, slots=True)
class Case:
    """Evidence of a call that reached the assistant and has its row."""

    record: CallRecord
    call: AssistantCall
    rows: Rows
    log: Sequence[str]
    refused: Sequence[str]
    audio_format: str
    disclosure: str
    lag: Lag = field(default_factory=Lag)

    @property
    def clear_within_ms(self) -> float:
        return CLEAR_WITHIN_MS + self.lag.worst_ms


def truths_ms(record: CallRecord, call: AssistantCall | None) -> list[float]:
    """For each answer: how long the caller waited, from their last loud frame to its first audible chunk."""
    return [
        (reply.first_audible_sent_at - said.ended_at) * 1000
        for said, reply in zip(record.said, call.answers if call else (), strict=False)
        if reply.first_audible_sent_at is not None and said.ended_at is not None
    ]


class NotHeld(Exception):
    """A check did not hold; the message says why."""


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotHeld(otherwise)
