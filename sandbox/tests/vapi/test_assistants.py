"""The assistants that the stand-in for Vapi keeps, and the calls they take, over real HTTP and sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sandbox.tests.vapi.test_server import CLIPS, call_on, dials, energetic, post, request_body
from sandbox.vapi.server import Assistant

pytestmark = pytest.mark.slow

KEY = {"Authorization": "Bearer sandbox-key", "User-Agent": "test/1"}
FAST = {
    "name": "Front desk",
    "firstMessage": CLIPS["which_day"].text,
    "model": {
        "provider": "openai",
        "model": "m",
        "tools": [{"type": "function", "function": {"name": "transfer_call"}}],
    },
    "voice": {"provider": "vapi", "voiceId": "Elliot"},
    "transcriber": {"provider": "deepgram", "model": "nova-3", "language": "en", "endpointing": 300},
}


async def ask(
    assistant: Assistant,
    method: str,
    path: str,
    body: Any = None,
    *,
    headers: dict[str, str] = KEY,
    **query: Any,
) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(skip_auto_headers={"User-Agent"}) as http,
        http.request(method, assistant.base_url + path, json=body, params=query, headers=headers) as answer,
    ):
        is_json = answer.content_type == "application/json"
        return answer.status, await (answer.json() if is_json else answer.text())


@asynccontextmanager
async def webhook() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Somebody who runs every tool that is called."""
    posted: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        message = (await request.json())["message"]
        posted.append(message)
        called = message.get("toolCallList", [])
        return web.json_response(
            {"results": [{"toolCallId": each["id"], "result": "Done."} for each in called]}
        )

    application = web.Application()
    application.router.add_post("/events", take)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/events", posted
    finally:
        await runner.cleanup()


async def test_an_assistant_is_made_shown_changed_and_listed() -> None:
    async with energetic() as vapi:
        status, made = await ask(vapi, "POST", "/assistant", FAST)
        assert status == 201 and made["id"] and made["createdAt"] == made["updatedAt"]
        assert await ask(vapi, "GET", f"/assistant/{made['id']}") == (200, made)
        # An object that is named is replaced whole; the others stay.
        change = {"transcriber": {"provider": "deepgram", "endpointing": 400}}
        status, changed = await ask(vapi, "PATCH", f"/assistant/{made['id']}", change)
        assert (status, changed["transcriber"], changed["voice"]) == (
            200,
            change["transcriber"],
            FAST["voice"],
        )
        assert changed["createdAt"] == made["createdAt"]
        _, second = await ask(vapi, "POST", "/assistant", {"name": "Second"})
        _, listed = await ask(vapi, "GET", "/assistant")
        assert [each["id"] for each in listed] == [second["id"], made["id"]]
        assert len((await ask(vapi, "GET", "/assistant", limit="1"))[1]) == 1


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"endpointing": 300}, "property endpointing should not exist"),
        ({"transcriber": {"provider": "deepgram", "endpointing": 501}}, "transcriber.endpointing must be"),
        ({"transcriber": {"provider": "deepgram", "endpointing": 9}}, "from 10 to 500"),
        ({"transcriber": {"endpointing": 300}}, "transcriber.provider"),
        ({"stopSpeakingPlan": {"voiceSeconds": 0.6}}, "stopSpeakingPlan.voiceSeconds"),
        (
            {"startSpeakingPlan": {"transcriptionEndpointingPlan": {"onNumberSeconds": 4}}},
            "onNumberSeconds must be a number from 0 to 3",
        ),
        ({"server": {"backoffPlan": {"maxRetries": 11}}}, "server.backoffPlan.maxRetries"),
        ({"server": {"timeoutSeconds": 0}}, "server.timeoutSeconds"),
        ({"maxDurationSeconds": 9}, "maxDurationSeconds must be"),
        ({"serverMessages": ["gossip"]}, "gossip"),
        ({"model": {"model": "m"}}, "model.provider"),
        ({"name": "x" * 41}, "name must be shorter"),
        ([], "body must be an object"),
    ],
)
async def test_an_assistant_that_the_documentation_does_not_allow_is_refused(
    body: Any, complaint: str
) -> None:
    async with energetic() as vapi:
        status, answer = await ask(vapi, "POST", "/assistant", body)
        assert status == 400 and any(complaint in words for words in answer["message"]), answer
        mine = vapi.store.put(FAST)
        assert (await ask(vapi, "PATCH", f"/assistant/{mine['id']}", body))[0] == 400
        assert vapi.store.newest(9) == [mine]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/assistant"),
        ("GET", "/assistant"),
        ("GET", "/assistant/x"),
        ("PATCH", "/assistant/x"),
        ("GET", "/call"),
    ],
)
async def test_every_endpoint_wants_the_private_key_and_a_user_agent(method: str, path: str) -> None:
    async with energetic() as vapi:
        public = KEY | {"Authorization": "Bearer public-key"}
        status, answer = await ask(vapi, method, path, {}, headers=public)
        assert status == 401 and "public key where the private one is needed" in answer["message"]
        nameless = {"Authorization": KEY["Authorization"]}
        assert await ask(vapi, method, path, {}, headers=nameless) == (403, "error code: 1010")


