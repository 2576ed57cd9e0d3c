"""The limits of the server as values and as ASGI: bodies, connections, refusals."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterable
from typing import Any

import pytest

from voiceai.server import body_limit
from voiceai.server.body_limit import KIB, MIB, BodyLimit, find_max_body_bytes
from voiceai.server.connections import MIN_CONNECTIONS, ConnectionLimits, find_max_connections
from voiceai.server.paths import is_media_path
from voiceai.server.refusals import Refusals

Headers = list[tuple[bytes, bytes]]
UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/twilio/voice", 64 * KIB), ("/twilio/", 64 * KIB), ("/twilio", 2 * MIB), ("/vapi/events", 8 * MIB),
        ("/", 2 * MIB), ("/admin/login/", 2 * MIB), ("/Twilio/voice", 2 * MIB), ("/x/twilio/", 2 * MIB),
    ],
)  # fmt: skip
def test_each_path_has_its_limit(path: str, limit: int) -> None:
    assert find_max_body_bytes(path) == limit


def test_each_path_belongs_to_one_process() -> None:
    media = ("/twilio/voice", "/vapi/events", "/media-stream", "/media-stream/", "/healthz", "/readyz")
    pages = ("/", "/calls/", "/calls/1/", "/live", "/admin/login/", "/static/calls/live.js", "/twilio")
    assert [path for path in (*media, *pages) if is_media_path(path)] == list(media)


class Exchange:
    """One request to an application that reads its whole body, behind `BodyLimit`."""

    def __init__(self, path: str, headers: Headers, chunks: Iterable[bytes], *, hangs: bool = False) -> None:
        self.scope = {"type": "http", "path": path, "headers": headers}
        self.chunks = list(chunks)
        self.hangs = hangs
        self.read = 0  # bytes that the application got
        self.sent: list[Any] = []
        self.refusals = Refusals()

    async def receive(self) -> dict[str, Any]:
        if not self.chunks:
            await asyncio.Event().wait()
        chunk = self.chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(self.chunks) or self.hangs}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        more_body = True
        while more_body:
            message = await receive()
            self.read += len(message["body"])
            more_body = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def run(self) -> tuple[int, str]:
        await BodyLimit(self.app, counter=self.refusals)(self.scope, self.receive, self.send)
        start, body = self.sent
        return start["status"], body["body"].decode().strip()


def content_length(value: object) -> Headers:
    return [(b"content-length", str(value).encode())]


TOO_LARGE = "The body is larger than 64 KB."


@pytest.mark.parametrize(
    ("headers", "chunks", "status", "text", "read"),
    [
        ([], [b""], 200, "done", 0),
        (content_length(64 * KIB), [b"x" * 64 * KIB], 200, "done", 64 * KIB),
        ([], [b"x" * KIB] * 64, 200, "done", 64 * KIB),
        (content_length(64 * KIB + 1), [b"x"], 413, TOO_LARGE, 0),
        (content_length(10**12), [b"x"], 413, TOO_LARGE, 0),
        (content_length("9" * 5000), [b"x"], 413, TOO_LARGE, 0),
        (content_length("0" * 5000 + "5"), [b"x" * 5], 200, "done", 5),
        ([], [b"x" * KIB] * 65, 413, TOO_LARGE, 64 * KIB),
        ([], [b"x" * MIB], 413, TOO_LARGE, 0),
        # A header that says less than is sent is not believed.
        (content_length(5), [b"x" * KIB] * 65, 413, TOO_LARGE, 64 * KIB),
        (content_length("-1"), [b"x"], 400, "The Content-Length header is not valid.", 0),
        (content_length("1e9"), [b"x"], 400, "The Content-Length header is not valid.", 0),
        (content_length(1) + content_length(2), [b"x"], 400, "The Content-Length header is not valid.", 0),
    ],
)
async def test_a_body_is_refused_as_soon_as_it_is_known_to_be_too_large(
    headers: Headers, chunks: list[bytes], status: int, text: str, read: int
) -> None:
    exchange = Exchange("/twilio/voice", headers, chunks)
    assert await exchange.run() == (status, text)
    assert exchange.read == read
    assert exchange.refusals.total.total() == (status != 200)
    if status != 200:
        assert (b"connection", b"close") in exchange.sent[0]["headers"]


async def test_a_body_that_does_not_arrive_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit, "BODY_TIMEOUT_SECONDS", 0.02)
    exchange = Exchange("/twilio/voice", content_length(100), [b"half"], hangs=True)
    assert (await exchange.run())[0] == 408


async def test_a_response_that_has_begun_is_not_answered_twice() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()

    exchange = Exchange("/twilio/voice", [], [b"x" * MIB])
    await BodyLimit(app, counter=exchange.refusals)(exchange.scope, exchange.receive, exchange.send)
    assert [message["type"] for message in exchange.sent] == ["http.response.start"]


class FakeConnection:
    def __init__(self) -> None:
        self.dropped = ""

    def drop(self, reason: str) -> None:
        self.dropped = reason


def test_a_new_connection_replaces_a_waiting_one_of_the_address_that_has_most() -> None:
    limits = ConnectionLimits(max_connections=5, max_per_address=4)
    quiet, busy, *others = (FakeConnection() for _ in range(5))
    for connection, address in ((quiet, "a"), (busy, "b"), *((other, "b") for other in others)):
        assert limits.add(connection, address)
    limits.set_busy(busy)
    assert limits.add(FakeConnection(), "c") and limits.add(FakeConnection(), "d")
    assert [each.dropped for each in (quiet, busy, *others)] == [
        "", "", "too many connections", "too many connections", "",
    ]  # fmt: skip
    assert len(limits) == 5


def test_a_connection_that_has_been_of_use_is_closed_last() -> None:
    limits = ConnectionLimits(max_connections=10, max_per_address=2)
    useful, new = FakeConnection(), FakeConnection()
    limits.add(useful, "a")
    limits.set_busy(useful)
    limits.set_waiting(useful)
    assert limits.add(new, "a") and limits.add(FakeConnection(), "a")
    assert (useful.dropped, bool(new.dropped)) == ("", True)


def test_a_new_connection_is_refused_if_all_are_busy() -> None:
    limits = ConnectionLimits(max_connections=2, max_per_address=2)
    busy = [FakeConnection(), FakeConnection()]
    for connection in busy:
        limits.add(connection, "a")
        limits.set_busy(connection)
    assert not limits.add(FakeConnection(), "b") and not limits.add(FakeConnection(), "a")
    limits.set_waiting(busy[1])
    assert limits.add(FakeConnection(), "b")
    assert [each.dropped for each in busy] == ["", "too many connections"]


def test_one_address_has_only_so_many_connections() -> None:
    limits = ConnectionLimits(max_connections=100, max_per_address=2)
    mine = [FakeConnection() for _ in range(5)]
    other = FakeConnection()
    assert limits.add(other, "b") and all(limits.add(each, "a") for each in mine)
    assert [bool(each.dropped) for each in mine] == [True, True, True, False, False]
    assert not other.dropped and len(limits) == 3
    for each in mine[3:]:
        limits.remove(each)
        limits.remove(each)  # again, as when a dropped connection reports its end
    assert len(limits) == 1 and limits.add(FakeConnection(), "a")


def test_connections_of_a_trusted_proxy_count_in_all_only() -> None:
    limits = ConnectionLimits(max_connections=10, max_per_address=1)
    assert all(limits.add(FakeConnection(), "proxy", is_trusted=True) for _ in range(10))
    assert len(limits) == 10
    assert not limits.add(FakeConnection(), "a"), "no connection of a proxy is closed for others"


@pytest.mark.parametrize(
    ("soft", "hard", "expected", "soft_afterwards"),
    [
        (1024, UNLIMITED, 1000, 1000 + 128 + 4 * 50),
        (1024, 4096, 1000, 1000 + 128 + 4 * 50),
        (1024, 1024, 1024 - 128 - 4 * 50, 1024),
        (256, 512, 512 - 128 - 4 * 50, 512),
        (256, 256, MIN_CONNECTIONS, 256),
        (8192, 8192, 1000, 8192),
        (UNLIMITED, UNLIMITED, 1000, UNLIMITED),
    ],
)
def test_descriptors_stay_free_for_calls(
    soft: int, hard: int, expected: int, soft_afterwards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limit: limits.append(limit))
    assert find_max_connections(1000, max_concurrent_calls=50) == expected
    assert limits[-1] == (soft_afterwards, hard)


async def test_refusals_are_logged_once_a_second_with_their_count(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    for _ in range(1000):
        refusals.count("too many connections")
    refusals.count("headers larger than 64 KB")
    refusals.log()
    refusals.log()
    assert [record.getMessage() for record in caplog.records] == [
        "refused or closed, 1000 times: too many connections",
        "refused or closed, 1 time: headers larger than 64 KB",
    ]
    assert refusals.total["too many connections"] == 1000
