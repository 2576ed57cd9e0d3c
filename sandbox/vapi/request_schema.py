"""What Vapi accepts in `POST /call` for a websocket call: documented fields only, and their ranges.

Strict on purpose: the real API responds with 400 to unknown fields, so a field accepted here by mistake
would fail in production.
"""

from collections.abc import Iterator
from typing import Any

from sandbox.vapi.speech_output import AudioFormat

ASSISTANT_FIELDS = ("assistantId", "assistant", "squadId", "squad", "workflowId", "workflow")
TOP_LEVEL = {
    *ASSISTANT_FIELDS, "assistantOverrides", "squadOverrides", "workflowOverrides", "assistantVersion",
    "name", "customer", "transport", "phoneNumber", "phoneNumberId",
}  # fmt: skip


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


OVERRIDES = _names("""
    analysisPlan artifactPlan backgroundSound backgroundSpeechDenoisingPlan clientMessages compliancePlan
    credentialIds credentials endCallMessage endCallPhrases firstMessage firstMessageInterruptionsEnabled
    firstMessageMode hooks keypadInputPlan maxDurationSeconds metadata model modelOutputInMessagesEnabled
    monitorPlan name observabilityPlan server serverMessages startSpeakingPlan stopSpeakingPlan tools:append
    transcriber transportConfigurations variableValues voice voicemailDetection voicemailMessage
""")
CLIENT_MESSAGES_DEFAULT = _names("""
    conversation-update function-call hang model-output speech-update status-update transfer-update
    transcript tool-calls user-interrupted voice-input workflow.node.started assistant.started
""")
CLIENT_MESSAGES = CLIENT_MESSAGES_DEFAULT | _names("""
    assistant.speechStarted function-call-result language-changed metadata tool-calls-result tool.completed
""")
SERVER_MESSAGES_DEFAULT = _names("""
    conversation-update end-of-call-report function-call hang speech-update status-update tool-calls
    transfer-destination-request handoff-destination-request user-interrupted assistant.started
""")
SERVER_MESSAGES = SERVER_MESSAGES_DEFAULT | _names("""
    transcript model-output voice-input language-changed language-change-detected assistant.speechStarted
    transfer-update phone-call-control call.deleted call.delete.failed call.artifact.upload
""")
FINALS_ONLY = 'transcript[transcriptType="final"]'

OBJECTS = _names("server metadata variableValues startSpeakingPlan stopSpeakingPlan transcriber")

# Path inside assistantOverrides -> lowest and highest allowed number.
RANGES = {
    "maxDurationSeconds": (10, 43_200),
    "server.timeoutSeconds": (1, 300),
    "server.backoffPlan.maxRetries": (0, 10),
    "server.backoffPlan.baseDelaySeconds": (0, 10),
    "startSpeakingPlan.waitSeconds": (0, 5),
    "startSpeakingPlan.transcriptionEndpointingPlan.onPunctuationSeconds": (0, 3),
    "startSpeakingPlan.transcriptionEndpointingPlan.onNoPunctuationSeconds": (0, 3),
    "startSpeakingPlan.transcriptionEndpointingPlan.onNumberSeconds": (0, 3),
    "stopSpeakingPlan.numWords": (0, 10),
    "stopSpeakingPlan.voiceSeconds": (0, 0.5),
    "stopSpeakingPlan.backoffSeconds": (0, 10),
    "transcriber.endpointing": (10, 500),
    "transcriber.confidenceThreshold": (0, 1),
}


def validation_errors(body: Any) -> list[str]:
    """Vapi's error messages for a request; empty if it is valid."""
    if not isinstance(body, dict):
        return ["body must be an object"]
    return [
        *(f"property {key} should not exist" for key in body if key not in TOP_LEVEL),
        *_call_errors(body),
        *_transport_errors(body.get("transport")),
        *override_errors(body.get("assistantOverrides", {})),
    ]


def audio_format(body: dict[str, Any]) -> AudioFormat:
    """The audio format of a valid request."""
    requested = body["transport"].get("audioFormat") or {}
    name = requested.get("format", "pcm_s16le")
    return AudioFormat(name, requested.get("sampleRate", 8_000 if name == "mulaw" else 16_000))


