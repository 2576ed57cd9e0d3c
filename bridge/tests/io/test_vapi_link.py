"""Dialing Vapi and hanging up: requests, retries, forbidden URLs, and calls that must be ended at Vapi."""

from __future__ import annotations

import asyncio
import socket
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
from bridge.tests.io.peers import FakeVapi
from bridge.wire.vapi import CallCreated

REQUEST = DialRequest(CALL, "+15551230000", Route(assistant_id="assistant-1"))
MakeClient = Callable[..., VapiClient]


@pytest.fixture(autouse=True)
def no_retry_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vapi_client, "RETRY_PAUSE_SECONDS", 0.0)


@pytest.fixture
async def make_client(vapi: FakeVapi) -> AsyncIterator[MakeClient]:
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


async def dial(client: VapiClient, request: DialRequest = REQUEST) -> VapiLink:
    link = await client.dial(request, lambda: True)
    assert link is not None
    return link


async def dial_error(client: VapiClient) -> DialError:
    with pytest.raises(DialError) as failure:
        await client.dial(REQUEST, lambda: True)
    assert "canary" not in str(failure.value)
    assert "/socket" not in str(failure.value)
    return failure.value


async def test_it_sends_the_documented_request(make_client: MakeClient, vapi: FakeVapi) -> None:
    link = await dial(make_client())
    assert link.call_id == "0198c5d1-7777-7000-8000-000000000001"
    headers = vapi.requests[0].headers
    assert headers["Authorization"] == "Bearer key-canary"
    assert headers["User-Agent"].startswith("voiceai/"), "without one Vapi's edge answers 403"
    overrides = vapi.bodies[0]["assistantOverrides"]
    assert overrides["metadata"] == {"callSid": CALL, "route": "default"}
    assert overrides["server"]["url"] == f"https://bridge.example.com/vapi/events?callSid={CALL}"
    assert overrides["server"]["headers"] == {"X-Vapi-Secret": "webhook-canary"}
    assert vapi.bodies[0]["assistantId"] == "assistant-1"
    await link.hang_up("close")


async def test_a_route_sets_its_own_assistant_and_limits(make_client: MakeClient, vapi: FakeVapi) -> None:
    route = Route("1", "+1", "assistant-2", {"firstMessage": "Hi"}, 350, max_call_seconds=60, record=True)
    link = await dial(make_client(), DialRequest(CALL, "", route))
    overrides = vapi.bodies[0]["assistantOverrides"]
    assert vapi.bodies[0]["assistantId"] == "assistant-2"
    assert overrides["maxDurationSeconds"] == 60
    assert overrides["startSpeakingPlan"] == {"waitSeconds": 0.35}
    assert overrides["artifactPlan"] == {"recordingEnabled": True}
    assert overrides["firstMessage"] == "Hi"
    assert overrides["variableValues"]["twilioCallSid"] == CALL
    await link.hang_up("close")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_it_retries_once_on_statuses_that_may_pass(
    make_client: MakeClient, vapi: FakeVapi, status: int
) -> None:
    vapi.error_statuses = [status]
    link = await dial(make_client())
    assert len(vapi.requests) == 2
    await link.hang_up("close")


@pytest.mark.parametrize("status", [302, 400, 401, 403, 409, 422, 500])
async def test_it_does_not_retry_other_statuses_or_follow_redirects(
    make_client: MakeClient, vapi: FakeVapi, status: int
) -> None:
    vapi.error_statuses = [status]
    failure = await dial_error(make_client())
    assert failure.status == status
    assert len(vapi.requests) == 1


async def test_the_error_has_vapis_message(make_client: MakeClient, vapi: FakeVapi) -> None:
    vapi.error_statuses = [401]
    assert str(await dial_error(make_client())) == "Vapi answered 401: refused with 401"


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"", b" " * (2 << 20)])
async def test_it_rejects_an_invalid_response(make_client: MakeClient, vapi: FakeVapi, answer: bytes) -> None:
    vapi.response_body = answer
    assert (await dial_error(make_client())).status == 201


@pytest.mark.parametrize(
    "changes", [{"transport": {}}, {"transport": None}, {"subscriptionLimits": {"concurrencyBlocked": True}}]
)
async def test_a_created_call_without_a_usable_socket_is_ended(
    make_client: MakeClient, vapi: FakeVapi, changes: dict[str, Any]
) -> None:
    vapi.response_changes = changes
    failure = await dial_error(make_client())
    assert failure.call_id == "0198c5d1-7777-7000-8000-000000000001"
    assert vapi.control_messages == [{"type": "end-call"}]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/x", "wss://evil.example/x", "wss://api.vapi.ai.evil.example/x", "ws://api.vapi.ai/x",
     "wss://a..vapi.ai/x", "nonsense"],
)  # fmt: skip
async def test_it_does_not_connect_to_a_forbidden_socket_url(
    make_client: MakeClient, vapi: FakeVapi, url: str
) -> None:
    vapi.response_changes = {"transport": {"websocketCallUrl": url}}
    failure = await dial_error(make_client())
    assert failure.call_id
    assert vapi.control_messages == [{"type": "end-call"}]


