from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from django.test import override_settings
from twilio.request_validator import RequestValidator

from bridge.call_cache import CallCache
from bridge.journal import CallOffered, CarrierReported
from bridge.opening_hours import OpeningHours
from bridge.routes import Route
from calls.models import Call
from calls.tests.builders import make_call
from calls.tests.test_end_reasons import FOLLOW_UPS, HANG_UP
from calls.tests.webhook_client import ACCOUNT, OURS, PUBLIC, SID, TOKEN, WebhookClient, make_bridge
from calls.twilio import sentences, twiml
from calls.twilio import webhooks as twilio_webhooks
from voiceai.bridge_settings import bridge_config

ENDPOINTS = ["/twilio/voice", "/twilio/after", "/twilio/status", "/twilio/stream"]
FORM = "application/x-www-form-urlencoded"
PERSON = "+15557770000"
AN_AI = "You are speaking with an AI assistant."


def make_route(**values: Any) -> Route:
    """A number's route, with the defaults of the settings."""
    return Route.resolve(bridge_config(), values)


WITH_PERSON = make_route(
    id="desk", number=OURS, fallback_number=PERSON, greeting="This call is recorded. \x0b <ok>"
)


def parse_verbs(response: Any) -> list[str]:
    assert response.headers["Content-Type"].startswith("text/xml")
    return [verb.tag for verb in ElementTree.fromstring(response.content)]


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("slash", ["", "/"])
async def test_it_answers_a_signed_request(path: str, method: str, slash: str) -> None:
    client = WebhookClient()
    client.bridge.call_cache.store(SID, "caller-hung-up")
    response = await client.twilio(path + slash, method)
    assert response.status_code in (200, 204)


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_it_rejects_a_request_that_twilio_did_not_sign(path: str) -> None:
    client = WebhookClient()
    assert (await client.post(path, "CallSid=CA1", content_type=FORM)).status_code == 403
    assert (await client.twilio(path, token="other")).status_code == 403
    assert (await client.get(path, headers={"X-Twilio-Signature": "é"})).status_code == 403
    form = {"CallSid": SID, "AccountSid": ACCOUNT}
    signature = RequestValidator(TOKEN).compute_signature(f"{PUBLIC}{path}", form)
    changed = await client.post(
        path,
        urlencode(form | {"From": "+1666"}),
        content_type=FORM,
        headers={"X-Twilio-Signature": signature},
    )
    assert changed.status_code == 403
    assert not client.entries


async def test_it_rejects_another_account() -> None:
    client = WebhookClient()
    assert (await client.twilio("/twilio/voice", AccountSid="AC" + "9" * 32)).status_code == 403
    assert (
        await WebhookClient(make_bridge(twilio_account_sid="")).twilio("/twilio/voice")
    ).status_code == 200


async def test_it_accepts_every_token_during_a_rotation() -> None:
    client = WebhookClient(make_bridge(twilio_auth_tokens=("new", TOKEN)))
    assert (await client.twilio("/twilio/voice")).status_code == 200
    assert (await client.twilio("/twilio/voice", token="new")).status_code == 200


@pytest.mark.parametrize("sid", ["", "CA 1", "CA/../x", "é" * 10, "C" * 65])
async def test_it_rejects_an_invalid_callsid(sid: str) -> None:
    assert (await WebhookClient().twilio("/twilio/voice", CallSid=sid)).status_code == 400


@pytest.mark.parametrize("method", ["put", "patch", "delete", "head", "options"])
async def test_it_allows_get_and_post_only(method: str) -> None:
    response = await getattr(WebhookClient(), method)("/twilio/voice")
    assert response.status_code == 405


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("&".join(f"f{n}=1" for n in range(1001)), "application/x-www-form-urlencoded"),
        ("a" * (3 * 1024 * 1024), "application/x-www-form-urlencoded"),
        ("CallSid=1", "application/x-www-form-urlencoded; charset=utf-16"),
        ("--x\r\nbroken", "multipart/form-data; boundary=x"),
        ("--x\r\nbroken", "multipart/form-data"),
    ],
)
async def test_it_answers_a_malformed_form_with_a_4xx(body: str, content_type: str) -> None:
    response = await WebhookClient().post("/twilio/voice", body, content_type=content_type)
    assert response.status_code == 400


