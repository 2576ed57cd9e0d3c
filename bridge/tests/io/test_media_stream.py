"""`/media-stream` from end to end: the consumer, the runner and the link, with Vapi on a real socket.

The first part has one test for each way in which a call ends; the second tests calls that are live.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asgiref.sync import SyncToAsync

from bridge.call import inbound_media, session, turn_taking
from bridge.config import AudioFormat
from bridge.io import outbox, runner, vapi_client
from bridge.journal import (
    AssistantAnswered,
    StreamEnded,
    StreamRefused,
    StreamStarted,
    TimelineEvent,
    TurnTaken,
    UtteranceSpoken,
)
from bridge.tests.call.scenario import CALL, LOUD, SILENCE
from bridge.tests.io.peers import FakeVapi, ServerUnderTest, TwilioStream
from bridge.tests.samples import sample

MakeServer = Callable[..., ServerUnderTest]


@pytest.fixture
async def make_server(vapi: FakeVapi) -> AsyncIterator[MakeServer]:
    servers: list[ServerUnderTest] = []

    def make(**settings: Any) -> ServerUnderTest:
        servers.append(ServerUnderTest(vapi, **settings))
        return servers[-1]

    yield make
    for server in servers:
        await server.client.close()


@pytest.fixture
async def server(make_server: MakeServer) -> ServerUnderTest:
    return make_server()


# End reasons


async def test_a_stop_message_ends_the_call_as_caller_hung_up(
    server: ServerUnderTest, vapi: FakeVapi
) -> None:
    stream = await server.start_live_call()
    stream.send_stop()
    await stream.wait_closed()
    ended = await server.wait_ended()
    assert (ended.end_reason, ended.ended_by) == ("caller-hung-up", "caller")
    assert stream.close_code == 1000
    assert len(vapi.messages_of_type("end-call")) == 1, "without it Vapi's call continues, and costs money"
    assert vapi.close_code == 1000
    assert vapi.control_messages == []
    assert await server.call_cache.find(CALL) == "caller-hung-up"
    assert server.admission.live_calls == 0


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, "caller-hung-up"), (1001, "caller-hung-up"), (1006, "stream-lost")]
)
async def test_a_closed_socket_without_stop_ends_the_call(
    server: ServerUnderTest, vapi: FakeVapi, code: int, reason: str
) -> None:
    stream = await server.start_live_call()
    stream.disconnect(code)
    await stream.wait_closed()
    assert (await server.wait_ended()).end_reason == reason
    assert len(vapi.messages_of_type("end-call")) == 1
    assert server.admission.live_calls == 0


async def test_a_stream_without_media_ends_as_stream_lost(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MEDIA_SECONDS", 0.2)
    server = make_server()
    stream = await server.start_live_call()
    await stream.wait_closed()
    assert (await server.wait_ended()).end_reason == "stream-lost"


async def test_the_call_ends_after_the_assistants_last_audio_was_played(
    server: ServerUnderTest, vapi: FakeVapi
) -> None:
    stream = await server.start_live_call()
    stream.returns_marks = False
    await vapi.send(LOUD * 10)
    await vapi.send("status_ended")
    await vapi.close()
    await server.changes.wait_until(lambda: len(stream.marks()) == 2)
    assert stream.close_code is None
    stream.send(
        event="mark", streamSid="MZ00000000000000000000000000000001", mark={"name": stream.marks()[-1]}
    )
    await stream.wait_closed()
    ended = await server.wait_ended()
    assert (ended.end_reason, ended.vapi_ended_reason) == ("assistant-ended", "assistant-ended-call")
    assert stream.close_code == 1000
    assert stream.audio() == LOUD * 10
    assert vapi.messages_of_type("end-call") == []


@pytest.mark.parametrize("code", [1000, 1001])
async def test_a_normal_close_by_the_assistant_ends_the_call(
    server: ServerUnderTest, vapi: FakeVapi, code: int
) -> None:
    stream = await server.start_live_call()
    await vapi.close(code)
    await stream.wait_closed()
    ended = await server.wait_ended()
    assert (ended.end_reason, ended.vapi_close_code) == ("assistant-ended", code)
    assert vapi.control_messages == []


@pytest.mark.parametrize("code", [1011, 1012, 1013, 4000])
async def test_any_other_close_code_is_a_failure_and_ends_vapis_call_through_the_control_url(
    server: ServerUnderTest, vapi: FakeVapi, code: int
) -> None:
    stream = await server.start_live_call()
    await vapi.send(LOUD * 10)
    await server.changes.wait_until(stream.audio)
    await vapi.close(code)
    await stream.wait_closed()
    ended = await server.wait_ended()
    assert (ended.end_reason, ended.ended_by, ended.vapi_close_code) == (
        "assistant-failed",
        "assistant",
        code,
    )
    assert vapi.control_messages == [{"type": "end-call"}]
    assert stream.clear_count() == 1


async def test_a_broken_assistant_socket_is_a_failure(server: ServerUnderTest, vapi: FakeVapi) -> None:
    stream = await server.start_live_call()
    vapi.abort()
    await stream.wait_closed()
    ended = await server.wait_ended()
    assert (ended.end_reason, ended.vapi_close_code) == ("assistant-failed", 1006)
    assert vapi.control_messages == [{"type": "end-call"}]


async def test_an_ended_status_with_an_error_reason_is_a_failure(
    server: ServerUnderTest, vapi: FakeVapi
) -> None:
    stream = await server.start_live_call()
    reason = "call.in-progress.error-vapifault-worker-died"
    await vapi.send({"type": "status-update", "status": "ended", "endedReason": reason})
    await stream.wait_closed()
    ended = await server.wait_ended()
    assert (ended.end_reason, ended.vapi_ended_reason) == ("assistant-failed", reason)
    assert vapi.control_messages == [{"type": "end-call"}]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 429, 500, 503])
async def test_an_error_status_of_post_call_makes_the_assistant_unreachable(
    server: ServerUnderTest, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(vapi_client, "RETRY_PAUSE_SECONDS", 0.0)
    vapi.error_statuses = [status, status, status]
    stream = await server.start_call()
    await stream.wait_closed()
    ended = await server.wait_ended()
    assert (ended.end_reason, ended.ended_by) == ("assistant-unreachable", "assistant")
    assert len(vapi.requests) == (2 if status in (429, 503) else 1)
    (event,) = [e for e in server.journal.entries_of(TimelineEvent) if e.kind == "assistant-unreachable"]
    assert event.data["status"] == status
    assert stream.close_code == 1000


async def test_a_refused_socket_makes_the_assistant_unreachable_and_ends_vapis_call(
    server: ServerUnderTest, vapi: FakeVapi
) -> None:
    vapi.socket_status = 403
    stream = await server.start_call()
    await stream.wait_closed()
    assert (await server.wait_ended()).end_reason == "assistant-unreachable"
    assert vapi.control_messages == [{"type": "end-call"}]


async def test_a_timeout_of_post_call_makes_the_assistant_unreachable(
    server: ServerUnderTest, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vapi_client, "CREATE_SECONDS", 0.1)
    vapi.may_create.clear()
    stream = await server.start_call()
    await stream.wait_closed()
    assert (await server.wait_ended()).end_reason == "assistant-unreachable"


@pytest.mark.parametrize("ticket", ["", "forged"])
async def test_an_invalid_ticket_closes_the_socket_with_4003_and_dials_nobody(
    server: ServerUnderTest, vapi: FakeVapi, ticket: str, caplog: pytest.LogCaptureFixture
) -> None:
    stream = TwilioStream(server)
    await stream.connect()
    stream.send_start(ticket)
    await stream.wait_closed()
    assert stream.close_code == 4003
    assert vapi.requests == []
    (refused,) = server.journal.entries
    assert isinstance(refused, StreamRefused)
    assert await server.call_cache.find(CALL) == "ticket-refused"


async def test_a_second_stream_is_refused_and_the_first_continues(
    server: ServerUnderTest, vapi: FakeVapi
) -> None:
    first = await server.start_live_call()
    second = TwilioStream(server)
    await second.connect()
    second.send_start(server.issue_ticket())
    await second.wait_closed()
    assert second.close_code == 4003
    assert server.admission.live_calls == 1
    first.send_frame(LOUD)
    await server.changes.wait_until(lambda: vapi.audio == [LOUD])
    first.send_stop()
    await first.wait_closed()
    assert await server.call_cache.find(CALL) == "caller-hung-up"
    assert len(vapi.requests) == 1


async def test_the_socket_is_closed_with_4008_when_no_start_arrives(
    server: ServerUnderTest, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "START_SECONDS", 0.05)
    stream = TwilioStream(server)
    await stream.connect()
    await stream.wait_closed()
    assert stream.close_code == 4008
    assert server.journal.entries == []
    assert vapi.requests == []


@pytest.mark.parametrize("message", ["x" * 65_537, "é" * 32_769, b"\x00" * 65_537])
async def test_a_message_over_64_kib_closes_the_socket_with_4009(
    server: ServerUnderTest, vapi: FakeVapi, message: str | bytes
) -> None:
    stream = await server.start_live_call()
    if isinstance(message, bytes):
        stream.send_bytes(message)
    else:
        stream.send_text(message)
    await stream.wait_closed()
    assert stream.close_code == 4009
    assert (await server.wait_ended()).end_reason == "protocol-abuse"
    assert len(vapi.messages_of_type("end-call")) == 1


@pytest.mark.parametrize("message", ["x" * 65_536, "é" * 30_000, b"\x00" * 65_536])
async def test_a_bad_message_within_64_kib_does_not_end_the_call(
    server: ServerUnderTest, message: str | bytes
) -> None:
    stream = await server.start_live_call()
    if isinstance(message, bytes):
        stream.send_bytes(message)
    else:
        stream.send_text(message)
    stream.send_stop()
    await stream.wait_closed()
    assert (await server.wait_ended()).end_reason == "caller-hung-up"


async def test_over_fifty_bad_messages_end_the_call_as_protocol_abuse(
    server: ServerUnderTest, vapi: FakeVapi
) -> None:
    stream = await server.start_live_call()
    for n in range(51):
        if n % 2:
            stream.send_bytes(b"\x00")
        else:
            stream.send_text("{")
    await stream.wait_closed()
    ended = await server.wait_ended()
    assert (ended.end_reason, ended.ended_by) == ("protocol-abuse", "us")
    assert ended.counters["bad_caller_binary-frame"] == 25
    assert ended.counters["bad_caller_bad-json"] == 26


async def test_a_call_ends_at_its_maximum_duration(make_server: MakeServer, vapi: FakeVapi) -> None:
    server = make_server(max_call_seconds=1)
    stream = await server.start_live_call()
    await stream.wait_closed()
    assert (await server.wait_ended()).end_reason == "limit-reached"
    assert vapi.bodies[0]["assistantOverrides"]["maxDurationSeconds"] == 10, "Vapi's minimum"


async def test_a_stalled_assistant_ends_the_call(
    server: ServerUnderTest, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_taking, "STALL_SECONDS", 0.4)
    stream = await server.start_live_call()
    for _ in range(20):
        stream.send_frame(LOUD)
    stopped_at = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < stopped_at + 0.4:  # longer than the hangover
        await asyncio.sleep(0.02)
        stream.send_frame(SILENCE)
    await stream.wait_closed()
    assert (await server.wait_ended()).end_reason == "assistant-stalled"
    assert len(vapi.messages_of_type("end-call")) == 1


# Clean-up


async def test_a_hang_up_during_post_call_ends_vapis_call(server: ServerUnderTest, vapi: FakeVapi) -> None:
    vapi.may_create.clear()
    stream = await server.start_call()
    await server.changes.wait_until(lambda: vapi.requests)
    stream.send_stop()
    await server.changes.wait_until(lambda: stream.close_code)
    assert vapi.control_messages == []
    vapi.may_create.set()
    await stream.wait_closed()
    assert vapi.control_messages == [{"type": "end-call"}]
    assert vapi.handshakes == 0
    assert (await server.wait_ended()).end_reason == "caller-hung-up"


async def test_a_hang_up_while_the_assistants_socket_opens_ends_vapis_call(
    server: ServerUnderTest, vapi: FakeVapi
) -> None:
    vapi.may_open.clear()
    stream = await server.start_call()
    await server.changes.wait_until(lambda: vapi.handshakes)
    stream.send_stop()
    await server.changes.wait_until(lambda: stream.close_code)
    vapi.may_open.set()
    await stream.wait_closed()
    assert len(vapi.messages_of_type("end-call")) == 1
    assert server.journal.entries_of(AssistantAnswered) == []


async def test_a_server_shutdown_ends_a_live_call(server: ServerUnderTest, vapi: FakeVapi) -> None:
    """Daphne cancels the consumer without a `websocket.disconnect` message."""
    stream = await server.start_live_call()
    stream.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream.task
    assert (await server.wait_ended()).end_reason == "worker-lost"
    assert len(vapi.messages_of_type("end-call")) == 1
    assert stream.close_code == 1000
    assert await server.call_cache.find(CALL) == "worker-lost"
    assert server.admission.live_calls == 0


async def test_a_server_shutdown_before_start_writes_no_entry(server: ServerUnderTest) -> None:
    stream = TwilioStream(server)
    await stream.connect()
    stream.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream.task
    assert server.journal.entries == []


async def test_a_start_at_its_deadline_does_not_take_a_place(
    server: ServerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline for `start` passes while the shared cache checks the ticket."""
    requested, may_answer = asyncio.Event(), asyncio.Event()

    async def claim_stream(call_sid: str, seconds: int) -> bool:
        requested.set()
        await may_answer.wait()
        return True

    monkeypatch.setattr(session, "START_SECONDS", 0.05)
    monkeypatch.setattr(server.call_cache, "claim_stream", claim_stream)
    stream = TwilioStream(server)
    await stream.connect()
    stream.send_start(server.issue_ticket())
    await requested.wait()
    await server.changes.wait_until(lambda: stream.close_code)
    may_answer.set()
    await stream.wait_closed()
    assert stream.close_code == 4008
    assert server.admission.live_calls == 0


