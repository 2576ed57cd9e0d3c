"""The Vapi simulator, tested by a client over real HTTP and real websockets."""

import asyncio
import base64
import json
import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from django.conf import settings
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sandbox.faults import VapiFaults
from sandbox.speech import audio as sound
from sandbox.vapi.recognizer import SpeechRecognizer
from sandbox.vapi.record import BoundedList, VapiCallRecord
from sandbox.vapi.server import VapiSimulator
from sandbox.vapi.speech_detector import HANGOVER_MS, SpeechDetector, SpeechEnded, SpeechStarted
from sandbox.vapi.speech_output import AudioFormat, SampleDecoder, plan_clip

pytestmark = pytest.mark.slow

PCM = AudioFormat("pcm_s16le", 16_000)
MULAW = AudioFormat("mulaw", 8_000)
CLIPS = sound.load_clips()
CALLER = [clip for clip in CLIPS.values() if clip.speaker == "caller"]
QUICK = VapiFaults(
    delay_ms=(200, 240), first_audio_delay_seconds=0.16, greets=False, report_delay_seconds=0.01
)


def make_faults(**changes: Any) -> VapiFaults:
    defaults = {name: getattr(QUICK, name) for name in ("delay_ms", "first_audio_delay_seconds", "greets")}
    return VapiFaults(**{**defaults, "report_delay_seconds": 0.01, **changes})


def request_body(audio_format: AudioFormat = PCM, **changes: Any) -> dict[str, Any]:
    requested_format = {"format": audio_format.name, "container": "raw", "sampleRate": audio_format.rate}
    return {
        "assistantId": "a-1",
        "assistantOverrides": {"metadata": {"callSid": "CA1"}},
        "transport": {"provider": "vapi.websocket", "audioFormat": requested_format},
        **changes,
    }


def require_time(at: float | None) -> float:
    """The time, which must be set by now."""
    assert at is not None
    return at


async def post(vapi: VapiSimulator, body: Any, **headers: str) -> tuple[int, Any]:
    headers = {"Authorization": "Bearer sandbox-key", "User-Agent": "test/1", **headers}
    async with (
        aiohttp.ClientSession() as http,
        http.post(vapi.base_url + "/call", json=body, headers=headers) as response,
    ):
        is_json = response.content_type == "application/json"
        return response.status, await (response.json() if is_json else response.text())


async def send_json(url: str, body: Any) -> int:
    async with aiohttp.ClientSession() as http, http.post(url, json=body) as response:
        return response.status


class Client:
    """The bridge's role in these tests: it sends the caller's audio and keeps what it receives."""

    def __init__(self, ws: ClientConnection, audio_format: AudioFormat, created: dict[str, Any]) -> None:
        self.ws = ws
        self.format = audio_format
        self.created = created
        self.audio: list[tuple[float, bytes]] = []
        self.events: list[dict[str, Any]] = []
        self.unparsed: list[str] = []
        self._received = asyncio.Event()
        self._noise_seed = 0
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for message in self.ws:
                if isinstance(message, bytes):
                    self.audio.append((time.monotonic(), message))
                else:
                    self._text(message)
                self._received.set()
        except ConnectionClosed:
            pass
        self._received.set()

    def _text(self, message: str) -> None:
        try:
            event = json.loads(message)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            self.unparsed.append(message)
        elif event.get("type") == "audio":
            self.audio.append((time.monotonic(), base64.b64decode(event["data"])))
        else:
            self.events.append(event)

    async def wait_for_event(self, timeout_seconds: float = 5.0, **fields: Any) -> dict[str, Any]:
        async with asyncio.timeout(timeout_seconds):
            while True:
                for event in self.events:
                    if fields.items() <= event.items():
                        return event
                self._received.clear()
                await self._received.wait()

    async def wait_for_audio(self, seconds: float) -> None:
        """Wait for this much of the assistant's audio."""
        async with asyncio.timeout(5):
            while sum(len(chunk) for _, chunk in self.audio) < seconds * self.format.bytes_per_second:
                self._received.clear()
                await self._received.wait()

    async def wait_until_closed(self) -> int | None:
        async with asyncio.timeout(5):
            await self._reader
        return self.ws.close_code

    def names(self) -> list[str]:
        return [
            " ".join(str(event[key]) for key in ("type", "role", "status", "transcriptType") if key in event)
            for event in self.events
        ]

    async def say(self, *names: str, paced: bool = False) -> None:
        """Send clips, each followed by 260 ms of line noise, in 20 ms frames: at once, or in real time."""
        for name in names:
            await self.send_pcm(np.concatenate([CLIPS[name].pcm_8k, np.zeros(2080, np.int16)]), paced=paced)

    async def barge_in(self) -> None:
        """Half a second of speech in real time, then quiet."""
        await self.send_pcm(CLIPS["correct"].pcm_8k[:4000], paced=True)
        await self.send_pcm(np.zeros(2080, np.int16))

    async def send_pcm(self, pcm_8k: sound.Pcm, *, paced: bool = False) -> None:
        self._noise_seed += 1
        pcm_8k = pcm_8k + sound.line_noise(self._noise_seed, len(pcm_8k))
        if self.format.name == "mulaw":
            audio = sound.ulaw_encode(pcm_8k)
        else:
            audio = sound.to_16k(pcm_8k).astype("<i2").tobytes()
        frame = self.format.bytes_per_second // 50
        started_at = time.monotonic()
        for index in range(0, len(audio), frame):
            if paced:
                await asyncio.sleep(max(0.0, started_at + index / frame * 0.02 - time.monotonic()))
            await self._frame(audio[index : index + frame])

    async def _frame(self, frame: bytes) -> None:
        await self.ws.send(frame)

    async def send(self, **message: Any) -> None:
        await self.ws.send(json.dumps(message))