async def test_it_rejects_a_json_body() -> None:
    body = '{"CallSid": "CA1"}'
    path = f"/twilio/status?bodySHA256={sha256(body.encode()).hexdigest()}"
    headers = {"X-Twilio-Signature": RequestValidator(TOKEN).compute_signature(f"{PUBLIC}{path}", {})}
    client = WebhookClient(make_bridge(twilio_account_sid=""))
    signed = await client.post(path, body, content_type="application/json", headers=headers)
    assert signed.status_code == 400
    assert b"CallSid" in signed.content
    tampered = await client.post(path, body + " ", content_type="application/json", headers=headers)
    assert tampered.status_code == 403
    binary = await client.post(path, b"\xff\xfe", content_type="application/json", headers=headers)
    assert binary.status_code == 400


async def test_it_connects_a_call_to_the_media_stream() -> None:
    client = WebhookClient()
    response = await client.twilio("/twilio/voice")
    assert parse_verbs(response) == ["Say", "Connect", "Say"]
    connect = ElementTree.fromstring(response.content)[1]
    assert connect.attrib == {"action": f"{PUBLIC}/twilio/after"}
    stream = connect[0]
    assert stream.attrib == {
        "url": "wss://voice.example.com/media-stream",
        "statusCallback": f"{PUBLIC}/twilio/stream",
    }
    parameters = {p.attrib["name"]: p.attrib["value"] for p in stream}
    assert set(parameters) == {"ticket", "route"}
    claim = await client.bridge.admission.claim(parameters["ticket"], parameters["route"], SID, ACCOUNT)
    assert claim.route.id == "default"
    assert all(len(name) + len(value) < 500 for name, value in parameters.items())


async def test_it_writes_the_callers_number_to_the_journal() -> None:
    client = WebhookClient()
    await client.twilio("/twilio/voice", From="9" * 300, VoiceaiSimulated="1")
    (offered,) = client.entries
    assert isinstance(offered, CallOffered)
    assert offered.from_number == "9" * 64
    assert (offered.call_sid, offered.to_number, offered.simulated, offered.refused) == (SID, OURS, True, "")
    assert abs(offered.at - time.time()) < 60


def parse_announcements(response: Any) -> list[str | None]:
    """The texts that are spoken before the media stream."""
    texts: list[str | None] = []
    for verb in ElementTree.fromstring(response.content):
        if verb.tag == "Connect":
            return texts
        assert verb.tag == "Say"
        texts.append(verb.text)
    raise AssertionError("there is no stream")


async def test_it_speaks_the_disclosure_then_the_greeting_in_valid_xml() -> None:
    response = await WebhookClient(make_bridge([WITH_PERSON])).twilio("/twilio/voice")
    assert parse_announcements(response) == [AN_AI, "This call is recorded.   <ok>"]


@pytest.mark.parametrize(
    ("setting", "disclosure", "expected"),
    [
        ("An AI.", None, ["An AI."]),
        ("An AI.", "A \x0b machine & <more>", ["A   machine & <more>"]),
        ("An AI.", "", []),
        ("", None, []),
        ("", "A machine.", ["A machine."]),
    ],
)
async def test_the_disclosure_comes_from_the_number_or_the_settings(
    setting: str, disclosure: str | None, expected: list[str]
) -> None:
    with override_settings(AI_DISCLOSURE=setting):
        route = make_route(id="desk", number=OURS, disclosure=disclosure)
        response = await WebhookClient(make_bridge([route])).twilio("/twilio/voice")
    assert parse_announcements(response) == expected


async def test_a_number_without_a_row_discloses_the_ai() -> None:
    assert parse_announcements(await WebhookClient().twilio("/twilio/voice")) == [AN_AI]


CLOSED = make_route(id="desk", number=OURS, hours=OpeningHours((), UTC))


