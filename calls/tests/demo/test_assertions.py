"""The checks of the demo: a healthy call passes all of them, and each fault fails the right one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bridge.audio.transcode import PassThrough, Pcm16k
from calls.demo import audio_compare
from calls.demo.artifacts import CallArtifacts, CallRows, TurnRow, UtteranceRow
from calls.demo.assertions import CHECKS, run_checks
from calls.demo.loop_lag import LoopLag, measure_loop_lag
from calls.tests.demo.test_audio_compare import noise_frames
from sandbox.speech import audio as sound
from sandbox.twilio.record import CallerUtterance, ReceivedAudio, SentFrame, TwilioCallRecord
from sandbox.vapi.record import Reply, VapiCallRecord

# The checks

START = 1000.0
ENDED = START + 12.0
SID = "CA" + "1" * 32
SHORT = "CA11..11"
DISCLOSURE = "An AI speaks."
LOG = [
    f"12:00:00.000 I calls.twilio.webhooks {SHORT} = webhook 200, a calls b",
    "12:00:00.001 I bridge.io.consumer media socket open",
    f"12:00:00.002 I bridge.call.session {SHORT} = LIVE after 100 ms",
    f"12:00:00.003 I bridge.call.session {SHORT} > first caller audio to the assistant",
    f"12:00:00.004 I bridge.call.session {SHORT} < first assistant audio to the caller",
]


def healthy_call(audio_format: str = "mulaw", dialect: str = "call") -> CallArtifacts:
    """Three turns; the second answer is cut off after a quarter of a second."""
    record = TwilioCallRecord(SID, "AC1", "+15550100134", "+15559870000", started_at=START)
    call = VapiCallRecord("id", dialect, {}, START, call_sid=SID, opened_at=START + 0.1)
    up, down = (Pcm16k(), Pcm16k()) if audio_format == "pcm_s16le" else (PassThrough(), PassThrough())
    for number, ulaw in enumerate(noise_frames(600)):
        at = START + 0.02 * number
        record.frames.append(SentFrame(number, number, at, ulaw))
        if number < 599:
            call.record_audio(up.to_assistant(ulaw), at + 0.001)
    for number in range(3):
        ended_at = START + 1.0 + 3.5 * number
        record.utterances.append(CallerUtterance("clip", "words", ended_at - 1, ended_at))
        add_answer(call, record, down, ended_at, cut=number == 1, seed=number)
    record.digits, record.webhook_status, record.webhook_ms = "42#", 200, 5.0
    record.ended_by, record.close_code, record.final_status = "server", 1000, "completed"
    call.digits_received.append("42#")
    call.ended_at = ENDED
    for reply in call.replies:
        call.transcripts.append((START, "caller", "words"))
        call.transcripts.append((START, "assistant", reply.text if reply.cut_at is None else "We are"))
    rows = CallRows(
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
        has_vapi_cost=True,
        has_duration=True,
        turns=[TurnRow(number, 400, 300, 2000, number == 2) for number in (1, 2, 3)],
        utterances=[UtteranceRow(speaker, text, text == "We are") for _, speaker, text in call.transcripts],
    )
    record.spoken_by_twilio, record.spoken_before_stream = [DISCLOSURE], 1
    return CallArtifacts(
        twilio=record,
        vapi=call,
        rows=rows,
        log=list(LOG),
        rejected_requests=[],
        audio_format=audio_format,
        disclosure=DISCLOSURE,
    )


def add_answer(
    call: VapiCallRecord, record: TwilioCallRecord, down: Any, ended_at: float, *, cut: bool, seed: int
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


def failed(artifacts: CallArtifacts) -> list[str]:
    return [check.name for check in run_checks(artifacts) if not check.passed]


@pytest.mark.parametrize("audio_format", ["mulaw", "pcm_s16le"])
@pytest.mark.parametrize("dialect", ["call", "socket"])
def test_a_healthy_call_passes_every_check(audio_format: str, dialect: str) -> None:
    checks = run_checks(healthy_call(audio_format, dialect))
    assert [(check.name, check.detail) for check in checks if not check.passed] == []
    assert [check.name for check in checks] == list(CHECKS)


def rows_with(**changes: Any) -> Callable[[CallArtifacts], CallArtifacts]:
    def change(artifacts: CallArtifacts) -> CallArtifacts:
        assert artifacts.rows is not None
        return replace(artifacts, rows=replace(artifacts.rows, **changes))

    return change


def twilio_with(**changes: Any) -> Callable[[CallArtifacts], CallArtifacts]:
    def change(artifacts: CallArtifacts) -> CallArtifacts:
        for name, value in changes.items():
            setattr(artifacts.twilio, name, value)
        return artifacts

    return change


def vapi_with(**changes: Any) -> Callable[[CallArtifacts], CallArtifacts]:
    def change(artifacts: CallArtifacts) -> CallArtifacts:
        for name, value in changes.items():
            setattr(artifacts.vapi, name, value)
        return artifacts

    return change


def turns_of(*turns: tuple[int | None, bool]) -> list[TurnRow]:
    return [TurnRow(number, ms, 300, 2000, cut) for number, (ms, cut) in enumerate(turns, start=1)]


def twilio_error(artifacts: CallArtifacts) -> CallArtifacts:
    artifacts.twilio.add_error(31951, "media for another stream")
    return artifacts


def error_in_the_log(artifacts: CallArtifacts) -> CallArtifacts:
    return replace(artifacts, log=[*LOG, "12:00:01.000 E bridge.io.runner CA11..11 ! our own error"])


def traceback_in_the_log(artifacts: CallArtifacts) -> CallArtifacts:
    return replace(artifacts, log=[*LOG, "Traceback (most recent call last):"])


def refused_webhook(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.vapi is not None
    artifacts.vapi.webhooks_posted.append((START, "status-update", 401))
    return artifacts


def late_chunks(artifacts: CallArtifacts) -> CallArtifacts:
    received = artifacts.twilio.received
    received[:] = [ReceivedAudio(audio.at + 0.1, audio.ulaw) for audio in received]
    return artifacts


def late_frames(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.vapi is not None
    artifacts.vapi.received[:] = [(at + 0.1, payload) for at, payload in artifacts.vapi.received]
    return artifacts


def lost_chunk(artifacts: CallArtifacts) -> CallArtifacts:
    del artifacts.twilio.received[5]
    assert artifacts.rows is not None
    return replace(artifacts, rows=replace(artifacts.rows, frames_to_caller=len(artifacts.twilio.received)))


def swapped_chunks(artifacts: CallArtifacts) -> CallArtifacts:
    first, second = artifacts.twilio.received[5:7]
    artifacts.twilio.received[5:7] = [
        ReceivedAudio(first.at, second.ulaw),
        ReceivedAudio(second.at, first.ulaw),
    ]
    return artifacts


def swapped_frames(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.vapi is not None
    received = artifacts.vapi.received
    received[300], received[301] = received[301], received[300]
    return artifacts


def long_tail(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.vapi is not None and artifacts.rows is not None
    artifacts.vapi.ended_at = START
    del artifacts.vapi.received[580:]
    return replace(artifacts, rows=replace(artifacts.rows, frames_to_assistant=580))


def lost_before_the_end(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.vapi is not None and artifacts.rows is not None
    del artifacts.vapi.received[592:]
    return replace(artifacts, rows=replace(artifacts.rows, frames_to_assistant=592))


def late_clear(artifacts: CallArtifacts) -> CallArtifacts:
    artifacts.twilio.clears[0] = (artifacts.twilio.clears[0][0] + 0.05, 800)
    return artifacts


def stale_audio(artifacts: CallArtifacts) -> CallArtifacts:
    """The last chunk of the cut answer comes after the clear."""
    cleared_at, received = artifacts.twilio.clears[0][0], artifacts.twilio.received
    index = max(number for number, audio in enumerate(received) if audio.at < cleared_at)
    received[index] = ReceivedAudio(cleared_at + 0.01, received[index].ulaw)
    return artifacts


def not_cut(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.vapi is not None
    artifacts.vapi.replies[1].cut_at = None
    return artifacts


def utterance_lost(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.rows is not None
    heard = list(artifacts.rows.utterances)
    return replace(artifacts, rows=replace(artifacts.rows, utterances=[*heard[:1], *heard[2:]]))


def utterance_changed(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.rows is not None
    heard = list(artifacts.rows.utterances)
    heard[2] = replace(heard[2], text="swords")
    return replace(artifacts, rows=replace(artifacts.rows, utterances=heard))


def not_marked(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.rows is not None
    heard = [replace(row, interrupted=False) for row in artifacts.rows.utterances]
    return replace(artifacts, rows=replace(artifacts.rows, utterances=heard))


def reported_and_lost(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.vapi is not None
    artifacts.vapi.webhooks_posted.append((ENDED, "end-of-call-report", 200))
    return rows_with(has_vapi_cost=False)(artifacts)


@dataclass(frozen=True)
class Fault:
    description: str
    change: Callable[[CallArtifacts], CallArtifacts]
    failed_check: str
    may_also_fail: list[str] = field(default_factory=list)


ANSWERED = ((400, False), (400, True), (400, False))
FAULTS = [
    Fault("a sign missing in the log", lambda e: replace(e, log=LOG[:-1]), "signs"),
    Fault("31951", twilio_error, "wire"),
    Fault("refused by the assistant", lambda e: replace(e, rejected_requests=["400 no"]), "wire"),
    Fault("an error in the log", error_in_the_log, "wire"),
    Fault("a traceback in the log", traceback_in_the_log, "wire"),
    Fault("a refused webhook", refused_webhook, "wire"),
    Fault("no disclosure", twilio_with(spoken_by_twilio=[]), "disclosure"),
    Fault("another announcement first",
          twilio_with(spoken_by_twilio=["Hello.", DISCLOSURE], spoken_before_stream=2), "disclosure"),
    Fault("disclosure too late", twilio_with(spoken_before_stream=0), "disclosure"),
    Fault("an unanswered turn", rows_with(turns=turns_of((400, False), (400, True), (None, False))),
          "turns", ["latency"]),
    Fault("a turn too few", rows_with(turns=turns_of((400, False), (400, True))), "turns", ["latency"]),
    Fault("a turn too many", rows_with(turns=turns_of(*ANSWERED, (None, False))), "turns", ["latency"]),
    Fault("an utterance without an answer",
          lambda e: twilio_with(utterances=e.twilio.utterances * 2)(e), "turns"),
    Fault("swapped frames", swapped_frames, "frames_to_assistant"),
    Fault("a long tail", long_tail, "frames_to_assistant"),
    Fault("frames lost before the end", lost_before_the_end, "frames_to_assistant"),
    Fault("frames counted as dropped", rows_with(frames_dropped=1), "frames_to_assistant"),
    Fault("frames miscounted", rows_with(frames_to_assistant=500), "frames_to_assistant"),
    Fault("nothing held", rows_with(frames_held=0), "frames_to_assistant"),
    Fault("a lost chunk", lost_chunk, "frames_to_caller", ["transit"]),
    Fault("swapped chunks", swapped_chunks, "frames_to_caller"),
    Fault("messages miscounted", rows_with(frames_to_caller=1), "frames_to_caller"),
    Fault("late to the assistant", late_frames, "transit"),
    Fault("late to the caller", late_chunks, "transit", ["barge_in"]),
    Fault("no clear", twilio_with(clears=[]), "barge_in"),
    Fault("two clears", lambda e: twilio_with(clears=e.twilio.clears * 2)(e), "barge_in"),
    Fault("a late clear", late_clear, "barge_in"),
    Fault("stale audio", stale_audio, "barge_in"),
    Fault("no answer cut", not_cut, "barge_in"),
    Fault("no interruption sent", vapi_with(events_sent=[]), "barge_in"),
    Fault("a barge-in not counted", rows_with(barge_ins=0), "barge_in"),
    Fault("the wrong turn marked", rows_with(turns=turns_of((400, True), (400, False), (400, False))),
          "barge_in"),
    Fault("no utterance marked", not_marked, "barge_in"),
    Fault("latency off", rows_with(turns=turns_of((400, False), (450, True), (400, False))), "latency"),
    Fault("an utterance lost", utterance_lost, "transcript"),
    Fault("an utterance changed", utterance_changed, "transcript"),
    Fault("no transcript", vapi_with(transcripts=[]), "transcript"),
    Fault("the last utterance lost", lambda e: rows_with(utterances=list(e.rows.utterances[:-1]))(e)
          if e.rows else e, "transcript"),
    Fault("keys lost", vapi_with(digits_received=[]), "dtmf"),
    Fault("another ending", rows_with(end_reason="caller-hung-up"), "ending"),
    Fault("not completed", rows_with(status="in-progress"), "ending"),
    Fault("ended by the caller", twilio_with(ended_by="caller"), "ending"),
    Fault("closed with 1011", twilio_with(close_code=1011), "ending"),
    Fault("goodbye not played", twilio_with(unheard_bytes=160), "ending"),
    Fault("an orphaned call", vapi_with(ended_at=None), "ending", ["frames_to_assistant"]),
    Fault("final status failed", twilio_with(final_status="failed"), "ending"),
    Fault("no duration", rows_with(has_duration=False), "ending"),
    Fault("not marked as simulated", rows_with(simulated=False), "ending"),
    Fault("report missing", reported_and_lost, "ending"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.description for fault in FAULTS])
def test_a_fault_fails_its_check_and_no_other(fault: Fault) -> None:
    assert set(failed(fault.change(healthy_call()))) <= {fault.failed_check, *fault.may_also_fail}
    assert fault.failed_check in failed(fault.change(healthy_call()))


def test_a_busy_machine_excuses_one_late_turn_but_not_all_of_them() -> None:
    one_late = rows_with(turns=turns_of((400, False), (500, True), (400, False)))
    all_late = rows_with(turns=turns_of((500, False), (500, True), (500, False)))
    no_lag, one_lag = LoopLag([1.0] * 99), LoopLag([1.0] * 99 + [80.0])
    assert failed(replace(one_late(healthy_call()), lag=no_lag)) == ["latency"]
    assert failed(replace(one_late(healthy_call()), lag=one_lag)) == []
    assert failed(replace(all_late(healthy_call()), lag=one_lag)) == ["latency"]


def test_audio_and_a_clear_may_be_as_late_as_the_machine() -> None:
    constant_lag, one_lag = LoopLag([100.0] * 99), LoopLag([1.0] * 99 + [80.0])
    for change, name in ((late_frames, "transit"), (late_chunks, "transit"), (late_clear, "barge_in")):
        assert name not in failed(replace(change(healthy_call()), lag=constant_lag))
    for change in (late_frames, late_chunks):
        assert "transit" in failed(replace(change(healthy_call()), lag=one_lag))
    assert "barge_in" not in failed(replace(late_clear(healthy_call()), lag=one_lag))


async def test_the_loop_lag_shows_what_blocks_the_loop() -> None:
    async with measure_loop_lag() as lag:
        while not lag.samples_ms:
            await asyncio.sleep(0.01)
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            pass
        count = len(lag.samples_ms)
        while len(lag.samples_ms) == count:
            await asyncio.sleep(0.01)
    assert lag.max_ms > 70


def test_audio_that_the_bridge_dropped_after_a_barge_in_is_not_missing() -> None:
    """Socket dialect: audio that Vapi sent before it received `cancel` may be dropped, but no more."""
    artifacts = healthy_call(dialect="socket")
    assert artifacts.vapi is not None and artifacts.rows is not None
    cut = artifacts.vapi.replies[1]
    late_at = artifacts.twilio.clears[0][0] + 0.001
    cut.chunks.append((late_at, bytes(100)))
    assert failed(artifacts) == []
    cut.chunks.insert(-1, (late_at - 0.1, bytes(400)))
    assert failed(artifacts) == ["frames_to_caller"]
    cut.chunks[-2:] = [(late_at, bytes(2000))]
    assert failed(artifacts) == []


def test_a_call_without_vapi_or_without_a_row_fails_every_check() -> None:
    for artifacts in (replace(healthy_call(), vapi=None), replace(healthy_call(), rows=None)):
        assert failed(twilio_error(artifacts)) == list(CHECKS)
        assert "31951" in run_checks(artifacts)[0].detail


def test_it_works_without_soxr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_compare, "resampler_name", lambda: "FFT")
    assert failed(healthy_call("pcm_s16le")) == []
