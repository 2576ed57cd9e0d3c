"""`/media-stream` from end to end: the consumer, the runner and the link, with Vapi on a real socket.

The table of how a call ends is gone through row by row; then what has to hold while it lives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asgiref.sync import SyncToAsync

from bridge.call import session, turn_taking
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
from bridge.tests.io.peers import Caller, House, Noticeboard, Vapi
from bridge.tests.samples import sample

MakeHouse = Callable[..., House]


@pytest.fixture
async def vapi() -> AsyncIterator[Vapi]:
    stand_in = Vapi(Noticeboard())
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


@pytest.fixture
async def make_house(vapi: Vapi) -> AsyncIterator[MakeHouse]:
    houses: list[House] = []

    def make(**settings: Any) -> House:
        houses.append(House(vapi, **settings))
        return houses[-1]

    yield make
    for house in houses:
        await house.client.close()


@pytest.fixture
async def house(make_house: MakeHouse) -> House:
    return make_house()


# How a call ends


async def test_a_caller_who_stops_has_hung_up(house: House, vapi: Vapi) -> None:
    caller = await house.live()
    caller.stop()
    await caller.over()
    ended = await house.ended()
    assert (ended.end_reason, ended.ended_by) == ("caller-hung-up", "caller")
    assert caller.close_code == 1000
    assert len(vapi.told("end-call")) == 1, "else the call goes on there, and costs"
    assert vapi.close_code == 1000
    assert vapi.controlled == []
    assert await house.end_reasons.find(CALL) == "caller-hung-up"
    assert house.admission.live_calls == 0


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, "caller-hung-up"), (1001, "caller-hung-up"), (1006, "stream-lost")]
)
async def test_a_closed_socket_without_stop_ends_the_call_too(
    house: House, vapi: Vapi, code: int, reason: str
) -> None:
    caller = await house.live()
    caller.leave(code)
    await caller.over()
    assert (await house.ended()).end_reason == reason
    assert len(vapi.told("end-call")) == 1
    assert house.admission.live_calls == 0


async def test_no_media_means_that_the_stream_is_lost(
    make_house: MakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MEDIA_SECONDS", 0.2)
    house = make_house()
    caller = await house.live()
    await caller.over()
    assert (await house.ended()).end_reason == "stream-lost"


async def test_the_assistants_last_words_are_heard_out(house: House, vapi: Vapi) -> None:
    caller = await house.live()
    caller.echoes = False
    await vapi.say(LOUD * 10)
    await vapi.say("status_ended")
    await vapi.close()
    await house.board.until(lambda: len(caller.marks()) == 2)
    assert caller.close_code is None
    caller.tell(
        event="mark", streamSid="MZ00000000000000000000000000000001", mark={"name": caller.marks()[-1]}
    )
    await caller.over()
    ended = await house.ended()
    assert (ended.end_reason, ended.vapi_ended_reason) == ("assistant-ended", "assistant-ended-call")
    assert caller.close_code == 1000
    assert caller.heard() == LOUD * 10
    assert vapi.told("end-call") == []


@pytest.mark.parametrize("code", [1000, 1001])
async def test_an_assistant_that_closes_normally_has_ended_the_call(
    house: House, vapi: Vapi, code: int
) -> None:
    caller = await house.live()
    await vapi.close(code)
    await caller.over()
    ended = await house.ended()
    assert (ended.end_reason, ended.vapi_close_code) == ("assistant-ended", code)
    assert vapi.controlled == []


@pytest.mark.parametrize("code", [1011, 1012, 1013, 4000])
async def test_any_other_close_code_is_a_failure_and_ended_by_control(
    house: House, vapi: Vapi, code: int
) -> None:
    caller = await house.live()
    await vapi.say(LOUD * 10)
    await house.board.until(caller.heard)
    await vapi.close(code)
    await caller.over()
    ended = await house.ended()
    assert (ended.end_reason, ended.ended_by, ended.vapi_close_code) == (
        "assistant-failed",
        "assistant",
        code,
    )
    assert vapi.controlled == [{"type": "end-call"}]
    assert caller.cleared() == 1


async def test_a_socket_that_drops_dead_is_a_failure(house: House, vapi: Vapi) -> None:
    caller = await house.live()
    vapi.drop_dead()
    await caller.over()
    ended = await house.ended()
    assert (ended.end_reason, ended.vapi_close_code) == ("assistant-failed", 1006)
    assert vapi.controlled == [{"type": "end-call"}]


async def test_an_end_with_an_error_is_a_failure(house: House, vapi: Vapi) -> None:
    caller = await house.live()
    reason = "call.in-progress.error-vapifault-worker-died"
    await vapi.say({"type": "status-update", "status": "ended", "endedReason": reason})
    await caller.over()
    ended = await house.ended()
    assert (ended.end_reason, ended.vapi_ended_reason) == ("assistant-failed", reason)
    assert vapi.controlled == [{"type": "end-call"}]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 429, 500, 503])
async def test_a_vapi_that_refuses_is_unreachable(
    house: House, vapi: Vapi, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(vapi_client, "RETRY_PAUSE_SECONDS", 0.0)
    vapi.statuses = [status, status, status]
    caller = await house.dialling()
    await caller.over()
    ended = await house.ended()
    assert (ended.end_reason, ended.ended_by) == ("assistant-unreachable", "assistant")
    assert len(vapi.requests) == (2 if status in (429, 503) else 1)
    (happened,) = [e for e in house.journal.written(TimelineEvent) if e.kind == "assistant-unreachable"]
    assert happened.data["status"] == status
    assert caller.close_code == 1000


async def test_a_socket_that_refuses_is_unreachable_and_nothing_is_left_at_vapi(
    house: House, vapi: Vapi
) -> None:
    vapi.socket_status = 403
    caller = await house.dialling()
    await caller.over()
    assert (await house.ended()).end_reason == "assistant-unreachable"
    assert vapi.controlled == [{"type": "end-call"}]


async def test_a_vapi_that_never_answers_is_unreachable(
    house: House, vapi: Vapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vapi_client, "CREATE_SECONDS", 0.1)
    vapi.created.clear()
    caller = await house.dialling()
    await caller.over()
    assert (await house.ended()).end_reason == "assistant-unreachable"


@pytest.mark.parametrize("ticket", ["", "forged"])
async def test_a_bad_ticket_closes_with_4003_and_nobody_is_dialled(
    house: House, vapi: Vapi, ticket: str, caplog: pytest.LogCaptureFixture
) -> None:
    caller = Caller(house)
    await caller.connect()
    caller.start(ticket)
    await caller.over()
    assert caller.close_code == 4003
    assert vapi.requests == []
    (refused,) = house.journal.entries
    assert isinstance(refused, StreamRefused)
    assert await house.end_reasons.find(CALL) == "ticket-refused"


async def test_a_second_stream_is_refused_and_the_first_goes_on(house: House, vapi: Vapi) -> None:
    first = await house.live()
    second = Caller(house)
    await second.connect()
    second.start(house.ticket())
    await second.over()
    assert second.close_code == 4003
    assert house.admission.live_calls == 1
    first.frame(LOUD)
    await house.board.until(lambda: vapi.audio == [LOUD])
    first.stop()
    await first.over()
    assert await house.end_reasons.find(CALL) == "caller-hung-up"
    assert len(vapi.requests) == 1


async def test_without_a_start_the_socket_is_closed_with_4008(
    house: House, vapi: Vapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "START_SECONDS", 0.05)
    caller = Caller(house)
    await caller.connect()
    await caller.over()
    assert caller.close_code == 4008
    assert house.journal.entries == []
    assert vapi.requests == []


@pytest.mark.parametrize("message", ["x" * 65_537, "é" * 32_769, b"\x00" * 65_537])
async def test_a_message_over_64_kib_closes_that_socket_with_4009(
    house: House, vapi: Vapi, message: str | bytes
) -> None:
    caller = await house.live()
    if isinstance(message, bytes):
        caller.send_bytes(message)
    else:
        caller.send_text(message)
    await caller.over()
    assert caller.close_code == 4009
    assert (await house.ended()).end_reason == "protocol-abuse"
    assert len(vapi.told("end-call")) == 1


@pytest.mark.parametrize("message", ["x" * 65_536, "é" * 30_000, b"\x00" * 65_536])
async def test_a_message_within_64_kib_is_only_strange(house: House, message: str | bytes) -> None:
    caller = await house.live()
    if isinstance(message, bytes):
        caller.send_bytes(message)
    else:
        caller.send_text(message)
    caller.stop()
    await caller.over()
    assert (await house.ended()).end_reason == "caller-hung-up"


async def test_over_fifty_bad_messages_are_abuse(house: House, vapi: Vapi) -> None:
    caller = await house.live()
    for n in range(51):
        if n % 2:
            caller.send_bytes(b"\x00")
        else:
            caller.send_text("{")
    await caller.over()
    ended = await house.ended()
    assert (ended.end_reason, ended.ended_by) == ("protocol-abuse", "us")
    assert ended.counters["bad_caller_binary-frame"] == 25
    assert ended.counters["bad_caller_bad-json"] == 26


async def test_a_call_has_its_longest_time(make_house: MakeHouse, vapi: Vapi) -> None:
    house = make_house(max_call_seconds=1)
    caller = await house.live()
    await caller.over()
    assert (await house.ended()).end_reason == "limit-reached"
    assert vapi.bodies[0]["assistantOverrides"]["maxDurationSeconds"] == 10, "the least that Vapi takes"


async def test_a_stalled_assistant_is_left(house: House, vapi: Vapi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_taking, "STALL_SECONDS", 0.4)
    caller = await house.live()
    for _ in range(20):
        caller.frame(LOUD)
    speaking = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < speaking + 0.4:  # the hangover of our own ears
        await asyncio.sleep(0.02)
        caller.frame(SILENCE)
    await caller.over()
    assert (await house.ended()).end_reason == "assistant-stalled"
    assert len(vapi.told("end-call")) == 1


# Nobody is left behind


async def test_a_caller_who_hangs_up_during_post_call_leaves_no_orphan(house: House, vapi: Vapi) -> None:
    vapi.created.clear()
    caller = await house.dialling()
    await house.board.until(lambda: vapi.requests)
    caller.stop()
    await house.board.until(lambda: caller.close_code)
    assert vapi.controlled == []
    vapi.created.set()
    await caller.over()
    assert vapi.controlled == [{"type": "end-call"}]
    assert vapi.dialled == 0
    assert (await house.ended()).end_reason == "caller-hung-up"


async def test_a_caller_who_hangs_up_while_the_socket_opens_leaves_no_orphan(
    house: House, vapi: Vapi
) -> None:
    vapi.opened.clear()
    caller = await house.dialling()
    await house.board.until(lambda: vapi.dialled)
    caller.stop()
    await house.board.until(lambda: caller.close_code)
    vapi.opened.set()
    await caller.over()
    assert len(vapi.told("end-call")) == 1
    assert house.journal.written(AssistantAnswered) == []


async def test_a_server_that_is_taken_down_ends_its_calls(house: House, vapi: Vapi) -> None:
    """Daphne cancels the consumer, and calls no `disconnect()`."""
    caller = await house.live()
    caller.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller.task
    assert (await house.ended()).end_reason == "worker-lost"
    assert len(vapi.told("end-call")) == 1
    assert caller.close_code == 1000
    assert await house.end_reasons.find(CALL) == "worker-lost"
    assert house.admission.live_calls == 0


async def test_a_server_that_is_taken_down_before_start_leaves_nothing(house: House) -> None:
    caller = Caller(house)
    await caller.connect()
    caller.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller.task
    assert house.journal.entries == []


async def test_a_start_that_comes_with_the_last_moment_costs_no_place(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`no-start` falls due while the ticket is being asked about."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def spend(ticket_id: str, seconds: int) -> bool:
        asked.set()
        await answer.wait()
        return True

    monkeypatch.setattr(session, "START_SECONDS", 0.05)
    monkeypatch.setattr(house.end_reasons, "use_ticket", spend)
    caller = Caller(house)
    await caller.connect()
    caller.start(house.ticket())
    await asked.wait()
    await house.board.until(lambda: caller.close_code)
    answer.set()
    await caller.over()
    assert caller.close_code == 4008
    assert house.admission.live_calls == 0


async def test_the_same_call_may_stream_again_after_its_first_stream(house: House) -> None:
    first = await house.live()
    first.stop()
    await house.board.until(lambda: first.close_code)
    second = Caller(house)
    await second.connect()
    second.start(house.ticket())
    await house.board.until(lambda: len(house.journal.written(AssistantAnswered)) == 2)
    await first.over()
    assert house.admission.live_calls == 1, "the first stream's leaving is not the second's"
    second.stop()
    await second.over()
    assert house.admission.live_calls == 0


async def test_a_server_whose_socket_raises_on_sending_is_no_trouble(house: House, vapi: Vapi) -> None:
    """uvicorn does, once the caller has left."""
    caller = await house.live()
    caller.send_raises = OSError
    await vapi.say(LOUD)
    await vapi.say("hang")
    await house.board.until(lambda: any(e.kind == "hang" for e in house.journal.written(TimelineEvent)))
    caller.leave(1006)
    await caller.over()
    assert (await house.ended()).end_reason == "stream-lost"


async def test_a_caller_leg_that_takes_nothing_is_lost(
    house: House, vapi: Vapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "WRITE_SECONDS", 0.05)
    monkeypatch.setattr(runner, "SETTLE_SECONDS", 0.05)
    monkeypatch.setattr("bridge.io.consumer.CLOSE_SECONDS", 0.05)
    caller = await house.live()
    caller.takes.clear()
    while not house.journal.written(StreamEnded):
        await vapi.say(LOUD)
        await asyncio.sleep(0.01)
    assert (await house.ended()).end_reason == "stream-lost"
    await caller.over()
    assert len(vapi.told("end-call")) == 1


async def test_a_peer_that_does_not_answer_our_close_is_not_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.io.consumer.CLOSE_SECONDS", 0.05)
    caller = await house.live()
    monkeypatch.setattr(caller, "leave", lambda code: None)
    caller.stop()
    await caller.over()
    assert caller.close_code == 1000


async def test_an_assistant_leg_that_takes_nothing_has_failed(
    house: House, vapi: Vapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "WRITE_SECONDS", 0.1)
    monkeypatch.setattr(vapi_client, "CLOSE_SECONDS", 0.2)
    vapi.reads = False
    caller = await house.live()
    while house.journal.written(TimelineEvent)[-1].kind != "stream-ended":
        caller.frame(LOUD * 200)
        await asyncio.sleep(0)
    ended = await house.ended()
    assert ended.end_reason == "assistant-failed"
    assert ended.frames_dropped > 0
    await house.board.until(lambda: vapi.controlled == [{"type": "end-call"}])
    vapi.drop_dead()
    await caller.over()


async def test_an_error_of_our_own_ends_the_call_cleanly(
    house: House, vapi: Vapi, caplog: pytest.LogCaptureFixture
) -> None:
    house.journal.refuses = UtteranceSpoken
    caller = await house.live()
    await vapi.say("transcript_user_final")
    await caller.over()
    assert (await house.ended()).end_reason == "worker-lost"
    assert len(vapi.told("end-call")) == 1
    assert "internal error" in caplog.text
    assert "no space left" in caplog.text


async def test_an_error_in_the_session_ends_the_call_cleanly(
    house: House, vapi: Vapi, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await house.live()
    monkeypatch.setattr(session.CallSession, "_on_dtmf", None)
    caller.send_text(sample("twilio/dtmf"))
    await caller.over()
    assert (await house.ended()).end_reason == "worker-lost"
    assert len(vapi.told("end-call")) == 1
    assert "internal error" in caplog.text


async def test_an_error_while_it_ends_does_not_keep_the_line_open(
    house: House, vapi: Vapi, caplog: pytest.LogCaptureFixture
) -> None:
    house.journal.refuses = StreamEnded
    caller = await house.live()
    await vapi.close(1011)
    await caller.over()
    assert caller.close_code == 1000
    assert "no space left" in caplog.text


async def test_an_error_in_a_task_of_ours_ends_the_call_cleanly(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dial(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(house.client, "dial", dial)
    caller = await house.dialling()
    await caller.over()
    assert (await house.ended()).end_reason == "worker-lost"
    assert "ZeroDivisionError" in caplog.text


async def test_what_is_too_late_at_the_end_is_cancelled(
    house: House, vapi: Vapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "FINISH_SECONDS", 0.05)
    vapi.created.clear()
    caller = await house.dialling()
    await house.board.until(lambda: vapi.requests)
    caller.stop()
    await caller.over()


# While it lives


async def test_held_audio_arrives_first_and_in_order(house: House, vapi: Vapi) -> None:
    vapi.opened.clear()
    caller = await house.dialling()
    frames = [bytes([n]) * 160 for n in range(20)]
    for ulaw in frames[:10]:
        caller.frame(ulaw)
    vapi.opened.set()
    await house.board.until(lambda: house.journal.written(AssistantAnswered))
    for ulaw in frames[10:]:
        caller.frame(ulaw)
    await house.board.until(lambda: len(vapi.audio) == 20)
    assert vapi.audio == frames
    assert house.journal.written(AssistantAnswered)[0].frames_held == 10
    caller.stop()
    await caller.over()


async def test_mulaw_crosses_untouched_in_both_directions(house: House, vapi: Vapi) -> None:
    caller = await house.live()
    every_code = bytes(range(256))
    caller.frame(every_code)
    await vapi.say(every_code + b"odd")
    await house.board.until(lambda: caller.heard() and vapi.audio)
    assert vapi.audio == [every_code]
    assert caller.heard() == every_code + b"odd"
    caller.stop()
    await caller.over()


async def test_pcm_is_transcoded_at_the_door(make_house: MakeHouse, vapi: Vapi) -> None:
    house = make_house(vapi_audio_format=AudioFormat.PCM_16K)
    caller = await house.live()
    caller.frame(SILENCE)
    await vapi.say(b"\x00" * 3)  # a sample and a half
    await vapi.say(b"\x00" * 637)
    await house.board.until(lambda: vapi.audio and len(caller.heard()) == 160)
    assert vapi.audio == [b"\x00" * 640]
    assert caller.heard() == SILENCE
    caller.stop()
    await caller.over()


async def test_a_barge_in_reaches_twilio_as_clear(house: House, vapi: Vapi) -> None:
    caller = await house.live()
    caller.echoes = False
    await vapi.say(LOUD * 100)
    await house.board.until(caller.heard)
    await vapi.say("user_interrupted")
    await house.board.until(caller.cleared)
    assert caller.sent[-1] == {"event": "clear", "streamSid": "MZ00000000000000000000000000000001"}
    caller.stop()
    await caller.over()
    assert (await house.ended()).barge_ins == 1


async def test_a_clear_overtakes_what_waits_for_a_slow_caller_leg(house: House, vapi: Vapi) -> None:
    caller = await house.live()
    caller.takes.clear()
    for _ in range(20):
        await vapi.say(LOUD)
    await vapi.say("user_interrupted")
    await house.board.until(lambda: any(e.kind == "barge-in" for e in house.journal.written(TimelineEvent)))
    caller.takes.set()
    await house.board.until(caller.cleared)
    assert len(caller.heard()) <= len(LOUD)
    caller.stop()
    await caller.over()


async def test_a_slow_caller_leg_loses_its_oldest_audio_and_it_is_counted(
    house: House, vapi: Vapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MAX_QUEUED_BYTES", 400)
    caller = await house.live()
    caller.takes.clear()
    for n in range(6):
        await vapi.say(bytes([n]) * 160)
    await vapi.say("hang")
    await house.board.until(lambda: any(e.kind == "hang" for e in house.journal.written(TimelineEvent)))
    caller.takes.set()
    caller.stop()
    await caller.over()
    assert (await house.ended()).counters["chunks_dropped"] >= 3


async def test_keys_reach_the_assistant_as_a_message(house: House, vapi: Vapi) -> None:
    caller = await house.live()
    for digit in "42#":
        caller.tell(event="dtmf", streamSid="MZ00000000000000000000000000000001", dtmf={"digit": digit})
    await house.board.until(lambda: vapi.told("add-message"))
    assert "42#" in vapi.told("add-message")[0]["message"]["content"]
    caller.stop()
    await caller.over()


async def test_a_turn_is_written_with_its_times(house: House, vapi: Vapi) -> None:
    caller = await house.live()
    for _ in range(20):
        caller.frame(LOUD)
    await house.board.until(lambda: len(vapi.audio) == 20)
    await asyncio.sleep(0.07)  # nobody answers sooner
    await vapi.say(LOUD * 5)
    await house.board.until(
        lambda: any(turn.heard_ms is not None for turn in house.journal.written(TurnTaken))
    )
    turn = house.journal.written(TurnTaken)[-1]
    assert turn.response_latency_ms is not None
    assert turn.bridge_overhead_us is not None
    assert turn.bridge_overhead_us < 1_000_000
    caller.stop()
    await caller.over()


async def test_a_second_start_and_strange_messages_do_not_end_a_call(house: House, vapi: Vapi) -> None:
    caller = await house.live()
    caller.start(house.ticket())
    for text in ("", "[]", "NaN", '{"event":"weather"}', '{"event":"media","media":{}}'):
        caller.send_text(text)
    await vapi.socket.send_str("{")  # type: ignore[union-attr]
    await vapi.socket.send_str('{"type":"audio","data":"//8="}')  # type: ignore[union-attr]
    await vapi.say(b"")
    caller.frame(LOUD)
    await house.board.until(lambda: vapi.audio == [LOUD])
    await vapi.say("hang")
    await house.board.until(lambda: any(e.kind == "hang" for e in house.journal.written(TimelineEvent)))
    caller.stop()
    await caller.over()
    ended = await house.ended()
    assert ended.end_reason == "caller-hung-up"
    assert ended.counters["bad_caller_second-start"] == 1
    assert ended.counters["bad_assistant_bad-json"] == ended.counters["bad_assistant_audio-as-text"] == 1
    assert len(house.journal.written(StreamStarted)) == 1


async def test_a_socket_that_is_gone_before_it_was_accepted_is_nothing(house: House) -> None:
    caller = Caller(house)
    caller.leave()
    await caller.over()
    assert not caller.accepted


# The socket dialect


async def test_the_socket_dialect_speaks_json(make_house: MakeHouse, vapi: Vapi) -> None:
    house = make_house(vapi_socket_url=vapi.url("/socket", "ws"))
    caller = await house.live()
    caller.frame(LOUD)
    await vapi.say("audio")
    await house.board.until(lambda: caller.heard() and vapi.audio)
    assert vapi.texts[0] == {
        "type": "assistant-request", "assistantId": "assistant-1", "metadata": {"callSid": CALL},
    }  # fmt: skip
    assert (vapi.audio, caller.heard()) == ([LOUD], b"\xff\xfe\xfe\xfe\xff")
    await vapi.say(b"binary")
    caller.stop()
    await caller.over()
    assert len(vapi.told("end-call")) == 1
    assert vapi.requests == []


async def test_in_the_socket_dialect_our_own_ears_cut_in(make_house: MakeHouse, vapi: Vapi) -> None:
    house = make_house(vapi_socket_url=vapi.url("/socket", "ws"))
    caller = await house.live()
    for _ in range(10):
        await vapi.say({"type": "audio", "data": "kBCQEJAQ" * 400})
    await house.board.until(caller.heard)
    for _ in range(30):
        caller.frame(LOUD)
    await house.board.until(lambda: caller.cleared() and vapi.told("cancel"))
    caller.stop()
    await caller.over()
    assert (await house.ended()).barge_ins == 1


# Who may come in


async def test_a_handshake_without_its_signature_is_refused_before_it_is_accepted(
    make_house: MakeHouse, caplog: pytest.LogCaptureFixture
) -> None:
    house = make_house(twilio_auth_tokens=("12345",))
    for signature in (None, "", "wrong"):
        caller = Caller(house, signature=signature)
        await caller.connect()
        assert caller.refused
        assert not caller.accepted


async def test_a_signed_handshake_is_let_in(make_house: MakeHouse) -> None:
    house = make_house(twilio_auth_tokens=("12345",))
    for path in ("/media-stream", "/media-stream/"):
        caller = Caller(house, path=path, signature=house.signature())
        await caller.connect()
        assert caller.accepted
        caller.leave()
        await caller.over()


# What the audio never waits for


async def test_a_call_never_hops_to_a_thread(
    house: House, vapi: Vapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor touches the database: the test's own guard would raise."""
    hops: list[object] = []

    def hop(*args: object, **_: object) -> None:
        hops.append(args)
        raise AssertionError("a thread hop")

    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", hop)
    monkeypatch.setattr(SyncToAsync, "__call__", hop)
    caller = await house.live()
    caller.frame(LOUD)
    await vapi.say(LOUD)
    await vapi.say("transcript_user_final")
    await house.board.until(lambda: caller.heard() and vapi.audio and house.journal.written(UtteranceSpoken))
    caller.stop()
    await caller.over()
    assert (await house.ended()).end_reason == "caller-hung-up"
    assert hops == []


async def test_no_secret_and_no_number_is_logged(
    house: House, vapi: Vapi, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "bridge"):
        caller = await house.live()
        ticket = house.ticket("CA2")
        caller.frame(LOUD)
        await vapi.say("user_interrupted")
        await vapi.close(1011)
        await caller.over()
    for secret in ("canary", ticket, "/socket", "/control", "+15551230000", CALL):
        assert secret not in caplog.text
    assert "CA00..01 = LIVE" in caplog.text
    assert "CA00..01 < UserInterrupted" in caplog.text
