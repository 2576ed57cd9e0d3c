"""What a verdict is worth, piece by piece: healthy evidence passes, one wrong thing is named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bridge.audio.transcode import PassThrough, Pcm16k
from calls.demo import audio_compare
from calls.demo.assertions import CHECKS, judge
from calls.demo.evidence import Evidence, Rows, TurnRow, UtteranceRow
from calls.demo.lag import Lag, measured
from calls.tests.demo.test_audio_compare import noise_frames
from sandbox.speech import audio as sound
from sandbox.twilio.carrier import CallRecord
from sandbox.twilio.record import ReceivedAudio, SentFrame, Spoken
from sandbox.vapi.record import AssistantCall, Reply

# The checks

START = 1000.0
ENDED = START + 12.0
SID = "CA" + "1" * 32
SHORT = "CA11..11"
DISCLOSURE = "An AI speaks."
LOG = [
    f"12:00:00.000 I calls.twilio.webhooks {SHORT} = webhook 200, a calls b",
    "12:00:00.001 I bridge.io.consumer media socket up",
    f"12:00:00.002 I bridge.call.session {SHORT} = LIVE after 100 ms",
    f"12:00:00.003 I bridge.call.session {SHORT} > first caller audio to the assistant",
    f"12:00:00.004 I bridge.call.session {SHORT} < first assistant audio to the caller",
]


def healthy(audio_format: str = "mulaw", dialect: str = "call") -> Evidence:
    """Three turns; the second answer is cut off after a quarter of a second; goodbye."""
    record = CallRecord(SID, "AC1", "+15550100134", "+15559870000", started_at=START)
    call = AssistantCall("id", dialect, {}, START, call_sid=SID, opened_at=START + 0.1)
    up, down = (Pcm16k(), Pcm16k()) if audio_format == "pcm_s16le" else (PassThrough(), PassThrough())
    for number, ulaw in enumerate(noise_frames(600)):
        at = START + 0.02 * number
        record.frames.append(SentFrame(number, number, at, ulaw))
        if number < 599:
            call.keep_received(up.to_assistant(ulaw), at + 0.001)
    for number in range(3):
        ended_at = START + 1.0 + 3.5 * number
        record.said.append(Spoken("clip", "words", ended_at - 1, ended_at))
        answer(call, record, down, ended_at, cut=number == 1, seed=number)
    record.digits, record.webhook_status, record.webhook_ms = "42#", 200, 5.0
    record.ended_by, record.close_code, record.final_status = "server", 1000, "completed"
    call.digits_told.append("42#")
    call.ended_at = ENDED
    for reply in call.replies:
        call.transcripts.append((START, "caller", "words"))
        call.transcripts.append((START, "assistant", reply.text if reply.cut_at is None else "We are"))
    rows = Rows(
        url="/calls/1/",
        status="completed",
        end_reason="assistant-ended",
        ended_by="assistant",
        connect_ms=100,
        frames_to_assistant=599,
        frames_to_caller=len(record.received),
        frames_held=5,
        frames_dropped=0,
        barge_ins=1,
        simulated=True,
        priced=True,
        duration_known=True,
        turns=[TurnRow(number, 400, 300, 2000, number == 2) for number in (1, 2, 3)],
        utterances=[UtteranceRow(speaker, text, text == "We are") for _, speaker, text in call.transcripts],
    )
    record.spoken_by_twilio, record.said_before_stream = [DISCLOSURE], 1
    return Evidence(record, call, rows, list(LOG), [], audio_format, DISCLOSURE)


def answer(
    call: AssistantCall, record: CallRecord, down: Any, ended_at: float, *, cut: bool, seed: int
) -> None:
    audible_at = ended_at + 0.4
    reply = Reply("clip", "We are open.", 400, ended_at, audible_at, audible_at)
    clip = sound.load_clips()[("greeting", "long_story", "which_day")[seed]].pcm_8k
    ulaw = sound.ulaw_encode(clip[800 : 800 + 160 * (12 if cut else 40)])
    audio = sound.to_16k(sound.ulaw_decode(ulaw)).tobytes() if isinstance(down, Pcm16k) else ulaw
    size = len(audio) * 160 // len(ulaw)
    for number in range(len(audio) // size):
        at, chunk = audible_at + 0.02 * number, audio[size * number : size * (number + 1)]
        reply.chunks.append((at, chunk))
        record.received.append(ReceivedAudio(at + 0.001, down.to_caller(chunk)))
        reply.last_sent_at = at
    call.replies.append(reply)
    if cut:
        reply.cut_at = (reply.last_sent_at or 0.0) + 0.01
        call.interrupted_at.append(reply.cut_at)
        record.clears.append((reply.cut_at + 0.002, 800))
        if call.dialect == "call":
            call.events_sent.append((reply.cut_at, {"type": "user-interrupted"}))
        else:
            call.cancelled_at.append(reply.cut_at + 0.003)


def failed(evidence: Evidence) -> list[str]:
    return [check.name for check in judge(evidence) if not check.held]


@pytest.mark.parametrize("audio_format", ["mulaw", "pcm_s16le"])
@pytest.mark.parametrize("dialect", ["call", "socket"])
def test_a_healthy_call_is_found_healthy(audio_format: str, dialect: str) -> None:
    checks = judge(healthy(audio_format, dialect))
    assert [(check.name, check.detail) for check in checks if not check.held] == []
    assert [check.name for check in checks] == list(CHECKS)


def rows_with(**changes: Any) -> Callable[[Evidence], Evidence]:
    def change(evidence: Evidence) -> Evidence:
        assert evidence.rows is not None
        return replace(evidence, rows=replace(evidence.rows, **changes))

    return change


def record_with(**changes: Any) -> Callable[[Evidence], Evidence]:
    def change(evidence: Evidence) -> Evidence:
        for name, value in changes.items():
            setattr(evidence.record, name, value)
        return evidence

    return change


def call_with(**changes: Any) -> Callable[[Evidence], Evidence]:
    def change(evidence: Evidence) -> Evidence:
        for name, value in changes.items():
            setattr(evidence.call, name, value)
        return evidence

    return change


def turns_of(*turns: tuple[int | None, bool]) -> list[TurnRow]:
    return [TurnRow(number, ms, 300, 2000, cut) for number, (ms, cut) in enumerate(turns, start=1)]


def trouble(evidence: Evidence) -> Evidence:
    evidence.record.trouble(31951, "media for another stream")
    return evidence


def error_in_the_log(evidence: Evidence) -> Evidence:
    return replace(evidence, log=[*LOG, "12:00:01.000 E bridge.io.runner CA11..11 ! our own error"])


def traceback_in_the_log(evidence: Evidence) -> Evidence:
    return replace(evidence, log=[*LOG, "Traceback (most recent call last):"])


def refused_webhook(evidence: Evidence) -> Evidence:
    assert evidence.call is not None
    evidence.call.webhooks_posted.append((START, "status-update", 401))
    return evidence


def late_chunks(evidence: Evidence) -> Evidence:
    received = evidence.record.received
    received[:] = [ReceivedAudio(audio.at + 0.1, audio.ulaw) for audio in received]
    return evidence


def late_frames(evidence: Evidence) -> Evidence:
    assert evidence.call is not None
    evidence.call.received[:] = [(at + 0.1, payload) for at, payload in evidence.call.received]
    return evidence


def lost_chunk(evidence: Evidence) -> Evidence:
    del evidence.record.received[5]
    assert evidence.rows is not None
    return replace(evidence, rows=replace(evidence.rows, frames_to_caller=len(evidence.record.received)))


def swapped_chunks(evidence: Evidence) -> Evidence:
    first, second = evidence.record.received[5:7]
    evidence.record.received[5:7] = [
        ReceivedAudio(first.at, second.ulaw),
        ReceivedAudio(second.at, first.ulaw),
    ]
    return evidence


def swapped_frames(evidence: Evidence) -> Evidence:
    assert evidence.call is not None
    received = evidence.call.received
    received[300], received[301] = received[301], received[300]
    return evidence


def long_tail(evidence: Evidence) -> Evidence:
    assert evidence.call is not None and evidence.rows is not None
    evidence.call.ended_at = START
    del evidence.call.received[580:]
    return replace(evidence, rows=replace(evidence.rows, frames_to_assistant=580))


def lost_before_the_end(evidence: Evidence) -> Evidence:
    assert evidence.call is not None and evidence.rows is not None
    del evidence.call.received[592:]
    return replace(evidence, rows=replace(evidence.rows, frames_to_assistant=592))


def late_clear(evidence: Evidence) -> Evidence:
    evidence.record.clears[0] = (evidence.record.clears[0][0] + 0.05, 800)
    return evidence


def stale_audio(evidence: Evidence) -> Evidence:
    """The last chunk of the cut answer comes after the clear."""
    cleared_at, received = evidence.record.clears[0][0], evidence.record.received
    index = max(number for number, audio in enumerate(received) if audio.at < cleared_at)
    received[index] = ReceivedAudio(cleared_at + 0.01, received[index].ulaw)
    return evidence


def uncut(evidence: Evidence) -> Evidence:
    assert evidence.call is not None
    evidence.call.replies[1].cut_at = None
    return evidence


def unspoken(evidence: Evidence) -> Evidence:
    assert evidence.rows is not None
    heard = list(evidence.rows.utterances)
    return replace(evidence, rows=replace(evidence.rows, utterances=[*heard[:1], *heard[2:]]))


def misheard(evidence: Evidence) -> Evidence:
    assert evidence.rows is not None
    heard = list(evidence.rows.utterances)
    heard[2] = replace(heard[2], text="swords")
    return replace(evidence, rows=replace(evidence.rows, utterances=heard))


def not_marked(evidence: Evidence) -> Evidence:
    assert evidence.rows is not None
    heard = [replace(said, interrupted=False) for said in evidence.rows.utterances]
    return replace(evidence, rows=replace(evidence.rows, utterances=heard))


def reported_and_lost(evidence: Evidence) -> Evidence:
    assert evidence.call is not None
    evidence.call.webhooks_posted.append((ENDED, "end-of-call-report", 200))
    return rows_with(priced=False)(evidence)


@dataclass(frozen=True)
class Wrong:
    what: str
    change: Callable[[Evidence], Evidence]
    named: str
    also: list[str] = field(default_factory=list)


ANSWERED = ((400, False), (400, True), (400, False))
WRONGS = [
    Wrong("no sign in the log", lambda e: replace(e, log=LOG[:-1]), "signs"),
    Wrong("31951", trouble, "wire"),
    Wrong("refused by the assistant", lambda e: replace(e, refused=["400 no"]), "wire"),
    Wrong("an error in the log", error_in_the_log, "wire"),
    Wrong("a traceback in the log", traceback_in_the_log, "wire"),
    Wrong("a refused webhook", refused_webhook, "wire"),
    Wrong("no word of an AI", record_with(spoken_by_twilio=[]), "disclosure"),
    Wrong("another word first", record_with(spoken_by_twilio=["Hello.", DISCLOSURE], said_before_stream=2),
          "disclosure"),
    Wrong("said too late", record_with(said_before_stream=0), "disclosure"),
    Wrong("an unanswered turn", rows_with(turns=turns_of((400, False), (400, True), (None, False))),
          "turns", ["latency"]),
    Wrong("a turn too few", rows_with(turns=turns_of((400, False), (400, True))), "turns", ["latency"]),
    Wrong("a turn too many", rows_with(turns=turns_of(*ANSWERED, (None, False))), "turns", ["latency"]),
    Wrong("an utterance without an answer", lambda e: record_with(said=e.record.said * 2)(e), "turns"),
    Wrong("swapped frames", swapped_frames, "frames_to_assistant"),
    Wrong("a long tail", long_tail, "frames_to_assistant"),
    Wrong("frames lost before the end", lost_before_the_end, "frames_to_assistant"),
    Wrong("frames counted as dropped", rows_with(frames_dropped=1), "frames_to_assistant"),
    Wrong("frames miscounted", rows_with(frames_to_assistant=500), "frames_to_assistant"),
    Wrong("nothing held", rows_with(frames_held=0), "frames_to_assistant"),
    Wrong("a lost chunk", lost_chunk, "frames_to_caller", ["transit"]),
    Wrong("swapped chunks", swapped_chunks, "frames_to_caller"),
    Wrong("messages miscounted", rows_with(frames_to_caller=1), "frames_to_caller"),
    Wrong("late to the assistant", late_frames, "transit"),
    Wrong("late to the caller", late_chunks, "transit", ["barge_in"]),
    Wrong("no clear", record_with(clears=[]), "barge_in"),
    Wrong("two clears", lambda e: record_with(clears=e.record.clears * 2)(e), "barge_in"),
    Wrong("a late clear", late_clear, "barge_in"),
    Wrong("stale audio", stale_audio, "barge_in"),
    Wrong("no answer cut", uncut, "barge_in"),
    Wrong("no interruption told", call_with(events_sent=[]), "barge_in"),
    Wrong("a barge-in not counted", rows_with(barge_ins=0), "barge_in"),
    Wrong("the wrong turn marked", rows_with(turns=turns_of((400, True), (400, False), (400, False))),
          "barge_in"),
    Wrong("no utterance marked", not_marked, "barge_in"),
    Wrong("latency off", rows_with(turns=turns_of((400, False), (450, True), (400, False))), "latency"),
    Wrong("an utterance lost", unspoken, "transcript"),
    Wrong("an utterance misheard", misheard, "transcript"),
    Wrong("no transcript", call_with(transcripts=[]), "transcript"),
    Wrong("the last utterance lost", lambda e: rows_with(utterances=list(e.rows.utterances[:-1]))(e)
          if e.rows else e, "transcript"),
    Wrong("keys lost", call_with(digits_told=[]), "dtmf"),
    Wrong("another ending", rows_with(end_reason="caller-hung-up"), "ending"),
    Wrong("not completed", rows_with(status="in-progress"), "ending"),
    Wrong("ended by the caller", record_with(ended_by="caller"), "ending"),
    Wrong("closed in anger", record_with(close_code=1011), "ending"),
    Wrong("goodbye unheard", record_with(unheard_bytes=160), "ending"),
    Wrong("an orphan", call_with(ended_at=None), "ending", ["frames_to_assistant"]),
    Wrong("failed in the end", record_with(final_status="failed"), "ending"),
    Wrong("no duration", rows_with(duration_known=False), "ending"),
    Wrong("not marked as simulated", rows_with(simulated=False), "ending"),
    Wrong("a report lost", reported_and_lost, "ending"),
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONGS, ids=[wrong.what for wrong in WRONGS])
def test_it_names_what_is_wrong_and_nothing_else(wrong: Wrong) -> None:
    assert set(failed(wrong.change(healthy()))) <= {wrong.named, *wrong.also}
    assert wrong.named in failed(wrong.change(healthy()))


def test_a_busy_machine_excuses_one_late_turn_and_not_that_all_are() -> None:
    once = rows_with(turns=turns_of((400, False), (500, True), (400, False)))
    always = rows_with(turns=turns_of((500, False), (500, True), (500, False)))
    in_time, late_once = Lag([1.0] * 99), Lag([1.0] * 99 + [80.0])
    assert failed(replace(once(healthy()), lag=in_time)) == ["latency"]
    assert failed(replace(once(healthy()), lag=late_once)) == []
    assert failed(replace(always(healthy()), lag=late_once)) == ["latency"]


def test_audio_and_a_clear_may_be_as_late_as_the_machine() -> None:
    always_late, late_once = Lag([100.0] * 99), Lag([1.0] * 99 + [80.0])
    for change, name in ((late_frames, "transit"), (late_chunks, "transit"), (late_clear, "barge_in")):
        assert name not in failed(replace(change(healthy()), lag=always_late))
    for change in (late_frames, late_chunks):
        assert "transit" in failed(replace(change(healthy()), lag=late_once))
    assert "barge_in" not in failed(replace(late_clear(healthy()), lag=late_once))


async def test_the_pulse_feels_what_holds_the_loop() -> None:
    async with measured() as lag:
        while not lag.pulses_ms:
            await asyncio.sleep(0.01)
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            pass
        count = len(lag.pulses_ms)
        while len(lag.pulses_ms) == count:
            await asyncio.sleep(0.01)
    assert lag.worst_ms > 70


def test_what_the_bridge_dropped_after_a_cut_is_not_missed() -> None:
    """Socket dialect: what was sent before the assistant heard of the cut may be dropped, no more."""
    evidence = healthy(dialect="socket")
    assert evidence.call is not None and evidence.rows is not None
    cut = evidence.call.replies[1]
    straggler = evidence.record.clears[0][0] + 0.001
    cut.chunks.append((straggler, bytes(100)))
    assert failed(evidence) == []
    cut.chunks.insert(-1, (straggler - 0.1, bytes(400)))
    assert failed(evidence) == ["frames_to_caller"]
    cut.chunks[-2:] = [(straggler, bytes(2000))]
    assert failed(evidence) == []


def test_a_call_without_an_assistant_or_a_row_holds_in_nothing() -> None:
    for evidence in (replace(healthy(), call=None), replace(healthy(), rows=None)):
        assert failed(trouble(evidence)) == list(CHECKS)
        assert "31951" in judge(evidence)[0].detail


def test_it_can_do_without_soxr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_compare, "reference_name", lambda: "FFT")
    assert failed(healthy("pcm_s16le")) == []
