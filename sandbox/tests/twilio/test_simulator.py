"""The Twilio simulator against a minimal server that implements only the protocol."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sandbox.faults import TwilioFaults
from sandbox.speech import audio
from sandbox.twilio import messages, twiml
from sandbox.twilio.caller import (
    FRAME_SAMPLES,
    BargeIn,
    CallerAudio,
    HangUp,
    Listen,
    Pause,
    Press,
    Say,
    SendRaw,
    Step,
    WaitForHangup,
)
from sandbox.twilio.playback import Playback
from sandbox.twilio.record import TwilioCallRecord
from sandbox.twilio.simulator import TwilioSimulator
from sandbox.twilio.webhook_client import UrlResolver, sign, url_to_sign

pytestmark = pytest.mark.slow

ACCOUNT = "AC" + "1" * 32
TOKEN = "sandbox-test-token"
PUBLIC = "https://bridge.example.com"
HANGUP = "<Response><Hangup/></Response>"
STREAM = (
    '<Response><Connect action="/twilio/after"><Stream url="wss://bridge.example.com/media-stream" '
    'statusCallback="https://bridge.example.com/twilio/stream">'
    '<Parameter name="ticket" value="one-time"/></Stream></Connect>'
    "<Say>Never reached.</Say></Response>"
)
TONE = (np.sin(np.arange(1600) * 2 * np.pi * 500 / 8000) * 8000).astype(np.int16)  # 200 ms
TONE_ULAW = audio.ulaw_encode(TONE)

Handler = Callable[["Socket"], Awaitable[None]]


class Socket:
    """The server's end of a media stream."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self.ws = ws
        self.received: list[dict[str, Any]] = []
        self.stream_sid = ""

    async def read_until(self, event: str) -> dict[str, Any]:
        """Read until a message with this event arrives."""
        async with asyncio.timeout(5):
            while True:
                message: dict[str, Any] = json.loads(await self.ws.receive_str())
                self.received.append(message)
                self.stream_sid = message.get("streamSid", self.stream_sid)
                if message["event"] == event:
                    return message

    async def until_closed(self) -> None:
        async with asyncio.timeout(5):
            async for message in self.ws:
                self.received.append(json.loads(message.data))

    async def play(self, ulaw: bytes, stream_sid: str = "") -> None:
        payload = base64.b64encode(ulaw).decode()
        await self.send(event="media", streamSid=stream_sid or self.stream_sid, media={"payload": payload})

    async def mark(self, name: str) -> None:
        await self.send(event="mark", streamSid=self.stream_sid, mark={"name": name})

    async def clear(self) -> None:
        await self.send(event="clear", streamSid=self.stream_sid)

    async def send(self, **message: Any) -> None:
        await self.ws.send_str(json.dumps(message))


class FakeServer:
    """A minimal server: webhooks with configurable responses, and one media socket."""

    def __init__(self) -> None:
        self.documents = {"/twilio/voice": STREAM, "/twilio/after": HANGUP}
        self.responses: dict[str, web.Response] = {}  # instead of a document
        self.requests: list[tuple[str, dict[str, str], web.Request]] = []
        self.handler: Handler = self._start_and_listen
        self.socket: Socket | None = None
        self.handshake: web.Request | None = None
        self.refuse_socket = False
        self.refuse_unsigned = True
        self.base_url = ""

    @staticmethod
    async def _start_and_listen(socket: Socket) -> None:
        await socket.read_until("start")
        await socket.until_closed()

    async def webhook(self, request: web.Request) -> web.Response:
        form = {str(name): str(value) for name, value in (await request.post()).items()}
        signed = PUBLIC + request.raw_path + "".join(name + form[name] for name in sorted(form))
        self.requests.append((request.path, form or dict(request.query), request))
        expected = base64.b64encode(hmac.new(TOKEN.encode(), signed.encode(), hashlib.sha1).digest()).decode()
        if self.refuse_unsigned and request.headers.get("X-Twilio-Signature") != expected:
            return web.Response(status=403)
        if request.path in self.responses:
            return self.responses[request.path]
        if request.path in self.documents:
            return web.Response(text=self.documents[request.path], content_type="text/xml")
        return web.Response(status=204)

    async def media_stream(self, request: web.Request) -> web.StreamResponse:
        self.handshake = request
        if self.refuse_socket:
            return web.Response(status=403)
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        self.socket = Socket(ws)
        await self.handler(self.socket)
        await ws.close()
        return ws

    def params(self, path: str) -> list[dict[str, str]]:
        return [form for at, form, _ in self.requests if at == path]

    async def call(
        self, *script: Step, faults: TwilioFaults | None = None, **options: Any
    ) -> TwilioCallRecord:
        call = {name: options.pop(name) for name in ("on_event", "from_number") if name in options}
        settings: dict[str, Any] = {"public_url": PUBLIC, "account_sid": ACCOUNT, "auth_token": TOKEN}
        simulator = TwilioSimulator(self.base_url, **(settings | {"limit_seconds": 10.0} | options))
        return await simulator.place_call(script, faults=faults or TwilioFaults(), **call)


