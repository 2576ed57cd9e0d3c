"""What callers and staff notice, what may cause it, and which checks find out.

These are the rows of the troubleshooting table of the tutorial that this project began with.
"""

from __future__ import annotations

from dataclasses import dataclass

from calls.vapi.assistant_config import MAX_ENDPOINTING_MS, MIN_ENDPOINTING_MS


@dataclass(frozen=True, slots=True)
class Symptom:
    title: str
    causes: str
    fix: str
    checks: tuple[str, ...]


SYMPTOMS = (
    Symptom(
        "The assistant makes no sound",
        "Twilio plays mu-law at 8 kHz only, while Vapi's socket sends PCM; or no assistant answers.",
        "The bridge transcodes between the two. Set VAPI_AUDIO_FORMAT to what the socket server sends, "
        "and check that the assistant has a model and a voice.",
        ("assistant", "assistant-parts", "vapi-key", "vapi-settings", "vapi-socket", "websocket"),
    ),
    Symptom(
        "The assistant cuts callers off mid-sentence",
        "Endpointing is so short that a pause for breath counts as the end of a turn.",
        f"Set endpointing to {MIN_ENDPOINTING_MS} to {MAX_ENDPOINTING_MS} ms.",
        ("assistant-endpointing",),
    ),
    Symptom(
        "Webhooks fail",
        "Twilio cannot reach the address or does not trust its certificate, or the proxy breaks the "
        "signature.",
        "Serve PUBLIC_URL over https with a valid certificate; use a tunnel during development.",
        (
            "public-url", "address", "certificate", "this-server", "redirects", "headers", "paths",
            "bodies", "signature", "twilio-settings", "twilio-number", "clock",
        ),
    ),
)  # fmt: skip


def find_symptoms(name: str) -> tuple[str, ...]:
    """The titles of the symptoms that a check explains."""
    return tuple(symptom.title for symptom in SYMPTOMS if name in symptom.checks)
