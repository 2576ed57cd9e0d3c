"""Clients that attack a server for some seconds: `python -m bench.attackers NAME --url URL --pages-url URL`.

Each repeats one kind of request, unauthenticated unless its name says otherwise, as fast as the server
answers. They run in a process of their own, so that they do not slow the load generator down. Loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import aiohttp

from bench.load import signature

GIGABYTE = 1 << 30
LOGINS, SEARCHES = 40, 10
HANDSHAKES, STREAMS_WITHOUT_START = 1000, 1000
HALF_REQUESTS, IDLE_CONNECTIONS = 500, 1010
AT_ONCE = 50

Target = tuple[str, str, str]  # URL of the calls, URL of the pages, session key of a staff user


def session(**options: object) -> aiohttp.ClientSession:
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of an address, not of a name
    return aiohttp.ClientSession(trust_env=False, cookie_jar=jar, **options)  # type: ignore[arg-type]


async def post_large_body(target: Target) -> None:
    """A gigabyte in chunks, without a Content-Length."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(GIGABYTE >> 20):
            yield b"x" * (1 << 20)

    async with session() as http:
        with contextlib.suppress(aiohttp.ClientError):
            await http.post(f"{target[0]}/twilio/voice", data=chunks())


async def post_large_content_length(target: Target) -> None:
    """A gigabyte that a Content-Length announces."""
    async with session() as http:
        headers = {"Content-Length": str(GIGABYTE)}

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(GIGABYTE >> 20):
                yield b"x" * (1 << 20)

        with contextlib.suppress(aiohttp.ClientError):
            await http.post(f"{target[0]}/twilio/voice", data=chunks(), headers=headers)


async def log_in(target: Target) -> None:
    """Forty log-ins at once: each hashes a password."""
    url = f"{target[1]}/admin/login/"
    async with session() as http:
        async with http.get(url) as response:
            token = (await response.text()).partition('name="csrfmiddlewaretoken" value="')[2][:64]
        form = {"username": "nobody", "password": "wrong", "csrfmiddlewaretoken": token}

        async def post() -> None:
            async with http.post(url, data=form, headers={"Referer": url}) as response:
                await response.read()

        await asyncio.gather(*(post() for _ in range(LOGINS)))


async def search(target: Target) -> None:
    """Ten searches of the admin's list at once, as staff."""
    async with session(cookies={"sessionid": target[2]}) as http:

        async def get(number: int) -> None:
            async with http.get(f"{target[1]}/admin/calls/call/?q=the+word{number}") as response:
                await response.read()

        await asyncio.gather(*map(get, range(SEARCHES)))


async def open_unsigned_sockets(target: Target) -> None:
    """A thousand handshakes without a signature."""
    async with session() as http:
        await open_sockets(http, f"{target[0]}/media-stream", HANDSHAKES, {})


async def open_streams_without_start(target: Target) -> None:
    """A thousand signed handshakes after which nothing is sent. (A signature can be replayed.)"""
    url = f"{target[0]}/media-stream"
    headers = {"X-Twilio-Signature": signature(url.replace("http", "ws", 1), {})}
    async with session() as http:
        await open_sockets(http, url, STREAMS_WITHOUT_START, headers)


async def open_sockets(http: aiohttp.ClientSession, url: str, count: int, headers: dict[str, str]) -> None:
    turns = asyncio.Semaphore(AT_ONCE)
    sockets: list[aiohttp.ClientWebSocketResponse] = []

    async def connect() -> None:
        async with turns:
            with contextlib.suppress(aiohttp.ClientError):
                sockets.append(await http.ws_connect(url, headers=headers))

    await asyncio.gather(*(connect() for _ in range(count)))
    for each in sockets:  # those that were accepted stay open until the server closes them
        await each.receive()


async def send_half_requests(target: Target) -> None:
    """Five hundred requests whose headers never end."""
    await hold(target, HALF_REQUESTS, b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nX-Half: ")


async def open_idle_connections(target: Target) -> None:
    """As many connections as the server may open files."""
    await hold(target, IDLE_CONNECTIONS, b"")


async def hold(target: Target, count: int, data: bytes) -> None:
    """Hold so many connections from twenty addresses, each of which has sent this much."""
    port = urlsplit(target[0]).port
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.socket())
            connection.bind((f"127.0.0.{2 + number % 20}", 0))
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                await loop.sock_connect(connection, ("127.0.0.1", port))
                await loop.sock_sendall(connection, data)
        await asyncio.sleep(5.0)


ATTACKS: dict[str, Callable[[Target], Awaitable[None]]] = {
    "large body": post_large_body,
    "large Content-Length": post_large_content_length,
    "log-ins": log_in,
    "admin searches": search,
    "unsigned handshakes": open_unsigned_sockets,
    "streams without start": open_streams_without_start,
    "half-sent requests": send_half_requests,
    "idle connections": open_idle_connections,
}


async def attack(name: str, target: Target) -> None:
    """Until it is cancelled. Errors are expected: the server refuses."""
    while True:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            await ATTACKS[name](target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--pages-url", required=True)
    parser.add_argument("--session-key", default="")
    parser.add_argument("--seconds", type=float, default=60.0, help="end after so long (default: 60)")
    options = parser.parse_args()
    # The load generator goes first: its own delays would count as the server's.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    async def run() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(options.seconds):
                await attack(options.name, (options.url, options.pages_url, options.session_key))

    asyncio.run(run())


if __name__ == "__main__":
    main()