@pytest.mark.parametrize(
    ("message", "spoken"), [("", sentences.CLOSED), ("Back on \x0b Monday.", "Back on   Monday.")]
)
async def test_outside_its_hours_a_number_plays_the_closed_message(message: str, spoken: str) -> None:
    client = WebhookClient(make_bridge([replace(CLOSED, closed_message=message)]))
    response = await client.twilio("/twilio/voice")
    assert parse_verbs(response) == ["Say", "Hangup"]
    assert ElementTree.fromstring(response.content)[0].text == spoken
    assert isinstance(client.entries[-1], CallOffered)
    assert client.entries[-1].refused == "out-of-hours"


async def test_outside_its_hours_a_number_dials_its_fallback() -> None:
    client = WebhookClient(make_bridge([replace(CLOSED, fallback_number=PERSON)]))
    assert parse_verbs(await client.twilio("/twilio/voice")) == ["Dial"]


async def test_hours_do_not_apply_to_outbound_calls() -> None:
    client = WebhookClient(make_bridge([CLOSED]))
    response = await client.twilio("/twilio/voice", Direction="outbound-api", From=OURS, To="+15550100134")
    assert parse_verbs(response) == ["Say", "Connect", "Say"]


async def test_it_plays_the_busy_message_when_a_numbers_limit_is_reached() -> None:
    client = WebhookClient(make_bridge([make_route(id="desk", number=OURS, max_concurrent_calls=1)]))
    await client.twilio("/twilio/voice")
    assert parse_verbs(await client.twilio("/twilio/voice", CallSid="CA" + "2" * 32)) == ["Say", "Hangup"]
    assert isinstance(client.entries[-1], CallOffered)
    assert client.entries[-1].refused == "at-capacity"
    other_number = await client.twilio("/twilio/voice", CallSid="CA" + "3" * 32, To="+15559870009")
    assert "Connect" in parse_verbs(other_number)


async def test_an_outbound_call_uses_the_route_of_the_number_it_comes_from() -> None:
    client = WebhookClient(make_bridge([WITH_PERSON]))
    response = await client.twilio("/twilio/voice", Direction="outbound-api", From=OURS, To="+15550100134")
    assert parse_announcements(response)[1:] == ["This call is recorded.   <ok>"]


async def test_a_repeated_webhook_uses_no_second_slot() -> None:
    client = WebhookClient(make_bridge(max_concurrent_calls=1))
    for _ in range(3):
        assert "Connect" in parse_verbs(await client.twilio("/twilio/voice"))


async def test_it_plays_the_busy_message_at_capacity() -> None:
    client = WebhookClient(make_bridge(max_concurrent_calls=1))
    await client.twilio("/twilio/voice")
    response = await client.twilio("/twilio/voice", CallSid="CA" + "2" * 32)
    assert parse_verbs(response) == ["Say", "Hangup"]
    assert isinstance(client.entries[-1], CallOffered)
    assert client.entries[-1].refused == "at-capacity"


async def test_it_dials_the_fallback_while_draining() -> None:
    client = WebhookClient(make_bridge([WITH_PERSON]))
    client.bridge.admission.stopping = True
    response = await client.twilio("/twilio/voice")
    assert parse_verbs(response) == ["Dial"]
    dial = ElementTree.fromstring(response.content)[0]
    assert dial.text == PERSON
    assert dial.attrib == {"action": f"{PUBLIC}/twilio/after?dialed=1", "timeout": "20"}


@pytest.mark.parametrize("reason", FOLLOW_UPS)
async def test_it_answers_the_end_of_the_stream_by_its_reason(reason: str) -> None:
    client = WebhookClient()
    client.bridge.call_cache.store(SID, reason)
    without_fallback = parse_verbs(await client.twilio("/twilio/after"))
    client_with_fallback = WebhookClient(make_bridge([WITH_PERSON]))
    client_with_fallback.bridge.call_cache.store(SID, reason)
    with_fallback = parse_verbs(await client_with_fallback.twilio("/twilio/after"))
    if FOLLOW_UPS[reason] == HANG_UP:
        assert (without_fallback, with_fallback) == (["Hangup"], ["Hangup"])
    else:
        assert (without_fallback, with_fallback) == (["Say", "Hangup"], ["Dial"])