async def test_what_is_not_there_is_not_found_and_trouble_is_had_when_ordered() -> None:
    async with energetic() as vapi:
        for method, path in (("GET", "/assistant/x"), ("PATCH", "/assistant/x"), ("GET", "/call/x")):
            status, answer = await ask(vapi, method, path, {})
            assert (status, answer["statusCode"]) == (404, 404)
    async with energetic(dials(rest_status=429)) as vapi:
        assert (await ask(vapi, "GET", "/assistant"))[0] == 429


async def test_calls_are_listed_by_assistant_id_and_time() -> None:
    async with energetic() as vapi:
        _, first = await post(vapi, request_body())
        _, other = await post(vapi, request_body(assistantId="a-2"))

        async def ids(**query: Any) -> list[str]:
            status, listed = await ask(vapi, "GET", "/call", **query)
            assert status == 200, listed
            return [call["id"] for call in listed]

        assert await ids() == [other["id"], first["id"]]
        assert await ids(limit="1") == [other["id"]]
        assert await ids(assistantId="a-1") == [first["id"]]
        assert await ids(id=first["id"]) == [first["id"]]
        hour, now = timedelta(hours=1), datetime.now(UTC)
        assert len(await ids(createdAtGt=(now - hour).isoformat(), createdAtLt=(now + hour).isoformat())) == 2
        assert await ids(createdAtLt=(now - hour).isoformat()) == []
        assert await ids(createdAtGt=f"{now + hour:%Y-%m-%dT%H:%M:%S}") == []
        assert (await ask(vapi, "GET", "/call", createdAtGt="yesterday"))[0] == 400
        assert (await ask(vapi, "GET", "/call", colour="blue"))[0] == 400


async def test_a_finished_call_shows_all_that_settles_after_its_end() -> None:
    async with energetic() as vapi, call_on(vapi) as (client, call):
        await client.say("book_table")
        await vapi.until(lambda: call.answers)
        await client.tell(type="end-call")
        await client.closed()
        await vapi.until(lambda: call.ended_at)
        _, shown = await ask(vapi, "GET", f"/call/{call.id}")
        assert (shown["status"], shown["endedReason"]) == ("ended", "customer-ended-call")
        assert shown["startedAt"] < shown["endedAt"]
        assert shown["costBreakdown"]["total"] == pytest.approx(shown["cost"])
        assert {item["type"] for item in shown["costs"]} == {"transport", "stt", "model", "voice", "vapi"}
        assert shown["costBreakdown"].keys() == {"transport", "stt", "llm", "tts", "vapi", "total"}
        assert shown["messages"] == shown["artifact"]["messages"] != []
        assert shown["analysis"]["successEvaluation"] == "true"


async def test_a_stored_assistant_speaks_its_own_first_message() -> None:
    async with energetic(dials(greets=True)) as vapi:
        mine = vapi.store.put(FAST)["id"]
        for body, clip in (
            ({"assistantId": mine}, "which_day"),
            ({"assistantId": vapi.store.put({"firstMessage": "No clip says this."})["id"]}, "greeting"),
            ({"assistantId": "unknown"}, "greeting"),
        ):
            async with call_on(vapi, **body) as (_, call):
                await vapi.until(lambda call=call: call.replies)  # type: ignore[misc]
                assert call.replies[0].clip == clip


@pytest.mark.parametrize("may", [True, False])
async def test_a_caller_who_asks_for_a_person_makes_an_assistant_with_that_tool_call_it(may: bool) -> None:
    words = CLIPS["talk_to_person"].text
    async with energetic(script=[words]) as vapi, webhook() as (url, posted):
        assistant_id = vapi.store.put(FAST)["id"] if may else "unknown"
        overrides = {
            "metadata": {"callSid": "CA1"},
            "server": {"url": url},
            "serverMessages": ["tool-calls"],
            "clientMessages": ["tool-calls", "transcript"],
        }
        async with call_on(vapi, assistantId=assistant_id, assistantOverrides=overrides) as (client, call):
            await client.say("talk_to_person")
            await client.event(type="transcript", role="assistant", transcriptType="final")
            if not may:
                await client.tell(type="end-call")
                await client.closed()
                assert not call.tool_calls and posted == []
                return
            event = await client.event(type="tool-calls")
            await vapi.until(lambda: call.tool_results)
            (asked,) = event["toolCallList"]
            assert asked["function"] == {"name": "transfer_call", "arguments": {"reason": words}}
            (told,) = posted
            assert (told["type"], told["toolCallList"], told["call"]["id"]) == (
                "tool-calls",
                [asked],
                call.id,
            )
            assert call.tool_results[0]["results"] == [{"toolCallId": asked["id"], "result": "Done."}]
