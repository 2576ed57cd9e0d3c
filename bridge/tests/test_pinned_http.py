"""POST to a URL from Vapi: only to allowed hosts, and to the address that was checked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
from aiohttp import web

from bridge import allowed_hosts
from bridge.allowed_hosts import AllowedHosts, ForbiddenUrl
from bridge.pinned_http import connect_tcp, post_json

MESSAGE = {"type": "end-call"}


class RecordingServer:
    """Records the requests that it answers."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[tuple[str, str, object]] = []  # Host header, path, JSON body
        self.port = 0

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((request.headers["Host"], request.path, await request.json()))
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    server = RecordingServer()
    app = web.Application()
    app.router.add_post("/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


async def test_it_posts_json_to_a_loopback_host_that_is_listed(server: RecordingServer) -> None:
    url = f"http://127.0.0.1:{server.port}/control"
    assert await post_json(url, MESSAGE, AllowedHosts(["127.0.0.1"]), user_agent="test") == 200
    assert server.requests == [(f"127.0.0.1:{server.port}", "/control", MESSAGE)]


async def test_it_connects_to_the_checked_address_and_keeps_the_host_name(
    server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved: list[str] = []

    async def public_addresses(host: str, port: int) -> list[str]:
        resolved.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(allowed_hosts, "public_addresses", public_addresses)
    monkeypatch.setattr(AllowedHosts, "check", lambda self, url, schemes: True)
    url = f"http://api.vapi.ai:{server.port}/control"
    assert await post_json(url, MESSAGE, AllowedHosts(["api.vapi.ai"]), user_agent="test") == 200
    assert resolved == ["api.vapi.ai"]
    assert server.requests == [(f"api.vapi.ai:{server.port}", "/control", MESSAGE)]


@pytest.fixture
def silent_address(server: RecordingServer) -> Iterator[str]:
    """An address at which nothing answers on the server's port: the queue of its listener is full."""
    with socket.create_server(("127.0.0.2", server.port), backlog=0), ExitStack() as queued:
        for _ in range(4):
            client = queued.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.2", server.port))
        yield "127.0.0.2"


@pytest.mark.parametrize("others", [["silent"], ["refused"], ["silent", "refused", "silent"]])
async def test_it_connects_to_the_first_address_that_answers(
    server: RecordingServer, silent_address: str, monkeypatch: pytest.MonkeyPatch, others: list[str]
) -> None:
    by_name = {"silent": silent_address, "refused": "127.0.0.3"}
    addresses = [*(by_name[name] for name in others), "127.0.0.1"]
    async with asyncio.timeout(5):
        with await connect_tcp(addresses, server.port) as connected:
            assert connected.getpeername() == ("127.0.0.1", server.port)

    async def public_addresses(host: str, port: int) -> list[str]:
        return addresses

    monkeypatch.setattr(allowed_hosts, "public_addresses", public_addresses)
    monkeypatch.setattr(AllowedHosts, "check", lambda self, url, schemes: True)
    url = f"http://api.vapi.ai:{server.port}/control"
    async with asyncio.timeout(5):
        assert await post_json(url, MESSAGE, AllowedHosts(["api.vapi.ai"]), user_agent="test") == 200


async def test_without_an_address_that_answers_it_fails(server: RecordingServer) -> None:
    with pytest.raises(OSError):
        await connect_tcp(["127.0.0.3", "127.0.0.4"], server.port)


async def test_it_does_not_follow_a_redirect(server: RecordingServer) -> None:
    server.status = 307
    url = f"http://127.0.0.1:{server.port}/control"
    assert await post_json(url, MESSAGE, AllowedHosts(["127.0.0.1"]), user_agent="test") == 307
    assert [path for _, path, _ in server.requests] == ["/control"]


@pytest.mark.parametrize(
    "url", ["https://evil.example/x", "ftp://127.0.0.1/x", "ws://127.0.0.1/x", "nonsense"]
)
async def test_it_refuses_every_other_url(url: str) -> None:
    with pytest.raises(ForbiddenUrl):
        await post_json(url, MESSAGE, AllowedHosts(["127.0.0.1"]), user_agent="test")


async def test_it_refuses_a_listed_name_with_a_private_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async def public_addresses(host: str, port: int) -> list[str]:
        raise ForbiddenUrl("host resolves to an address that is not public")

    monkeypatch.setattr(allowed_hosts, "public_addresses", public_addresses)
    with pytest.raises(ForbiddenUrl):
        await post_json("https://api.vapi.ai/x", MESSAGE, AllowedHosts(["api.vapi.ai"]), user_agent="test")
