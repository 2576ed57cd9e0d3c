"""The results of a demo run as files and JSON: one JSON object, two WAV files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calls.demo.artifacts import CallArtifacts
from calls.demo.audio_compare import resampler_name
from calls.demo.check_result import Check
from calls.demo.scenario import Scenario
from sandbox.speech import audio


def to_json(
    artifacts: CallArtifacts,
    checks: Sequence[Check],
    scenario: Scenario,
    wavs: Sequence[Path],
    elapsed_seconds: float,
) -> dict[str, Any]:
    """Plain values only. `failed` lists the names of the failed checks."""
    failed = [check.name for check in checks if not check.passed]
    report: dict[str, Any] = {
        "ok": not failed,
        "failed": failed,
        "checks": {check.name: {"held": check.passed, "detail": check.detail} for check in checks},
        "dialect": scenario.dialect,
        "audio_format": scenario.audio_format,
        "seed": scenario.seed,
        "reference": resampler_name(),
        "call_sid": artifacts.twilio.call_sid,
        "webhook_ms": _round(artifacts.twilio.webhook_ms),
        "truths_ms": [_round(latency_ms) for latency_ms in artifacts.true_latencies_ms],
        "wavs": [str(path) for path in wavs],
        "took_s": round(elapsed_seconds, 1),
    }
    rows = artifacts.rows
    if rows is not None:
        report |= {
            "end_reason": rows.end_reason,
            "ended_by": rows.ended_by,
            "connect_ms": rows.connect_ms,
            "frames": {
                "to_assistant": rows.frames_to_assistant,
                "to_caller": rows.frames_to_caller,
                "held": rows.frames_held,
                "dropped": rows.frames_dropped,
            },
            "barge_ins": rows.barge_ins,
            "turns": [
                {
                    "number": turn.number,
                    "response_latency_ms": turn.response_latency_ms,
                    "bridge_overhead_us": turn.bridge_overhead_us,
                    "interrupted": turn.interrupted,
                }
                for turn in rows.turns
            ],
            "transcript": [
                {"speaker": row.speaker, "text": row.text, "interrupted": row.interrupted}
                for row in rows.utterances
            ],
        }
    return report


def write_wavs(artifacts: CallArtifacts, folder: Path) -> list[Path]:
    """Write what the caller heard, and what the assistant heard."""
    folder.mkdir(parents=True, exist_ok=True)
    caller_path, assistant_path = folder / "caller-heard.wav", folder / "assistant-heard.wav"
    audio.write_wav(caller_path, audio.ulaw_decode(artifacts.twilio.heard), audio.LINE_RATE)
    if artifacts.vapi is None:
        return [caller_path]
    received = artifacts.vapi.received_audio
    if artifacts.audio_format == "mulaw":
        audio.write_wav(assistant_path, audio.ulaw_decode(received), audio.LINE_RATE)
    else:
        pcm = np.frombuffer(received[: len(received) & ~1], "<i2").astype(np.int16)
        audio.write_wav(assistant_path, pcm, 16_000)
    return [caller_path, assistant_path]


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
