"""Vapi's messages in both dialects: events, control messages, request and response of `POST /call`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.tests.samples import ENDED_REASONS, sample
from bridge.tool_calls import ToolCall
from bridge.wire import MalformedMessage, vapi

CALL = "CA00000000000000000000000000000001"
TEXT = st.text('ab{}[]":,\\0 é\n\ud800')
ASSISTANT = "11111111-2222-4333-8444-555555555555"
SECRET_URL = "wss://api.vapi.ai/0198c5d1-7777-7000-8000-000000000001/transport"


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("status_in_progress", vapi.StatusUpdate("in-progress")),
        ("status_ended", vapi.StatusUpdate("ended", "assistant-ended-call")),
        ("speech_user_started", vapi.SpeechUpdate("caller", True, 2)),
        ("speech_user_stopped", vapi.SpeechUpdate("caller", False, 2)),
        ("speech_assistant_started", vapi.SpeechUpdate("assistant", True, 3)),
        ("speech_assistant_stopped", vapi.SpeechUpdate("assistant", False, 3)),
        ("transcript_user_partial", vapi.Transcript("caller", False, "I would like")),
        ("transcript_user_final", vapi.Transcript("caller", True, "I would like to book a table")),
        ("transcript_final_named", vapi.Transcript("assistant", True, "For which day?")),
        ("user_interrupted", vapi.UserInterrupted("0198c5d1-7777-7000-8000-00000000000a")),
        ("user_interrupted_wrapped", vapi.UserInterrupted()),
        ("hang", vapi.Hang()),
        ("conversation_update", vapi.IgnoredEvent("conversation-update")),
        ("model_output", vapi.IgnoredEvent("model-output")),
        ("voice_input", vapi.IgnoredEvent("voice-input")),
        ("assistant_started", vapi.IgnoredEvent("assistant.started")),
        ("audio", vapi.Audio(b"\xff\xfe\xfe\xfe\xff")),
    ],
)
def test_it_parses_every_documented_event(name: str, event: vapi.Event) -> None:
    assert vapi.parse(sample(f"vapi/{name}")) == event


TOOL_CALL = {
    "id": "t1",
    "type": "function",
    "function": {"name": "send_dtmf", "arguments": {"digits": "42#"}},
}


@pytest.mark.parametrize(
    ("message", "calls"),
    [
        ({"toolCallList": [TOOL_CALL]}, [("t1", "send_dtmf", {"digits": "42#"})]),
        ({"toolCalls": [TOOL_CALL | {"function": {"name": "send_dtmf", "arguments": '{"digits": "42#"}'}}]},
         [("t1", "send_dtmf", {"digits": "42#"})]),
        ({"toolWithToolCallList": [{"toolCall": TOOL_CALL}, 3]}, [("t1", "send_dtmf", {"digits": "42#"})]),
        ({"toolCallList": [{"id": 7, "name": "book", "arguments": "[1"}, None]}, [("", "book", {})]),
        ({"toolCallList": [{"function": "?", "arguments": [1]}]}, [("", "", {})]),
        ({"toolCallList": {}}, []),
        ({"toolCallList": [TOOL_CALL] * 500}, [("t1", "send_dtmf", {"digits": "42#"})] * 100),
    ],
)  # fmt: skip
def test_it_parses_tool_calls_in_every_form_that_vapi_sends(message: Any, calls: list[Any]) -> None:
    event = vapi.parse(json.dumps({"type": "tool-calls"} | message))
    assert event == vapi.ToolCalls(tuple(ToolCall(*call) for call in calls))


def test_an_unknown_event_is_ignored_with_a_bounded_name() -> None:
    assert vapi.parse(json.dumps({"type": "x" * 500})) == vapi.IgnoredEvent("x" * 64, known=False)


def test_a_transcript_is_cut_to_its_maximum_length() -> None:
    text = json.dumps(
        {"type": "transcript", "role": "bot", "transcriptType": "final", "transcript": "a" * 50_000}
    )
    event = vapi.parse(text)
    assert isinstance(event, vapi.Transcript)
    assert len(event.text) == 16_000


def test_an_empty_transcript_is_accepted() -> None:
    event = vapi.parse('{"type":"transcript","role":"customer","transcriptType":"final","transcript":""}')
    assert event == vapi.Transcript("caller", True, "")


def test_an_invalid_turn_number_is_left_out() -> None:
    assert vapi.parse(
        '{"type":"speech-update","role":"user","status":"started","turn":true}'
    ) == vapi.SpeechUpdate("caller", True)


def test_a_type_takes_precedence_over_a_wrapped_message() -> None:
    assert vapi.parse('{"type":"hang","message":{"type":"user-interrupted"}}') == vapi.Hang()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "bad-json"),
        ("[" * 100_000, "bad-json"),
        ("[]", "not-an-object"),
        ('"hang"', "not-an-object"),
        ("{}", "no-type"),
        ('{"type":""}', "no-type"),
        ('{"type":5}', "no-type"),
        ('{"message":"hang"}', "no-type"),
        ('{"type":"audio"}', "bad-data"),
        ('{"type":"audio","data":"//7+/v8"}', "bad-base64"),
        ('{"type":"audio","data":"\\ud800"}', "bad-base64"),
        ('{"type":"status-update"}', "bad-status"),
        ('{"type":"status-update","status":""}', "bad-status"),
        ('{"type":"speech-update","status":"started"}', "bad-role"),
        ('{"type":"speech-update","status":"started","role":"system"}', "bad-role"),
        ('{"type":"speech-update","status":"started","role":["user"]}', "bad-role"),
        ('{"type":"speech-update","role":"user"}', "bad-status"),
        ('{"type":"transcript","role":"user"}', "bad-transcript"),
    ],
)
def test_it_rejects_a_malformed_event_with_a_fixed_word(text: str, kind: str) -> None:
    with pytest.raises(MalformedMessage) as error:
        vapi.parse(text)
    assert error.value.kind == kind


@settings(max_examples=60)
@given(
    st.sampled_from(
        ["audio", "status-update", "speech-update", "transcript", "user-interrupted", "hang", "?"]
    ),
    st.dictionaries(
        st.sampled_from(
            ["data", "status", "endedReason", "role", "turn", "transcript", "transcriptType", "turnId"]
        ),
        st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.lists(TEXT),
    ),
)
def test_any_fields_are_parsed_or_rejected(kind: str, fields: dict[str, Any]) -> None:
    try:
        event = vapi.parse(json.dumps({"type": kind, **fields}))
    except MalformedMessage:
        return
    assert isinstance(event, vapi.Event)


def test_only_intended_endings_are_no_failures() -> None:
    """All that Vapi has published."""
    assert len(ENDED_REASONS) > 570
    intended = {reason for reason in ENDED_REASONS if not vapi.is_failure(reason)}
    assert intended == vapi.INTENDED_ENDINGS


@pytest.mark.parametrize("part", ["error", "fault", "failed", "not-", "no-", "shutdown", "busy", "deleted"])
def test_no_intended_ending_is_named_like_a_failure(part: str) -> None:
    assert not [reason for reason in vapi.INTENDED_ENDINGS if part in reason]


@pytest.mark.parametrize(
    "reason", ["sun-exploded", "assistant-ended-call-by-mistake", "customer-ended", "Voicemail", " voicemail"]
)
def test_an_unknown_ended_reason_is_a_failure(reason: str) -> None:
    assert vapi.is_failure(reason)


def test_an_end_without_a_reason_is_no_failure() -> None:
    assert not vapi.is_failure("")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (vapi.control_text(vapi.EndCall()), "end_call"),
        (vapi.control_text(vapi.Cancel()), "cancel"),
        (vapi.control_text(vapi.AddMessage("The caller pressed 42# on the keypad.")), "add_message"),
        (vapi.assistant_request_text(ASSISTANT, CALL), "assistant_request"),
        (vapi.audio_text(b"\xff\xfe\xfe\xfe\xff"), "audio"),
    ],
)
def test_it_sends_the_documented_messages(written: str, name: str) -> None:
    assert json.loads(written) == json.loads(sample(f"vapi/sent/{name}"))


REQUEST = vapi.CallRequest(
    assistant_id=ASSISTANT,
    call_sid=CALL,
    caller="+15551230000",
    route_id="default",
    audio_format="pcm_s16le",
    max_call_seconds=1800,
    endpointing_ms=300,
    record=False,
    server_url=f"https://bridge.example.com/vapi/events?callSid={CALL}",
    server_secret="webhook-secret",
    overrides={},
)


def test_the_call_request_has_the_documented_body() -> None:
    body = REQUEST.body()
    assert body == {**json.loads(sample("vapi/sent/call_request")), "name": f"twilio-{CALL}"[:40]}
    assert len(body["name"]) <= 40


def test_mulaw_is_requested_at_8_khz() -> None:
    transport = replace(REQUEST, audio_format="mulaw").body()["transport"]
    assert transport["audioFormat"] == {"format": "mulaw", "container": "raw", "sampleRate": 8000}


def test_without_a_secret_no_server_url_is_sent() -> None:
    assert "server" not in replace(REQUEST, server_secret="").body()["assistantOverrides"]


@pytest.mark.parametrize(("configured", "sent"), [(1, 10), (1800, 1800), (90_000, 43_200)])
def test_the_maximum_duration_is_limited_to_vapis_range(configured: int, sent: int) -> None:
    assert (
        replace(REQUEST, max_call_seconds=configured).body()["assistantOverrides"]["maxDurationSeconds"]
        == sent
    )


def test_objects_in_a_numbers_overrides_are_merged_with_ours() -> None:
    overrides = {
        "variableValues": {"shop": "Main Street"},
        "startSpeakingPlan": {"smartEndpointingPlan": {"provider": "livekit"}},
        "artifactPlan": None,
    }
    sent = replace(REQUEST, overrides=overrides).body()["assistantOverrides"]
    ours = REQUEST.body()["assistantOverrides"]
    assert sent["variableValues"] == {**ours["variableValues"], "shop": "Main Street"}
    assert sent["startSpeakingPlan"] == {**ours["startSpeakingPlan"], **overrides["startSpeakingPlan"]}  # type: ignore[dict-item]
    assert sent["artifactPlan"] is None


def test_a_numbers_overrides_cannot_replace_what_the_bridge_needs() -> None:
    overrides = {"firstMessage": "Hi", "backgroundSound": "office", "clientMessages": [], "metadata": {}}
    sent = replace(REQUEST, overrides=overrides).body()["assistantOverrides"]
    assert (sent["firstMessage"], sent["backgroundSound"]) == ("Hi", "office")
    assert "user-interrupted" in sent["clientMessages"]
    assert sent["metadata"] == {"callSid": CALL, "route": "default"}


def test_it_parses_the_urls_of_a_created_call() -> None:
    assert vapi.parse_call_created(sample("vapi/call_created").encode()) == vapi.CallCreated(
        "0198c5d1-7777-7000-8000-000000000001", SECRET_URL, "https://control.vapi.ai/0198c5d1/control"
    )


def test_it_parses_the_audio_format_in_the_response() -> None:
    body = {"transport": {"websocketCallUrl": "wss://x", "audioFormat": {"format": "mulaw"}}}
    assert vapi.parse_call_created(json.dumps(body).encode()).audio_format == "mulaw"


def test_the_repr_of_a_created_call_does_not_contain_its_urls() -> None:
    created = vapi.parse_call_created(sample("vapi/call_created").encode())
    assert "wss://" not in repr(created)
    assert "https://" not in repr(created)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>", "bad-json"),
        (b"\xff\xfe\xfd", "bad-json"),
        (b"[" * 100_000, "bad-json"),
        (b"[]", "not-an-object"),
        (b"{}", "no-websocketCallUrl"),
        (b'{"transport":{"websocketCallUrl":""}}', "no-websocketCallUrl"),
        (b'{"transport":{"websocketCallUrl":7},"monitor":{"controlUrl":7}}', "no-websocketCallUrl"),
        (b'{"transport":[],"monitor":"x"}', "no-websocketCallUrl"),
    ],
)
def test_a_response_without_a_socket_url_is_rejected(body: bytes, kind: str) -> None:
    with pytest.raises(MalformedMessage) as error:
        vapi.parse_call_created(body)
    assert error.value.kind == kind


def test_a_call_blocked_by_the_concurrency_limit_is_refused_and_can_be_ended() -> None:
    body = json.loads(sample("vapi/call_created"))
    body["subscriptionLimits"]["concurrencyBlocked"] = True
    with pytest.raises(vapi.CallRefused) as error:
        vapi.parse_call_created(json.dumps(body).encode())
    assert error.value.kind == "concurrency-blocked"
    assert error.value.created.control_url == "https://control.vapi.ai/0198c5d1/control"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"message":"Invalid Key.","statusCode":401}', "Invalid Key."),
        (b'{"message":["name too long","no assistant"]}', "name too long; no assistant"),
        (b'{"error":"x"}', '{"error":"x"}'),
        (b"[1]", "[1]"),
        (b"error code: 1010", "error code: 1010"),
        (b"\xff" * 1000, "�" * 300),
    ],
)
def test_it_finds_the_message_in_an_error_response(body: bytes, message: str) -> None:
    assert vapi.error_message(body) == message