class SocketClient(Client):
    async def _frame(self, frame: bytes) -> None:
        await self.send(type="audio", data=base64.b64encode(frame).decode())


@asynccontextmanager
async def call_on(
    vapi: VapiSimulator, audio_format: AudioFormat = PCM, **changes: Any
) -> AsyncIterator[tuple[Client, VapiCallRecord]]:
    status, created = await post(vapi, request_body(audio_format, **changes))
    assert status == 201, created
    async with connect(
        created["transport"]["websocketCallUrl"], compression=None, proxy=None, close_timeout=1
    ) as ws:
        yield Client(ws, audio_format, created), await vapi.call_for("CA1")


@asynccontextmanager
async def socket_dialect_call(vapi: VapiSimulator) -> AsyncIterator[tuple[SocketClient, VapiCallRecord]]:
    async with connect(vapi.socket_url, compression=None, proxy=None, close_timeout=1) as ws:
        client = SocketClient(ws, MULAW, {})
        await client.send(type="assistant-request", assistantId="a-1", metadata={"callSid": "CA9"})
        yield client, await vapi.call_for("CA9")


def energy_simulator(faults: VapiFaults = QUICK, **changes: Any) -> VapiSimulator:
    return VapiSimulator(listen="energy", faults=faults, **changes)


# Creating a call


async def test_it_creates_a_call_with_an_unguessable_url() -> None:
    async with energy_simulator() as vapi:
        status, created = await post(vapi, request_body(name="twilio-CA1"))
        assert (status, created["status"]) == (201, "queued")
        url = created["transport"]["websocketCallUrl"]
        assert url.startswith(f"ws://127.0.0.1:{vapi.port}/{created['id']}/transport?")
        assert created["subscriptionLimits"]["concurrencyBlocked"] is False
        for wrong_url in (url[:-1], url.split("?")[0], url.replace(created["id"], "other")):
            with pytest.raises(InvalidStatus):
                await connect(wrong_url, proxy=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transport": {"provider": "twilio"}}, "transport.provider"),
        ({"transport": None}, "transport.provider"),
        ({"assistantId": None}, "one of assistantId"),
        ({"metadata": {}}, "property metadata should not exist"),
        ({"name": "x" * 41}, "name must be shorter"),
        ({"phoneNumberId": "p"}, "phoneNumberId must not"),
        ({"customer": {"number": "+" * 41}}, "customer.number"),
        ({"customer": []}, "customer must be"),
        ({"assistantOverrides": {"endpointing": 300}}, "property endpointing"),
        ({"assistantOverrides": []}, "must be an object"),
        ({"assistantOverrides": {"server": "https://x"}}, "assistantOverrides.server must be an object"),
        ({"assistantOverrides": {"clientMessages": ["gossip"]}}, "gossip"),
        ({"assistantOverrides": {"serverMessages": "all"}}, "must be an array"),
        ({"assistantOverrides": {"maxDurationSeconds": 5}}, "from 10 to 43200"),
        ({"assistantOverrides": {"startSpeakingPlan": {"waitSeconds": True}}}, "waitSeconds"),
        ({"assistantOverrides": {"transcriber": {"endpointing": 300}}}, "transcriber.provider"),
        ({"assistantVersion": 1, "assistantId": None, "assistant": {}}, "assistantVersion"),
        ({"assistantId": 7}, "assistantId must be a string"),
    ],
)
async def test_it_rejects_undocumented_fields_and_values(changes: dict[str, Any], message: str) -> None:
    async with energy_simulator() as vapi:
        status, answer = await post(vapi, request_body(**changes))
        assert (status, answer["statusCode"]) == (400, 400)
        assert any(message in text for text in answer["message"])
        assert not vapi.calls and vapi.rejected_requests[0][1] == 400


