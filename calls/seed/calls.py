"""Calls that never happened, as many as are wanted: rows such as the bridge would have left.

They look like calls of the telephone network (they are not marked as simulated, or pages would leave
them out), so their CallSids begin with `SEEDED_SID`, by which they are known and removed. The same seed
gives the same calls. Nothing here touches a database: `manage.py seed_calls` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from bridge.end_reasons import (
    ASSISTANT_ENDED,
    ASSISTANT_FAILED,
    ASSISTANT_STALLED,
    ASSISTANT_UNREACHABLE,
    AT_CAPACITY,
    CALLER_HUNG_UP,
    DRAINING,
    ENDED_BY,
    HUNG_UP_BY_STAFF,
    LIMIT_REACHED,
    NO_START,
    PROTOCOL_ABUSE,
    STREAM_LOST,
    TICKET_REFUSED,
    TRANSFERRED,
    WORKER_LOST,
)
from calls.models import ASSISTANT, CALLER, Call, CallFlag, PhoneNumber
from calls.seed.dialogue import GOODBYE, TOWNS, SmallTalk
from calls.stats.call_summary import longest_silence
from calls.stats.flags import NO_REPORT, flags_of, is_report_missing
from calls.stats.percentiles import percentile

# Twilio's own are random: of 2^56 calls, one begins so.
SEEDED_SID = "CA5eed5eed5eed5e"
NUMBERS_BEGIN = "+1800555"
LONGEST = timedelta(minutes=20)  # no call lasts longer, so that all of them are over

AREAS = (
    "201", "202", "205", "206", "212", "213", "214", "215", "216", "303", "305", "312", "313", "314", "401",
    "402", "404", "405", "408", "410", "412", "414", "415", "501", "502", "503", "504", "505", "512", "513",
    "602", "606", "612", "614", "615", "617", "702", "713", "718", "801",
)  # fmt: skip
MAX_CALLERS = len(AREAS) * 10_000
MAX_NUMBERS = 10_000
DEPARTMENTS = ("Front desk", "Billing", "Bookings", "Support", "Deliveries", "Repairs", "Night service")

GOOD_ENDS: dict[str, float] = {
    CALLER_HUNG_UP: 70,
    ASSISTANT_ENDED: 25,
    TRANSFERRED: 4,
    HUNG_UP_BY_STAFF: 0.8,
    LIMIT_REACHED: 0.2,
}
FAILED_ENDS: dict[str, float] = {
    ASSISTANT_FAILED: 22,
    STREAM_LOST: 20,
    ASSISTANT_UNREACHABLE: 18,
    ASSISTANT_STALLED: 14,
    AT_CAPACITY: 9,
    WORKER_LOST: 6,
    NO_START: 5,
    DRAINING: 4,
    PROTOCOL_ABUSE: 1,
    TICKET_REFUSED: 1,
}
NO_STREAM = {AT_CAPACITY, DRAINING, NO_START, TICKET_REFUSED}
NEVER_ANSWERED = {*NO_STREAM, ASSISTANT_UNREACHABLE}
BROKEN_OFF = {ASSISTANT_FAILED, ASSISTANT_STALLED, STREAM_LOST, WORKER_LOST}
VENDOR_SAYS = {
    ASSISTANT_ENDED: "assistant-ended-call",
    ASSISTANT_FAILED: "call.in-progress.error-providerfault-openai-llm-failed",
    ASSISTANT_STALLED: "call.in-progress.error-vapifault-worker-died",
    LIMIT_REACHED: "exceeded-max-duration",
    TRANSFERRED: "assistant-forwarded-call",
}
TURNS = {1: 5, 2: 9, 3: 13, 4: 16, 5: 16, 6: 13, 7: 10, 8: 7, 9: 5, 10: 3, 12: 2, 20: 1}  # about 5.3

UTTERANCE_COLUMNS = (
    "call_id",
    "index",
    "speaker",
    "text",
    "started_ms",
    "ended_ms",
    "interrupted",
    "unheard_ms",
)
TURN_COLUMNS = (
    "call_id", "number", "end_of_speech_ms", "endpointed_ms", "first_audio_ms", "sent_ms", "heard_ms",
    "response_latency_ms", "bridge_overhead_us", "interrupted", "model_ms", "voice_ms", "transcriber_ms",
    "endpointing_ms",
)  # fmt: skip

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls."""

    calls: int
    days: int
    numbers: int
    failed_percent: float
    seed: int


