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
from calls.tests.demo.test_audio_compare import make_noise_frames
from sandbox.speech import audio as sound
from sandbox.twilio.record import CallerUtterance, ReceivedAudio, SentFrame, TwilioCallRecord
from sandbox.vapi.record import Reply, VapiCallRecord

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


def make_healthy_call(audio_format: str = "mulaw", dialect: str = "call") -> CallArtifacts:
    """Three turns; the second answer is cut off after a quarter of a second."""
    record = TwilioCallRecord(SID, "AC1", "+15550100134", "+15559870000", started_at=START)
    call = VapiCallRecord("id", dialect, {}, START, call_sid=SID, opened_at=START + 0.1)
    up, down = (Pcm16k(), Pcm16k()) if audio_format == "pcm_s16le" else (PassThrough(), PassThrough())
    for number, ulaw in enumerate(make_noise_frames(600)):
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


def find_failed_checks(artifacts: CallArtifacts) -> list[str]:
    return [check.name for check in run_checks(artifacts) if not check.passed]


@pytest.mark.parametrize("audio_format", ["mulaw", "pcm_s16le"])
@pytest.mark.parametrize("dialect", ["call", "socket"])
def test_a_healthy_call_passes_every_check(audio_format: str, dialect: str) -> None:
    checks = run_checks(make_healthy_call(audio_format, dialect))
    assert [(check.name, check.detail) for check in checks if not check.passed] == []
    assert [check.name for check in checks] == list(CHECKS)


def change_rows(**changes: Any) -> Callable[[CallArtifacts], CallArtifacts]:
    def change(artifacts: CallArtifacts) -> CallArtifacts:
        assert artifacts.rows is not None
        return replace(artifacts, rows=replace(artifacts.rows, **changes))

    return change


def change_twilio(**changes: Any) -> Callable[[CallArtifacts], CallArtifacts]:
    def change(artifacts: CallArtifacts) -> CallArtifacts:
        for name, value in changes.items():
            setattr(artifacts.twilio, name, value)
        return artifacts

    return change


def change_vapi(**changes: Any) -> Callable[[CallArtifacts], CallArtifacts]:
    def change(artifacts: CallArtifacts) -> CallArtifacts:
        for name, value in changes.items():
            setattr(artifacts.vapi, name, value)
        return artifacts

    return change


def make_turns(*turns: tuple[int | None, bool]) -> list[TurnRow]:
    return [TurnRow(number, ms, 300, 2000, cut) for number, (ms, cut) in enumerate(turns, start=1)]


def add_twilio_error(artifacts: CallArtifacts) -> CallArtifacts:
    artifacts.twilio.add_error(31951, "media for another stream")
    return artifacts


def log_error(artifacts: CallArtifacts) -> CallArtifacts:
    return replace(artifacts, log=[*LOG, "12:00:01.000 E bridge.io.runner CA11..11 ! our own error"])


def log_traceback(artifacts: CallArtifacts) -> CallArtifacts:
    return replace(artifacts, log=[*LOG, "Traceback (most recent call last):"])


