"""What a demonstration leaves to programs and to ears: one JSON object, two WAV files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calls.demo.assertions import Check
from calls.demo.audio_compare import reference_name
from calls.demo.case import truths_ms
from calls.demo.evidence import Evidence
from calls.demo.runner import Wishes
from sandbox.speech import audio as sound


def as_json(
    evidence: Evidence, checks: Sequence[Check], wishes: Wishes, wavs: Sequence[Path], took_s: float
) -> dict[str, Any]:
    """Plain values only. `failed` has the names of what did not hold."""
    failed = [check.name for check in checks if not check.held]
    report: dict[str, Any] = {
        "ok": not failed,
        "failed": failed,
        "checks": {check.name: {"held": check.held, "detail": check.detail} for check in checks},
        "dialect": wishes.dialect,
        "audio_format": wishes.audio_format,
        "seed": wishes.seed,
        "reference": reference_name(),
        "call_sid": evidence.record.call_sid,
        "webhook_ms": _rounded(evidence.record.webhook_ms),
        "truths_ms": [_rounded(truth) for truth in truths_ms(evidence.record, evidence.call)],
        "wavs": [str(path) for path in wavs],
        "took_s": round(took_s, 1),
    }
    rows = evidence.rows
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
                {"speaker": said.speaker, "text": said.text, "interrupted": said.interrupted}
                for said in rows.utterances
            ],
        }
    return report


def write_wavs(evidence: Evidence, folder: Path) -> list[Path]:
    """Both sides of the call: what the caller heard, and what the assistant did."""
    folder.mkdir(parents=True, exist_ok=True)
    caller, assistant = folder / "caller-heard.wav", folder / "assistant-heard.wav"
    sound.write_wav(caller, sound.ulaw_decode(evidence.record.heard), sound.LINE_RATE)
    if evidence.call is None:
        return [caller]
    audio = evidence.call.received_audio
    if evidence.audio_format == "mulaw":
        sound.write_wav(assistant, sound.ulaw_decode(audio), sound.LINE_RATE)
    else:
        pcm = np.frombuffer(audio[: len(audio) & ~1], "<i2").astype(np.int16)
        sound.write_wav(assistant, pcm, 16_000)
    return [caller, assistant]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
