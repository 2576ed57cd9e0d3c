"""Reaching Vapi: what is asked, what is retried, where it does not go, and what is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bridge import allowed_hosts
from bridge.allowed_hosts import ForbiddenUrl
from bridge.call.events import AssistantAudio
from bridge.config import AudioFormat, BridgeConfig
from bridge.io import vapi_client, vapi_link
from bridge.io.vapi_client import DialError, DialRequest, VapiClient
from bridge.io.vapi_link import VapiLink
from bridge.io.vapi_socket import VapiSocket
from bridge.routes import Route
from bridge.tests.call.scenario import CALL, LOUD
from bridge.tests.io.peers import Noticeboard, Vapi
from bridge.wire.vapi import CallCreated

WHOM = DialRequest(CALL, "+15551230000", Route(assistant_id="assistant-1"))
MakeClient = Callable[..., VapiClient]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vapi_client, "RETRY_PAUSE_SECONDS", 0.0)


@pytest.fixture
async def vapi() -> AsyncIterator[Vapi]:
    stand_in = Vapi(Noticeboard())
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


@pytest.fixture
async def make_client(vapi: Vapi) -> AsyncIterator[MakeClient]:
    clients: list[VapiClient] = []

    def make(**settings: Any) -> VapiClient:
        defaults: dict[str, Any] = {
            "public_url": "https://bridge.example.com",
            "vapi_api_key": "key-canary",
            "vapi_assistant_id": "assistant-1",
            "vapi_webhook_secret": "webhook-canary",
            "vapi_base_url": vapi.url("/"),
            "vapi_allowed_hosts": ("127.0.0.1", "*.vapi.ai"),
        }
        clients.append(VapiClient(BridgeConfig(**{**defaults, **settings})))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


async def dialled(client: VapiClient, whom: DialRequest = WHOM) -> VapiLink:
    link = await client.dial(whom, lambda: True)
    assert link is not None
    return link


async def why_unreachable(client: VapiClient) -> DialError:
    with pytest.raises(DialError) as failure:
        await client.dial(WHOM, lambda: True)
    assert "canary" not in str(failure.value)
    assert "/socket" not in str(failure.value)
    return failure.value


async def test_it_asks_as_documented(make_client: MakeClient, vapi: Vapi) -> None:
    link = await dialled(make_client())
    assert link.call_id == "0198c5d1-7777-7000-8000-000000000001"
    headers = vapi.requests[0].headers
    assert headers["Authorization"] == "Bearer key-canary"
    assert headers["User-Agent"].startswith("voiceai/"), "without one Vapi's front door answers 403"
    overrides = vapi.bodies[0]["assistantOverrides"]
    assert overrides["metadata"] == {"callSid": CALL, "route": "default"}
    assert overrides["server"]["url"] == f"https://bridge.example.com/vapi/events?callSid={CALL}"
    assert overrides["server"]["headers"] == {"X-Vapi-Secret": "webhook-canary"}
    assert vapi.bodies[0]["assistantId"] == "assistant-1"
    await link.hang_up("close")


async def test_a_route_has_its_own_assistant_and_limits(make_client: MakeClient, vapi: Vapi) -> None:
    route = Route("1", "+1", "assistant-2", {"firstMessage": "Hi"}, 350, max_call_seconds=60, record=True)
    link = await dialled(make_client(), DialRequest(CALL, "", route))
    overrides = vapi.bodies[0]["assistantOverrides"]
    assert vapi.bodies[0]["assistantId"] == "assistant-2"
    assert overrides["maxDurationSeconds"] == 60
    assert overrides["startSpeakingPlan"] == {"waitSeconds": 0.35}
    assert overrides["artifactPlan"] == {"recordingEnabled": True}
    assert overrides["firstMessage"] == "Hi"
    assert overrides["variableValues"]["twilioCallSid"] == CALL
    await link.hang_up("close")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_one_retry_where_it_can_help(make_client: MakeClient, vapi: Vapi, status: int) -> None:
    vapi.statuses = [status]
    link = await dialled(make_client())
    assert len(vapi.requests) == 2
    await link.hang_up("close")


@pytest.mark.parametrize("status", [302, 400, 401, 403, 409, 422, 500])
async def test_no_retry_and_no_redirect_where_it_cannot(
    make_client: MakeClient, vapi: Vapi, status: int
) -> None:
    vapi.statuses = [status]
    failure = await why_unreachable(make_client())
    assert failure.status == status
    assert len(vapi.requests) == 1


async def test_what_a_refusing_vapi_says_is_passed_on(make_client: MakeClient, vapi: Vapi) -> None:
    vapi.statuses = [401]
    assert str(await why_unreachable(make_client())) == "Vapi answered 401: refused with 401"


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"", b" " * (2 << 20)])
async def test_an_answer_that_is_none(make_client: MakeClient, vapi: Vapi, answer: bytes) -> None:
    vapi.answer = answer
    assert (await why_unreachable(make_client())).status == 201


@pytest.mark.parametrize(
    "changes", [{"transport": {}}, {"transport": None}, {"subscriptionLimits": {"concurrencyBlocked": True}}]
)
async def test_a_call_that_cannot_be_used_is_ended(
    make_client: MakeClient, vapi: Vapi, changes: dict[str, Any]
) -> None:
    vapi.changes = changes
    failure = await why_unreachable(make_client())
    assert failure.call_id == "0198c5d1-7777-7000-8000-000000000001"
    assert vapi.controlled == [{"type": "end-call"}]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/x", "wss://evil.example/x", "wss://api.vapi.ai.evil.example/x", "ws://api.vapi.ai/x",
     "wss://a..vapi.ai/x", "nonsense"],
)  # fmt: skip
async def test_it_does_not_go_where_it_must_not(make_client: MakeClient, vapi: Vapi, url: str) -> None:
    vapi.changes = {"transport": {"websocketCallUrl": url}}
    failure = await why_unreachable(make_client())
    assert failure.call_id
    assert vapi.controlled == [{"type": "end-call"}]


async def test_a_listed_name_with_a_private_address_is_not_followed(
    make_client: MakeClient, vapi: Vapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def public_address(host: str, port: int) -> str:
        raise ForbiddenUrl("host resolves to an address that is not public")

    monkeypatch.setattr(allowed_hosts, "public_address", public_address)
    vapi.changes = {"transport": {"websocketCallUrl": "wss://api.vapi.ai/x"}}
    assert "not public" in str(await why_unreachable(make_client()))


async def test_it_connects_to_the_address_that_was_checked(
    make_client: MakeClient, vapi: Vapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And to no other that the name may have by then."""
    asked: list[str] = []

    async def public_address(host: str, port: int) -> str:
        asked.append(host)
        return "127.0.0.1"

    loop = asyncio.get_running_loop()
    connected: list[Any] = []

    async def create_connection(*args: Any, **options: Any) -> Any:
        connected.append((options["host"], options.get("server_hostname")))
        raise ConnectionRefusedError

    async def create(whom: DialRequest) -> CallCreated:
        return CallCreated("vapi-1", "wss://api.vapi.ai/x")

    monkeypatch.setattr(allowed_hosts, "public_address", public_address)
    monkeypatch.setattr(loop, "create_connection", create_connection)
    client = make_client()
    monkeypatch.setattr(client, "_create_call", create)
    await why_unreachable(client)
    assert asked == ["api.vapi.ai"]
    assert connected == [("127.0.0.1", "api.vapi.ai")]