@pytest.fixture
async def fake_server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    app = web.Application()
    app.router.add_get("/media-stream", fake.media_stream)
    app.router.add_route("*", "/{tail:.*}", fake.webhook)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    fake.base_url = str(server.make_url("")).rstrip("/")
    yield fake
    await server.close()


# Signatures


@pytest.mark.parametrize(
    ("url", "params", "expected"),
    [
        (
            "https://example.com/myapp.php?foo=1&bar=2",
            {
                "CallSid": "CA1234567890ABCDE",
                "Caller": "+14158675310",
                "Digits": "1234",
                "From": "+14158675310",
                "To": "+18005551212",
            },
            "L/OH5YylLD5NRKLltdqwSvS0BnU=",
        ),
        (
            "https://mycompany.com/myapp.php?foo=1&bar=2",
            {
                "CallSid": "CA1234567890ABCDE",
                "Digits": "1234",
                "From": "+14158675309",
                "To": "+18005551212",
                "Caller": "+14158675309",
            },
            "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        ),
        ("wss://bridge.example.com/media/twilio", None, "wTO781gKV917KMoEvxUI++TwZGA="),
        ("wss://bridge.example.com/media/twilio/", None, "+MVF25tGNgmV05ZJBq0ETLs6nPU="),
        ("https://bridge.example.com/media/twilio/", None, "5t87oS3/obuvX1VDgemHct0Q53c="),
    ],
)
def test_it_signs_as_twilio_documents(url: str, params: dict[str, str] | None, expected: str) -> None:
    assert sign("12345", url, params) == expected


def test_it_signs_secure_urls_without_port_and_plain_ones_with_it() -> None:
    assert url_to_sign("https://user:secret@host.example:8443/a?b=1") == "https://host.example/a?b=1"
    assert url_to_sign("http://127.0.0.1:8000/a") == "http://127.0.0.1:8000/a"


def test_it_connects_only_to_the_server_under_test_and_to_loopback() -> None:
    url_resolver = UrlResolver("http://127.0.0.1:9000", PUBLIC)
    assert url_resolver.resolve(PUBLIC + "/a?b=1") == "http://127.0.0.1:9000/a?b=1"
    assert url_resolver.resolve("wss://bridge.example.com/m", media=True) == "http://127.0.0.1:9000/m"
    assert url_resolver.resolve("ws://localhost:7000/m") == "ws://localhost:7000/m"
    with pytest.raises(PermissionError):
        url_resolver.resolve("https://elsewhere.example.com/a")


# Sound


def test_mu_law_follows_g711() -> None:
    values = np.array([0, 8, 100, 1000, -1000, 32767, -32768], dtype=np.int16)
    assert audio.ulaw_encode(values) == bytes([0xFF, 0xFE, 0xF2, 0xCE, 0x4E, 0x80, 0x00])
    codes = bytes([0x00, 0x80, 0xFF, 0x7F, 0x0F, 0x8F, 0xD5])
    assert audio.ulaw_decode(codes).tolist() == [-32124, 32124, 0, 0, -16764, 16764, 716]


def test_every_mu_law_code_survives_a_round_trip_through_pcm() -> None:
    codes = bytes(code for code in range(256) if code != 0x7F)  # minus zero becomes zero
    assert audio.ulaw_encode(audio.ulaw_decode(codes)) == codes


def test_resampling_up_and_down_is_lossless() -> None:
    pcm = audio.load_clips()["correct"].pcm_8k
    back = audio.to_8k(audio.to_16k(pcm))
    assert len(audio.to_16k(pcm)) == 2 * len(pcm)
    assert int(np.max(np.abs(back.astype(int) - pcm))) <= 2


def test_it_reads_wav_files_of_other_formats(tmp_path: Any) -> None:
    with wave.open(str(tmp_path / "stereo.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(1)
        file.setframerate(16_000)
        file.writeframes(bytes([128, 192] * 3200))
    pcm, rate = audio.read_wav(tmp_path / "stereo.wav")
    assert (len(pcm), rate, int(pcm[0])) == (3200, 16_000, 8192)
    assert len(audio.read_wav_8k(tmp_path / "stereo.wav")) == 1600
    (tmp_path / "not.wav").write_bytes(b"not audio")
    with pytest.raises(ValueError, match="not a PCM WAV file"):
        audio.read_wav(tmp_path / "not.wav")


def test_line_noise_is_quiet_reproducible_and_has_no_two_equal_frames() -> None:
    noise = audio.line_noise(7, 80_000)
    assert audio.level_dbfs(noise) == pytest.approx(-58, abs=0.5)
    assert np.array_equal(noise, audio.line_noise(7, 80_000))
    ulaw = audio.ulaw_encode(noise)
    assert len({ulaw[at : at + 160] for at in range(0, len(ulaw), 160)}) == 500


def test_caller_clips_are_one_piece_of_speech_with_quiet_edges() -> None:
    clips = [clip for clip in audio.load_clips().values() if clip.speaker == "caller"]
    assert len(clips) >= 6
    for clip in clips:
        loud = audio.loud_windows(clip.pcm_8k)
        gaps_ms = [(later - earlier - 1) * 5 for earlier, later in zip(loud, loud[1:], strict=False)]
        assert max(gaps_ms) <= 140, clip.name
        assert (loud[0] * 5, (loud[-1] + 1) * 5) == (clip.speech_start_ms, clip.speech_end_ms), clip.name
        assert 40 <= clip.duration_ms - clip.speech_end_ms <= 100, clip.name
        peak_dbfs = 20 * np.log10(np.max(np.abs(clip.pcm_8k.astype(int))) / 32_768)
        assert peak_dbfs == pytest.approx(-6, abs=1), clip.name
        assert clip.text == clip.text.lower() and clip.text.replace(" ", "").isalpha(), clip.name


def test_the_assistant_has_at_least_eight_clips_one_of_them_long() -> None:
    clips = [clip for clip in audio.load_clips().values() if clip.speaker == "assistant"]
    assert len(clips) >= 8
    assert max(clip.duration_ms for clip in clips) > 3500
    assert all(np.max(np.abs(clip.pcm_8k.astype(int))) > 10_000 for clip in clips)


@pytest.mark.speech
def test_the_recognizer_understands_every_caller_clip_after_mu_law() -> None:
    pytest.importorskip("pocketsphinx")
    from sandbox.speech.generate import recognize

    clips = [clip for clip in audio.load_clips().values() if clip.speaker == "caller"]
    sentences = [clip.text for clip in clips]
    assert [recognize(clip.pcm_8k, sentences) for clip in clips] == sentences


# The caller's audio


def test_caller_audio_mixes_a_clip_into_the_noise_and_records_when_speech_ended() -> None:
    caller_audio = CallerAudio(seed=1)
    pcm = np.concatenate([TONE[:800], np.zeros(800, dtype=np.int16)])
    utterance, finished = caller_audio.queue(audio.as_clip(pcm, "tone"))
    frames = []
    for number in range(12):
        frames.append(caller_audio.next_frame())
        caller_audio.frame_sent(at=100.0 + number)
    assert (utterance.first_frame_at, utterance.ended_at, finished.is_set()) == (100.0, 104.0, True)
    loud = [audio.level_dbfs(audio.ulaw_decode(frame)) > audio.LOUD_DBFS for frame in frames]
    assert loud == [True] * 5 + [False] * 7
    assert {len(frame) for frame in frames} == {FRAME_SAMPLES}


# Playback, with the time as an argument


def test_audio_plays_in_real_time_from_its_arrival() -> None:
    playback = Playback()
    playback.play(b"\x01" * 160, now=10.0)
    playback.play(b"\x02" * 160, now=10.0)
    playback.play(b"\x03" * 160, now=10.1)
    expected = b"\x01" * 160 + b"\x02" * 160 + b"\xff" * 480 + b"\x03" * 160 + b"\xff" * 80
    assert playback.heard(10.0, 10.13) == expected


def test_a_mark_is_due_after_the_audio_before_it_and_at_once_with_an_empty_queue() -> None:
    playback = Playback()
    assert playback.mark("empty", now=5.0).due_at == 5.0
    playback.play(b"\x01" * 800, now=5.0)
    playback.mark("end", now=5.01)
    assert [mark.name for mark in playback.take_due_marks(now=5.05)] == ["empty"]
    assert playback.next_mark_at() == pytest.approx(5.1)
    assert [(mark.name, mark.cleared) for mark in playback.take_due_marks(now=5.1)] == [("end", False)]


def test_clear_drops_unplayed_audio_and_returns_pending_marks_in_order() -> None:
    playback = Playback()
    for number in range(3):
        playback.play(bytes([number]) * 800, now=1.0)
        playback.mark(f"m{number}", now=1.0)
    dropped, marks = playback.clear(now=1.15)
    assert dropped == 1200
    assert [(mark.name, mark.cleared) for mark in marks] == [("m0", False), ("m1", True), ("m2", True)]
    assert playback.next_mark_at() is None
    playback.play(b"\x09" * 80, now=1.2)
    assert playback.heard(1.0, 1.21) == b"\x00" * 800 + b"\x01" * 400 + b"\xff" * 400 + b"\x09" * 80


def test_audibility_ends_with_a_clear() -> None:
    playback = Playback()
    playback.play(b"\xff" * 800, now=1.0)
    playback.play(TONE_ULAW, now=1.0)
    assert playback.first_loud_after(0.0) == pytest.approx(1.1, abs=0.006)
    assert not playback.is_audible(1.05) and playback.is_audible(1.2)
    playback.clear(now=1.15)
    assert playback.quiet_since() == pytest.approx(1.15, abs=0.006)
    (segment,) = playback.segments()
    assert segment.started_at == pytest.approx(1.1, abs=0.006)


def test_at_most_ten_minutes_of_audio_are_queued() -> None:
    playback = Playback()
    assert playback.play(b"\xff" * 4_799_000, now=0.0)
    assert not playback.play(b"\xff" * 2000, now=0.0)
    assert playback.rejected_bytes == 2000


# Messages of the server


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x00\x01", 31950),
        ("{", 31951),
        ("[]", 31951),
        ('{"event":"hello","streamSid":"MZ1"}', 31951),
        ('{"event":"clear"}', 31951),
        ('{"event":"clear","streamSid":"MZ2"}', 31951),
        ('{"event":"clear","streamSid":"MZ1","extra":1}', 31951),
        ('{"event":"media","streamSid":"MZ1","media":{"payload":"%%"}}', 31951),
        ('{"event":"media","streamSid":"MZ1","media":{"payload":"","track":"x"}}', 31951),
        ('{"event":"media","streamSid":"MZ1","media":"AAAA"}', 31951),
        ('{"event":"mark","streamSid":"MZ1","mark":{"name":7}}', 31951),
    ],
)
def test_it_rejects_invalid_messages_with_twilios_error_code(raw: str | bytes, code: int) -> None:
    with pytest.raises(messages.InvalidMessage) as error:
        messages.read(raw, "MZ1")
    assert error.value.code == code


def test_it_accepts_media_mark_and_clear() -> None:
    media = '{"event":"media","streamSid":"MZ1","media":{"payload":"AAE="}}'
    assert messages.read(media, "MZ1") == messages.PlayAudio(b"\x00\x01")
    mark = '{"event":"mark","streamSid":"MZ1","mark":{"name":"g1-1"}}'
    assert messages.read(mark, "MZ1") == messages.PlaceMark("g1-1")
    assert messages.read('{"event":"clear","streamSid":"MZ1"}', "MZ1") == messages.Clear()


# TwiML


def test_it_parses_twiml_and_warns_about_unknown_names() -> None:
    verbs, warnings = twiml.parse(
        "<Response><Start><Recording/></Start><say>x</say><Pause length='2'/>"
        "<Dial action='/a' Timeout='1'><Number>+1555</Number></Dial><Reject reason='busy'/></Response>"
    )
    assert verbs == [twiml.PauseVerb(2.0), twiml.DialVerb("+1555", "/a"), twiml.RejectVerb("busy")]
    assert [(warning.code, "say" in str(warning) or "Timeout" in str(warning)) for warning in warnings] == [
        (12200, True),
        (12200, True),
    ]


def test_it_warns_of_a_say_without_text() -> None:
    _, warnings = twiml.parse("<Response><Say> </Say><Say/><Say>x</Say></Response>")
    assert [warning.code for warning in warnings] == [13520, 13520]


@pytest.mark.parametrize(
    ("attributes", "codes"),
    [
        ("", []), ("language='zh-CN'", []), ("language='en-gb' voice='man'", []),
        ("language='zh-CN' voice='Google.cmn-CN-Wavenet-B'", []), ("voice='Polly.Joanna-Neural'", []),
        ("language='zh-CN' voice='man'", [13511]), ("language='zh-CN' voice='Polly.Joanna'", [13511]),
        ("language='de-DE' voice='Google.fr-FR-Standard-A'", [13511]), ("voice='Zhiyu'", [13511]),
        ("language='zh'", [13512]), ("language='xx-XX' voice='robot'", [13512, 13511]),
    ],
)  # fmt: skip
def test_it_warns_of_a_language_or_voice_that_twilio_does_not_have(attributes: str, codes: list[int]) -> None:
    (verb,), warnings = twiml.parse(f"<Response><Say {attributes}>x</Say></Response>")
    assert isinstance(verb, twiml.SayVerb) and [warning.code for warning in warnings] == codes


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("Hello", 12100),
        ("<Reply/>", 12100),
        ("<Response><Connect/></Response>", 12100),
        ("<Response><Connect><Stream url='wss://a' track='both_tracks'/></Connect></Response>", 31941),
    ],
)
def test_it_rejects_a_broken_document(document: str, code: int) -> None:
    with pytest.raises(twiml.TwimlError) as error:
        twiml.parse(document)
    assert error.value.code == code