@pytest.mark.parametrize(
    ("audio_format", "message"),
    [
        ({"format": "opus"}, "format must be"),
        ({"format": "mulaw", "sampleRate": 16_000}, "sampleRate"),
        ({"format": "mulaw", "container": "wav"}, "container"),
        ({"format": "mulaw", "bits": 8}, "property bits"),
        ("mulaw", "must be an object"),
    ],
)
async def test_it_rejects_unsupported_audio_formats(audio_format: Any, message: str) -> None:
    transport = {"provider": "vapi.websocket", "audioFormat": audio_format}
    async with energy_simulator() as vapi:
        status, answer = await post(vapi, request_body(transport=transport))
        assert status == 400 and message in answer["message"][0]


async def test_it_requires_the_key_a_user_agent_and_json() -> None:
    async with energy_simulator() as vapi:
        status, answer = await post(vapi, request_body(), Authorization="Bearer public-key")
        assert (status, answer["error"]) == (401, "Unauthorized")
        assert await post(vapi, request_body(), **{"User-Agent": ""}) == (403, "error code: 1010")
        assert (await post(vapi, ["not", "an", "object"]))[0] == 400
        headers = {"Authorization": "Bearer sandbox-key"}
        async with aiohttp.ClientSession(headers=headers) as http:
            async with http.post(vapi.base_url + "/call", data=b"{") as response:
                assert response.status == 400
            async with http.get(vapi.base_url + "/call/unknown") as response:
                assert response.status == 404
        async with aiohttp.ClientSession() as http, http.get(vapi.base_url + "/call/x") as response:
            assert response.status == 401


async def test_rest_and_handshake_faults_apply() -> None:
    async with energy_simulator(make_faults(rest_status=503, rest_failures=1)) as vapi:
        assert (await post(vapi, request_body()))[0] == 503
        assert (await post(vapi, request_body()))[0] == 201
    async with energy_simulator(make_faults(rest_html=True)) as vapi:
        status, answer = await post(vapi, request_body())
        assert status == 200 and answer.startswith("<html>")
    async with energy_simulator(
        make_faults(rest_no_url=True, rest_huge=True, concurrency_blocked=True)
    ) as vapi:
        status, answer = await post(vapi, request_body())
        assert status == 201 and "websocketCallUrl" not in answer["transport"]
        assert len(answer["padding"]) > 1 << 20
        assert answer["subscriptionLimits"] == {
            "concurrencyBlocked": True,
            "concurrencyLimit": 1000,
            "remainingConcurrentCalls": 0,
        }
    async with energy_simulator(make_faults(ws_refuse=True)) as vapi:
        with pytest.raises(InvalidStatus, match="403"):
            async with call_on(vapi):
                pass


async def test_a_call_without_a_connection_ends() -> None:
    async with energy_simulator(make_faults(connect_timeout_seconds=0.05)) as vapi:
        _, created = await post(vapi, request_body())
        call = await vapi.call_for("CA1")
        await vapi.until(lambda: call.ended_at)
        assert "never-connected" in call.ended_reason
        with pytest.raises(InvalidStatus, match="404"):
            await connect(created["transport"]["websocketCallUrl"], proxy=None)


async def test_a_call_accepts_one_connection() -> None:
    async with energy_simulator() as vapi, call_on(vapi) as (client, _):
        with pytest.raises(InvalidStatus, match="404"):
            await connect(client.created["transport"]["websocketCallUrl"], proxy=None)


# Audio both ways


async def test_it_answers_after_the_random_delay_and_records_every_byte() -> None:
    script = [CLIPS["book_table"].text]
    async with energy_simulator(seed=4, script=script) as vapi, call_on(vapi) as (client, call):
        await client.say("correct")
        await client.wait_for_event(type="transcript", role="assistant", transcriptType="final")
        reply = call.replies[0]
        assert (reply.clip, reply.cut_at) == ("table_booked", None)
        delay_ms = require_time(reply.delay_ms)
        assert 200 <= delay_ms <= 240
        assert delay_ms - 2 <= require_time(reply.response_latency_ms) <= delay_ms + 60
        received = b"".join(chunk for _, chunk in client.audio)
        assert received == call.sent_audio == reply.sent
        assert received == sound.to_16k(CLIPS["table_booked"].pcm_8k).astype("<i2").tobytes()
        assert call.received_bytes == len(call.received_audio) > PCM.bytes_per_second
        # The first audible chunk is the recorded one.
        decode = SampleDecoder(PCM)
        loud = [at for at, chunk in reply.chunks if sound.level_dbfs(decode(chunk)) > -60]
        assert loud[0] == require_time(reply.first_audible_sent_at) > require_time(reply.first_sent_at)