@override_settings(FALLBACK_NUMBER=PERSON)
async def test_it_dials_the_fallback_of_the_settings_when_the_route_has_none() -> None:
    client = WebhookClient()
    client.bridge.call_cache.store(SID, "assistant-failed")
    assert parse_verbs(await client.twilio("/twilio/after")) == ["Dial"]


@pytest.mark.parametrize(
    ("form", "number"),
    [
        ({}, "+15550100134"),
        ({"Direction": "outbound-api", "From": OURS, "To": "+442079460018"}, "+442079460018"),
        ({"From": "sip:desk7@pbx.example.com"}, "sip:desk7@pbx.example.com"),
        ({"From": "+266696687"}, ""),
        ({"From": "anonymous"}, ""),
        ({"From": ""}, ""),
    ],
)
async def test_the_assistant_is_told_the_number_of_the_other_party(form: dict[str, str], number: str) -> None:
    client = WebhookClient()
    response = await client.twilio("/twilio/voice", **form)
    parameters = {
        each.get("name"): each.get("value")
        for each in ElementTree.fromstring(response.content).iter("Parameter")
    }
    claim = await client.bridge.admission.claim(
        str(parameters["ticket"]), str(parameters["route"]), SID, ACCOUNT
    )
    assert claim.caller == number


CALLER_IDS = [
    ("+15550100134", None),
    ("sip:desk7@pbx.example.com", OURS),
    ("client:desk_7", OURS),
    ("anonymous", OURS),
    ("+266696687", OURS),
    ("40404", OURS),
    ("", OURS),
]


@pytest.mark.parametrize(("caller", "shown"), CALLER_IDS)
async def test_the_fallback_is_dialled_with_a_caller_id_that_twilio_accepts(
    caller: str, shown: str | None
) -> None:
    failed = WebhookClient(make_bridge([WITH_PERSON]))
    failed.bridge.call_cache.store(SID, "assistant-failed")
    busy = WebhookClient(make_bridge([replace(WITH_PERSON, max_concurrent_calls=0)]))
    for response in (
        await failed.twilio("/twilio/after", From=caller),
        await busy.twilio("/twilio/voice", From=caller),
    ):
        (dial,) = ElementTree.fromstring(response.content)
        assert (dial.tag, dial.text, dial.get("callerId")) == ("Dial", PERSON, shown)


@pytest.mark.parametrize("status", ["completed", "answered", "busy", "no-answer", "failed", "canceled", ""])
async def test_it_apologizes_when_the_fallback_does_not_answer(status: str) -> None:
    actual = parse_verbs(await WebhookClient().twilio("/twilio/after?dialed=1", DialCallStatus=status))
    assert actual == (["Hangup"] if status in ("completed", "answered") else ["Say", "Hangup"])


@pytest.fixture
def ended_call(transactional_db: None) -> Call:
    return make_call(end_reason="caller-hung-up")


async def test_it_reads_the_row_when_the_end_reason_is_not_in_memory(ended_call: Call) -> None:
    call = ended_call
    assert parse_verbs(await WebhookClient().twilio("/twilio/after", CallSid=call.call_sid)) == ["Hangup"]
    assert parse_verbs(await WebhookClient().twilio("/twilio/after", CallSid="CAunknown")) == [
        "Say",
        "Hangup",
    ]


async def test_it_answers_in_time_when_the_database_hangs() -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(call_sid: str) -> str:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(30)
        return "caller-hung-up"

    real, twilio_webhooks._end_reason_in_row = twilio_webhooks._end_reason_in_row, hang
    started_at = time.monotonic()
    try:
        response = await WebhookClient().twilio("/twilio/after")
    finally:
        release.set()
        twilio_webhooks._end_reason_in_row = real
    assert parse_verbs(response) == ["Say", "Hangup"]
    assert time.monotonic() - started_at < 5


class BrokenCache(CallCache):
    async def find(self, call_sid: str) -> str | None:
        raise ConnectionError("connection lost")


class HangingCache(CallCache):
    async def find(self, call_sid: str) -> str | None:
        await asyncio.Event().wait()
        return None