async def test_a_call_has_one_stream_and_one_assistant(server: ServerUnderTest, vapi: FakeVapi) -> None:
    """Also if its webhook was sent twice, so that there is a second ticket."""
    spare_ticket = server.issue_ticket()
    first = await server.start_live_call()
    first.send_stop()
    await first.wait_closed()
    second = TwilioStream(server)
    await second.connect()
    second.send_start(spare_ticket)
    await second.wait_closed()
    assert second.close_code == 4003
    assert len(server.journal.entries_of(AssistantAnswered)) == len(vapi.requests) == 1
    assert server.admission.live_calls == 0


async def test_an_error_while_sending_to_twilio_does_not_break_the_call(
    server: ServerUnderTest, vapi: FakeVapi
) -> None:
    """uvicorn raises when the client has disconnected."""
    stream = await server.start_live_call()
    stream.send_raises = OSError
    await vapi.send(LOUD)
    await vapi.send("hang")
    await server.changes.wait_until(
        lambda: any(e.kind == "hang" for e in server.journal.entries_of(TimelineEvent))
    )
    stream.disconnect(1006)
    await stream.wait_closed()
    assert (await server.wait_ended()).end_reason == "stream-lost"


async def test_a_caller_leg_that_stops_receiving_ends_the_call_as_stream_lost(
    server: ServerUnderTest, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "WRITE_SECONDS", 0.05)
    monkeypatch.setattr(runner, "SETTLE_SECONDS", 0.05)
    monkeypatch.setattr("bridge.io.consumer.CLOSE_SECONDS", 0.05)
    stream = await server.start_live_call()
    stream.may_receive.clear()
    while not server.journal.entries_of(StreamEnded):
        await vapi.send(LOUD)
        await asyncio.sleep(0.01)
    assert (await server.wait_ended()).end_reason == "stream-lost"
    await stream.wait_closed()
    assert len(vapi.messages_of_type("end-call")) == 1