async def test_events_are_sent_in_the_order_of_a_real_call() -> None:
    script = [CLIPS["book_table"].text]
    async with energy_simulator(script=script) as vapi, call_on(vapi, MULAW) as (client, call):
        await client.say("correct", paced=True)
        await client.wait_for_event(type="conversation-update")
        assert b"".join(chunk for _, chunk in client.audio) == sound.ulaw_encode(CLIPS["table_booked"].pcm_8k)
        assert client.names() == [
            "status-update in-progress",
            "assistant.started",
            "speech-update user started",
            "transcript user partial",
            "transcript user final",
            "model-output",
            "voice-input",
            "speech-update assistant started",
            "speech-update user stopped",  # late, as on the real service
            "speech-update assistant stopped",
            "transcript assistant partial",
            "transcript assistant final",
            "conversation-update",
        ]
        assert [(who, words) for _, who, words in call.transcripts] == [
            ("caller", CLIPS["book_table"].text),  # the first text of the script, independent of the audio
            ("assistant", CLIPS["table_booked"].text),
        ]


async def test_it_greets_and_sends_only_subscribed_events() -> None:
    overrides = {
        "metadata": {"callSid": "CA1"},
        "clientMessages": ["speech-update", 'transcript[transcriptType="final"]'],
    }
    greeter = energy_simulator(make_faults(greets=True, burst=True))
    async with greeter as vapi, call_on(vapi, assistantOverrides=overrides) as (client, call):
        await client.wait_for_audio(CLIPS["greeting"].duration_ms / 1000)
        await client.say("correct")
        await client.wait_for_event(type="transcript")
        assert client.names() == ["speech-update assistant started", "transcript user final"]
        sent = [at for at, _ in call.replies[0].chunks]
        assert sent[-1] - sent[0] < 0.5, "burst: all at once"
        assert 0.1 < require_time(call.replies[0].first_sent_at) - require_time(call.opened_at) < 0.5


@pytest.mark.parametrize("audio_format", [PCM, MULAW], ids=["pcm", "mulaw"])
def test_chunks_are_irregular_and_near_real_time(audio_format: AudioFormat) -> None:
    plan = plan_clip(CLIPS["long_story"], audio_format, random.Random(3), burst=False, odd=True)
    sizes = [len(chunk.audio) for chunk in plan.chunks]
    frame = audio_format.bytes_per_second // 50
    assert sum(size % frame == 0 for size in sizes) <= 1
    assert max(sizes) <= 743 * audio_format.bytes_per_second // 8000
    assert len(set(sizes)) > len(sizes) // 4
    if audio_format is PCM:
        assert 0.25 < sum(size % 2 for size in sizes) / len(sizes) < 0.75
    position_seconds = 0.0
    for chunk in plan.chunks:
        assert chunk.due_seconds <= max(0.0, position_seconds), "never late: playback would underrun"
        assert chunk.due_seconds >= position_seconds - 0.2, "never far ahead"
        position_seconds = chunk.end_seconds
    assert math.isclose(position_seconds, plan.duration_seconds)
    pauses = np.diff([chunk.due_seconds for chunk in plan.chunks])
    assert np.count_nonzero(pauses == 0) >= len(pauses) // 3, "chunks come in pairs"
    assert 0.035 < np.median(pauses[pauses > 0]) < 0.07


def test_the_same_seed_gives_the_same_chunks() -> None:
    def sizes(seed: int) -> list[int]:
        plan = plan_clip(CLIPS["sorry"], PCM, random.Random(seed), burst=False, odd=True)
        return [len(chunk.audio) for chunk in plan.chunks]

    assert sizes(5) == sizes(5) != sizes(6)


def test_a_sample_split_over_two_chunks_is_decoded() -> None:
    decode = SampleDecoder(PCM)
    assert [list(decode(piece)) for piece in (b"\x01", b"\x00\x02", b"\x00\x03\x00")] == [[], [1], [2, 3]]


# Listening


@pytest.mark.parametrize("clip", CALLER, ids=lambda clip: clip.name)
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_it_detects_each_clip_as_one_utterance_and_ignores_noise(clip: sound.Clip, rate: int) -> None:
    pcm = np.concatenate([np.zeros(4000, np.int16), clip.pcm_8k, np.zeros(4000, np.int16)])
    pcm = sound.resample(pcm + sound.line_noise(11, len(pcm)), 8_000, rate)
    frame = rate // 50
    detector = SpeechDetector(rate)
    events = []
    for index in range(
        0, len(pcm), frame
    ):  # time in this test is the position in the audio, at the end of a frame
        events += detector.feed(pcm[index : index + frame], (index + frame) / rate)
    started, ended = events
    assert isinstance(started, SpeechStarted) and isinstance(ended, SpeechEnded)
    assert started.at == pytest.approx(0.5 + clip.speech_start_ms / 1000, abs=0.041)
    assert ended.at == pytest.approx(0.5 + clip.speech_end_ms / 1000, abs=0.041)
    assert len(ended.pcm) / rate > (clip.speech_end_ms - clip.speech_start_ms + HANGOVER_MS) / 1000
    assert detector.speech_ms == 0


