"""Twilio's wire: every documented message as it comes, and everything that is none."""

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
# A small alphabet holds all that JSON makes something of.
TEXT = st.text('ab{}[]":,\\0 é\n\ud800')
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
SAMPLES = ("connected", "start", "media", "dtmf", "mark", "stop")


def changed(name: str, /, **changes: Any) -> str:
    """A sample with keys of its inner object, or of its envelope, replaced; None removes one."""
    message = json.loads(sample(f"twilio/{name}"))
    inner = message.get(name, {})
    for key, value in changes.items():
        place = message if key in ("streamSid", "sequenceNumber", name) else inner
        place[key] = value
        if value is None:
            del place[key]
    return json.dumps(message)


def why_refused(text: str) -> str:
    with pytest.raises(MalformedMessage) as refusal:
        twilio.parse(text)
    assert str(refusal.value) == refusal.value.kind
    return refusal.value.kind


def test_it_reads_connected() -> None:
    assert twilio.parse(sample("twilio/connected")) == twilio.Connected("Call", "1.0.0")


def test_it_reads_start_with_the_parameters_of_our_twiml() -> None:
    assert twilio.parse(sample("twilio/start")) == twilio.Start(
        stream_sid=STREAM,
        call_sid=CALL,
        account_sid=ACCOUNT,
        tracks=("inbound",),
        custom_parameters={"ticket": "ONE-TIME-TICKET", "route": "18f0"},
        sequence=1,
    )


def test_it_reads_media_whose_numbers_are_strings() -> None:
    assert twilio.parse(sample("twilio/media")) == twilio.Media(
        STREAM, b"\xff\xfe\xfe\xfe\xff", chunk=2, timestamp_ms=25, sequence=4
    )


def test_it_reads_dtmf_marks_and_stop() -> None:
    assert twilio.parse(sample("twilio/dtmf")) == twilio.Dtmf(STREAM, "5", 60)
    assert twilio.parse(sample("twilio/mark")) == twilio.Mark(STREAM, "g3-17", 61)
    assert twilio.parse(sample("twilio/stop")) == twilio.Stop(STREAM, CALL, ACCOUNT, 62)


def test_it_takes_plain_numbers_and_missing_ones() -> None:
    message = twilio.parse(changed("media", chunk=7, timestamp=None, sequenceNumber=None))
    assert message == twilio.Media(STREAM, b"\xff\xfe\xfe\xfe\xff", chunk=7)


def test_it_ignores_fields_it_does_not_know() -> None:
    assert twilio.parse(changed("media", weather="fine")) == twilio.parse(sample("twilio/media"))


def test_a_start_may_lack_all_that_has_a_default() -> None:
    bare = changed("start", customParameters=None, mediaFormat=None, tracks=None, accountSid=None)
    message = twilio.parse(bare)
    assert isinstance(message, twilio.Start)
    assert (message.encoding, message.sample_rate, message.channels) == ("audio/x-mulaw", 8000, 1)
    assert (message.custom_parameters, message.tracks, message.account_sid) == ({}, ("inbound",), "")


def test_a_start_may_name_its_stream_outside_only() -> None:
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
        (changed("media", payload=None), "bad-payload"),
        (changed("media", payload=12), "bad-payload"),
        (changed("media", payload=""), "empty-payload"),
        (changed("media", payload="//7+/v8"), "bad-base64"),
        (changed("media", payload="no base64!"), "bad-base64"),
        (changed("media", payload="é"), "bad-base64"),
        (changed("media", payload="\ud800"), "bad-base64"),
        (changed("media", track="outbound"), "wrong-track"),
        (changed("media", track=["inbound"]), "wrong-track"),
        (changed("media", chunk="two"), "bad-chunk"),
        (changed("media", chunk=True), "bad-chunk"),
        (changed("media", chunk=2.5), "bad-chunk"),
        (changed("media", chunk=10**40), "bad-chunk"),
        (changed("media", streamSid=None), "bad-streamSid"),
        (changed("media", streamSid=""), "bad-streamSid"),
        (changed("media", streamSid="M" * 256), "bad-streamSid"),
        (changed("media", streamSid=5), "bad-streamSid"),
        (changed("start", callSid=None), "bad-callSid"),
        (changed("start", customParameters=["ticket"]), "bad-parameters"),
        (changed("start", customParameters={str(n): "" for n in range(101)}), "bad-parameters"),
        (changed("start", mediaFormat="mulaw"), "bad-start"),
        (changed("start", tracks="inbound"), "bad-start"),
        (changed("dtmf", digit="55"), "bad-digit"),
        (changed("dtmf", digit="E"), "bad-digit"),
        (changed("dtmf", digit=5), "bad-digit"),
        (changed("mark", name=""), "bad-name"),
    ],
)
def test_it_refuses_what_is_no_message_with_a_fixed_word(text: str, kind: str) -> None:
    assert why_refused(text) == kind


@settings(max_examples=50)
@given(
    TEXT | st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)).map(json.dumps)
)
def test_nothing_but_a_refusal_leaves_the_parser(text: str) -> None:
    with pytest.raises(MalformedMessage):
        twilio.parse(text)


@settings(max_examples=60)
@given(
    st.sampled_from(SAMPLES),
    st.sampled_from(["event", "streamSid", "sequenceNumber", "payload", "chunk", "digit", "name",
                     "callSid", "accountSid", "customParameters", "mediaFormat", "tracks", "track", "inner"]),
    PLAIN | st.lists(TEXT) | st.dictionaries(TEXT, TEXT),
)  # fmt: skip
def test_a_message_with_one_strange_field_is_read_or_refused(name: str, key: str, value: Any) -> None:
    message = json.loads(sample(f"twilio/{name}"))
    inner = message.get(name, {})
    if key == "inner":
        message[name] = value
    elif key in ("event", "streamSid", "sequenceNumber"):
        message[key] = value
    else:
        inner[key] = value
    try:
        read = twilio.parse(json.dumps(message))
    except MalformedMessage:
        return
    assert isinstance(read, twilio.Message)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (twilio.Writer(STREAM).media(b"\xff\xfe\xfe\xfe\xff"), "media"),
        (twilio.Writer(STREAM).mark("g3-17"), "mark"),
        (twilio.Writer(STREAM).clear(), "clear"),
    ],
)
def test_it_sends_exactly_the_documented_fields(written: str, name: str) -> None:
    """Twilio warns once per stream about a wrong one, then plays nothing, silently."""
    assert json.loads(written) == json.loads(sample(f"twilio/sent/{name}"))


def test_a_strange_stream_sid_cannot_break_out_of_its_quotes() -> None:
    strange = 'MZ","event":"stop\\'
    for text in (twilio.Writer(strange).clear(), twilio.Writer(strange).media(b"\xff")):
        assert json.loads(text)["streamSid"] == strange


@pytest.mark.parametrize("payload", ["//7+/v8=", "AAAA", "/w==", "A", "=", ""])
def test_the_plain_form_is_read_as_any_other(payload: str) -> None:
    media = {"track": "inbound", "chunk": "2", "timestamp": "25", "payload": payload}
    plain = {"event": "media", "sequenceNumber": "4", "streamSid": "MZ1", "media": media}
    turned = dict(reversed(plain.items()))

    def read(message: Mapping[str, object], **style: Any) -> object:
        try:
            return twilio.parse(json.dumps(message, **style))
        except MalformedMessage as problem:
            return problem.kind

    assert read(plain) == read(plain, separators=(",", ":")) == read(turned) == read(plain, indent=1)
