"""Generates calls for `manage.py seed_calls`: the rows that the bridge would have written.

Pages leave out simulated calls, so generated calls are not marked as simulated. They are recognized, and
removed, by the prefix of their CallSids. The same seed generates the same calls. Makes no queries.
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
from calls.seed.dialogue import GOODBYE, TOWNS, DialogueGenerator
from calls.stats.call_summary import compute_longest_silence
from calls.stats.flags import NO_REPORT, find_flags, is_report_missing
from calls.stats.percentiles import percentile

ASSISTANT_IDS = ("5eed5eed-0000-4000-8000-000000000001", "5eed5eed-0000-4000-8000-000000000002")
RELEASES = ("1.0.0", "1.0.0", "1.1.0")  # a third of the calls each, the oldest first
# Twilio's CallSids are random: one in 2^56 has this prefix.
SEEDED_SID_PREFIX = "CA5eed5eed5eed5e"
SEEDED_NUMBER_PREFIX = "+1800555"
MAX_DURATION = timedelta(minutes=20)  # the last call starts this long before now, so that it is over

AREA_CODES = (
    "201", "202", "205", "206", "212", "213", "214", "215", "216", "303", "305", "312", "313", "314", "401",
    "402", "404", "405", "408", "410", "412", "414", "415", "501", "502", "503", "504", "505", "512", "513",
    "602", "606", "612", "614", "615", "617", "702", "713", "718", "801",
)  # fmt: skip
MAX_CALLERS = len(AREA_CODES) * 10_000
MAX_NUMBERS = 10_000
LABELS = ("Front desk", "Billing", "Bookings", "Support", "Deliveries", "Repairs", "Night service")

# How often each occurs, relative to the others.
SUCCESS_WEIGHTS: dict[str, float] = {
    CALLER_HUNG_UP: 70,
    ASSISTANT_ENDED: 25,
    TRANSFERRED: 4,
    HUNG_UP_BY_STAFF: 0.8,
    LIMIT_REACHED: 0.2,
}
FAILURE_WEIGHTS: dict[str, float] = {
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
SEEDED_WITHOUT_STREAM = {AT_CAPACITY, DRAINING, NO_START, TICKET_REFUSED}
REASONS_WITHOUT_ANSWER = {*SEEDED_WITHOUT_STREAM, ASSISTANT_UNREACHABLE}
REASONS_DURING_CALL = {ASSISTANT_FAILED, ASSISTANT_STALLED, STREAM_LOST, WORKER_LOST}
VAPI_ENDED_REASONS = {
    ASSISTANT_ENDED: "assistant-ended-call",
    ASSISTANT_FAILED: "call.in-progress.error-providerfault-openai-llm-failed",
    ASSISTANT_STALLED: "call.in-progress.error-vapifault-worker-died",
    LIMIT_REACHED: "exceeded-max-duration",
    TRANSFERRED: "assistant-forwarded-call",
}
# Weights of the number of turns; 5.3 on average.
TURN_COUNTS = {1: 5, 2: 9, 3: 13, 4: 16, 5: 16, 6: 13, 7: 10, 8: 7, 9: 5, 10: 3, 12: 2, 20: 1}

UTTERANCE_COLUMNS = (
    "call_id", "index", "speaker", "text", "started_ms", "ended_ms", "interrupted", "unheard_ms",
)  # fmt: skip
TURN_COLUMNS = (
    "call_id", "number", "end_of_speech_ms", "endpointed_ms", "first_audio_ms", "sent_ms", "heard_ms",
    "response_latency_ms", "bridge_overhead_us", "interrupted", "model_ms", "voice_ms", "transcriber_ms",
    "endpointing_ms",
)  # fmt: skip
_SPEAKER, _TEXT, _STARTED, _ENDED = map(
    UTTERANCE_COLUMNS.index, ("speaker", "text", "started_ms", "ended_ms")
)
_LATENCY, _INTERRUPTED = map(TURN_COLUMNS.index, ("response_latency_ms", "interrupted"))

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class SeedOptions:
    """Which calls to generate."""

    calls: int
    days: int
    numbers: int
    failed_percent: float
    seed: int


@dataclass(slots=True)
class Batch:
    """Some calls and their rows. Turns and utterances are tuples, in the order of the columns above."""

    calls: list[Call] = field(default_factory=list)
    flags: list[CallFlag] = field(default_factory=list)
    turns: list[Row] = field(default_factory=list)
    utterances: list[Row] = field(default_factory=list)


def phone_numbers(count: int) -> list[PhoneNumber]:
    """The numbers that are called; always the same ones."""
    return [
        PhoneNumber(
            number=f"{SEEDED_NUMBER_PREFIX}{index:04d}",
            label=f"{LABELS[index % len(LABELS)]}, {TOWNS[index % len(TOWNS)]}",
        )
        for index in range(count)
    ]


def generate_batches(options: SeedOptions, now: datetime, first_id: int, size: int) -> Iterator[Batch]:
    """Generate calls in the order of their start, spread evenly until shortly before `now`."""
    generator = CallGenerator(options, now)
    batch = Batch()
    for index in range(options.calls):
        generator.add_call(batch, first_id + index, index)
        if len(batch.calls) == size:
            yield batch
            batch = Batch()
    if batch.calls:
        yield batch


class CallGenerator:
    """Generates one call after another from one random generator."""

    def __init__(self, options: SeedOptions, now: datetime) -> None:
        self._random = random = Random(options.seed)
        self._dialogue = DialogueGenerator(random)
        self._now = now
        self._call_count = options.calls
        self._first_start = now - timedelta(days=options.days)
        self._step = (now - MAX_DURATION - self._first_start) / options.calls
        self._numbers = [number.number for number in phone_numbers(options.numbers)]
        self._caller_count = min(MAX_CALLERS, options.calls // 5 + 1)  # some callers call again
        # An exact number, not a probability.
        failed_count = round(options.calls * options.failed_percent / 100)
        self._failed_indexes = set(random.sample(range(options.calls), failed_count))

    def add_call(self, batch: Batch, pk: int, index: int) -> None:
        random = self._random
        end_reason = self._choose(FAILURE_WEIGHTS if index in self._failed_indexes else SUCCESS_WEIGHTS)
        call = Call(
            pk=pk,
            call_sid=f"{SEEDED_SID_PREFIX}{random.getrandbits(72):018x}",
            from_number=self._caller_number(),
            to_number=random.choice(self._numbers),
            caller_name=self._caller_name() if random.random() < 0.3 else "",
            status="completed",
            end_reason=end_reason,
            ended_by=ENDED_BY[end_reason],
            vapi_ended_reason=VAPI_ENDED_REASONS.get(end_reason, ""),
            started_at=self._first_start + self._step * (index + random.random()),
            needs_review=random.random() < 0.002,
            release=RELEASES[index * len(RELEASES) // self._call_count],
        )
        seconds = 3.0 + 6 * random.random()  # of ringing, dialing and announcements
        if end_reason not in SEEDED_WITHOUT_STREAM:
            call.stream_sid = f"MZ{random.getrandbits(128):032x}"
            call.assistant_id = ASSISTANT_IDS[int(call.to_number[-1]) % len(ASSISTANT_IDS)]
        if end_reason not in REASONS_WITHOUT_ANSWER:
            seconds += self._add_conversation(batch, call) / 1000
        self._finish(call, math.ceil(seconds))
        flags = find_flags(call)
        if is_report_missing(call, self._now):
            flags.add(NO_REPORT)
        batch.calls.append(call)
        batch.flags += [CallFlag(call=call, name=name, started_at=call.started_at) for name in sorted(flags)]

    def _finish(self, call: Call, seconds: int) -> None:
        """Set what is known after the call: its duration, the bills and the report."""
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

    def _add_conversation(self, batch: Batch, call: Call) -> int:
        """Set what the assistant's leg and its report would have set. Returns the stream's duration in ms."""
        random = self._random
        call.connect_ms = round(random.lognormvariate(math.log(420), 0.3))
        call.answered_at = call.started_at + timedelta(milliseconds=700 + call.connect_ms)
        call.time_to_first_audio_ms = call.connect_ms + round(random.lognormvariate(math.log(700), 0.35))
        bits = f"{random.getrandbits(128):032x}"
        call.vapi_call_id = f"{bits[:8]}-{bits[8:12]}-{bits[12:16]}-{bits[16:20]}-{bits[20:]}"
        if random.random() < 0.995:
            call.reported_at = call.started_at  # `_finish` sets the time
        first_utterance, first_turn = len(batch.utterances), len(batch.turns)
        duration_ms = self._add_turns(batch, call)
        utterances, turns = batch.utterances[first_utterance:], batch.turns[first_turn:]
        latencies = [row[_LATENCY] for row in turns if row[_LATENCY] is not None]
        call.turn_count = len(turns)
        call.p50_latency_ms = percentile(latencies, 50)
        call.worst_latency_ms = max(latencies, default=None)
        call.longest_silence_ms = compute_longest_silence((row[_STARTED], row[_ENDED]) for row in utterances)
        call.barge_ins = sum(row[_INTERRUPTED] for row in turns)
        call.frames_held = call.connect_ms // 20
        call.frames_to_assistant = duration_ms // 20
        spoken = [row[_ENDED] - row[_STARTED] for row in utterances if row[_SPEAKER] == ASSISTANT]
        call.frames_to_caller = sum(spoken) // 20
        if call.reported_at is not None and len(utterances) > 1:
            call.summary = f"The caller said: {utterances[1][_TEXT]}"
        return duration_ms

    def _add_turns(self, batch: Batch, call: Call) -> int:
        """Add utterances and turns. Returns the time in ms at which the stream ends."""
        random, dialogue = self._random, self._dialogue
        pk, is_reported = call.pk, call.reported_at is not None
        now = call.time_to_first_audio_ms or 0
        turns = random.choices(tuple(TURN_COUNTS), tuple(TURN_COUNTS.values()))[0]
        unanswered_turn = turns if call.end_reason in REASONS_DURING_CALL else 0
        index = 0

        def say(speaker: str, text: str, is_interrupted: bool = False) -> None:
            nonlocal now, index
            speech_ms = heard_ms = 200 + 55 * len(text)
            if is_interrupted:
                heard_ms = round(speech_ms * (0.2 + 0.6 * random.random()))
            unheard_ms = speech_ms - heard_ms if is_interrupted else None
            batch.utterances.append(
                (pk, index, speaker, text, now, now + heard_ms, is_interrupted, unheard_ms)
            )
            now += heard_ms
            index += 1

        say(ASSISTANT, dialogue.greeting())
        for number in range(1, turns + 1):
            now += (
                random.randrange(200, 1600) if random.random() > 0.0005 else random.randrange(8_000, 20_000)
            )
            say(CALLER, dialogue.caller_line())
            if number == unanswered_turn:
                batch.turns.append((pk, number, now, *(None,) * 6, False, *(None,) * 4))
                return now + random.randrange(2_000, 12_000)
            end_of_speech = now
            latency = max(430, round(random.lognormvariate(6.8, 0.33)))  # median 0.9 s
            if random.random() < 0.001:
                latency += random.randrange(2_500, 6_000)
            now += latency
            overhead_us = round(random.lognormvariate(6.8, 0.5))
            sent = now + overhead_us // 1000
            is_interrupted = random.random() < 0.05
            endpointing = random.randrange(300, 400)
            processing = latency - endpointing
            split = (
                (processing * 6 // 10, processing * 3 // 10, processing // 10, endpointing)
                if is_reported
                else (None,) * 4
            )
            batch.turns.append(
                (pk, number, end_of_speech, end_of_speech + endpointing, now, sent,
                 sent + random.randrange(40, 90), latency, overhead_us, is_interrupted, *split)
            )  # fmt: skip
            say(ASSISTANT, dialogue.assistant_line(), is_interrupted)
        if call.end_reason == ASSISTANT_ENDED:
            now += 300
            say(ASSISTANT, GOODBYE)
        return now

    def _choose(self, weights: Mapping[str, float]) -> str:
        return self._random.choices(tuple(weights), tuple(weights.values()))[0]

    def _caller_name(self) -> str:
        return f"{self._dialogue.name()} {self._dialogue.first()}".upper()

    def _caller_number(self) -> str:
        if self._random.random() < 0.01:
            return "anonymous"
        caller = self._random.randrange(self._caller_count)
        return f"+1{AREA_CODES[caller % len(AREA_CODES)]}555{caller // len(AREA_CODES):04d}"
