"""`./manage.py serve` as a process: strangers cannot hurt a running call, and calls end before it stops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from calls.demo.server_process import HOST
from calls.tests.live_server import (
    Database,
    ServeProcess,
    make_serve_process,
    poll_until,
    temporary_database,
)
from sandbox.faults import TwilioFaults
from sandbox.speech import audio
from sandbox.twilio.caller import HangUp, Listen, Pause, Say, Step
from sandbox.twilio.record import TwilioCallRecord
from sandbox.vapi.server import VapiSimulator

pytestmark = [pytest.mark.slow, pytest.mark.once, pytest.mark.asyncio(loop_scope="module")]

WAIT_SECONDS = 20.0
# Few enough that the clients leave the other tests of this machine their time.
UNSIGNED_SOCKETS = 40  # for each path
HALF_REQUESTS = 200


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def vapi() -> AsyncIterator[VapiSimulator]:
    async with VapiSimulator() as simulator:
        yield simulator


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(
    vapi: VapiSimulator, tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any
) -> AsyncIterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("serve")
    with django_db_blocker.unblock(), temporary_database(folder) as database:
        async with make_serve_process(vapi.base_url, database.url, folder) as process:
            yield process


def make_script(seconds: float) -> list[Step]:
    """A caller who speaks, and listens for so long."""
    clip = audio.load_clips()["opening_hours"]
    return [Listen(timeout_seconds=5.0), Say(clip), Pause(round(seconds * 1000)), HangUp()]


async def send_raw(server: ServeProcess, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(HOST, server.port)
    writer.write(data)
    return reader, writer


async def check_call(server: ServeProcess, record: TwilioCallRecord) -> None:
    """The call went well, and the server has lost no frame of it."""
    assert record.error_codes == [] and record.frames_dropped == 0
    assert record.heard_segments, "the assistant was not heard"
    query = "SELECT end_reason, frames_to_assistant, frames_dropped FROM calls_call WHERE call_sid = %s"
    rows = await poll_until(
        lambda: server.database.select(query, record.call_sid),
        lambda rows: rows and rows[0][0] != "",
        WAIT_SECONDS,
    )
    ((end_reason, frames, dropped),) = rows
    assert (end_reason, dropped) == ("caller-hung-up", 0)
    # Of the last frames, some may be on their way when the caller hangs up.
    assert len(record.frames) - 5 <= frames <= len(record.frames)


# Strangers


async def send_large_bodies(server: ServeProcess) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(1 << 10):
            yield b"x" * (1 << 20)

    async with aiohttp.ClientSession(trust_env=False) as http:
        for url, status in (
            (f"{server.url}/twilio/voice", 413),
            (f"{server.url}/vapi/events", 413),
            (f"{server.url}/nothing", 404),
            (f"{server.pages_url}/nothing", 413),
        ):
            with contextlib.suppress(aiohttp.ClientError):
                async with http.post(url, data=chunks()) as response:
                    assert response.status == status
        # With a Content-Length of a gigabyte and no body.
        for path, status in (("/twilio/voice", 413), ("/vapi/events", 413), ("/", 404)):
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
            reader, writer = await send_raw(server, head.encode())
            async with asyncio.timeout(WAIT_SECONDS):
                assert f" {status} ".encode() in await reader.readline()
            writer.close()


@asynccontextmanager
async def hold_connections(
    server: ServeProcess, count: int, data: bytes = b"", *, addresses: int = 1
) -> AsyncIterator[None]:
    """So many connections of strangers, which have sent this much, for the time of a block."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.socket())
            connection.bind((f"127.0.0.{2 + number % addresses}", 0))
            connection.setblocking(False)
            await loop.sock_connect(connection, (HOST, server.port))
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(connection, data)
        yield


async def send_half_requests(server: ServeProcess) -> None:
    head = b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nX-Half: "
    async with hold_connections(server, HALF_REQUESTS, head):
        await check_call(server, await server.twilio_simulator().place_call(make_script(1.0)))


async def open_idle_connections(server: ServeProcess) -> None:
    """Almost as many as the process has descriptors."""
    async with hold_connections(server, 1010, addresses=20):
        await check_call(server, await server.twilio_simulator().place_call(make_script(1.0)))


async def open_unsigned_sockets(server: ServeProcess) -> None:
    async with aiohttp.ClientSession(trust_env=False) as http:
        for path in ("/media-stream", "/live", "/no-such-socket"):
            for _ in range(UNSIGNED_SOCKETS):
                with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                    await http.ws_connect(f"{server.url}{path}")
                assert error.value.status == 403


async def send_long_headers(server: ServeProcess) -> None:
    for _ in range(20):
        reader, writer = await send_raw(server, b"GET / HTTP/1.1\r\nX-Long: " + b"x" * (200 << 10))
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(WAIT_SECONDS):
                assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    "attack",
    [
        send_large_bodies,
        send_half_requests,
        open_idle_connections,
        open_unsigned_sockets,
        send_long_headers,
    ],
)
async def test_strangers_do_not_disturb_a_call(server: ServeProcess, attack: Any) -> None:
    memory_kb = server.memory_kb
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(server.twilio_simulator().place_call(make_script(3.0)))
        await asyncio.sleep(0)
        await attack(server)
    await check_call(server, call.result())
    assert server.memory_kb - memory_kb < 60_000
    assert not [line for line in server.lines if "Traceback" in line]