@pytest.mark.parametrize("status", [302, 400, 403, 500])
async def test_a_socket_that_answers_otherwise(make_client: MakeClient, vapi: Vapi, status: int) -> None:
    vapi.socket_status = status
    failure = await why_unreachable(make_client())
    assert failure.status == status
    assert vapi.dialled == 1, "redirects are not followed"
    assert vapi.controlled == [{"type": "end-call"}]


async def test_a_socket_that_hangs_in_its_handshake(
    make_client: MakeClient, vapi: Vapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vapi_client, "OPEN_SECONDS", 0.1)
    vapi.opened.clear()
    assert "in time" in str(await why_unreachable(make_client()))
    assert vapi.controlled == [{"type": "end-call"}]


async def test_a_socket_that_hangs_in_the_other_dialect(
    make_client: MakeClient, vapi: Vapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vapi_client, "OPEN_SECONDS", 0.1)
    vapi.opened.clear()
    assert "in time" in str(await why_unreachable(make_client(vapi_socket_url=vapi.url("/socket", "ws"))))


async def test_nobody_listens(make_client: MakeClient, unused_tcp_port: int) -> None:
    nowhere = f"127.0.0.1:{unused_tcp_port}"
    assert "no connection" in str(await why_unreachable(make_client(vapi_base_url=f"http://{nowhere}")))
    assert "did not open" in str(await why_unreachable(make_client(vapi_socket_url=f"ws://{nowhere}/x")))


async def test_a_connection_that_breaks_is_tried_once_more(make_client: MakeClient, vapi: Vapi) -> None:
    client = make_client()
    vapi.created.clear()
    dialling = asyncio.create_task(dialled(client))
    await vapi.board.until(lambda: vapi.requests)
    transport = vapi.requests[0].transport
    assert transport is not None
    transport.abort()
    vapi.created.set()
    link = await dialling
    assert len(vapi.requests) == 2
    await link.hang_up("close")