# Whole calls


async def test_a_call_sends_signed_webhooks_streams_media_and_sends_callbacks(
    fake_server: FakeServer,
) -> None:
    record = await fake_server.call(Pause(100), Press("5#", gap_ms=1), HangUp())
    assert record.errors == []
    assert (record.webhook_status, record.ended_by, record.final_status) == (200, "caller", "completed")
    (form,) = fake_server.params("/twilio/voice")
    assert form["CallStatus"] == "ringing" and form["CallSid"] == record.call_sid
    assert form["VoiceaiSimulated"] == "true" and len(record.call_sid) == 34
    # After a hang-up no more TwiML is requested.
    assert fake_server.params("/twilio/after") == []
    (status,) = fake_server.params("/twilio/status")
    assert status["CallStatus"] == "completed" and int(status["CallDuration"]) >= 1
    events = [form["StreamEvent"] for form in fake_server.params("/twilio/stream")]
    assert events == ["stream-started", "stream-stopped"]
    assert sorted(record.callbacks) == [("/twilio/status", 204)] + [("/twilio/stream", 204)] * 2

    assert fake_server.handshake is not None and fake_server.socket is not None
    expected = sign(TOKEN, "wss://bridge.example.com/media-stream")
    assert fake_server.handshake.headers["X-Twilio-Signature"] == expected
    assert fake_server.handshake.headers["Host"] == "bridge.example.com"
    assert fake_server.requests[0][2].headers["Host"] == "bridge.example.com"

    received = fake_server.socket.received
    assert received[0] == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    assert received[1] == {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": record.stream_sid,
        "start": {
            "accountSid": ACCOUNT,
            "streamSid": record.stream_sid,
            "callSid": record.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"ticket": "one-time"},
        },
    }
    assert [int(message["sequenceNumber"]) for message in received[1:]] == list(range(1, len(received)))
    assert [message["dtmf"]["digit"] for message in received if message["event"] == "dtmf"] == ["5", "#"]
    assert received[-1]["event"] == "stop"
    assert received[-1]["stop"] == {"accountSid": ACCOUNT, "callSid": record.call_sid}


