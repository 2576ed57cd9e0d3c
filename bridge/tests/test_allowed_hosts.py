"""Which URLs from Vapi may be requested, and at which addresses."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from bridge.allowed_hosts import AllowedHosts, ForbiddenUrl, public_addresses

WS = frozenset({"ws", "wss"})
HTTP = frozenset({"http", "https"})
VAPI = ("api.vapi.ai", "*.vapi.ai")


@pytest.mark.parametrize(
    "url",
    [
        "wss://api.vapi.ai/0198c5d1/transport",
        "wss://phone-call.us-west.vapi.ai/x",
        "wss://API.VAPI.AI/x",
        "wss://api.vapi.ai:443/x",
        "wss://api.vapi.ai/x?secret=1",
    ],
)
def test_a_url_with_a_listed_name_is_allowed_at_a_public_addresses(url: str) -> None:
    assert AllowedHosts(VAPI).check(url, WS) is True


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.vapi.ai",
        "ws://api.vapi.ai/x",
        "https://api.vapi.ai/x",
        "file:///etc/passwd",
        "wss://api.vapi.ai:8443/x",
        "wss://api.vapi.ai:no/x",
        "wss://api.vapi.ai:99999/x",
        "wss://api.vapi.ai.evil.example/x",
        "wss://evil.example#.vapi.ai",
        "wss://evil.example/.vapi.ai",
        "wss://evilvapi.ai/x",
        "wss://vapi.ai/x",
        "wss://user@api.vapi.ai/x",
        "wss://api.vapi.ai@evil.example/x",
        "wss://api.vapi.ai\u3002evil.example/x",
        "wss://\u0430pi.vapi.ai/x",
        "wss://127.0.0.1/x",
        "wss://[::1]/x",
        "wss://[::1/x",
        "wss://10.0.0.1/x",
        "wss:///x",
        "//api.vapi.ai/x",
    ],
)
def test_every_other_url_is_forbidden(url: str) -> None:
    with pytest.raises(ForbiddenUrl) as error:
        AllowedHosts(VAPI).check(url, WS)
    assert "evil" not in str(error.value), "a URL can contain secrets"


def test_only_the_given_schemes_are_allowed() -> None:
    hosts = AllowedHosts(VAPI)
    assert hosts.check("https://control.vapi.ai/0198c5d1/control", HTTP) is True
    with pytest.raises(ForbiddenUrl):
        hosts.check("wss://control.vapi.ai/0198c5d1/control", HTTP)


def test_a_listed_loopback_name_is_allowed_without_tls_and_on_any_port() -> None:
    hosts = AllowedHosts([" 127.0.0.1 ", "localhost", ""])
    assert hosts.check("ws://127.0.0.1:9100/x", WS) is False
    assert hosts.check("http://localhost/control", HTTP) is False
    with pytest.raises(ForbiddenUrl):
        hosts.check("ws://[::1]:9100/x", WS)


def test_an_entry_with_a_scheme_allows_only_its_scheme_and_port() -> None:
    hosts = AllowedHosts(["ws://sandbox:9100", "http://sandbox"])
    assert hosts.check("ws://sandbox:9100/x", WS) is False
    assert hosts.check("http://sandbox:80/control", HTTP) is False
    for url in ("ws://sandbox/x", "ws://sandbox:9101/x", "wss://sandbox:9100/x"):
        with pytest.raises(ForbiddenUrl):
            hosts.check(url, WS)


class FakeResolver:
    """Replaces the event loop's `getaddrinfo`; it returns the given addresses for every name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        self.addresses = addresses
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self)

    async def __call__(self, host: str, port: int, *, type: int) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, type, 6, "", (address, port)) for address in self.addresses]


async def test_all_addresses_are_returned_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["2600:1f18::14", "93.184.215.14", "93.184.215.15"]
    FakeResolver(monkeypatch, *addresses)
    assert await public_addresses("api.vapi.ai", 443) == addresses


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1",
     "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1"],
)  # fmt: skip
async def test_a_name_with_one_address_that_is_not_public_is_forbidden(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    FakeResolver(monkeypatch, "93.184.215.14", address)
    with pytest.raises(ForbiddenUrl):
        await public_addresses("api.vapi.ai", 443)


async def test_a_name_without_an_address_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeResolver(monkeypatch)
    with pytest.raises(ForbiddenUrl):
        await public_addresses("api.vapi.ai", 443)


@pytest.mark.parametrize("host", [".vapi.ai", "a..vapi.ai", "a" * 64 + ".vapi.ai"])
async def test_an_invalid_name_is_forbidden(host: str) -> None:
    assert AllowedHosts(VAPI).check(f"wss://{host}/x", WS) is True
    with pytest.raises(ForbiddenUrl):
        await public_addresses(host, 443)