def is_subscribed(event: dict[str, Any], subscribed: frozenset[str]) -> bool:
    if (
        event.get("type") == "transcript"
        and event.get("transcriptType") == "final"
        and FINALS_ONLY in subscribed
    ):
        return True
    return event.get("type") in subscribed


def _call_errors(body: dict[str, Any]) -> Iterator[str]:
    assistant_fields = [key for key in ASSISTANT_FIELDS if body.get(key)]
    if not assistant_fields:
        yield "one of assistantId, assistant, squadId, squad, workflowId, workflow must be given"
    if not isinstance(body.get("assistantId", ""), str | None):
        yield "assistantId must be a string"
    if "assistantVersion" in body and not body.get("assistantId"):
        yield "assistantVersion needs assistantId"
    for key in ("phoneNumber", "phoneNumberId"):
        if key in body:
            yield f"{key} must not be given with transport provider vapi.websocket"
    if "name" in body and not (isinstance(body["name"], str) and len(body["name"]) <= 40):
        yield "name must be shorter than or equal to 40 characters"
    customer = body.get("customer", {})
    if not isinstance(customer, dict):
        yield "customer must be an object"
        return
    for key in ("number", "name", "externalId", "email"):
        value = customer.get(key)
        if value is not None and not (isinstance(value, str) and len(value) <= 40):
            yield f"customer.{key} must be shorter than or equal to 40 characters"


def _transport_errors(transport: Any) -> Iterator[str]:
    if not isinstance(transport, dict) or transport.get("provider") != "vapi.websocket":
        yield "transport.provider must be vapi.websocket"
        return
    for key in transport.keys() - {"provider", "audioFormat", "conversationType"}:
        yield f"transport.property {key} should not exist"
    if transport.get("conversationType", "voice") != "voice":
        yield "transport.conversationType must be voice"
    audio_format = transport.get("audioFormat")
    if audio_format is None:
        return
    if not isinstance(audio_format, dict):
        yield "transport.audioFormat must be an object"
        return
    for key in audio_format.keys() - {"format", "container", "sampleRate"}:
        yield f"transport.audioFormat.property {key} should not exist"
    if audio_format.get("format", "pcm_s16le") not in ("pcm_s16le", "mulaw"):
        yield "transport.audioFormat.format must be one of pcm_s16le, mulaw"
    if audio_format.get("container", "raw") != "raw":
        yield "transport.audioFormat.container must be raw"
    # Vapi resamples to any rate; the simulator supports those of telephones and speech models.
    rates = (8_000,) if audio_format.get("format") == "mulaw" else (8_000, 16_000)
    if audio_format.get("sampleRate", rates[-1]) not in rates:
        yield f"transport.audioFormat.sampleRate must be one of {', '.join(map(str, rates))}"


def override_errors(overrides: Any, prefix: str = "assistantOverrides.") -> Iterator[str]:
    """Errors in `assistantOverrides`, or with an empty prefix in an assistant, which has the same fields."""
    if not isinstance(overrides, dict):
        yield f"{prefix.rstrip('.') or 'body'} must be an object"
        return
    for key in overrides.keys() - OVERRIDES:
        yield f"{prefix}property {key} should not exist"
    for key in OBJECTS:
        if not isinstance(overrides.get(key, {}), dict):
            yield f"{prefix}{key} must be an object"
    for key, allowed in (("clientMessages", CLIENT_MESSAGES), ("serverMessages", SERVER_MESSAGES)):
        messages = overrides.get(key, [])
        if not isinstance(messages, list):
            yield f"{prefix}{key} must be an array"
        elif unknown := [item for item in messages if item not in (*allowed, FINALS_ONLY)]:
            yield f"each value in {prefix}{key} must be a known message, not {unknown[0]!r}"
    transcriber = overrides.get("transcriber")
    if isinstance(transcriber, dict) and not transcriber.get("provider"):
        yield f"{prefix}transcriber.provider must be given, since the whole object is replaced"
    for path, (lowest, highest) in RANGES.items():
        value: Any = overrides
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
            yield f"{prefix}{path} must be a number from {lowest} to {highest}"