def test_a_click_is_not_speech_and_a_long_utterance_is_split() -> None:
    detector = SpeechDetector(8_000)
    loud = np.full(240, 8_000, np.int16)
    assert detector.feed(np.concatenate([loud, np.zeros(8_000, np.int16)]), 1.0) == []
    events = detector.feed(np.full(8_000 * 31, 8_000, np.int16), 2.0)
    assert [type(event) for event in events[:2]] == [SpeechStarted, SpeechEnded]


# Barge-in


@pytest.mark.parametrize("audio_format", [PCM, MULAW], ids=["pcm", "mulaw"])
async def test_it_stops_on_barge_in_and_answers_the_new_utterance(audio_format: AudioFormat) -> None:
    script = ["yes that is correct", "stop i want to talk to a person"]
    async with (
        energy_simulator(script=script) as vapi,
        call_on(vapi, audio_format) as (client, call),
    ):
        await client.say("correct")
        await vapi.until(lambda: call.replies and call.replies[0].first_audible_sent_at)
        reply = call.replies[0]
        started_at = time.monotonic()
        await client.barge_in()
        await vapi.until(lambda: len(call.answers) == 2 and call.answers[1].first_audible_sent_at)
        assert reply.cut_at == call.interrupted_at[0]
        assert 0.2 <= require_time(reply.cut_at) - started_at < 0.5
        assert require_time(reply.last_sent_at) <= reply.cut_at
        assert len(call.interrupted_at) == 1 and call.answers[1].clip == "transfer"
        names = client.names()
        index = names.index("user-interrupted")
        assert names[index + 1 : index + 3] == [
            "speech-update user started",
            "speech-update assistant stopped",
        ]
        interrupted = client.events[index]
        output = next(event for event in client.events if event.get("output") == CLIPS["long_story"].text)
        assert interrupted["turnId"] == output["turnId"]
        spoken_words = next(words for _, who, words in call.transcripts if who == "assistant")
        assert CLIPS["long_story"].text.startswith(spoken_words)
        assert 0 < len(spoken_words) < len(CLIPS["long_story"].text) / 2


async def test_user_interrupted_can_be_suppressed() -> None:
    script = [CLIPS["correct"].text]
    async with (
        energy_simulator(make_faults(no_interrupted=True), script=script) as vapi,
        call_on(vapi) as (client, call),
    ):
        await client.say("correct")
        await client.wait_for_audio(0.05)
        await client.barge_in()
        await client.wait_for_event(type="speech-update", role="assistant", status="stopped")
        assert call.replies[0].cut_at == call.interrupted_at[0]
        assert "user-interrupted" not in client.names()


async def test_the_greeting_can_be_uninterruptible() -> None:
    faults = make_faults(greets=True, greeting_interruptible=False)
    async with energy_simulator(faults) as vapi, call_on(vapi) as (client, call):
        await client.wait_for_audio(0.05)
        await client.barge_in()
        await vapi.until(lambda: call.utterances)
        assert call.replies[0].cut_at is None and not call.interrupted_at
        before = len(client.audio)
        await client.wait_for_audio(1.0)
        assert len(client.audio) > before


# Commands


async def test_it_records_digits_and_answers_only_if_a_response_is_triggered() -> None:
    async with energy_simulator() as vapi, call_on(vapi) as (client, call):
        message = {"role": "system", "content": "The caller pressed 42#"}
        await client.send(type="add-message", message=message, triggerResponseEnabled=False)
        await client.send(type="add-message", message={**message, "content": "caller pressed 7"})
        await vapi.until(lambda: call.replies and call.replies[0].first_audible_sent_at)
        assert call.digits_received == ["42#", "7"]
        assert len(call.replies) == 1 and call.replies[0].delay_ms is None


