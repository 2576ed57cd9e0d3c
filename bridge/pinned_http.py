"""HTTP requests to URLs from Vapi, made to the address that was checked.

A control URL comes from outside. `AllowedHosts` decides whether it may be requested. A host name that must
have a public address is resolved here once, and the connection is made to that address: a second look-up by
the HTTP client could return another one (DNS rebinding). Redirects and proxies from the environment are off.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from bridge.allowed_hosts import AllowedHosts

HTTP_SCHEMES = frozenset({"http", "https"})


class _FixedResolver(AbstractResolver):
    """Resolves every name to one address."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        return [
            ResolveResult(
                hostname=host, host=self._address, port=port, family=family, proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing is open."""


async def post_json(url: str, message: Mapping[str, Any], hosts: AllowedHosts, *, user_agent: str) -> int:
    """POST a JSON object to a URL from Vapi. Returns the HTTP status; the body is not read.

    Raises `ForbiddenUrl`, `aiohttp.ClientError` or `OSError`. Has no deadline of its own.
    """
    address = await hosts.resolve(url, HTTP_SCHEMES)
    connector = None if address is None else aiohttp.TCPConnector(resolver=_FixedResolver(address))
    async with (
        aiohttp.ClientSession(
            trust_env=False, headers={"User-Agent": user_agent}, connector=connector
        ) as http,
        http.post(url, json=message, allow_redirects=False) as response,
    ):
        return response.status
