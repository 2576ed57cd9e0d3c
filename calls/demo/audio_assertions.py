"""What must be true of the audio that crossed, each way: all of it, once, in order, and on time."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from itertools import accumulate

from calls.demo import audio_compare
from calls.demo.audio_compare import Match
from calls.demo.case import Case, require
from sandbox.vapi.record import Reply

TRANSIT_MEDIAN_MS = 20
TRANSIT_P95_MS = 60
# Frames on their way when the assistant's side ended, and those until the line closed.
UNDER_WAY_SECONDS = 0.06
UNDER_WAY_FRAMES = 3
MAX_TAIL_FRAMES = 10
FRAME_BYTES = {"pcm_s16le": 640, "mulaw": 160}


def frames_to_assistant(case: Case) -> str:
    frames = [frame.ulaw for frame in case.record.frames]
    compare = audio_compare.same_bytes if case.audio_format == "mulaw" else audio_compare.upsampled
    match = compare(frames, case.call.received_audio)
    require(not match.fault, match.fault)
    ended_at = case.call.ended_at
    undelivered = case.record.frames[match.frames :]
    early = [frame for frame in undelivered if ended_at is None or frame.at < ended_at - UNDER_WAY_SECONDS]
    require(not early, f"{len(early)} frames from before the end were never delivered")
    require(
        len(undelivered) <= MAX_TAIL_FRAMES,
        f"{len(undelivered)} frames at the end were not delivered, {MAX_TAIL_FRAMES} may be",
    )
    require(case.rows.frames_dropped == 0, f"the row says {case.rows.frames_dropped} frames were dropped")
    counted = case.rows.frames_to_assistant
    require(
        0 <= counted - match.frames <= UNDER_WAY_FRAMES,  # some were on their way when the line closed
        f"{match.frames} frames arrived, the row says {counted}",
    )
    require(case.rows.frames_held > 0, "no frame was held although the assistant took its time to answer")
    return f"{match}; {case.rows.frames_held} held, {len(undelivered)} after the end"


def frames_to_caller(case: Case) -> str:
    match = _to_caller(case)
    require(not match.fault, match.fault)
    messages = len(case.record.received)
    require(
        case.rows.frames_to_caller == messages,
        f"{messages} media messages came to the caller, the row says {case.rows.frames_to_caller}",
    )
    return str(match)


def _to_caller(case: Case) -> Match:
    replies, came = list(case.call.replies), case.record.received_ulaw
    width = 1 if case.audio_format == "mulaw" else 4  # bytes of the assistant's for one of the caller's
    # A reply that was cut off inside a sample: its first half belongs to nothing that follows.
    halves = 0 if width == 1 else 1
    pieces = [(reply.sent[: len(reply.sent) & ~halves], reply.cut_at is not None) for reply in replies]
    sent = sum(len(audio) for audio, _ in pieces)
    missing = sent - len(came) if width == 1 else ((sent // 2 + 1) // 2 - len(came)) * width
    allowed = sum(len(audio) for reply in replies for audio in _sent_since_clear(case, reply))
    if not 0 <= missing <= allowed:
        which = f"{missing} bytes too few" if missing > 0 else f"{-missing} bytes too many"
        return Match(fault=f"{which} came to the caller, counted in the assistant's format")
    try:
        expected = audio_compare.without_cut_tail(pieces, missing)
    except ValueError as problem:
        return Match(fault=str(problem))
    if width == 1:
        return audio_compare.same_bytes(
            [expected[at : at + 160] for at in range(0, len(expected), 160)], came
        )
    return audio_compare.downsampled(expected, came)


def _sent_since_clear(case: Case, reply: Reply) -> list[bytes]:
    """Chunks of a reply that was cut off which the bridge was right to drop: sent when it had cleared."""
    if reply.cut_at is None or not case.record.clears:
        return []
    cleared_at = case.record.clears[0][0]
    return [audio for at, audio in reply.chunks if at >= cleared_at - case.clear_within_ms / 1000]


def transit(case: Case) -> str:
    """How long audio takes from one far end to the other, each way."""
    frame_bytes = FRAME_BYTES[case.audio_format]
    opened_at = case.call.opened_at or 0.0
    ends = list(accumulate(len(payload) for _, payload in case.call.received))
    up = []
    for number, frame in enumerate(case.record.frames):
        index = bisect_left(ends, (number + 1) * frame_bytes)
        if frame.at > opened_at + 0.2 and index < len(ends):
            up.append((case.call.received[index][0] - frame.at) * 1000)
    arrivals = list(accumulate(len(audio.ulaw) for audio in case.record.received))
    total = sum(len(reply.sent) for reply in case.call.replies) * 160 // frame_bytes
    dropped = max(0, total - (arrivals[-1] if arrivals else 0))  # at the end of the reply that was cut off
    sent, down = 0, []
    for reply in case.call.replies:
        for at, audio in reply.chunks:
            sent += len(audio)
            index = bisect_left(arrivals, sent * 160 // frame_bytes)
            if reply.cut_at is None and index < len(arrivals):
                down.append((case.record.received[index].at - at) * 1000)
        if reply.cut_at is not None:
            sent -= dropped * frame_bytes // 160
            dropped = 0
    told = []
    for way, samples in (("to the assistant", up), ("to the caller", down)):
        require(len(samples) >= 20, f"too little audio went {way}")
        median, p95 = statistics.median(samples), statistics.quantiles(samples, n=20)[-1]
        told.append(f"{way} median {median:.1f} ms, p95 {p95:.1f} ms")
        # Two processes hand it on, and each may have to wait for a processor.
        most = TRANSIT_MEDIAN_MS + 2 * case.lag.median_ms, TRANSIT_P95_MS + 2 * case.lag.p95_ms
        require(median <= most[0] and p95 <= most[1], told[-1])
    return "; ".join(told)