async def test_it_does_not_connect_to_a_listed_name_with_a_private_address(
    make_client: MakeClient, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def public_addresses(host: str, port: int) -> list[str]:
        raise ForbiddenUrl("host resolves to an address that is not public")

    monkeypatch.setattr(allowed_hosts, "public_addresses", public_addresses)
    vapi.response_changes = {"transport": {"websocketCallUrl": "wss://api.vapi.ai/x"}}
    assert "not public" in str(await dial_error(make_client()))


async def test_it_connects_to_the_address_that_was_checked(
    make_client: MakeClient, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second look-up could return another address (DNS rebinding)."""
    resolved: list[str] = []

    async def public_addresses(host: str, port: int) -> list[str]:
        resolved.append(host)
        return ["127.0.0.1"]

    loop = asyncio.get_running_loop()
    connected: list[Any] = []

    async def connect_tcp(addresses: list[str], port: int) -> socket.socket:
        connected.append((addresses, port))
        return socket.socket()

    async def create_connection(*args: Any, **options: Any) -> Any:
        connected.append((type(options["sock"]), options.get("host"), options["server_hostname"]))
        raise ConnectionRefusedError

    async def create(request: DialRequest) -> CallCreated:
        return CallCreated("vapi-1", "wss://api.vapi.ai/x")

    monkeypatch.setattr(allowed_hosts, "public_addresses", public_addresses)
    monkeypatch.setattr(vapi_client, "connect_tcp", connect_tcp)
    monkeypatch.setattr(loop, "create_connection", create_connection)
    client = make_client()
    monkeypatch.setattr(client, "_create_call", create)
    await dial_error(client)
    assert resolved == ["api.vapi.ai"]
    assert connected == [(["127.0.0.1"], 443), (socket.socket, None, "api.vapi.ai")]


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.3", "127.0.0.1"],
        ["::1", "127.0.0.1"],
        ["127.0.0.1", "::1"],
        ["::1", "127.0.0.3", "127.0.0.1"],
    ],
)
async def test_it_opens_the_socket_at_the_first_address_that_answers(
    make_client: MakeClient, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    async def public_addresses(host: str, port: int) -> list[str]:
        return addresses  # only 127.0.0.1 answers

    monkeypatch.setattr(allowed_hosts, "public_addresses", public_addresses)
    monkeypatch.setattr(
        allowed_hosts.AllowedHosts, "check", lambda self, url, schemes: schemes == {"ws", "wss"}
    )
    link = await dial(make_client())
    assert link is not None
    await link.hang_up("close")


@pytest.mark.parametrize("status", [302, 400, 403, 500])
async def test_a_socket_that_answers_another_status_is_an_error(
    make_client: MakeClient, vapi: FakeVapi, status: int
) -> None:
    vapi.socket_status = status
    failure = await dial_error(make_client())
    assert failure.status == status
    assert vapi.handshakes == 1, "redirects are not followed"
    assert vapi.control_messages == [{"type": "end-call"}]


async def test_a_handshake_that_times_out_is_an_error(
    make_client: MakeClient, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vapi_client, "OPEN_SECONDS", 0.1)
    vapi.may_open.clear()
    assert "in time" in str(await dial_error(make_client()))
    assert vapi.control_messages == [{"type": "end-call"}]


async def test_a_handshake_that_times_out_is_an_error_in_the_socket_dialect(
    make_client: MakeClient, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vapi_client, "OPEN_SECONDS", 0.1)
    vapi.may_open.clear()
    assert "in time" in str(await dial_error(make_client(vapi_socket_url=vapi.url("/socket", "ws"))))


async def test_a_closed_port_is_an_error(make_client: MakeClient, unused_tcp_port: int) -> None:
    nowhere = f"127.0.0.1:{unused_tcp_port}"
    assert "no connection" in str(await dial_error(make_client(vapi_base_url=f"http://{nowhere}")))
    assert "did not open" in str(await dial_error(make_client(vapi_socket_url=f"ws://{nowhere}/x")))


async def test_it_retries_once_after_a_broken_connection(make_client: MakeClient, vapi: FakeVapi) -> None:
    client = make_client()
    vapi.may_create.clear()
    dial_task = asyncio.create_task(dial(client))
    await vapi.changes.wait_until(lambda: vapi.requests)
    transport = vapi.requests[0].transport
    assert transport is not None
    transport.abort()
    vapi.may_create.set()
    link = await dial_task
    assert len(vapi.requests) == 2
    await link.hang_up("close")


async def test_a_socket_that_closes_before_the_first_message_is_an_error(
    make_client: MakeClient, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(vapi_socket_url=vapi.url("/socket", "ws"))
    open_socket = client._open_socket

    async def open_and_close(url: str, address: str | None) -> VapiSocket:
        socket = await open_socket(url, address)
        await socket.close()
        return socket

    monkeypatch.setattr(client, "_open_socket", open_and_close)
    assert "did not accept the first message" in str(await dial_error(client))


async def test_a_created_call_that_is_no_longer_wanted_is_ended(
    make_client: MakeClient, vapi: FakeVapi
) -> None:
    assert await make_client().dial(REQUEST, lambda: False) is None
    assert vapi.control_messages == [{"type": "end-call"}]
    assert vapi.handshakes == 0


async def test_the_audio_format_in_vapis_response_is_used(make_client: MakeClient, vapi: FakeVapi) -> None:
    transport = {"websocketCallUrl": vapi.url("/socket", "ws"), "audioFormat": {"format": "mulaw"}}
    vapi.response_changes = {"transport": transport}
    link = await dial(make_client(vapi_audio_format=AudioFormat.PCM_16K))
    await link.send_audio(LOUD)
    await vapi.changes.wait_until(lambda: vapi.audio)
    assert vapi.audio == [LOUD]
    await vapi.send(LOUD)
    await vapi.send(b"\xff" * 160)
    events: list[object] = []
    listen_task = asyncio.create_task(link.listen(events.append))
    async with asyncio.timeout(5):
        while len(events) < 2:
            await asyncio.sleep(0)
    assert events == [AssistantAudio(LOUD, audible=True), AssistantAudio(b"\xff" * 160, audible=False)]
    await link.hang_up("close")
    await listen_task


async def test_end_call_is_sent_before_the_socket_is_closed(make_client: MakeClient, vapi: FakeVapi) -> None:
    vapi.closes_on_end_call = False
    link = await dial(make_client())
    hang_up_task = asyncio.create_task(link.hang_up("end-call"))
    await vapi.changes.wait_until(lambda: vapi.messages)
    assert vapi.close_code is None, "Vapi may close the socket first"
    await vapi.close()
    await hang_up_task
    assert link.close_code == 1000
    assert vapi.control_messages == []


async def test_the_link_closes_a_socket_that_vapi_leaves_open(
    make_client: MakeClient, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vapi_link, "END_CALL_SECONDS", 0.05)
    vapi.closes_on_end_call = False
    link = await dial(make_client())
    await link.hang_up("end-call")
    assert vapi.messages_of_type("end-call")
    await vapi.changes.wait_until(lambda: vapi.close_code)
    assert vapi.control_messages == []


async def test_a_broken_socket_is_ended_through_the_control_url(
    make_client: MakeClient, vapi: FakeVapi
) -> None:
    link = await dial(make_client())
    vapi.abort()
    events: list[object] = []
    await link.listen(events.append)
    assert events == []
    await link.hang_up("end-call")
    assert link.close_code == 1006
    assert vapi.control_messages == [{"type": "end-call"}]


async def test_a_blocked_socket_is_ended_through_the_control_url(
    make_client: MakeClient, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vapi_link, "END_CALL_SECONDS", 0.05)
    link = await dial(make_client())

    async def block(message: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(link, "send_control", block)
    await link.hang_up("end-call")
    assert vapi.control_messages == [{"type": "end-call"}]


async def test_without_a_control_url_nothing_is_sent(make_client: MakeClient, vapi: FakeVapi) -> None:
    vapi.response_changes = {"monitor": {}}
    link = await dial(make_client())
    await link.hang_up("control")
    assert vapi.control_messages == []


@pytest.mark.parametrize(
    "url", ["https://evil.example/control", "ftp://127.0.0.1/control", "https://a..vapi.ai/x"]
)
async def test_a_forbidden_control_url_is_not_requested(
    make_client: MakeClient, vapi: FakeVapi, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    vapi.response_changes = {"monitor": {"controlUrl": url}}
    link = await dial(make_client())
    await link.hang_up("control")
    assert "end-call by the control URL failed: ForbiddenUrl" in caplog.text
    assert url not in caplog.text


async def test_an_error_status_of_the_control_url_is_logged(
    make_client: MakeClient, vapi: FakeVapi, caplog: pytest.LogCaptureFixture
) -> None:
    vapi.control_status = 500
    link = await dial(make_client())
    await link.hang_up("control")
    assert "answered 500 to end-call" in caplog.text


async def test_closing_the_client_waits_for_background_requests(
    make_client: MakeClient, vapi: FakeVapi
) -> None:
    client = make_client()
    link = await dial(client)
    hang_up_task = asyncio.create_task(link.hang_up("control"))
    await vapi.changes.wait_until(lambda: vapi.control_messages)
    await client.close()
    await hang_up_task
    assert vapi.control_messages == [{"type": "end-call"}]


async def test_an_unused_client_can_be_closed() -> None:
    await VapiClient(BridgeConfig()).close()
