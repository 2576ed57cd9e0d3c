"""Twilio's messages: parsing of every documented message, rejection of malformed ones, and what we send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.tests.samples import sample
from bridge.wire import MalformedMessage, twilio

STREAM = "MZ00000000000000000000000000000001"
CALL = "CA00000000000000000000000000000001"
ACCOUNT = "AC00000000000000000000000000000001"
# A small alphabet with all characters that have a meaning in JSON.
TEXT = st.text('ab{}[]":,\\0 é\n\ud800')
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
SAMPLES = ("connected", "start", "media", "dtmf", "mark", "stop")


def with_changes(name: str, /, **changes: Any) -> str:
    """A sample with changed fields of its inner object or its envelope; None removes a field."""
    message = json.loads(sample(f"twilio/{name}"))
    inner = message.get(name, {})
    for key, value in changes.items():
        target = message if key in ("streamSid", "sequenceNumber", name) else inner
        target[key] = value
        if value is None:
            del target[key]
    return json.dumps(message)


def rejected_kind(text: str) -> str:
    with pytest.raises(MalformedMessage) as error:
        twilio.parse(text)
    assert str(error.value) == error.value.kind
    return error.value.kind


def test_it_parses_connected() -> None:
    assert twilio.parse(sample("twilio/connected")) == twilio.Connected("Call", "1.0.0")


def test_it_parses_start_with_its_custom_parameters() -> None:
    assert twilio.parse(sample("twilio/start")) == twilio.Start(
        stream_sid=STREAM,
        call_sid=CALL,
        account_sid=ACCOUNT,
        tracks=("inbound",),
        custom_parameters={"ticket": "ONE-TIME-TICKET", "route": "18f0"},
        sequence=1,
    )


def test_it_parses_media_with_numbers_as_strings() -> None:
    assert twilio.parse(sample("twilio/media")) == twilio.Media(
        STREAM, b"\xff\xfe\xfe\xfe\xff", chunk=2, timestamp_ms=25, sequence=4
    )


def test_it_parses_dtmf_mark_and_stop() -> None:
    assert twilio.parse(sample("twilio/dtmf")) == twilio.Dtmf(STREAM, "5", 60)
    assert twilio.parse(sample("twilio/mark")) == twilio.Mark(STREAM, "g3-17", 61)
    assert twilio.parse(sample("twilio/stop")) == twilio.Stop(STREAM, CALL, ACCOUNT, 62)


def test_numbers_may_be_json_numbers_or_missing() -> None:
    message = twilio.parse(with_changes("media", chunk=7, timestamp=None, sequenceNumber=None))
    assert message == twilio.Media(STREAM, b"\xff\xfe\xfe\xfe\xff", chunk=7)


def test_unknown_fields_are_ignored() -> None:
    assert twilio.parse(with_changes("media", weather="fine")) == twilio.parse(sample("twilio/media"))


def test_optional_fields_of_start_have_defaults() -> None:
    bare = with_changes("start", customParameters=None, mediaFormat=None, tracks=None, accountSid=None)
    message = twilio.parse(bare)
    assert isinstance(message, twilio.Start)
    assert (message.encoding, message.sample_rate, message.channels) == ("audio/x-mulaw", 8000, 1)
    assert (message.custom_parameters, message.tracks, message.account_sid) == ({}, ("inbound",), "")


def test_a_start_may_have_its_stream_sid_in_the_envelope_only() -> None:
    message = json.loads(sample("twilio/start"))
    del message["start"]["streamSid"]
    assert twilio.parse(json.dumps(message)) == twilio.parse(sample("twilio/start"))


@pytest.mark.parametrize("payload_bytes", [1, 159, 160, 161, 320, 32_000])
def test_a_frame_may_have_any_length(payload_bytes: int) -> None:
    writer = twilio.Writer(STREAM)
    message = twilio.parse(writer.media(b"\x55" * payload_bytes))
    assert isinstance(message, twilio.Media)
    assert message.ulaw == b"\x55" * payload_bytes


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "bad-json"),
        ("{", "bad-json"),
        ("\x00", "bad-json"),
        ("[" * 100_000, "bad-json"),
        ("1" * 5000, "bad-json"),
        ("[]", "not-an-object"),
        ("12", "not-an-object"),
        ("NaN", "not-an-object"),
        ("null", "not-an-object"),
        ("{}", "no-event"),
        ('{"event":7}', "no-event"),
        ('{"event":"weather"}', "unknown-event"),
        ('{"event":"start","start":null}', "no-start"),
        ('{"event":"media","media":[]}', "no-media"),
        ('{"event":"mark","streamSid":"MZ1"}', "no-mark"),
        ('{"event":"stop","streamSid":"MZ1","stop":"CA1"}', "no-stop"),
        (with_changes("media", payload=None), "bad-payload"),
        (with_changes("media", payload=12), "bad-payload"),
        (with_changes("media", payload=""), "empty-payload"),
        (with_changes("media", payload="//7+/v8"), "bad-base64"),
        (with_changes("media", payload="no base64!"), "bad-base64"),
        (with_changes("media", payload="é"), "bad-base64"),
        (with_changes("media", payload="\ud800"), "bad-base64"),
        (with_changes("media", track="outbound"), "wrong-track"),
        (with_changes("media", track=["inbound"]), "wrong-track"),
        (with_changes("media", chunk="two"), "bad-chunk"),
        (with_changes("media", chunk=True), "bad-chunk"),
        (with_changes("media", chunk=2.5), "bad-chunk"),
        (with_changes("media", chunk=10**40), "bad-chunk"),
        (with_changes("media", streamSid=None), "bad-streamSid"),
        (with_changes("media", streamSid=""), "bad-streamSid"),
        (with_changes("media", streamSid="M" * 256), "bad-streamSid"),
        (with_changes("media", streamSid=5), "bad-streamSid"),
        (with_changes("start", callSid=None), "bad-callSid"),
        (with_changes("start", customParameters=["ticket"]), "bad-parameters"),
        (with_changes("start", customParameters={str(n): "" for n in range(101)}), "bad-parameters"),
        (with_changes("start", mediaFormat="mulaw"), "bad-start"),
        (with_changes("start", tracks="inbound"), "bad-start"),
        (with_changes("dtmf", digit="55"), "bad-digit"),
        (with_changes("dtmf", digit="E"), "bad-digit"),
        (with_changes("dtmf", digit=5), "bad-digit"),
        (with_changes("mark", name=""), "bad-name"),
    ],
)
def test_it_rejects_a_malformed_message_with_a_fixed_word(text: str, kind: str) -> None:
    assert rejected_kind(text) == kind


@settings(max_examples=50)
@given(
    TEXT | st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)).map(json.dumps)
)
def test_arbitrary_text_raises_malformed_message_only(text: str) -> None:
    with pytest.raises(MalformedMessage):
        twilio.parse(text)


@settings(max_examples=60)
@given(
    st.sampled_from(SAMPLES),
    st.sampled_from(["event", "streamSid", "sequenceNumber", "payload", "chunk", "digit", "name",
                     "callSid", "accountSid", "customParameters", "mediaFormat", "tracks", "track", "inner"]),
    PLAIN | st.lists(TEXT) | st.dictionaries(TEXT, TEXT),
)  # fmt: skip
def test_a_message_with_one_invalid_field_is_parsed_or_rejected(name: str, key: str, value: Any) -> None:
    message = json.loads(sample(f"twilio/{name}"))
    inner = message.get(name, {})
    if key == "inner":
        message[name] = value
    elif key in ("event", "streamSid", "sequenceNumber"):
        message[key] = value
    else:
        inner[key] = value
    try:
        parsed = twilio.parse(json.dumps(message))
    except MalformedMessage:
        return
    assert isinstance(parsed, twilio.Message)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (twilio.Writer(STREAM).media(b"\xff\xfe\xfe\xfe\xff"), "media"),
        (twilio.Writer(STREAM).mark("g3-17"), "mark"),
        (twilio.Writer(STREAM).clear(), "clear"),
    ],
)
def test_it_sends_exactly_the_documented_fields(written: str, name: str) -> None:
    """For an unknown field Twilio warns once per stream, then plays nothing."""
    assert json.loads(written) == json.loads(sample(f"twilio/sent/{name}"))


def test_a_stream_sid_is_escaped_in_messages() -> None:
    stream_sid = 'MZ","event":"stop\\'
    for text in (twilio.Writer(stream_sid).clear(), twilio.Writer(stream_sid).media(b"\xff")):
        assert json.loads(text)["streamSid"] == stream_sid


@pytest.mark.parametrize("payload", ["//7+/v8=", "AAAA", "/w==", "A", "=", ""])
def test_the_fast_path_for_media_gives_the_same_result_as_json(payload: str) -> None:
    media = {"track": "inbound", "chunk": "2", "timestamp": "25", "payload": payload}
    plain = {"event": "media", "sequenceNumber": "4", "streamSid": "MZ1", "media": media}
    reordered = dict(reversed(plain.items()))

    def parse(message: Mapping[str, object], **style: Any) -> object:
        try:
            return twilio.parse(json.dumps(message, **style))
        except MalformedMessage as problem:
            return problem.kind

    assert parse(plain) == parse(plain, separators=(",", ":")) == parse(reordered) == parse(plain, indent=1)