async def test_say_and_mute_control_the_assistant() -> None:
    async with energy_simulator() as vapi, call_on(vapi) as (client, call):
        control = client.created["monitor"]["controlUrl"]
        assert await send_json(control, {"type": "say", "content": CLIPS["sorry"].text}) == 200
        await vapi.until(lambda: call.replies and call.replies[0].first_audible_sent_at)
        assert await send_json(control, {"type": "control", "control": "mute-assistant"}) == 200
        await vapi.until(lambda: call.replies[0].done_at)
        assert call.replies[0].clip == "sorry" and call.replies[0].cut_at is not None
        assert await send_json(control, {"type": "control", "control": "unmute-assistant"}) == 200
        assert await send_json(control, {"type": "control", "control": "say-first-message"}) == 200
        await vapi.until(lambda: len(call.replies) == 2)
        await client.send(
            type="say", content="Goodbye then", endCallAfterSpoken=True, interruptAssistantEnabled=True
        )
        await vapi.until(lambda: len(call.replies) == 3)
        assert await send_json(control, {"type": "dance"}) == 400
        assert await send_json(control.split("?")[0], {"type": "end-call"}) == 404
        assert await send_json(control, ["end-call"]) == 400
        assert await send_json(control, {"type": "control", "control": "mute-customer"}) == 200
        await client.say("correct")
        await client.send(type="cancel-everything")
        await client.ws.send("not json")
        await vapi.until(lambda: "not json" in [text for _, text in call.messages_received])
        assert not call.utterances


# The end of a call


async def test_end_call_ends_the_call_and_closes_the_socket_with_1000() -> None:
    async with energy_simulator() as vapi, call_on(vapi) as (client, call):
        await client.ws.ping()
        await client.send(type="end-call")
        ended = await client.wait_for_event(type="status-update", status="ended")
        assert ended["endedReason"] == call.ended_reason == "customer-ended-call"
        assert await client.wait_until_closed() == 1000
        await vapi.until(lambda: call.closed_at)
        assert not call.is_active and not call.is_orphaned
        times = [require_time(at) for at in (call.opened_at, call.end_call_at, call.ended_at, call.closed_at)]
        assert times == sorted(times)
        assert (call.pings, call.close_code) == (1, 1000)
        assert await send_json(client.created["monitor"]["controlUrl"], {"type": "end-call"}) == 400


async def test_a_closed_socket_leaves_an_orphaned_call_until_the_control_url_ends_it() -> None:
    async with energy_simulator() as vapi:
        async with call_on(vapi) as (client, call):
            pass
        await vapi.until(lambda: call.closed_at)
        assert call.is_orphaned and vapi.active_calls() == [call]
        control = client.created["monitor"]["controlUrl"]
        assert await send_json(control, {"type": "say", "content": "anybody there?"}) == 200
        assert await send_json(control, {"type": "end-call"}) == 200
        assert not call.is_orphaned and call.ended_reason == "manually-canceled"
        assert call.end_call_at is not None


async def test_the_assistant_says_goodbye_and_ends_the_call() -> None:
    async with (
        energy_simulator(script=["thank you goodbye"]) as vapi,
        call_on(vapi) as (client, call),
    ):
        await client.say("goodbye")
        ended = await client.wait_for_event(type="status-update", status="ended")
        assert ended["endedReason"] == "assistant-ended-call"
        assert await client.wait_until_closed() == 1000
        assert call.replies[0].clip == "farewell" and call.replies[0].cut_at is None
        assert b"".join(chunk for _, chunk in client.audio) == call.sent_audio


@pytest.mark.parametrize(
    ("changes", "code", "is_active"),
    [
        ({"end_after_seconds": 0.05, "ended_reason": "silence-timed-out"}, 1000, False),
        ({"close_after_seconds": 0.05, "close_code": 1011}, 1011, True),
        ({"close_after_seconds": 0.05, "close_code": 1005}, 1005, False),
        ({"close_after_seconds": 0.05, "close_code": 1006}, 1006, True),
        ({"abort_after_seconds": 0.05}, 1006, True),
    ],
)
async def test_the_faults_at_the_end_of_a_call_apply(
    changes: dict[str, Any], code: int, is_active: bool
) -> None:
    async with energy_simulator(make_faults(**changes)) as vapi, call_on(vapi) as (client, call):
        assert await client.wait_until_closed() == code
        await vapi.until(lambda: call.closed_at)
        assert call.close_code == code and call.is_active == is_active


def has_utterances(call: VapiCallRecord, count: int) -> bool:
    return len(call.utterances) >= count


async def test_a_stalled_assistant_still_answers_pings() -> None:
    async with (
        energy_simulator(make_faults(stall_after_turns=0)) as vapi,
        call_on(vapi) as (client, call),
    ):
        await client.wait_for_event(type="assistant.started")
        before = len(client.events)
        for number in range(1, 3):  # until the second has ended, an answer to the first is long overdue
            await client.say("correct")
            await vapi.until(partial(has_utterances, call, number))
        async with asyncio.timeout(2):
            await (await client.ws.ping())
        assert not call.replies and len(client.events) == before