async def test_frames_are_sent_on_time_and_all_differ(fake_server: FakeServer) -> None:
    record = await fake_server.call(Say(TONE), Pause(1500))
    assert fake_server.socket is not None and record.started_at is not None
    media = [message["media"] for message in fake_server.socket.received if message["event"] == "media"]
    assert [message["chunk"] for message in media] == [str(number + 1) for number in range(len(media))]
    assert [message["timestamp"] for message in media[:3]] == ["5", "25", "45"]
    assert b"".join(base64.b64decode(message["payload"]) for message in media) == record.sent_ulaw
    assert len({frame.ulaw for frame in record.frames}) == len(record.frames) >= 19
    lateness = [
        frame.at - (record.started_at + number * 0.02) for number, frame in enumerate(record.frames, start=1)
    ]
    # Never early. A frame may be late on a slow machine, but the clock does not drift: if each frame waited
    # 20 ms after the one before, every frame of the second half would be later than all of the first.
    first, second = lateness[: len(lateness) // 2], lateness[len(lateness) // 2 :]
    assert min(lateness) >= -0.001 and min(second) <= max(first)
    (spoken,) = record.utterances
    assert spoken.first_frame_at == record.frames[0].at
    assert spoken.ended_at == record.frames[9].at


async def test_the_caller_hears_audio_in_real_time_and_marks_are_echoed_after_playback(
    fake_server: FakeServer,
) -> None:
    echoed: list[tuple[str, float]] = []

    async def speak(socket: Socket) -> None:
        await socket.read_until("start")
        began = monotonic()
        await socket.mark("empty")
        await socket.play(TONE_ULAW[:1000])
        await socket.play(TONE_ULAW[1000:])
        await socket.mark("end")
        for _ in range(2):
            message = await socket.read_until("mark")
            echoed.append((message["mark"]["name"], monotonic() - began))
        await socket.until_closed()

    fake_server.handler = speak
    record = await fake_server.call(Listen(quiet_ms=60, timeout_seconds=3))
    assert record.errors == []
    assert [name for name, _ in echoed] == ["empty", "end"]
    assert record.marks[0].due_at == record.marks[0].received_at and echoed[1][1] >= 0.199
    assert record.received_ulaw == TONE_ULAW and TONE_ULAW in record.heard
    assert all(mark.echoed_at is not None and not mark.cleared for mark in record.marks)
    (segment,) = record.heard_segments
    assert segment.started_at == pytest.approx(record.received[0].at, abs=0.01)
    assert segment.ended_at - segment.started_at == pytest.approx(0.2, abs=0.011)


async def test_a_clear_after_a_barge_in_drops_the_rest(fake_server: FakeServer) -> None:
    events: list[str] = []

    async def clear_on_barge_in(socket: Socket) -> None:
        await socket.read_until("start")
        await socket.play(TONE_ULAW * 20)
        await socket.mark("g0-1")
        while True:
            message = await socket.read_until("media")
            pcm = audio.ulaw_decode(base64.b64decode(message["media"]["payload"]))
            if audio.level_dbfs(pcm) > -45:
                break
        await socket.clear()
        await socket.read_until("mark")
        await socket.until_closed()

    fake_server.handler = clear_on_barge_in
    record = await fake_server.call(
        BargeIn(TONE, after_ms=100), on_event=lambda kind, data: events.append(kind), status_url=None
    )
    assert record.errors == []
    (cleared_at, dropped) = record.clears[0]
    (mark,) = record.marks
    assert mark.cleared and mark.echoed_at is not None and cleared_at <= mark.echoed_at < mark.due_at
    assert dropped + len(record.heard.strip(b"\xff")) == pytest.approx(20 * len(TONE_ULAW), abs=8)
    (segment,) = record.heard_segments
    assert record.utterances[0].first_frame_at is not None
    assert record.utterances[0].first_frame_at - segment.started_at >= 0.1
    command = ["webhook", "connected", "heard-audio", "saying", "cleared", "hung-up", "closed"]
    assert [kind for kind in events if kind in command] == command


async def test_it_records_the_errors_that_twilio_would_log_and_continues(fake_server: FakeServer) -> None:
    async def misbehave(socket: Socket) -> None:
        await socket.read_until("start")
        await socket.ws.send_bytes(b"\x00")
        await socket.play(TONE_ULAW, stream_sid="MZ" + "0" * 32)
        await socket.send(event="media", streamSid=socket.stream_sid, media={"payload": "AA=="}, extra=1)
        await socket.mark("still here")
        await socket.read_until("mark")

    fake_server.handler = misbehave
    record = await fake_server.call(WaitForHangup(3))
    assert record.error_codes == [31950, 31951, 31951]
    assert record.received == [] and [mark.name for mark in record.marks] == ["still here"]


async def test_when_the_server_ends_the_stream_the_action_url_is_requested(fake_server: FakeServer) -> None:
    async def close(socket: Socket) -> None:
        await socket.read_until("start")
        await socket.play(TONE_ULAW)
        await socket.mark("x")

    fake_server.handler = close
    fake_server.documents["/twilio/after"] = (
        "<Response><Say>One moment.</Say>"
        '<Dial action="/twilio/after2?dialed=1">+15550100199</Dial></Response>'
    )
    fake_server.documents["/twilio/after2"] = "<Response><Say>Sorry.</Say><Hangup/><Say>No.</Say></Response>"
    record = await fake_server.call(WaitForHangup(3), faults=TwilioFaults(dial_status="no-answer"))
    assert record.errors == []
    assert (record.ended_by, record.close_code) == ("server", 1000)
    assert record.unheard_bytes > 0
    (after,) = fake_server.params("/twilio/after")
    assert after["CallStatus"] == "in-progress"
    (dialed,) = fake_server.params("/twilio/after2")
    assert dialed["DialCallStatus"] == "no-answer" and record.dialed == ["+15550100199"]
    assert record.spoken_by_twilio == ["One moment.", "Sorry."]
    assert len(record.twiml) == 3


@pytest.mark.parametrize("caller", ["sip:desk7@pbx.example.com", "client:desk_7", "anonymous", "+266696687"])
@pytest.mark.parametrize(("caller_id", "code"), [("", [13214]), (' callerId="+15559870000"', [])])
async def test_dialing_needs_a_caller_id_that_is_a_number(
    fake_server: FakeServer, caller: str, caller_id: str, code: list[int]
) -> None:
    fake_server.documents["/twilio/voice"] = (
        f'<Response><Dial action="/twilio/after"{caller_id}>+15550100199</Dial></Response>'
    )
    fake_server.documents["/twilio/after"] = "<Response><Hangup/></Response>"
    record = await fake_server.call(HangUp(), from_number=caller)
    assert record.error_codes == code
    (after,) = fake_server.params("/twilio/after")
    assert after["DialCallStatus"] == ("failed" if code else "completed")
    assert record.dialed == ([] if code else ["+15550100199"])


async def test_without_a_token_requests_are_not_signed(fake_server: FakeServer) -> None:
    fake_server.refuse_unsigned = False
    fake_server.documents["/twilio/voice"] = "<Response><Reject reason='busy'/></Response>"
    record = await fake_server.call(HangUp(), auth_token="")
    assert (record.final_status, record.ended_by, record.stream_sid) == ("busy", "server", "")
    assert all("X-Twilio-Signature" not in request.headers for _, _, request in fake_server.requests)


@pytest.mark.parametrize("faults", [TwilioFaults(skip_signature=True), TwilioFaults(bad_signature=True)])
async def test_a_rejected_webhook_ends_the_call(fake_server: FakeServer, faults: TwilioFaults) -> None:
    record = await fake_server.call(HangUp(), faults=faults)
    assert (record.webhook_status, record.final_status, record.error_codes[0]) == (403, "failed", 11200)
    assert record.callbacks == [("/twilio/status", 403)]


@pytest.mark.parametrize(
    ("response", "code"),
    [
        ({"status": 500}, 11200),
        ({"status": 302, "headers": {"Location": "/twilio/after"}}, 11200),
        ({"text": HANGUP, "content_type": "text/plain"}, 12300),
        ({"text": "not XML", "content_type": "text/xml"}, 12100),
    ],
)
async def test_a_response_that_is_not_twiml_fails_the_call(
    fake_server: FakeServer, response: dict[str, Any], code: int
) -> None:
    fake_server.responses["/twilio/voice"] = web.Response(**response)
    record = await fake_server.call(HangUp())
    assert (record.error_codes, record.final_status, record.twiml) == ([code], "failed", [])


async def test_an_unreachable_server_fails_the_call() -> None:
    fake = FakeServer()
    with socket.socket() as unused:  # bound, so that no other process gets the port, but not listening
        unused.bind(("127.0.0.1", 0))
        fake.base_url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        record = await fake.call(HangUp())
    assert (record.webhook_status, record.error_codes) == (None, [11205, 11200])
    assert record.callbacks == [("/twilio/status", None)]


async def test_it_follows_twiml_redirects_up_to_a_limit(fake_server: FakeServer) -> None:
    fake_server.documents["/twilio/voice"] = (
        '<Response><Pause length="0"/>'
        '<Redirect method="GET">/twilio/more?a=%2B1&amp;b=x+y</Redirect></Response>'
    )
    fake_server.documents["/twilio/more"] = "<Response><Redirect>/twilio/more</Redirect></Response>"
    record = await fake_server.call(HangUp())
    assert fake_server.params("/twilio/more")[0]["a"] == "+1"
    assert fake_server.params("/twilio/more")[0]["CallSid"] == record.call_sid
    assert record.error_codes == [11215] and len(record.twiml) == 10


async def test_it_counts_what_was_said_before_the_stream(fake_server: FakeServer) -> None:
    async def close(socket: Socket) -> None:
        await socket.read_until("start")

    fake_server.handler = close
    fake_server.documents["/twilio/voice"] = STREAM.replace("<Response>", "<Response><Say>First.</Say>")
    fake_server.documents["/twilio/after"] = "<Response><Say>Sorry.</Say></Response>"
    record = await fake_server.call(WaitForHangup(3))
    assert record.spoken_by_twilio == ["First.", "Sorry."] and record.spoken_before_stream == 1


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("wss://bridge.example.com/media-stream?a=1", 31920),
        ("https://bridge.example.com/media-stream", 31922),
        ("ws://far.example.com/media-stream", 31922),
        ("wss://far.example.com/media-stream", 31902),
        ("wss://[", 31923),
        ("/media-stream", 31923),
    ],
)
async def test_after_a_stream_that_cannot_be_opened_the_next_verb_runs(
    fake_server: FakeServer, url: str, code: int
) -> None:
    fake_server.documents["/twilio/voice"] = (
        f'<Response><Connect><Stream url="{url}"/></Connect><Say>Sorry.</Say></Response>'
    )
    record = await fake_server.call(HangUp())
    assert record.error_codes == [code]
    assert record.spoken_by_twilio == ["Sorry."] and fake_server.socket is None


