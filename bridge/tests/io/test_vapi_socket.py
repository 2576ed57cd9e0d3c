"""The short way must be in order with the library's own, whatever comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve

from bridge.io import vapi_socket
from bridge.io.vapi_socket import VapiSocket


async def speak(connection: ServerConnection) -> None:
    """Whole and in pieces, text and bytes, some of it before anybody listens; then echo until the end."""
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
    async with serve(speak, "127.0.0.1", 0, compression=None) as running:
        yield running


async def dial(server: Server, *, close_timeout: float = 10) -> VapiSocket:
    port = server.sockets[0].getsockname()[1]
    socket = await connect(
        f"ws://127.0.0.1:{port}", create_connection=VapiSocket, compression=None, proxy=None,
        close_timeout=close_timeout,
    )  # fmt: skip
    assert isinstance(socket, VapiSocket)
    return socket


async def test_messages_come_in_order_whichever_way_they_take(server: Server) -> None:
    socket = await dial(server)
    heard: list[str | bytes] = []
    listening = asyncio.create_task(socket.listen(heard.append))
    assert socket.write("first") and socket.write(b"second")
    await socket.send("third")
    assert socket.write("close")
    async with asyncio.timeout(5):
        await listening
    spoken: list[str | bytes] = []
    for number in range(20):
        spoken += [f"whole {number}", f"in pieces {number}", bytes([number]), b"fragments"]
    assert heard == [*spoken, "first", b"second", "third"]
    assert socket.close_code == 1000


async def test_it_writes_nothing_to_a_closed_connection_or_a_full_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = await dial(server, close_timeout=0.1)  # nothing is read, so the peer's close frame is never seen
    monkeypatch.setattr(vapi_socket, "MAX_BUFFERED_BYTES", -1)
    assert not socket.write("no room")
    monkeypatch.undo()
    await socket.close()
    assert not socket.write("too late")


async def test_what_is_not_utf_8_ends_the_connection_as_ever(server: Server) -> None:
    async def babble(connection: ServerConnection) -> None:
        await connection.recv()
        connection.protocol.send_text(b"\xff\xfe")
        connection.send_data()
        await connection.wait_closed()

    async with serve(babble, "127.0.0.1", 0, compression=None) as babbling:
        socket = await dial(babbling)
        heard: list[str | bytes] = []
        listening = asyncio.create_task(socket.listen(heard.append))
        await asyncio.sleep(0)
        assert socket.write("go on")
        async with asyncio.timeout(5):
            await listening
    assert heard == []
    assert socket.protocol.close_sent is not None and socket.protocol.close_sent.code == 1007
