"""What is noticed, what may cause it, and which checks tell. The first three are the founding tutorial's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Symptom:
    noticed: str
    causes: str
    fix: str
    checks: tuple[str, ...]


SYMPTOMS = (
    Symptom(
        "The assistant makes no sound",
        "Twilio plays mu-law at 8 kHz and nothing else, Vapi's socket speaks PCM; or no assistant answers.",
        "The bridge transcodes between the two: set VAPI_AUDIO_FORMAT to what the socket server speaks, "
        "and see that the assistant has a model and a voice.",
        ("assistant", "assistant-parts", "vapi-key", "vapi-settings", "vapi-socket", "websocket"),
    ),
    Symptom(
        "The assistant cuts callers off in mid-sentence",
        "Endpointing is so short that a pause for breath counts as the end of a turn.",
        "Raise endpointing to 300 to 400 ms.",
        ("assistant-endpointing",),
    ),
    Symptom(
        "Webhooks fail",
        "Twilio cannot reach the address, mistrusts its certificate, or its signature does not survive "
        "the proxy.",
        "Serve PUBLIC_URL over https with a valid certificate, by a tunnel while you develop.",
        (
            "public-url", "address", "certificate", "this-server", "redirects", "headers", "paths",
            "bodies", "signature", "twilio-settings", "twilio-number", "clock",
        ),
    ),
)  # fmt: skip


def of_check(name: str) -> tuple[str, ...]:
    """What is noticed while this check is red."""
    return tuple(each.noticed for each in SYMPTOMS if name in each.checks)