@dataclass(slots=True)
class Batch:
    """Some calls with all that is theirs. The many rows are tuples, by the columns above."""

    calls: list[Call] = field(default_factory=list)
    flags: list[CallFlag] = field(default_factory=list)
    turns: list[Row] = field(default_factory=list)
    utterances: list[Row] = field(default_factory=list)


def phone_numbers(count: int) -> list[PhoneNumber]:
    """Ours; always the same ones."""
    return [
        PhoneNumber(
            number=f"{NUMBERS_BEGIN}{index:04d}",
            label=f"{DEPARTMENTS[index % len(DEPARTMENTS)]}, {TOWNS[index % len(TOWNS)]}",
        )
        for index in range(count)
    ]


def batches(wanted: Wanted, now: datetime, first_id: int, size: int) -> Iterator[Batch]:
    """The calls in the order of their beginnings, spread evenly until a little before `now`."""
    made_up = MadeUp(wanted, now)
    batch = Batch()
    for index in range(wanted.calls):
        made_up.call(batch, first_id + index, index)
        if len(batch.calls) == size:
            yield batch
            batch = Batch()
    if batch.calls:
        yield batch


class MadeUp:
    """Makes one call after the other, from one supply of random numbers."""

    def __init__(self, wanted: Wanted, now: datetime) -> None:
        self._random = random = Random(wanted.seed)
        self._talk = SmallTalk(random)
        self._now = now
        self._begin = now - timedelta(days=wanted.days)
        self._step = (now - LONGEST - self._begin) / wanted.calls
        self._numbers = [number.number for number in phone_numbers(wanted.numbers)]
        self._callers = min(MAX_CALLERS, wanted.calls // 5 + 1)  # some call again
        # Exactly so many, not about so many.
        failed = round(wanted.calls * wanted.failed_percent / 100)
        self._failed = set(random.sample(range(wanted.calls), failed))

    def call(self, batch: Batch, pk: int, index: int) -> None:
        random = self._random
        end_reason = self._one_of(FAILED_ENDS if index in self._failed else GOOD_ENDS)
        call = Call(
            pk=pk,
            call_sid=f"{SEEDED_SID}{random.getrandbits(72):018x}",
            from_number=self._caller(),
            to_number=random.choice(self._numbers),
            caller_name=f"{self._talk.name()} {self._talk.first()}".upper() if random.random() < 0.3 else "",
            status="completed",
            end_reason=end_reason,
            ended_by=ENDED_BY[end_reason],
            vapi_ended_reason=VENDOR_SAYS.get(end_reason, ""),
            started_at=self._begin + self._step * (index + random.random()),
            needs_review=random.random() < 0.002,
        )
        seconds = 3.0 + 6 * random.random()  # of ringing, dialling in vain and apologies
        if end_reason not in NO_STREAM:
            call.stream_sid = f"MZ{random.getrandbits(128):032x}"
        if end_reason not in NEVER_ANSWERED:
            seconds += self._answered(batch, call) / 1000
        self._finish(call, math.ceil(seconds))
        flags = flags_of(call)
        if is_report_missing(call, self._now):
            flags.add(NO_REPORT)
        batch.calls.append(call)
        batch.flags += [CallFlag(call=call, name=name, started_at=call.started_at) for name in sorted(flags)]

    def _finish(self, call: Call, seconds: int) -> None:
        """What is known when it is over, and what the bills say."""
        random = self._random
        call.duration_seconds = seconds
        call.ended_at = call.started_at + timedelta(seconds=seconds)
        if random.random() < 0.999:
            call.twilio_price = Decimal(-850 * math.ceil(seconds / 60)).scaleb(-5)
        if call.stream_sid:
            call.stream_price = Decimal(400 * math.ceil(seconds / 60)).scaleb(-5)
        if call.reported_at is not None:
            call.reported_at = call.ended_at + timedelta(seconds=5 + 40 * random.random())
            per_minute = random.lognormvariate(math.log(11_000), 0.5)
            call.vapi_cost = Decimal(round(seconds / 60 * per_minute)).scaleb(-5)

    def _answered(self, batch: Batch, call: Call) -> int:
        """What the assistant's part of it adds; returns how long that lasted in ms."""
        random = self._random
        call.connect_ms = round(random.lognormvariate(math.log(420), 0.3))
        call.answered_at = call.started_at + timedelta(milliseconds=700 + call.connect_ms)
        call.time_to_first_audio_ms = call.connect_ms + round(random.lognormvariate(math.log(700), 0.35))
        bits = f"{random.getrandbits(128):032x}"
        call.vapi_call_id = f"{bits[:8]}-{bits[8:12]}-{bits[12:16]}-{bits[16:20]}-{bits[20:]}"
        if random.random() < 0.995:
            call.reported_at = call.started_at  # it came; when, is known at the end
        said, turns = len(batch.utterances), len(batch.turns)
        lasted = self._conversation(batch, call)
        utterances, taken = batch.utterances[said:], batch.turns[turns:]
        latencies = [row[7] for row in taken if row[7] is not None]
        call.turn_count = len(taken)
        call.p50_latency_ms = percentile(latencies, 50)
        call.worst_latency_ms = max(latencies, default=None)
        call.longest_silence_ms = longest_silence((row[4], row[5]) for row in utterances)
        call.barge_ins = sum(row[9] for row in taken)
        call.frames_held = call.connect_ms // 20
        call.frames_to_assistant = lasted // 20
        call.frames_to_caller = sum(row[5] - row[4] for row in utterances if row[2] == ASSISTANT) // 20
        if call.reported_at is not None and len(utterances) > 1:
            call.summary = f"The caller said: {utterances[1][3]}"
        return lasted

    def _conversation(self, batch: Batch, call: Call) -> int:
        random, talk = self._random, self._talk
        pk, reported = call.pk, call.reported_at is not None
        now = call.time_to_first_audio_ms or 0
        turns = random.choices(tuple(TURNS), tuple(TURNS.values()))[0]
        broken_off = turns if call.end_reason in BROKEN_OFF else 0  # the turn that had no answer
        index = 0

        def says(speaker: str, text: str, cut: bool = False) -> None:
            nonlocal now, index
            lasts = heard = 200 + 55 * len(text)
            if cut:
                heard = round(lasts * (0.2 + 0.6 * random.random()))
            unheard = lasts - heard if cut else None
            batch.utterances.append((pk, index, speaker, text, now, now + heard, cut, unheard))
            now += heard
            index += 1

        says(ASSISTANT, talk.greeting())
        for number in range(1, turns + 1):
            now += (
                random.randrange(200, 1600) if random.random() > 0.0005 else random.randrange(8_000, 20_000)
            )
            says(CALLER, talk.asked())
            if number == broken_off:
                batch.turns.append((pk, number, now, *(None,) * 6, False, *(None,) * 4))
                return now + random.randrange(2_000, 12_000)
            asked = now
            latency = max(430, round(random.lognormvariate(6.8, 0.33)))  # half of them within 0.9 s
            if random.random() < 0.001:
                latency += random.randrange(2_500, 6_000)
            now += latency
            overhead_us = round(random.lognormvariate(6.8, 0.5))
            sent = now + overhead_us // 1000
            cut = random.random() < 0.05
            endpointing = random.randrange(300, 400)
            thought = latency - endpointing
            split = (
                (thought * 6 // 10, thought * 3 // 10, thought // 10, endpointing)
                if reported
                else (None,) * 4
            )
            batch.turns.append(
                (pk, number, asked, asked + endpointing, now, sent, sent + random.randrange(40, 90), latency,
                 overhead_us, cut, *split)
            )  # fmt: skip
            says(ASSISTANT, talk.answered(), cut)
        if call.end_reason == ASSISTANT_ENDED:
            now += 300
            says(ASSISTANT, GOODBYE)
        return now

    def _one_of(self, weights: Mapping[str, float]) -> str:
        return self._random.choices(tuple(weights), tuple(weights.values()))[0]

    def _caller(self) -> str:
        if self._random.random() < 0.01:
            return "anonymous"
        who = self._random.randrange(self._callers)
        return f"+1{AREAS[who % len(AREAS)]}555{who // len(AREAS):04d}"