async def test_a_server_that_closes_before_the_first_message_is_unreachable(
    make_client: MakeClient, vapi: Vapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(vapi_socket_url=vapi.url("/socket", "ws"))
    open_socket = client._open_socket

    async def open_and_close(url: str, address: str | None) -> VapiSocket:
        socket = await open_socket(url, address)
        await socket.close()
        return socket

    monkeypatch.setattr(client, "_open_socket", open_and_close)
    assert "did not accept the first message" in str(await why_unreachable(client))


async def test_a_call_that_is_no_longer_wanted_is_ended(make_client: MakeClient, vapi: Vapi) -> None:
    assert await make_client().dial(WHOM, lambda: False) is None
    assert vapi.controlled == [{"type": "end-call"}]
    assert vapi.dialled == 0


async def test_the_format_that_vapi_echoes_is_believed(make_client: MakeClient, vapi: Vapi) -> None:
    transport = {"websocketCallUrl": vapi.url("/socket", "ws"), "audioFormat": {"format": "mulaw"}}
    vapi.changes = {"transport": transport}
    link = await dialled(make_client(vapi_audio_format=AudioFormat.PCM_16K))
    await link.send_audio(LOUD)
    await vapi.board.until(lambda: vapi.audio)
    assert vapi.audio == [LOUD]
    await vapi.say(LOUD)
    await vapi.say(b"\xff" * 160)
    heard: list[object] = []
    listening = asyncio.create_task(link.listen(heard.append))
    async with asyncio.timeout(5):
        while len(heard) < 2:
            await asyncio.sleep(0)
    assert heard == [AssistantAudio(LOUD, audible=True), AssistantAudio(b"\xff" * 160, audible=False)]
    await link.hang_up("close")
    await listening


async def test_end_call_is_said_before_the_socket_is_closed(make_client: MakeClient, vapi: Vapi) -> None:
    vapi.obeys = False
    link = await dialled(make_client())
    hanging_up = asyncio.create_task(link.hang_up("end-call"))
    await vapi.board.until(lambda: vapi.texts)
    assert vapi.close_code is None, "it is given a moment to close by itself"
    await vapi.close()
    await hanging_up
    assert link.close_code == 1000
    assert vapi.controlled == []


async def test_an_assistant_that_does_not_close_is_closed(
    make_client: MakeClient, vapi: Vapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vapi_link, "GOODBYE_SECONDS", 0.05)
    vapi.obeys = False
    link = await dialled(make_client())
    await link.hang_up("end-call")
    assert vapi.told("end-call")
    await vapi.board.until(lambda: vapi.close_code)
    assert vapi.controlled == []


async def test_a_socket_that_carries_no_end_call_is_ended_by_control(
    make_client: MakeClient, vapi: Vapi
) -> None:
    link = await dialled(make_client())
    vapi.drop_dead()
    heard: list[object] = []
    await link.listen(heard.append)
    assert heard == []
    await link.hang_up("end-call")
    assert link.close_code == 1006
    assert vapi.controlled == [{"type": "end-call"}]


async def test_a_socket_that_is_stuck_is_ended_by_control(
    make_client: MakeClient, vapi: Vapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vapi_link, "GOODBYE_SECONDS", 0.05)
    link = await dialled(make_client())

    async def stuck(message: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(link, "send_control", stuck)
    await link.hang_up("end-call")
    assert vapi.controlled == [{"type": "end-call"}]


async def test_without_a_control_url_nobody_can_be_told(make_client: MakeClient, vapi: Vapi) -> None:
    vapi.changes = {"monitor": {}}
    link = await dialled(make_client())
    await link.hang_up("control")
    assert vapi.controlled == []


@pytest.mark.parametrize(
    "url", ["https://evil.example/control", "ftp://127.0.0.1/control", "https://a..vapi.ai/x"]
)
async def test_the_control_url_is_not_followed_anywhere(
    make_client: MakeClient, vapi: Vapi, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    vapi.changes = {"monitor": {"controlUrl": url}}
    link = await dialled(make_client())
    await link.hang_up("control")
    assert "end-call by the control URL failed: ForbiddenUrl" in caplog.text
    assert url not in caplog.text


async def test_a_control_url_that_refuses_is_only_logged(
    make_client: MakeClient, vapi: Vapi, caplog: pytest.LogCaptureFixture
) -> None:
    vapi.control_status = 500
    link = await dialled(make_client())
    await link.hang_up("control")
    assert "answered 500 to end-call" in caplog.text


async def test_the_client_waits_for_its_chores_when_it_closes(make_client: MakeClient, vapi: Vapi) -> None:
    client = make_client()
    link = await dialled(client)
    leaving = asyncio.create_task(link.hang_up("control"))
    await vapi.board.until(lambda: vapi.controlled)
    await client.close()
    await leaving
    assert vapi.controlled == [{"type": "end-call"}]


async def test_a_client_that_never_dialled_closes() -> None:
    await VapiClient(BridgeConfig()).close()