async def test_a_rejected_handshake_sends_stream_error_and_requests_the_action_url(
    fake_server: FakeServer,
) -> None:
    fake_server.refuse_socket = True
    record = await fake_server.call(
        HangUp(), faults=TwilioFaults(bad_signature=True, signature_faults="stream"), rng_seed=3
    )
    assert record.error_codes == [31920]
    assert fake_server.handshake is not None
    wrong = fake_server.handshake.headers["X-Twilio-Signature"]
    assert wrong != sign(TOKEN, "wss://bridge.example.com/media-stream")
    (form,) = fake_server.params("/twilio/stream")
    assert form["StreamEvent"] == "stream-error" and "403" in form["StreamError"]
    assert len(fake_server.params("/twilio/after")) == 1


async def test_ws_without_tls_is_allowed_on_loopback(fake_server: FakeServer) -> None:
    fake_server.refuse_unsigned = False
    media_url = fake_server.base_url.replace("http", "ws") + "/media-stream"
    fake_server.documents["/twilio/voice"] = (
        f'<Response><Connect><Stream url="{media_url}"/></Connect></Response>'
    )
    record = await fake_server.call(Pause(50), public_url=None)
    assert record.errors == [] and record.frames
    assert fake_server.handshake is not None
    assert fake_server.handshake.headers["X-Twilio-Signature"] == sign(TOKEN, media_url)


