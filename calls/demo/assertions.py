"""What must be true of a simulated call, each under a name of its own. Pure: evidence in, checks out.

The far ends' records are the truth. The rows, the log and the audio that crossed are held against them,
in numbers: a check that only looks whether something is there would pass with it being wrong.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from calls.demo.audio_assertions import frames_to_assistant, frames_to_caller, transit
from calls.demo.case import Case, NotHeld, require, truths_ms
from calls.demo.evidence import Evidence
from calls.masking import short_sid

LEAST_TURNS = 3
LATENCY_WITHIN_MS = 40
# A line of level error or worse, or a traceback's first.
_ERROR = re.compile(r"\S+ [EC] |Traceback ")


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    held: bool
    detail: str


def judge(evidence: Evidence) -> list[Check]:
    """Every check, in the order in which a call goes wrong."""
    call, rows = evidence.call, evidence.rows
    if call is None or rows is None:
        missing = "the assistant was never reached" if call is None else "the call has no row"
        troubles = "; ".join(f"{error.code} {error.text}" for error in evidence.record.errors)
        return [Check(name, False, f"{missing}. {troubles}".rstrip(" .")) for name in CHECKS]
    case = Case(
        evidence.record,
        call,
        rows,
        evidence.log,
        evidence.refused,
        evidence.audio_format,
        evidence.disclosure,
        evidence.lag,
    )
    return [_judged(name, check, case) for name, check in CHECKS.items()]


def _judged(name: str, check: Callable[[Case], str], case: Case) -> Check:
    try:
        return Check(name, True, check(case))
    except NotHeld as failure:
        return Check(name, False, str(failure))


def signs(case: Case) -> str:
    """The four signs of a good call, as an operator would look for them in the log."""
    sid = short_sid(case.record.call_sid)
    wanted = {
        "webhook 200": f"{sid} = webhook 200",
        "media socket up": "media socket up",
        "assistant up": f"{sid} = LIVE",
        "audio to the assistant": f"{sid} > first caller audio to the assistant",
        "audio to the caller": f"{sid} < first assistant audio to the caller",
    }
    missing = [name for name, text in wanted.items() if not any(text in line for line in case.log)]
    require(not missing, f"not in the log: {', '.join(missing)}")
    return "all in the log"


def wire(case: Case) -> str:
    """Both far ends are strict: neither may have found anything wrong with what it was sent."""
    troubles = [f"carrier: {error.code} {error.text}" for error in case.record.errors]
    troubles += [f"assistant refused: {why}" for why in case.refused]
    troubles += [
        f"webhook {kind}: {status}"
        for _, kind, status in case.call.webhooks_posted
        if status not in (200, 201, 204)
    ]
    # Tracebacks are marked, line by line.
    troubles += [line for line in case.log if " E " in line[:15] or line.startswith(("  | ", "Traceback"))][
        :3
    ]
    require(not troubles, "; ".join(troubles[:4]))
    return f"webhook {case.record.webhook_status} in {case.record.webhook_ms or 0:.0f} ms, no complaints"


def disclosure(case: Case) -> str:
    """Before anything else the caller is told that an AI answers."""
    first = case.record.spoken_by_twilio[: case.record.said_before_stream][:1]
    require(first == [case.disclosure], f"heard before the assistant: {first}, not {case.disclosure!r}")
    return "the first thing that the caller hears"


def turns(case: Case) -> str:
    said, answers = len(case.record.said), len(case.call.answers)
    answered = len(case.rows.latencies_ms)
    require(said == answers, f"{said} utterances of the caller, {answers} answers of the assistant")
    require(answered >= LEAST_TURNS, f"{answered} answered turns in the rows, at least {LEAST_TURNS} wanted")
    require(answered == said, f"{answered} answered turns in the rows for {said} utterances of the caller")
    require(len(case.rows.turns) == said, f"{len(case.rows.turns)} turns in the rows for {said} utterances")
    return f"{answered} turns, each answered"


def barge_in(case: Case) -> str:
    call, record, rows = case.call, case.record, case.rows
    cut = [reply for reply in call.replies if reply.cut_at is not None]
    require(len(cut) == 1, f"{len(cut)} replies of the assistant were cut off, 1 was meant to be")
    require(len(record.clears) == 1, f"{len(record.clears)} clears reached the carrier, 1 was due")
    cleared_at, dropped = record.clears[0]
    if call.dialect == "call":
        told = [at for at, event in call.events_sent if event.get("type") == "user-interrupted"]
    else:
        told = list(call.cancelled_at)
    require(len(told) == 1, f"the interruption was told {len(told)} times")
    apart_ms = abs(cleared_at - told[0]) * 1000
    require(apart_ms <= case.clear_within_ms, f"the clear came {apart_ms:.0f} ms from the interruption")
    following = [reply.first_sent_at for reply in call.replies if (reply.first_sent_at or 0) > cleared_at]
    until = min((at for at in following if at is not None), default=float("inf"))
    stale = sum(len(audio.ulaw) for audio in record.received if cleared_at < audio.at < until)
    require(not stale, f"{stale} bytes of the cut reply came after the clear")
    require(rows.barge_ins == 1, f"the row counts {rows.barge_ins} barge-ins")
    answers = call.answers
    number = answers.index(cut[0]) + 1 if cut[0] in answers else 0
    marked = [turn.number for turn in rows.turns if turn.interrupted]
    require(marked == [number], f"turns marked as interrupted: {marked}, the cut one was {number}")
    spoken = [said.text for said in rows.utterances if said.interrupted]
    require(
        len(spoken) == 1 and cut[0].text.startswith(spoken[0].rstrip(".")),
        f"utterances marked as interrupted: {spoken}",
    )
    return f"one clear, {apart_ms:.1f} ms from the interruption, {dropped / 8:.0f} ms of audio dropped"


def latency(case: Case) -> str:
    rows, truths = [turn.response_latency_ms for turn in case.rows.turns], truths_ms(case.record, case.call)
    require(len(rows) == len(truths), f"{len(rows)} turns in the rows, {len(truths)} truly")
    off = []
    for number, (row, truth) in enumerate(zip(rows, truths, strict=True), start=1):
        require(row is not None, f"turn {number} has no latency, truly {truth:.0f} ms")
        off.append((row or 0) - truth)
        within_ms = LATENCY_WITHIN_MS + case.lag.worst_ms
        require(abs(off[-1]) <= within_ms, f"turn {number}: {row} ms, truly {truth:.0f} ms")
    # One turn may have met a busy moment; most of them did not.
    usual, within_ms = statistics.median(off or [0]), LATENCY_WITHIN_MS + case.lag.median_ms
    require(abs(usual) <= within_ms, f"{usual:+.0f} ms off the truth in most turns")
    return f"at most {max(map(abs, off), default=0):.0f} ms off the truth"


def transcript(case: Case) -> str:
    told = [(speaker, words) for _, speaker, words in case.call.transcripts]
    rows = [(said.speaker, said.text) for said in case.rows.utterances]
    require(bool(told), "the assistant sent no transcript")
    for number, (row, said) in enumerate(zip(rows, told, strict=False), start=1):
        require(row == said, f"utterance {number} is {row}, {said} was said")
    require(len(rows) == len(told), f"{len(rows)} utterances in the rows, {len(told)} were said")
    return f"{len(rows)} utterances, word for word"


def dtmf(case: Case) -> str:
    pressed, told = case.record.digits, "".join(case.call.digits_told)
    require(bool(pressed) and pressed == told, f"pressed {pressed!r}, the assistant was told {told!r}")
    return f"{told} reached the assistant"


def ending(case: Case) -> str:
    """The assistant says goodbye, the caller hears it to the end, and everybody agrees how it ended."""
    rows, call, record = case.rows, case.call, case.record
    ended = (rows.end_reason, rows.ended_by, rows.status)
    wanted = ("assistant-ended", "assistant", "completed")
    require(ended == wanted, f"the row says {' / '.join(ended)}, not {' / '.join(wanted)}")
    require(record.ended_by == "server", f"the carrier says that the stream ended by: {record.ended_by}")
    require(record.close_code == 1000, f"the media socket was closed with {record.close_code}")
    require(not record.unheard_bytes, f"{record.unheard_bytes} bytes of the goodbye were not heard")
    require(bool(call.replies) and call.replies[-1].cut_at is None, "the goodbye was cut off")
    require(not call.alive, "the assistant's side was never ended and would cost money")
    require(record.final_status == "completed", f"the call ended as {record.final_status}")
    require(rows.duration_known, "the row has no duration: the carrier's callback is missing")
    require(rows.simulated, "the row is not marked as simulated")
    reported = any(kind == "end-of-call-report" for _, kind, _ in call.webhooks_posted)
    require(rows.priced or not reported, "the assistant's report has not reached the row")
    return f"{rows.end_reason}, goodbye heard to the end"


CHECKS: dict[str, Callable[[Case], str]] = {
    check.__name__: check
    for check in (
        signs, wire, disclosure, turns, frames_to_assistant, frames_to_caller, transit, barge_in, latency,
        transcript, dtmf, ending,
    )
}  # fmt: skip