@pytest.mark.parametrize("cache", [BrokenCache, HangingCache])
async def test_it_reads_the_row_when_the_cache_fails(cache: type[CallCache], ended_call: Call) -> None:
    client = WebhookClient(replace(make_bridge(), call_cache=cache()))
    assert parse_verbs(await client.twilio("/twilio/after", CallSid=ended_call.call_sid)) == ["Hangup"]


async def test_it_writes_status_callbacks_to_the_journal() -> None:
    client = WebhookClient()
    response = await client.twilio(
        "/twilio/status", CallStatus="Completed", CallDuration="128", SequenceNumber="3"
    )
    assert response.status_code == 204
    await client.twilio("/twilio/status", CallDuration="-1", SequenceNumber="9" * 20)
    await client.twilio("/twilio/stream", StreamEvent="stream-error", StreamError="x" * 1000)
    completed, invalid, stream = client.entries
    assert isinstance(completed, CarrierReported) and isinstance(invalid, CarrierReported)
    assert (completed.status, completed.duration_seconds, completed.sequence) == ("completed", 128, 3)
    assert (completed.from_number, completed.to_number, completed.direction) == (
        "+15550100134",
        OURS,
        "inbound",
    )
    assert (invalid.duration_seconds, invalid.sequence) == (None, None)
    assert isinstance(stream, CarrierReported)
    assert (stream.stream_event, len(stream.detail)) == ("stream-error", 255)


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize("direction", ["inbound", "outbound-api", "outbound-dial"])
@pytest.mark.parametrize("status", ["completed", "busy", "failed", "no-answer", "canceled"])
async def test_a_status_callback_keeps_both_numbers_and_the_direction(
    status: str, direction: str, simulated: bool
) -> None:
    client = WebhookClient()
    extra = {"VoiceaiSimulated": "1"} if simulated else {}
    numbers = {"From": OURS, "To": "+15550100134"} if direction != "inbound" else {}
    await client.twilio("/twilio/status", CallStatus=status, Direction=direction, **numbers, **extra)
    (entry,) = client.entries
    assert isinstance(entry, CarrierReported)
    ours, theirs = (entry.to_number, entry.from_number)[:: 1 if direction == "inbound" else -1]
    assert (entry.status, entry.direction, entry.simulated) == (status, direction, simulated)
    assert (ours, theirs) == (OURS, "+15550100134")


async def test_a_caller_who_hangs_up_during_the_greeting_frees_the_slot() -> None:
    client = WebhookClient(make_bridge(max_concurrent_calls=1))
    await client.twilio("/twilio/voice")
    await client.twilio("/twilio/status", CallStatus="in-progress")
    assert client.bridge.admission.count_free_places() == 0
    await client.twilio("/twilio/status", CallStatus="completed")
    assert client.bridge.admission.count_free_places() == 1


@pytest.mark.parametrize("status", ["completed", "busy", "failed", "no-answer", "canceled"])
async def test_a_replayed_webhook_of_a_call_that_is_over_starts_nothing(status: str) -> None:
    client = WebhookClient()
    assert "Connect" in parse_verbs(await client.twilio("/twilio/voice"))
    await client.twilio("/twilio/status", CallStatus=status)
    count = len(client.entries)
    assert parse_verbs(await client.twilio("/twilio/voice")) == ["Hangup"]
    assert len(client.entries) == count


async def test_readyz_reports_whether_new_calls_are_accepted() -> None:
    client = WebhookClient()
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"accepting": True, "live_calls": 0})
    client.bridge.admission.stopping = True
    assert (await client.get("/readyz/")).status_code == 503
    assert (await client.get("/healthz")).content == b"ok\n"


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        (twiml.encode_text("a crown fell out \u2603"), "a crown fell out \u2603"),
        (twiml.encode_text(""), ""),
        ("%%%", ""), ("a", ""), ("_w", ""), ("", ""),
    ],
)  # fmt: skip
async def test_the_whisper_contains_the_reason(about: str, reason: str) -> None:
    response = await WebhookClient().twilio(f"/twilio/whisper?{urlencode({'about': about})}")
    (say,) = ElementTree.fromstring(response.content)
    assert say.text == f"{sentences.WHISPER} {reason}".strip()
