"""Stored assistants of the Vapi simulator and their calls, over real HTTP and sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sandbox.tests.vapi.test_server import CLIPS, call_on, energy_simulator, make_faults, post, request_body
from sandbox.vapi.server import VapiSimulator

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


async def call_api(
    vapi: VapiSimulator,
    method: str,
    path: str,
    body: Any = None,
    *,
    headers: dict[str, str] = KEY,
    **query: Any,
) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(skip_auto_headers={"User-Agent"}) as http,
        http.request(method, vapi.base_url + path, json=body, params=query, headers=headers) as answer,
    ):
        is_json = answer.content_type == "application/json"
        return answer.status, await (answer.json() if is_json else answer.text())


@asynccontextmanager
async def webhook() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook server that returns a result for every tool call."""
    posted: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        message = (await request.json())["message"]
        posted.append(message)
        called = message.get("toolCallList", [])
        return web.json_response(
            {"results": [{"toolCallId": tool_call["id"], "result": "Done."} for tool_call in called]}
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


async def test_an_assistant_is_created_read_updated_and_listed() -> None:
    async with energy_simulator() as vapi:
        status, made = await call_api(vapi, "POST", "/assistant", FAST)
        assert status == 201 and made["id"] and made["createdAt"] == made["updatedAt"]
        assert await call_api(vapi, "GET", f"/assistant/{made['id']}") == (200, made)
        # A nested object in the request is replaced as a whole; the others stay.
        change = {"transcriber": {"provider": "deepgram", "endpointing": 400}}
        status, changed = await call_api(vapi, "PATCH", f"/assistant/{made['id']}", change)
        assert (status, changed["transcriber"], changed["voice"]) == (
            200,
            change["transcriber"],
            FAST["voice"],
        )
        assert changed["createdAt"] == made["createdAt"]
        _, second = await call_api(vapi, "POST", "/assistant", {"name": "Second"})
        _, listed = await call_api(vapi, "GET", "/assistant")
        assert [assistant["id"] for assistant in listed] == [second["id"], made["id"]]
        assert len((await call_api(vapi, "GET", "/assistant", limit="1"))[1]) == 1


@pytest.mark.parametrize(
    ("body", "message"),
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
async def test_it_rejects_undocumented_fields_and_values_of_an_assistant(body: Any, message: str) -> None:
    async with energy_simulator() as vapi:
        status, answer = await call_api(vapi, "POST", "/assistant", body)
        assert status == 400 and any(message in text for text in answer["message"]), answer
        assistant = vapi.assistant_store.put(FAST)
        assert (await call_api(vapi, "PATCH", f"/assistant/{assistant['id']}", body))[0] == 400
        assert vapi.assistant_store.newest(9) == [assistant]


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
async def test_every_endpoint_requires_the_private_key_and_a_user_agent(method: str, path: str) -> None:
    async with energy_simulator() as vapi:
        public = KEY | {"Authorization": "Bearer public-key"}
        status, answer = await call_api(vapi, method, path, {}, headers=public)
        assert status == 401 and "public key where the private one is needed" in answer["message"]
        nameless = {"Authorization": KEY["Authorization"]}
        assert await call_api(vapi, method, path, {}, headers=nameless) == (403, "error code: 1010")


async def test_unknown_ids_are_not_found_and_rest_faults_apply() -> None:
    async with energy_simulator() as vapi:
        for method, path in (("GET", "/assistant/x"), ("PATCH", "/assistant/x"), ("GET", "/call/x")):
            status, answer = await call_api(vapi, method, path, {})
            assert (status, answer["statusCode"]) == (404, 404)
    async with energy_simulator(make_faults(rest_status=429)) as vapi:
        assert (await call_api(vapi, "GET", "/assistant"))[0] == 429


async def test_calls_are_listed_by_assistant_id_and_time() -> None:
    async with energy_simulator() as vapi:
        _, first = await post(vapi, request_body())
        _, other = await post(vapi, request_body(assistantId="a-2"))

        async def ids(**query: Any) -> list[str]:
            status, listed = await call_api(vapi, "GET", "/call", **query)
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
        assert (await call_api(vapi, "GET", "/call", createdAtGt="yesterday"))[0] == 400
        assert (await call_api(vapi, "GET", "/call", color="blue"))[0] == 400


async def test_an_ended_call_includes_the_facts_of_its_report() -> None:
    async with energy_simulator() as vapi, call_on(vapi) as (client, call):
        await client.say("book_table")
        await vapi.until(lambda: call.answers)
        await client.send(type="end-call")
        await client.wait_until_closed()
        await vapi.until(lambda: call.ended_at)
        _, ended_call = await call_api(vapi, "GET", f"/call/{call.id}")
        assert (ended_call["status"], ended_call["endedReason"]) == ("ended", "customer-ended-call")
        assert ended_call["startedAt"] < ended_call["endedAt"]
        assert ended_call["costBreakdown"]["total"] == pytest.approx(ended_call["cost"])
        assert {item["type"] for item in ended_call["costs"]} == {
            "transport",
            "stt",
            "model",
            "voice",
            "vapi",
        }
        assert ended_call["costBreakdown"].keys() == {"transport", "stt", "llm", "tts", "vapi", "total"}
        assert ended_call["messages"] == ended_call["artifact"]["messages"] != []
        assert ended_call["analysis"]["successEvaluation"] == "true"


async def test_a_stored_assistant_speaks_its_own_first_message() -> None:
    async with energy_simulator(make_faults(greets=True)) as vapi:
        assistant_id = vapi.assistant_store.put(FAST)["id"]
        for body, clip in (
            ({"assistantId": assistant_id}, "which_day"),
            (
                {"assistantId": vapi.assistant_store.put({"firstMessage": "No clip says this."})["id"]},
                "greeting",
            ),
            ({"assistantId": "unknown"}, "greeting"),
        ):
            async with call_on(vapi, **body) as (_, call):
                await vapi.until(lambda call=call: call.replies)  # type: ignore[misc]
                assert call.replies[0].clip == clip


@pytest.mark.parametrize("has_tool", [True, False])
async def test_a_caller_who_asks_for_a_person_triggers_the_transfer_tool_if_there_is_one(
    has_tool: bool,
) -> None:
    words = CLIPS["talk_to_person"].text
    async with energy_simulator(script=[words]) as vapi, webhook() as (url, posted):
        assistant_id = vapi.assistant_store.put(FAST)["id"] if has_tool else "unknown"
        overrides = {
            "metadata": {"callSid": "CA1"},
            "server": {"url": url},
            "serverMessages": ["tool-calls"],
            "clientMessages": ["tool-calls", "transcript"],
        }
        async with call_on(vapi, assistantId=assistant_id, assistantOverrides=overrides) as (client, call):
            await client.say("talk_to_person")
            await client.wait_for_event(type="transcript", role="assistant", transcriptType="final")
            if not has_tool:
                await client.send(type="end-call")
                await client.wait_until_closed()
                assert not call.tool_calls and posted == []
                return
            event = await client.wait_for_event(type="tool-calls")
            await vapi.until(lambda: call.tool_results)
            (tool_call,) = event["toolCallList"]
            assert tool_call["function"] == {"name": "transfer_call", "arguments": {"reason": words}}
            (message,) = posted
            assert (message["type"], message["toolCallList"], message["call"]["id"]) == (
                "tool-calls",
                [tool_call],
                call.id,
            )
            assert call.tool_results[0]["results"] == [{"toolCallId": tool_call["id"], "result": "Done."}]