async def test_a_missing_close_from_twilio_is_not_waited_for(
    server: ServerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.io.consumer.CLOSE_SECONDS", 0.05)
    stream = await server.start_live_call()
    monkeypatch.setattr(stream, "disconnect", lambda code: None)
    stream.send_stop()
    await stream.wait_closed()
    assert stream.close_code == 1000


async def test_an_assistant_leg_that_stops_receiving_ends_the_call_as_failed(
    server: ServerUnderTest, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "WRITE_SECONDS", 0.1)
    monkeypatch.setattr(vapi_client, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(inbound_media, "FLOOD_SECONDS", 1e6)  # this test fills the queue in no time
    vapi.is_reading = False
    stream = await server.start_live_call()
    while server.journal.entries_of(TimelineEvent)[-1].kind != "stream-ended":
        stream.send_frame(LOUD * 200)
        await asyncio.sleep(0)
    ended = await server.wait_ended()
    assert ended.end_reason == "assistant-failed"
    assert ended.frames_dropped > 0
    await server.changes.wait_until(lambda: vapi.control_messages == [{"type": "end-call"}])
    vapi.abort()
    await stream.wait_closed()


async def test_an_error_in_the_journal_ends_the_call_cleanly(
    server: ServerUnderTest, vapi: FakeVapi, caplog: pytest.LogCaptureFixture
) -> None:
    server.journal.raises_on = UtteranceSpoken
    stream = await server.start_live_call()
    await vapi.send("transcript_user_final")
    await stream.wait_closed()
    assert (await server.wait_ended()).end_reason == "worker-lost"
    assert len(vapi.messages_of_type("end-call")) == 1
    assert "internal error" in caplog.text
    assert "no space left" in caplog.text


async def test_an_error_in_the_session_ends_the_call_cleanly(
    server: ServerUnderTest, vapi: FakeVapi, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await server.start_live_call()
    monkeypatch.setattr(session.CallSession, "_on_dtmf", None)
    stream.send_text(sample("twilio/dtmf"))
    await stream.wait_closed()
    assert (await server.wait_ended()).end_reason == "worker-lost"
    assert len(vapi.messages_of_type("end-call")) == 1
    assert "internal error" in caplog.text


async def test_an_error_while_the_call_ends_still_closes_the_socket(
    server: ServerUnderTest, vapi: FakeVapi, caplog: pytest.LogCaptureFixture
) -> None:
    server.journal.raises_on = StreamEnded
    stream = await server.start_live_call()
    await vapi.close(1011)
    await stream.wait_closed()
    assert stream.close_code == 1000
    assert "no space left" in caplog.text


async def test_an_error_in_a_background_task_ends_the_call_cleanly(
    server: ServerUnderTest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dial(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(server.client, "dial", dial)
    stream = await server.start_call()
    await stream.wait_closed()
    assert (await server.wait_ended()).end_reason == "worker-lost"
    assert "ZeroDivisionError" in caplog.text


async def test_tasks_that_exceed_the_finish_deadline_are_cancelled(
    server: ServerUnderTest, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "FINISH_SECONDS", 0.05)
    vapi.may_create.clear()
    stream = await server.start_call()
    await server.changes.wait_until(lambda: vapi.requests)
    stream.send_stop()
    await stream.wait_closed()


# Live calls


async def test_held_audio_is_sent_first_and_in_order(server: ServerUnderTest, vapi: FakeVapi) -> None:
    vapi.may_open.clear()
    stream = await server.start_call()
    frames = [bytes([n]) * 160 for n in range(20)]
    for ulaw in frames[:10]:
        stream.send_frame(ulaw)
    vapi.may_open.set()
    await server.changes.wait_until(lambda: server.journal.entries_of(AssistantAnswered))
    for ulaw in frames[10:]:
        stream.send_frame(ulaw)
    await server.changes.wait_until(lambda: len(vapi.audio) == 20)
    assert vapi.audio == frames
    assert server.journal.entries_of(AssistantAnswered)[0].frames_held == 10
    stream.send_stop()
    await stream.wait_closed()


async def test_mulaw_is_passed_through_unchanged_in_both_directions(
    server: ServerUnderTest, vapi: FakeVapi
) -> None:
    stream = await server.start_live_call()
    every_code = bytes(range(256))
    stream.send_frame(every_code)
    await vapi.send(every_code + b"odd")
    await server.changes.wait_until(lambda: stream.audio() and vapi.audio)
    assert vapi.audio == [every_code]
    assert stream.audio() == every_code + b"odd"
    stream.send_stop()
    await stream.wait_closed()


async def test_pcm_is_transcoded_in_both_directions(make_server: MakeServer, vapi: FakeVapi) -> None:
    server = make_server(vapi_audio_format=AudioFormat.PCM_16K)
    stream = await server.start_live_call()
    stream.send_frame(SILENCE)
    await vapi.send(b"\x00" * 3)  # a sample and a half
    await vapi.send(b"\x00" * 637)
    await server.changes.wait_until(lambda: vapi.audio and len(stream.audio()) == 160)
    assert vapi.audio == [b"\x00" * 640]
    assert stream.audio() == SILENCE
    stream.send_stop()
    await stream.wait_closed()


async def test_a_barge_in_sends_clear_to_twilio(server: ServerUnderTest, vapi: FakeVapi) -> None:
    stream = await server.start_live_call()
    stream.returns_marks = False
    await vapi.send(LOUD * 100)
    await server.changes.wait_until(stream.audio)
    await vapi.send("user_interrupted")
    await server.changes.wait_until(stream.clear_count)
    assert stream.messages[-1] == {"event": "clear", "streamSid": "MZ00000000000000000000000000000001"}
    stream.send_stop()
    await stream.wait_closed()
    assert (await server.wait_ended()).barge_ins == 1


async def test_a_clear_overtakes_audio_queued_for_a_slow_caller_leg(
    server: ServerUnderTest, vapi: FakeVapi
) -> None:
    stream = await server.start_live_call()
    stream.may_receive.clear()
    for _ in range(20):
        await vapi.send(LOUD)
    await vapi.send("user_interrupted")
    await server.changes.wait_until(
        lambda: any(e.kind == "barge-in" for e in server.journal.entries_of(TimelineEvent))
    )
    stream.may_receive.set()
    await server.changes.wait_until(stream.clear_count)
    assert len(stream.audio()) <= len(LOUD)
    stream.send_stop()
    await stream.wait_closed()


async def test_a_slow_caller_leg_drops_and_counts_its_oldest_audio(
    server: ServerUnderTest, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MAX_QUEUED_BYTES", 400)
    stream = await server.start_live_call()
    stream.may_receive.clear()
    for n in range(6):
        await vapi.send(bytes([n]) * 160)
    await vapi.send("hang")
    await server.changes.wait_until(
        lambda: any(e.kind == "hang" for e in server.journal.entries_of(TimelineEvent))
    )
    stream.may_receive.set()
    stream.send_stop()
    await stream.wait_closed()
    assert (await server.wait_ended()).counters["chunks_dropped"] >= 3


async def test_pressed_keys_are_sent_to_the_assistant_as_a_message(
    server: ServerUnderTest, vapi: FakeVapi
) -> None:
    stream = await server.start_live_call()
    for digit in "42#":
        stream.send(event="dtmf", streamSid="MZ00000000000000000000000000000001", dtmf={"digit": digit})
    await server.changes.wait_until(lambda: vapi.messages_of_type("add-message"))
    assert "42#" in vapi.messages_of_type("add-message")[0]["message"]["content"]
    stream.send_stop()
    await stream.wait_closed()


async def test_a_turn_entry_has_its_times(server: ServerUnderTest, vapi: FakeVapi) -> None:
    stream = await server.start_live_call()
    for _ in range(20):
        stream.send_frame(LOUD)
    await server.changes.wait_until(lambda: len(vapi.audio) == 20)
    await asyncio.sleep(0.07)  # an answer may not come sooner
    await vapi.send(LOUD * 5)
    await server.changes.wait_until(
        lambda: any(turn.heard_ms is not None for turn in server.journal.entries_of(TurnTaken))
    )
    turn = server.journal.entries_of(TurnTaken)[-1]
    assert turn.response_latency_ms is not None
    assert turn.bridge_overhead_us is not None
    assert turn.bridge_overhead_us < 1_000_000
    stream.send_stop()
    await stream.wait_closed()


async def test_a_second_start_and_bad_messages_do_not_end_a_call(
    server: ServerUnderTest, vapi: FakeVapi
) -> None:
    stream = await server.start_live_call()
    stream.send_start(server.issue_ticket())
    for text in ("", "[]", "NaN", '{"event":"weather"}', '{"event":"media","media":{}}'):
        stream.send_text(text)
    await vapi.socket.send_str("{")  # type: ignore[union-attr]
    await vapi.socket.send_str('{"type":"audio","data":"//8="}')  # type: ignore[union-attr]
    await vapi.send(b"")
    stream.send_frame(LOUD)
    await server.changes.wait_until(lambda: vapi.audio == [LOUD])
    await vapi.send("hang")
    await server.changes.wait_until(
        lambda: any(e.kind == "hang" for e in server.journal.entries_of(TimelineEvent))
    )
    stream.send_stop()
    await stream.wait_closed()
    ended = await server.wait_ended()
    assert ended.end_reason == "caller-hung-up"
    assert ended.counters["bad_caller_second-start"] == 1
    assert ended.counters["bad_assistant_bad-json"] == ended.counters["bad_assistant_audio-as-text"] == 1
    assert len(server.journal.entries_of(StreamStarted)) == 1


async def test_a_socket_that_closes_before_it_was_accepted_is_ignored(server: ServerUnderTest) -> None:
    stream = TwilioStream(server)
    stream.disconnect()
    await stream.wait_closed()
    assert not stream.is_accepted


# The socket dialect


async def test_the_socket_dialect_uses_json_and_base64_audio(make_server: MakeServer, vapi: FakeVapi) -> None:
    server = make_server(vapi_socket_url=vapi.url("/socket", "ws"))
    stream = await server.start_live_call()
    stream.send_frame(LOUD)
    await vapi.send("audio")
    await server.changes.wait_until(lambda: stream.audio() and vapi.audio)
    assert vapi.messages[0] == {
        "type": "assistant-request", "assistantId": "assistant-1", "metadata": {"callSid": CALL},
    }  # fmt: skip
    assert (vapi.audio, stream.audio()) == ([LOUD], b"\xff\xfe\xfe\xfe\xff")
    await vapi.send(b"binary")
    stream.send_stop()
    await stream.wait_closed()
    assert len(vapi.messages_of_type("end-call")) == 1
    assert vapi.requests == []


async def test_in_the_socket_dialect_a_loud_caller_is_a_barge_in(
    make_server: MakeServer, vapi: FakeVapi
) -> None:
    server = make_server(vapi_socket_url=vapi.url("/socket", "ws"))
    stream = await server.start_live_call()
    for _ in range(10):
        await vapi.send({"type": "audio", "data": "kBCQEJAQ" * 400})
    await server.changes.wait_until(stream.audio)
    for _ in range(30):
        stream.send_frame(LOUD)
    await server.changes.wait_until(lambda: stream.clear_count() and vapi.messages_of_type("cancel"))
    stream.send_stop()
    await stream.wait_closed()
    assert (await server.wait_ended()).barge_ins == 1


# Signatures


async def test_a_handshake_without_a_valid_signature_is_rejected(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server(twilio_auth_tokens=("12345",))
    for signature in (None, "", "wrong"):
        stream = TwilioStream(server, signature=signature)
        await stream.connect()
        assert stream.is_rejected
        assert not stream.is_accepted


async def test_a_signed_handshake_is_accepted(make_server: MakeServer) -> None:
    server = make_server(twilio_auth_tokens=("12345",))
    for path in ("/media-stream", "/media-stream/"):
        stream = TwilioStream(server, path=path, signature=server.handshake_signature())
        await stream.connect()
        assert stream.is_accepted
        stream.disconnect()
        await stream.wait_closed()


# Threads, database and logs


async def test_a_call_uses_no_thread_and_no_database(
    server: ServerUnderTest, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest-django makes every database access raise."""
    thread_calls: list[object] = []

    def record_thread_call(*args: object, **_: object) -> None:
        thread_calls.append(args)
        raise AssertionError("a call to another thread")

    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", record_thread_call)
    monkeypatch.setattr(SyncToAsync, "__call__", record_thread_call)
    stream = await server.start_live_call()
    stream.send_frame(LOUD)
    await vapi.send(LOUD)
    await vapi.send("transcript_user_final")
    await server.changes.wait_until(
        lambda: stream.audio() and vapi.audio and server.journal.entries_of(UtteranceSpoken)
    )
    stream.send_stop()
    await stream.wait_closed()
    assert (await server.wait_ended()).end_reason == "caller-hung-up"
    assert thread_calls == []


async def test_secrets_and_phone_numbers_are_not_logged(
    server: ServerUnderTest, vapi: FakeVapi, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "bridge"):
        stream = await server.start_live_call()
        ticket = server.issue_ticket("CA2")
        stream.send_frame(LOUD)
        await vapi.send("user_interrupted")
        await vapi.close(1011)
        await stream.wait_closed()
    for secret in ("canary", ticket, "/socket", "/control", "+15551230000", CALL):
        assert secret not in caplog.text
    assert "CA00..01 = LIVE" in caplog.text
    assert "CA00..01 < UserInterrupted" in caplog.text