@pytest.mark.parametrize(
    ("faults", "reason", "is_put_through"),
    [
        (TwilioFaults(drop_after_seconds=2.0), "stream-lost", True),
        (TwilioFaults(no_stop=True), "caller-hung-up", False),
    ],
)
async def test_a_broken_connection_is_no_caller_who_hung_up(
    server: ServeProcess, faults: TwilioFaults, reason: str, is_put_through: bool
) -> None:
    record = await server.twilio_simulator().place_call(make_script(3.0), faults=faults)
    rows = await poll_until(
        lambda: server.database.select(
            "SELECT end_reason FROM calls_call WHERE call_sid = %s", record.call_sid
        ),
        lambda rows: rows and rows[0][0],
        WAIT_SECONDS,
    )
    assert rows == [(reason,)]
    spoken = record.spoken_by_twilio[record.spoken_before_stream :]
    assert bool(spoken) is is_put_through, "the caller hears an apology if the line broke"


async def test_headers_have_ten_seconds(server: ServeProcess) -> None:
    started = time.monotonic()
    reader, writer = await send_raw(server, b"GET /readyz HTTP/1.1\r\nHost: x\r\n")
    async with asyncio.timeout(WAIT_SECONDS):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    assert 9.0 < time.monotonic() - started < 15.0
    writer.close()


async def test_an_idle_connection_serves_another_request(server: ServeProcess) -> None:
    """Longer than uvicorn's five seconds and than the time for headers."""
    request = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    reader, writer = await send_raw(server, request)
    for pause_seconds in (11.0, 0.0):
        async with asyncio.timeout(WAIT_SECONDS):
            assert b" 200 " in await reader.readuntil(b"}")
        await asyncio.sleep(pause_seconds)
        if pause_seconds:
            writer.write(request)
    writer.close()


# The drain


async def wait_for_live_calls(database: Database, count: int) -> None:
    query = "SELECT count(*) FROM calls_call WHERE status = 'in-progress' AND answered_at IS NOT NULL"
    assert await poll_until(
        lambda: database.select(query), lambda rows: rows == [(count,)], WAIT_SECONDS
    ) == [(count,)]


async def wait_for_readiness(server: ServeProcess, wanted: int) -> None:
    async with asyncio.timeout(WAIT_SECONDS), aiohttp.ClientSession(trust_env=False) as http:
        status = 0
        while status != wanted:
            async with http.get(f"{server.url}/readyz") as response:
                status = response.status


async def wait_for_drain(server: ServeProcess) -> None:
    await wait_for_readiness(server, 503)


async def test_a_drain_by_command_refuses_calls_until_it_is_over(server: ServeProcess) -> None:
    twilio = server.twilio_simulator()
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(twilio.place_call(make_script(4.0)))
        await wait_for_live_calls(server.database, 1)
        output = await asyncio.to_thread(server.run, "manage.py", "drain")
        assert "takes no new calls; " in output and "safe to stop in" in output
        await wait_for_readiness(server, 503)
        refused = await twilio.place_call(make_script(1.0))
    assert refused.started_at is None and refused.spoken_by_twilio
    await check_call(server, call.result())
    assert "accepts calls" in await asyncio.to_thread(server.run, "manage.py", "drain", "--off")
    await wait_for_readiness(server, 200)
    await check_call(server, await twilio.place_call(make_script(1.0)))


async def test_calls_end_before_the_server_stops(
    vapi: VapiSimulator, tmp_path: Path, django_db_blocker: Any
) -> None:
    """Calls that end in time lose nothing, the others reach `/twilio/after`; new calls are refused."""
    with django_db_blocker.unblock(), temporary_database(tmp_path) as database:
        server = make_serve_process(
            vapi.base_url, database.url, tmp_path, DRAIN_SECONDS="9", FALLBACK_NUMBER="+15550109999"
        )
        async with server:
            twilio = server.twilio_simulator()
            async with asyncio.TaskGroup() as tasks:
                short = [tasks.create_task(twilio.place_call(make_script(2.0))) for _ in range(3)]
                long = tasks.create_task(twilio.place_call(make_script(60.0)))
                await wait_for_live_calls(database, 4)
                _, half = await send_raw(server, b"POST /twilio/status HTTP/1.1\r\nHost: x\r\n")
                server.send_signal()
                await wait_for_drain(server)
                refused = await twilio.place_call(make_script(1.0))
            assert await server.wait_for_exit() == 0
            half.close()
        for call in short:
            await check_call(server, call.result())
        assert long.result().dialed == ["+15550109999"]
        assert refused.dialed == ["+15550109999"] and refused.started_at is None
        reasons = database.select("SELECT end_reason, count(*) FROM calls_call GROUP BY 1 ORDER BY 1")
        assert reasons == [("caller-hung-up", 3), ("draining", 1), ("server-stopped", 1)]
        assert not [line for line in server.lines if "Traceback" in line]


async def test_a_second_signal_ends_the_calls_at_once(
    vapi: VapiSimulator, tmp_path: Path, django_db_blocker: Any
) -> None:
    with django_db_blocker.unblock(), temporary_database(tmp_path) as database:
        async with make_serve_process(vapi.base_url, database.url, tmp_path, DRAIN_SECONDS="600") as server:
            call = asyncio.create_task(server.twilio_simulator().place_call(make_script(60.0)))
            await wait_for_live_calls(database, 1)
            server.send_signal()
            await wait_for_drain(server)
            server.send_signal()
            assert await server.wait_for_exit() == 0
        record = await call
        assert any("not available" in sentence for sentence in record.spoken_by_twilio)
        assert database.select("SELECT end_reason FROM calls_call") == [("server-stopped",)]
