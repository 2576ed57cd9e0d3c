"""What must be true of the transmitted audio, in each direction: complete, once, in order, on time."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from itertools import accumulate

from calls.demo import audio_compare
from calls.demo.artifacts import CompleteArtifacts
from calls.demo.audio_compare import Match
from calls.demo.check_result import require
from sandbox.vapi.record import Reply

MAX_TRANSIT_MEDIAN_MS = 20
MAX_TRANSIT_P95_MS = 60
MIN_TRANSIT_SAMPLES = 20
# Frames that were in flight when Vapi ended the call, and those sent until its socket closed.
IN_FLIGHT_SECONDS = 0.06
MAX_IN_FLIGHT_FRAMES = 3
MAX_TAIL_FRAMES = 10
FRAME_MS = 20
FRAME_BYTES = {"pcm_s16le": 640, "mulaw": 160}


def frames_to_assistant(call: CompleteArtifacts) -> str:
    frames = [frame.ulaw for frame in call.twilio.frames]
    compare = audio_compare.compare_bytes if call.audio_format == "mulaw" else audio_compare.compare_upsampled
    match = compare(frames, call.vapi.received_audio)
    require(not match.fault, match.fault)
    ended_at = call.vapi.ended_at
    undelivered = call.twilio.frames[match.frames :]
    lost = [frame for frame in undelivered if ended_at is None or frame.at < ended_at - IN_FLIGHT_SECONDS]
    require(not lost, f"{len(lost)} frames from before the end were not delivered")
    # Bridge and simulators each take two steps from the end of the call to that of the stream.
    max_tail = MAX_TAIL_FRAMES + int(4 * call.lag.max_ms / FRAME_MS)
    require(
        len(undelivered) <= max_tail,
        f"{len(undelivered)} frames at the end were not delivered, expected at most {max_tail}",
    )
    rows = call.rows
    require(rows.frames_dropped == 0, f"the row says {rows.frames_dropped} frames were dropped")
    require(
        0 <= rows.frames_to_assistant - match.frames <= MAX_IN_FLIGHT_FRAMES,
        f"{match.frames} frames arrived, the row says {rows.frames_to_assistant}",
    )
    require(rows.frames_held > 0, "no frame was held although the connection to Vapi was delayed")
    return f"{match}; {rows.frames_held} held, {len(undelivered)} after the end"


def frames_to_caller(call: CompleteArtifacts) -> str:
    match = _compare_to_caller(call)
    require(not match.fault, match.fault)
    messages, counted = len(call.twilio.received), call.rows.frames_to_caller
    require(counted == messages, f"{messages} media messages were received, the row says {counted}")
    return str(match)


def _compare_to_caller(call: CompleteArtifacts) -> Match:
    replies, received = list(call.vapi.replies), call.twilio.received_ulaw
    is_mulaw = call.audio_format == "mulaw"
    vapi_bytes_per_byte = 1 if is_mulaw else 4  # bytes in Vapi's format for one byte of mu-law at 8 kHz
    # If a reply was cut off inside a sample, half of the sample remains: ignore it.
    odd_mask = 0 if is_mulaw else 1
    pieces = [(reply.sent[: len(reply.sent) & ~odd_mask], reply.cut_at is not None) for reply in replies]
    sent_bytes = sum(len(audio) for audio, _ in pieces)
    if is_mulaw:
        missing = sent_bytes - len(received)
    else:
        missing = ((sent_bytes // 2 + 1) // 2 - len(received)) * vapi_bytes_per_byte
    allowed = sum(len(audio) for reply in replies for audio in _find_chunks_after_clear(call, reply))
    if not 0 <= missing <= allowed:
        difference = f"{missing} bytes too few" if missing > 0 else f"{-missing} bytes too many"
        return Match(fault=f"the caller received {difference}, counted in Vapi's audio format")
    try:
        expected = audio_compare.join_without_cut_tail(pieces, missing)
    except ValueError as error:
        return Match(fault=str(error))
    if is_mulaw:
        frames = [expected[at : at + 160] for at in range(0, len(expected), 160)]
        return audio_compare.compare_bytes(frames, received)
    return audio_compare.compare_downsampled(expected, received)


def _find_chunks_after_clear(call: CompleteArtifacts, reply: Reply) -> list[bytes]:
    """Chunks of a reply that was cut off, sent after the bridge had cleared: it may drop these."""
    if reply.cut_at is None or not call.twilio.clears:
        return []
    cleared_at = call.twilio.clears[0][0]
    return [audio for at, audio in reply.chunks if at >= cleared_at - call.max_clear_delay_ms / 1000]


def transit(call: CompleteArtifacts) -> str:
    """How long audio takes between Twilio and Vapi, in each direction."""
    summaries = []
    for direction, samples_ms in (
        ("to the assistant", _measure_transit_to_assistant_ms(call)),
        ("to the caller", _measure_transit_to_caller_ms(call)),
    ):
        require(len(samples_ms) >= MIN_TRANSIT_SAMPLES, f"too little audio {direction}")
        median_ms, p95_ms = statistics.median(samples_ms), statistics.quantiles(samples_ms, n=20)[-1]
        summaries.append(f"{direction} median {median_ms:.1f} ms, p95 {p95_ms:.1f} ms")
        # Two processes pass the audio on, and each may wait for a processor.
        max_median_ms = MAX_TRANSIT_MEDIAN_MS + 2 * call.lag.median_ms
        max_p95_ms = MAX_TRANSIT_P95_MS + 2 * call.lag.p95_ms
        require(median_ms <= max_median_ms and p95_ms <= max_p95_ms, summaries[-1])
    return "; ".join(summaries)


def _measure_transit_to_assistant_ms(call: CompleteArtifacts) -> list[float]:
    """For each frame sent after the start of the Vapi call."""
    frame_bytes = FRAME_BYTES[call.audio_format]
    opened_at = call.vapi.opened_at or 0.0
    received_until = list(accumulate(len(payload) for _, payload in call.vapi.received))
    samples_ms = []
    for number, frame in enumerate(call.twilio.frames):
        index = bisect_left(received_until, (number + 1) * frame_bytes)
        if frame.at > opened_at + 0.2 and index < len(received_until):
            samples_ms.append((call.vapi.received[index][0] - frame.at) * 1000)
    return samples_ms


def _measure_transit_to_caller_ms(call: CompleteArtifacts) -> list[float]:
    """For each chunk of the replies that were not cut off."""
    frame_bytes = FRAME_BYTES[call.audio_format]
    received_until = list(accumulate(len(audio.ulaw) for audio in call.twilio.received))
    total = sum(len(reply.sent) for reply in call.vapi.replies) * 160 // frame_bytes
    # mu-law bytes dropped at the end of the reply that was cut off
    dropped = max(0, total - (received_until[-1] if received_until else 0))
    sent, samples_ms = 0, []
    for reply in call.vapi.replies:
        for at, audio in reply.chunks:
            sent += len(audio)
            index = bisect_left(received_until, sent * 160 // frame_bytes)
            if reply.cut_at is None and index < len(received_until):
                samples_ms.append((call.twilio.received[index].at - at) * 1000)
        if reply.cut_at is not None:
            sent -= dropped * frame_bytes // 160
            dropped = 0
    return samples_ms