# Faults


async def test_no_stop_closes_the_socket_without_a_stop_message(fake_server: FakeServer) -> None:
    record = await fake_server.call(Pause(50), faults=TwilioFaults(no_stop=True))
    assert fake_server.socket is not None
    assert record.ended_by == "caller" and fake_server.socket.received[-1]["event"] == "media"


async def test_a_dropped_connection_is_lost_and_requests_the_action_url(fake_server: FakeServer) -> None:
    record = await fake_server.call(WaitForHangup(3), faults=TwilioFaults(drop_after_seconds=0.1))
    assert fake_server.socket is not None and fake_server.socket.received[-1]["event"] == "media"
    assert record.ended_by == "lost" and len(fake_server.params("/twilio/after")) == 1


async def test_a_vanished_peer_neither_sends_nor_reads_until_the_server_closes(
    fake_server: FakeServer,
) -> None:
    async def close_after_silence(socket: Socket) -> None:
        await socket.read_until("start")
        with pytest.raises(TimeoutError):
            while True:
                await asyncio.wait_for(socket.ws.receive_str(), 0.3)
        await socket.play(TONE_ULAW)
        assert fake_server.handshake is not None and fake_server.handshake.transport is not None
        fake_server.handshake.transport.close()

    fake_server.handler = close_after_silence
    record = await fake_server.call(WaitForHangup(5), faults=TwilioFaults(vanish_after_seconds=0.1))
    assert record.ended_by == "lost" and record.received == []
    assert 1 <= len(record.frames) < 15