def reject_webhook(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.vapi is not None
    artifacts.vapi.webhooks_posted.append((START, "status-update", 401))
    return artifacts


def delay_chunks(artifacts: CallArtifacts) -> CallArtifacts:
    received = artifacts.twilio.received
    received[:] = [ReceivedAudio(audio.at + 0.1, audio.ulaw) for audio in received]
    return artifacts


def delay_frames(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.vapi is not None
    artifacts.vapi.received[:] = [(at + 0.1, payload) for at, payload in artifacts.vapi.received]
    return artifacts


def lose_chunk(artifacts: CallArtifacts) -> CallArtifacts:
    del artifacts.twilio.received[5]
    assert artifacts.rows is not None
    return replace(artifacts, rows=replace(artifacts.rows, frames_to_caller=len(artifacts.twilio.received)))


def swap_chunks(artifacts: CallArtifacts) -> CallArtifacts:
    first, second = artifacts.twilio.received[5:7]
    artifacts.twilio.received[5:7] = [
        ReceivedAudio(first.at, second.ulaw),
        ReceivedAudio(second.at, first.ulaw),
    ]
    return artifacts


def swap_frames(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.vapi is not None
    received = artifacts.vapi.received
    received[300], received[301] = received[301], received[300]
    return artifacts


def lose_tail(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.vapi is not None and artifacts.rows is not None
    artifacts.vapi.ended_at = START
    del artifacts.vapi.received[580:]
    return replace(artifacts, rows=replace(artifacts.rows, frames_to_assistant=580))


def lose_frames_before_the_end(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.vapi is not None and artifacts.rows is not None
    del artifacts.vapi.received[592:]
    return replace(artifacts, rows=replace(artifacts.rows, frames_to_assistant=592))


def delay_clear(artifacts: CallArtifacts) -> CallArtifacts:
    artifacts.twilio.clears[0] = (artifacts.twilio.clears[0][0] + 0.05, 800)
    return artifacts


def send_stale_audio(artifacts: CallArtifacts) -> CallArtifacts:
    """The last chunk of the cut answer comes after the clear."""
    cleared_at, received = artifacts.twilio.clears[0][0], artifacts.twilio.received
    index = max(number for number, audio in enumerate(received) if audio.at < cleared_at)
    received[index] = ReceivedAudio(cleared_at + 0.01, received[index].ulaw)
    return artifacts


def remove_cut(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.vapi is not None
    artifacts.vapi.replies[1].cut_at = None
    return artifacts


def lose_utterance(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.rows is not None
    utterances = list(artifacts.rows.utterances)
    return replace(artifacts, rows=replace(artifacts.rows, utterances=[*utterances[:1], *utterances[2:]]))


def change_utterance(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.rows is not None
    utterances = list(artifacts.rows.utterances)
    utterances[2] = replace(utterances[2], text="other words")
    return replace(artifacts, rows=replace(artifacts.rows, utterances=utterances))


def unmark_utterances(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.rows is not None
    utterances = [replace(row, interrupted=False) for row in artifacts.rows.utterances]
    return replace(artifacts, rows=replace(artifacts.rows, utterances=utterances))


def lose_report(artifacts: CallArtifacts) -> CallArtifacts:
    assert artifacts.vapi is not None
    artifacts.vapi.webhooks_posted.append((ENDED, "end-of-call-report", 200))
    return change_rows(has_vapi_cost=False)(artifacts)


@dataclass(frozen=True)
class Fault:
    description: str
    change: Callable[[CallArtifacts], CallArtifacts]
    failed_check: str
    may_also_fail: list[str] = field(default_factory=list)


ANSWERED = ((400, False), (400, True), (400, False))
FAULTS = [
    Fault("a sign missing in the log", lambda call: replace(call, log=LOG[:-1]), "signs"),
    Fault("31951", add_twilio_error, "wire"),
    Fault("a request rejected by Vapi", lambda call: replace(call, rejected_requests=["400 no"]), "wire"),
    Fault("an error in the log", log_error, "wire"),
    Fault("a traceback in the log", log_traceback, "wire"),
    Fault("a rejected webhook", reject_webhook, "wire"),
    Fault("no disclosure", change_twilio(spoken_by_twilio=[]), "disclosure"),
    Fault("another announcement first",
          change_twilio(spoken_by_twilio=["Hello.", DISCLOSURE], spoken_before_stream=2), "disclosure"),
    Fault("disclosure too late", change_twilio(spoken_before_stream=0), "disclosure"),
    Fault("an unanswered turn", change_rows(turns=make_turns((400, False), (400, True), (None, False))),
          "turns", ["latency"]),
    Fault("a turn too few", change_rows(turns=make_turns((400, False), (400, True))), "turns", ["latency"]),
    Fault("a turn too many", change_rows(turns=make_turns(*ANSWERED, (None, False))), "turns", ["latency"]),
    Fault("an utterance without an answer",
          lambda call: change_twilio(utterances=call.twilio.utterances * 2)(call), "turns"),
    Fault("swapped frames", swap_frames, "frames_to_assistant"),
    Fault("too many frames missing at the end", lose_tail, "frames_to_assistant"),
    Fault("frames lost before the end", lose_frames_before_the_end, "frames_to_assistant"),
    Fault("frames counted as dropped", change_rows(frames_dropped=1), "frames_to_assistant"),
    Fault("frames miscounted", change_rows(frames_to_assistant=500), "frames_to_assistant"),
    Fault("no frame held", change_rows(frames_held=0), "frames_to_assistant"),
    Fault("a lost chunk", lose_chunk, "frames_to_caller", ["transit"]),
    Fault("swapped chunks", swap_chunks, "frames_to_caller"),
    Fault("messages miscounted", change_rows(frames_to_caller=1), "frames_to_caller"),
    Fault("late to the assistant", delay_frames, "transit"),
    Fault("late to the caller", delay_chunks, "transit", ["barge_in"]),
    Fault("no clear", change_twilio(clears=[]), "barge_in"),
    Fault("two clears", lambda call: change_twilio(clears=call.twilio.clears * 2)(call), "barge_in"),
    Fault("a late clear", delay_clear, "barge_in"),
    Fault("stale audio", send_stale_audio, "barge_in"),
    Fault("no answer cut", remove_cut, "barge_in"),
    Fault("no interruption sent", change_vapi(events_sent=[]), "barge_in"),
    Fault("a barge-in not counted", change_rows(barge_ins=0), "barge_in"),
    Fault("the wrong turn marked", change_rows(turns=make_turns((400, True), (400, False), (400, False))),
          "barge_in"),
    Fault("no utterance marked", unmark_utterances, "barge_in"),
    Fault("a wrong latency", change_rows(turns=make_turns((400, False), (450, True), (400, False))),
          "latency"),
    Fault("an utterance lost", lose_utterance, "transcript"),
    Fault("an utterance changed", change_utterance, "transcript"),
    Fault("no transcript", change_vapi(transcripts=[]), "transcript"),
    Fault("the last utterance lost",
          lambda call: change_rows(utterances=call.rows.utterances[:-1])(call) if call.rows else call,
          "transcript"),
    Fault("keys lost", change_vapi(digits_received=[]), "dtmf"),
    Fault("another end reason", change_rows(end_reason="caller-hung-up"), "ending"),
    Fault("not completed", change_rows(status="in-progress"), "ending"),
    Fault("ended by the caller", change_twilio(ended_by="caller"), "ending"),
    Fault("closed with 1011", change_twilio(close_code=1011), "ending"),
    Fault("goodbye not played", change_twilio(unheard_bytes=160), "ending"),
    Fault("a Vapi call that was not ended", change_vapi(ended_at=None), "ending", ["frames_to_assistant"]),
    Fault("final status failed", change_twilio(final_status="failed"), "ending"),
    Fault("no duration", change_rows(has_duration=False), "ending"),
    Fault("not marked as simulated", change_rows(simulated=False), "ending"),
    Fault("a missing report", lose_report, "ending"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.description for fault in FAULTS])
def test_a_fault_fails_its_check_and_no_other(fault: Fault) -> None:
    assert set(find_failed_checks(fault.change(make_healthy_call()))) <= {
        fault.failed_check,
        *fault.may_also_fail,
    }
    assert fault.failed_check in find_failed_checks(fault.change(make_healthy_call()))


def test_on_a_busy_machine_one_turn_may_be_late_but_not_all() -> None:
    one_late = change_rows(turns=make_turns((400, False), (500, True), (400, False)))
    all_late = change_rows(turns=make_turns((500, False), (500, True), (500, False)))
    no_lag, one_lag = LoopLag([1.0] * 99), LoopLag([1.0] * 99 + [80.0])
    assert find_failed_checks(replace(one_late(make_healthy_call()), lag=no_lag)) == ["latency"]
    assert find_failed_checks(replace(one_late(make_healthy_call()), lag=one_lag)) == []
    assert find_failed_checks(replace(all_late(make_healthy_call()), lag=one_lag)) == ["latency"]


def test_audio_and_a_clear_may_be_late_by_the_lag_of_the_machine() -> None:
    constant_lag, one_lag = LoopLag([100.0] * 99), LoopLag([1.0] * 99 + [80.0])
    for change, name in ((delay_frames, "transit"), (delay_chunks, "transit"), (delay_clear, "barge_in")):
        assert name not in find_failed_checks(replace(change(make_healthy_call()), lag=constant_lag))
    for change in (delay_frames, delay_chunks):
        assert "transit" in find_failed_checks(replace(change(make_healthy_call()), lag=one_lag))
    assert "barge_in" not in find_failed_checks(replace(delay_clear(make_healthy_call()), lag=one_lag))


async def test_the_loop_lag_shows_what_blocks_the_loop() -> None:
    async with measure_loop_lag() as lag:
        while not lag.samples_ms:
            await asyncio.sleep(0.01)
        blocked_until = time.monotonic() + 0.1
        while time.monotonic() < blocked_until:
            pass
        count = len(lag.samples_ms)
        while len(lag.samples_ms) == count:
            await asyncio.sleep(0.01)
    assert lag.max_ms > 70


def test_audio_that_the_bridge_dropped_after_a_barge_in_is_not_missing() -> None:
    """Socket dialect: audio that Vapi sent before it received `cancel` may be dropped, but no more."""
    artifacts = make_healthy_call(dialect="socket")
    assert artifacts.vapi is not None and artifacts.rows is not None
    cut_off = artifacts.vapi.replies[1]
    after_clear = artifacts.twilio.clears[0][0] + 0.001
    cut_off.chunks.append((after_clear, bytes(100)))
    assert find_failed_checks(artifacts) == []
    cut_off.chunks.insert(-1, (after_clear - 0.1, bytes(400)))
    assert find_failed_checks(artifacts) == ["frames_to_caller"]
    cut_off.chunks[-2:] = [(after_clear, bytes(2000))]
    assert find_failed_checks(artifacts) == []


def test_a_call_without_vapi_or_without_a_row_fails_every_check() -> None:
    for artifacts in (replace(make_healthy_call(), vapi=None), replace(make_healthy_call(), rows=None)):
        assert find_failed_checks(add_twilio_error(artifacts)) == list(CHECKS)
        assert "31951" in run_checks(artifacts)[0].detail


def test_the_checks_work_without_soxr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_compare, "resampler_name", lambda: "FFT")
    assert find_failed_checks(make_healthy_call("pcm_s16le")) == []
