"""What must be true of a simulated call: one function per check, artifacts in, a detail text out. Pure.

The records of the simulators are the reference. The rows, the log and the transmitted audio are compared
with them in numbers: a check that only tests for existence would accept a wrong value.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from bridge.end_reasons import ASSISTANT_ENDED
from calls.demo.artifacts import CallArtifacts, CompleteArtifacts
from calls.demo.audio_assertions import frames_to_assistant, frames_to_caller, transit
from calls.demo.check_result import SIGNS, Check, CheckFailed, require
from calls.masking import short_sid

MIN_TURNS = 3
MAX_LATENCY_ERROR_MS = 40
MAX_PROBLEMS_SHOWN = 4


def run_checks(artifacts: CallArtifacts) -> list[Check]:
    """The result of every check, in the order in which a call can fail."""
    if artifacts.vapi is None or artifacts.rows is None:
        missing = "the call did not reach Vapi" if artifacts.vapi is None else "the call has no row"
        errors = "; ".join(f"{error.code} {error.text}" for error in artifacts.twilio.errors)
        return [Check(name, False, f"{missing}. {errors}".rstrip(" .")) for name in CHECKS]
    call = CompleteArtifacts(
        twilio=artifacts.twilio,
        vapi=artifacts.vapi,
        rows=artifacts.rows,
        log=artifacts.log,
        rejected_requests=artifacts.rejected_requests,
        audio_format=artifacts.audio_format,
        disclosure=artifacts.disclosure,
        lag=artifacts.lag,
    )
    return [_run(name, check, call) for name, check in CHECKS.items()]


def _run(name: str, check: Callable[[CompleteArtifacts], str], call: CompleteArtifacts) -> Check:
    try:
        return Check(name, True, check(call))
    except CheckFailed as failure:
        return Check(name, False, str(failure))


def signs(call: CompleteArtifacts) -> str:
    """The signs of a good call, as an operator would search for them in the log."""
    sid = short_sid(call.twilio.call_sid)
    texts = (
        f"{sid} = webhook 200",
        "media socket open",
        f"{sid} = LIVE",
        f"{sid} > first caller audio to the assistant",
        f"{sid} < first assistant audio to the caller",
    )
    missing = [
        sign for sign, text in zip(SIGNS, texts, strict=True) if not any(text in line for line in call.log)
    ]
    require(not missing, f"not in the log: {', '.join(missing)}")
    return "all in the log"


def wire(call: CompleteArtifacts) -> str:
    """Both simulators validate strictly: neither may have reported an error."""
    twilio, vapi = call.twilio, call.vapi
    problems = [f"Twilio: {error.code} {error.text}" for error in twilio.errors]
    problems += [f"Vapi rejected: {response}" for response in call.rejected_requests]
    problems += [
        f"webhook {kind}: {status}"
        for _, kind, status in vapi.webhooks_posted
        if status not in (200, 201, 204)
    ]
    # Every line of a traceback is marked with "  | ".
    error_lines = [line for line in call.log if " E " in line[:15] or line.startswith(("  | ", "Traceback"))]
    problems += error_lines[:3]
    require(not problems, "; ".join(problems[:MAX_PROBLEMS_SHOWN]))
    return f"webhook {twilio.webhook_status} in {twilio.webhook_ms or 0:.0f} ms, no errors"


def disclosure(call: CompleteArtifacts) -> str:
    """The first announcement that the caller hears must say that an AI answers."""
    first = call.twilio.spoken_by_twilio[: call.twilio.spoken_before_stream][:1]
    require(first == [call.disclosure], f"heard before the assistant: {first}, expected {call.disclosure!r}")
    return "the first thing that the caller hears"


def turns(call: CompleteArtifacts) -> str:
    utterances, answers = len(call.twilio.utterances), len(call.vapi.answers)
    answered, rows = len(call.rows.latencies_ms), len(call.rows.turns)
    require(utterances == answers, f"{utterances} utterances of the caller, {answers} answers")
    require(answered >= MIN_TURNS, f"{answered} answered turns in the rows, expected at least {MIN_TURNS}")
    require(answered == utterances, f"{answered} answered turns in the rows for {utterances} utterances")
    require(rows == utterances, f"{rows} turns in the rows for {utterances} utterances")
    return f"{answered} turns, all answered"


def barge_in(call: CompleteArtifacts) -> str:
    twilio, vapi, rows = call.twilio, call.vapi, call.rows
    cut = [reply for reply in vapi.replies if reply.cut_at is not None]
    require(len(cut) == 1, f"{len(cut)} replies of the assistant were cut off, expected 1")
    require(len(twilio.clears) == 1, f"{len(twilio.clears)} clears reached Twilio, expected 1")
    cleared_at, dropped_bytes = twilio.clears[0]
    if vapi.dialect == "call":
        interrupted_at = [at for at, event in vapi.events_sent if event.get("type") == "user-interrupted"]
    else:
        interrupted_at = list(vapi.cancelled_at)
    require(len(interrupted_at) == 1, f"{len(interrupted_at)} interruptions were sent, expected 1")
    delay_ms = abs(cleared_at - interrupted_at[0]) * 1000
    require(
        delay_ms <= call.max_clear_delay_ms,
        f"the clear came {delay_ms:.0f} ms from the interruption, "
        f"expected at most {call.max_clear_delay_ms:.0f}",
    )
    later_replies = [reply.first_sent_at for reply in vapi.replies if (reply.first_sent_at or 0) > cleared_at]
    until = min((at for at in later_replies if at is not None), default=float("inf"))
    stale_bytes = sum(len(audio.ulaw) for audio in twilio.received if cleared_at < audio.at < until)
    require(not stale_bytes, f"{stale_bytes} bytes of the reply that was cut off came after the clear")
    require(rows.barge_ins == 1, f"the row counts {rows.barge_ins} barge-ins, expected 1")
    answers = vapi.answers
    number = answers.index(cut[0]) + 1 if cut[0] in answers else 0
    marked = [turn.number for turn in rows.turns if turn.interrupted]
    require(marked == [number], f"turns marked as interrupted: {marked}, expected [{number}]")
    texts = [row.text for row in rows.utterances if row.interrupted]
    require(
        len(texts) == 1 and cut[0].text.startswith(texts[0].rstrip(".")),
        f"utterances marked as interrupted: {texts}, expected the start of {cut[0].text!r}",
    )
    return f"one clear, {delay_ms:.1f} ms from the interruption, {dropped_bytes / 8:.0f} ms of audio dropped"


def latency(call: CompleteArtifacts) -> str:
    rows, true_latencies_ms = call.rows.turns, call.true_latencies_ms
    require(
        len(rows) == len(true_latencies_ms),
        f"{len(rows)} turns in the rows, {len(true_latencies_ms)} were measured",
    )
    errors_ms = []
    for number, (row, true_ms) in enumerate(zip(rows, true_latencies_ms, strict=True), start=1):
        row_ms = row.response_latency_ms
        require(row_ms is not None, f"turn {number} has no latency, {true_ms:.0f} ms was measured")
        errors_ms.append((row_ms or 0) - true_ms)
        require(
            abs(errors_ms[-1]) <= MAX_LATENCY_ERROR_MS + call.lag.max_ms,
            f"turn {number}: {row_ms} ms in the row, {true_ms:.0f} ms was measured",
        )
    # The machine may have been busy during one turn, but not during most of them.
    median_ms = statistics.median(errors_ms or [0])
    require(
        abs(median_ms) <= MAX_LATENCY_ERROR_MS + call.lag.median_ms,
        f"{median_ms:+.0f} ms from the measured latency in most turns",
    )
    return f"at most {max(map(abs, errors_ms), default=0):.0f} ms from the measured latency"


def transcript(call: CompleteArtifacts) -> str:
    sent = [(speaker, words) for _, speaker, words in call.vapi.transcripts]
    stored = [(row.speaker, row.text) for row in call.rows.utterances]
    require(bool(sent), "Vapi sent no transcript")
    for number, (row, final) in enumerate(zip(stored, sent, strict=False), start=1):
        require(row == final, f"utterance {number} is {row}, expected {final}")
    require(len(stored) == len(sent), f"{len(stored)} utterances in the rows, {len(sent)} were sent")
    return f"{len(stored)} utterances, word for word"


def dtmf(call: CompleteArtifacts) -> str:
    pressed, received = call.twilio.digits, "".join(call.vapi.digits_received)
    require(
        bool(pressed) and pressed == received, f"the caller pressed {pressed!r}, Vapi received {received!r}"
    )
    return f"{received} reached the assistant"


def ending(call: CompleteArtifacts) -> str:
    """The assistant says goodbye, the caller hears all of it, and all records agree on the end."""
    rows, twilio, vapi = call.rows, call.twilio, call.vapi
    actual = (rows.end_reason, rows.ended_by, rows.status)
    expected = (ASSISTANT_ENDED, "assistant", "completed")
    require(actual == expected, f"the row says {' / '.join(actual)}, expected {' / '.join(expected)}")
    require(twilio.ended_by == "server", f"the stream was ended by {twilio.ended_by}, expected server")
    require(twilio.close_code == 1000, f"the media socket closed with {twilio.close_code}, expected 1000")
    require(not twilio.unheard_bytes, f"{twilio.unheard_bytes} bytes of the goodbye were not played")
    require(bool(vapi.replies) and vapi.replies[-1].cut_at is None, "the goodbye was cut off")
    require(not vapi.is_active, "the Vapi call was never ended and would be billed")
    require(twilio.final_status == "completed", f"the call ended as {twilio.final_status}")
    require(rows.has_duration, "the row has no duration: Twilio's status callback is missing")
    require(rows.simulated, "the row is not marked as simulated")
    was_reported = any(kind == "end-of-call-report" for _, kind, _ in vapi.webhooks_posted)
    require(rows.has_vapi_cost or not was_reported, "Vapi's end-of-call report is not in the row")
    return f"{rows.end_reason}, goodbye played completely"


CHECKS: dict[str, Callable[[CompleteArtifacts], str]] = {
    check.__name__: check
    for check in (
        signs, wire, disclosure, turns, frames_to_assistant, frames_to_caller, transit, barge_in, latency,
        transcript, dtmf, ending,
    )
}  # fmt: skip
