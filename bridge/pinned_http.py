"""Connections to URLs from Vapi, made to the addresses that were checked.

A control URL comes from outside. `AllowedHosts` decides whether it may be requested. A host name that must
have public addresses is resolved here once, and the connection is made to one of them: a second look-up by
the HTTP client could return others (DNS rebinding). An address that does not answer delays the attempt at the
next one by a quarter of a second (RFC 8305). Redirects and proxies from the environment are off.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
from aiohappyeyeballs import start_connection
from aiohttp.abc import AbstractResolver, ResolveResult

from bridge.allowed_hosts import AllowedHosts

HTTP_SCHEMES = frozenset({"http", "https"})


NEXT_ADDRESS_SECONDS = 0.25


async def connect_tcp(addresses: Sequence[str], port: int) -> socket.socket:
    """A TCP connection to the first of the addresses that answers. Raises `OSError` if none does."""
    targets = [
        (_family_of(address), socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
        for address in addresses
    ]
    return await start_connection(targets, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1)


def _family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class _FixedResolver(AbstractResolver):
    """Resolves every name to the same addresses."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=_family_of(address), proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]  # fmt: skip

    async def close(self) -> None:
        """Required by the interface; there is nothing to close."""


async def post_json(url: str, message: Mapping[str, Any], hosts: AllowedHosts, *, user_agent: str) -> int:
    """POST a JSON object to a URL from Vapi. Returns the HTTP status; the body is not read.

    Raises `ForbiddenUrl`, `aiohttp.ClientError` or `OSError`. Has no deadline of its own.
    """
    addresses = await hosts.resolve(url, HTTP_SCHEMES)
    connector = None
    if addresses is not None:
        resolver = _FixedResolver(addresses)
        connector = aiohttp.TCPConnector(resolver=resolver, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS)
    async with (
        aiohttp.ClientSession(
            trust_env=False, headers={"User-Agent": user_agent}, connector=connector
        ) as http,
        http.post(url, json=message, allow_redirects=False) as response,
    ):
        return response.status