async def test_junk_events_are_invalid() -> None:
    async with (
        energy_simulator(make_faults(junk_events=True)) as vapi,
        call_on(vapi) as (client, call),
    ):
        await client.say("correct")
        final = await client.wait_for_event(type="transcript", transcriptType="final")
        assert final["transcript"].endswith("\x00\ud800")
        await client.wait_for_event(type="tomorrow.invented")
        assert "[]" in client.unparsed


# Reports


async def test_it_reports_the_call_to_the_server_url_and_over_rest() -> None:
    posted: list[tuple[str, str, dict[str, Any]]] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.json()
        posted.append((request.headers["X-Vapi-Secret"], request.query["call_sid"], body["message"]))
        return web.Response(status=204)

    server = web.Application()
    server.router.add_post("/vapi/events", take)
    runner = web.AppRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    overrides = {
        "metadata": {"callSid": "CA1"},
        "server": {
            "url": f"http://127.0.0.1:{runner.addresses[0][1]}/vapi/events?call_sid=CA1",
            "headers": {"X-Vapi-Secret": "s3cret"},
        },
        "serverMessages": ["status-update", "end-of-call-report"],
    }
    try:
        async with energy_simulator(make_faults(burst=True), script=[CLIPS["book_table"].text]) as vapi:
            async with call_on(vapi, assistantOverrides=overrides) as (client, call):
                await client.say("correct")
                await client.wait_for_audio(CLIPS["table_booked"].duration_ms / 1000)
                await client.send(type="end-call")
                await client.wait_until_closed()
            await vapi.until(lambda: len(call.webhooks_posted) == 3)
            headers = {"Authorization": "Bearer sandbox-key"}
            url = f"{vapi.base_url}/call/{call.id}"
            async with aiohttp.ClientSession(headers=headers) as http, http.get(url) as response:
                ended_call = await response.json()
    finally:
        await runner.cleanup()
    assert [status for _, _, status in call.webhooks_posted] == [204] * 3
    assert {(secret, sid) for secret, sid, _ in posted} == {("s3cret", "CA1")}
    kinds = [(message["type"], message.get("status")) for _, _, message in posted]
    assert kinds == [
        ("status-update", "in-progress"),
        ("status-update", "ended"),
        ("end-of-call-report", None),
    ]
    report = posted[-1][2]
    assert report["endedReason"] == "customer-ended-call" and report["call"]["id"] == call.id
    assert report["cost"] >= 0 and {item["type"] for item in report["costs"]} >= {"transport", "vapi"}
    assert "book a table" in report["analysis"]["summary"]
    assert [message["role"] for message in report["artifact"]["messages"]] == ["user"]
    (turn,) = report["artifact"]["performanceMetrics"]["turnLatencies"]
    assert turn["turnLatency"] == pytest.approx(call.answers[0].response_latency_ms, abs=1)
    assert (ended_call["status"], ended_call["endedReason"]) == ("ended", "customer-ended-call")
    assert ended_call["artifact"]["performanceMetrics"]["turnLatencies"] == [turn]
    assert ended_call["monitor"]["controlUrl"]


async def test_a_report_that_cannot_be_delivered_is_ignored() -> None:
    server = {"url": "http://127.0.0.1:9/vapi/events", "secret": "s3cret"}
    overrides = {"metadata": {"callSid": "CA1"}, "server": server}
    async with (
        energy_simulator() as vapi,
        call_on(vapi, assistantOverrides=overrides) as (client, call),
    ):
        await client.send(type="end-call")
        await vapi.until(lambda: len(call.webhooks_posted) == 3)
        assert {status for _, _, status in call.webhooks_posted} == {0}
    async with energy_simulator(make_faults(no_reports=True)) as vapi:
        async with call_on(vapi, assistantOverrides=overrides) as (client, call):
            await client.send(type="end-call")
            assert await client.wait_until_closed() == 1000
        assert not call.webhooks_posted


# The socket dialect


async def test_the_socket_dialect_uses_base64_audio_and_cancel() -> None:
    async with energy_simulator(script=["yes that is correct"]) as vapi:
        async with socket_dialect_call(vapi) as (client, call):
            await client.say("correct")
            await client.wait_for_audio(0.5)
            await client.send(
                type="add-message", message={"content": "pressed 5"}, triggerResponseEnabled=False
            )
            await client.send(type="cancel")
            await client.wait_for_event(type="transcript", role="assistant", timeout_seconds=2)
            reply = call.replies[0]
            assert require_time(reply.last_sent_at) <= require_time(reply.cut_at) <= call.cancelled_at[0]
            assert b"".join(chunk for _, chunk in client.audio) == reply.sent
            assert {name.split()[0] for name in client.names()} == {"transcript"}
            assert call.digits_received == ["5"] and call.dialect == "socket"
            await client.send(type="audio", data="*")
            await client.send(type="end-call")
            assert await client.wait_until_closed() == 1000
        assert not call.is_active and call.end_call_at is not None


