"""The fast path of `VapiSocket` keeps the order of messages, together with the library's own path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve

from bridge.io import vapi_socket
from bridge.io.vapi_socket import VapiSocket


async def send_and_echo(connection: ServerConnection) -> None:
    """Send text and bytes, whole and fragmented, some before the client listens; then echo until "close"."""
    for number in range(20):
        await connection.send(f"whole {number}")
        await connection.send(["in ", "pieces ", str(number)])
        await connection.send(bytes([number]))
        await connection.send([b"frag", b"ments"])
    await connection.ping()
    async for message in connection:
        if message == "close":
            return
        await connection.send(message)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serve(send_and_echo, "127.0.0.1", 0, compression=None) as running:
        yield running


async def dial(server: Server, *, close_timeout: float = 10) -> VapiSocket:
    port = server.sockets[0].getsockname()[1]
    socket = await connect(
        f"ws://127.0.0.1:{port}", create_connection=VapiSocket, compression=None, proxy=None,
        close_timeout=close_timeout,
    )  # fmt: skip
    assert isinstance(socket, VapiSocket)
    return socket


async def test_messages_of_both_paths_arrive_in_order(server: Server) -> None:
    socket = await dial(server)
    received: list[str | bytes] = []
    listen_task = asyncio.create_task(socket.listen(received.append))
    assert socket.write("first") and socket.write(b"second")
    await socket.send("third")
    assert socket.write("close")
    async with asyncio.timeout(5):
        await listen_task
    sent: list[str | bytes] = []
    for number in range(20):
        sent += [f"whole {number}", f"in pieces {number}", bytes([number]), b"fragments"]
    assert received == [*sent, "first", b"second", "third"]
    assert socket.close_code == 1000


async def test_it_does_not_write_to_a_closed_connection_or_a_full_buffer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = await dial(server, close_timeout=0.1)  # nothing is read, so the peer's close frame is never seen
    monkeypatch.setattr(vapi_socket, "MAX_BUFFERED_BYTES", -1)
    assert not socket.write("buffer full")
    monkeypatch.undo()
    await socket.close()
    assert not socket.write("too late")


async def test_invalid_utf_8_closes_the_connection_with_1007(server: Server) -> None:
    async def send_invalid_utf8(connection: ServerConnection) -> None:
        await connection.recv()
        connection.protocol.send_text(b"\xff\xfe")
        connection.send_data()
        await connection.wait_closed()

    async with serve(send_invalid_utf8, "127.0.0.1", 0, compression=None) as faulty_server:
        socket = await dial(faulty_server)
        received: list[str | bytes] = []
        listen_task = asyncio.create_task(socket.listen(received.append))
        await asyncio.sleep(0)
        assert socket.write("go on")
        async with asyncio.timeout(5):
            await listen_task
    assert received == []
    assert socket.protocol.close_sent is not None and socket.protocol.close_sent.code == 1007