async def test_start_can_be_missing_doubled_or_carry_a_forged_ticket(fake_server: FakeServer) -> None:
    async def expect_start(socket: Socket) -> None:
        await socket.read_until("connected")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.ws.receive_str(), 0.1)

    listen, fake_server.handler = fake_server.handler, expect_start
    record = await fake_server.call(Say("correct"), faults=TwilioFaults(no_start=True))
    assert (record.ended_by, record.frames, record.started_at) == ("server", [], None)

    fake_server.handler = listen
    await fake_server.call(
        Pause(900),
        faults=TwilioFaults(double_start=True, bad_ticket=True, wrong_stream_sid_after_seconds=0.6),
    )
    assert fake_server.socket is not None
    received = fake_server.socket.received
    starts = [message["start"] for message in received if message["event"] == "start"]
    assert len(starts) == 2 and starts[0]["customParameters"]["ticket"] != "one-time"
    sids = [message["streamSid"] for message in received if message["event"] == "media"]
    assert sids[0] == starts[0]["streamSid"] and sids[-1] != sids[0]


async def test_a_server_that_does_not_read_loses_caller_audio(
    fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.twilio.media_stream.MAX_UNSENT_BYTES", -1)
    record = await fake_server.call(Pause(100))
    assert record.frames == [] and record.frames_dropped >= 2 and record.error_codes == [31930]


async def test_any_message_can_be_sent_and_a_timeout_is_recorded(fake_server: FakeServer) -> None:
    record = await fake_server.call(SendRaw('{"event":"strange"}'), Listen(timeout_seconds=0.05))
    assert fake_server.socket is not None
    assert {"event": "strange"} in fake_server.socket.received
    assert record.error_codes == [0] and record.ended_by == "caller"


async def test_the_caller_hangs_up_at_the_limit_of_the_call(fake_server: FakeServer) -> None:
    record = await fake_server.call(WaitForHangup(60), limit_seconds=0.3)
    assert (record.ended_by, record.error_codes) == ("caller", [0])
    assert fake_server.socket is not None and fake_server.socket.received[-1]["event"] == "stop"