async def test_the_socket_dialect_sends_only_audio_and_ends_with_its_socket() -> None:
    async with energy_simulator(make_faults(socket_events=False), script=["yes that is correct"]) as vapi:
        async with socket_dialect_call(vapi) as (client, call):
            await client.say("correct")
            await vapi.until(lambda: call.utterances)
            # It does not detect a barge-in by itself: the client has to send `cancel`.
            await vapi.until(lambda: call.replies and call.replies[0].first_audible_sent_at)
            await client.barge_in()
            assert not client.events and not call.transcripts and call.replies[0].cut_at is None
        await vapi.until(lambda: call.ended_at)
        assert not call.is_active


async def test_a_socket_without_an_assistant_request_is_closed() -> None:
    async with energy_simulator() as vapi:
        for first_message in ("{", "[]", '{"type":"audio","data":""}'):
            async with connect(vapi.socket_url, proxy=None) as ws:
                await ws.send(first_message)
                with pytest.raises(ConnectionClosed):
                    await ws.recv()
                assert ws.close_code == 1008
        assert not vapi.calls


# The command


async def test_the_command_serves_until_it_is_interrupted() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "manage.py", "sandbox", "--port", "0", "--listen", "energy"),
        cwd=settings.BASE_DIR,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            printed = (await process.stdout.readuntil(b"/socket\n")).decode()
            base_url = next(word for word in printed.split() if word.startswith("VAPI_BASE_URL="))
            assert "TWILIO_BASE_URL=http://127.0.0.1:" in printed and "TWILIO_PHONE_NUMBER=+1" in printed
            headers = {"Authorization": "Bearer sandbox-key"}
            url = base_url.partition("=")[2] + "/call"
            async with (
                aiohttp.ClientSession(headers=headers) as http,
                http.post(url, json=request_body()) as response,
            ):
                assert response.status == 201
            process.send_signal(signal.SIGINT)
            rest = (await process.stdout.read()).decode()
            assert (
                "= created" in rest
                and "Vapi calls: 1, never ended: 0" in rest
                and "ticket" not in printed + rest
            )
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# The record, and speech


def test_records_are_bounded_and_dropped_items_are_counted() -> None:
    items: BoundedList[int] = BoundedList(2)
    items.extend(range(5))
    assert items == [0, 1] and items.dropped == 3
    call = VapiCallRecord("1", "call", {}, 0.0, max_audio_bytes=3)
    call.record_audio(b"abc", 1.0)
    call.record_audio(b"d", 2.0)
    assert (call.received_audio, call.received_bytes, call.received.dropped) == (b"abc", 4, 1)


async def test_waiting_for_a_call_times_out() -> None:
    async with energy_simulator() as vapi:
        with pytest.raises(TimeoutError):
            await vapi.call_for("CA404", timeout_seconds=0.01)


@pytest.mark.speech
async def test_it_recognizes_each_sentence_word_for_word_from_either_line() -> None:
    recognizer = SpeechRecognizer()
    try:
        for clip in CALLER:
            line = np.concatenate([np.zeros(1600, np.int16), clip.pcm_8k, np.zeros(1440, np.int16)])
            line = line + sound.line_noise(2, len(line))
            over_mulaw = sound.ulaw_decode(sound.ulaw_encode(line))
            assert await recognizer.recognize(over_mulaw, 8_000) == clip.text
            assert await recognizer.recognize(sound.to_16k(line), 16_000) == clip.text
        assert await recognizer.recognize(np.zeros(0, np.int16), 8_000) == ""
        assert recognizer.failures == 0
    finally:
        await recognizer.stop()


@pytest.mark.speech
async def test_a_recognizer_process_that_died_is_restarted() -> None:
    recognizer = SpeechRecognizer()
    try:
        await recognizer.warm_up()
        assert recognizer.process is not None
        recognizer.process.kill()
        await recognizer.process.wait()
        clip = CLIPS["correct"]
        assert await recognizer.recognize(clip.pcm_8k, 8_000) == clip.text
    finally:
        await recognizer.stop()


@pytest.mark.speech
async def test_a_spoken_question_gets_the_matching_answer() -> None:
    async with (
        VapiSimulator(listen="speech", faults=QUICK) as vapi,
        call_on(vapi) as (client, call),
    ):
        await client.say("opening_hours")
        await vapi.until(lambda: call.answers and call.answers[0].first_audible_sent_at)
        assert call.answers[0].clip == "open_hours"
        assert [words for _, _, words in call.transcripts] == ["what are your opening hours"]
