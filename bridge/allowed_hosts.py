"""Which URLs of Vapi's answers we follow.

`websocketCallUrl` and `controlUrl` come from outside, and whoever could choose them freely could make us
connect anywhere. So each must be on the list, and what a listed name resolves to must be public:

- a bare host (`api.vapi.ai`, `*.vapi.ai`): wss or https, on 443, at a public address;
- a loopback name (`127.0.0.1`, `localhost`): ws or http too, on any port;
- an entry with a scheme (`ws://sandbox:9100`): exactly that origin.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_SECURE_PORTS = {"wss": 443, "https": 443}
_PORTS = {**_SECURE_PORTS, "ws": 80, "http": 80}


class ForbiddenUrl(Exception):
    """The URL leads somewhere we do not go. The message names no URL: it may be a secret."""


class AllowedHosts:
    """The list, read once."""

    def __init__(self, entries: Iterable[str]) -> None:
        listed = [entry.strip().lower() for entry in entries if entry.strip()]
        self._origins = {_origin(urlsplit(entry)) for entry in listed if "://" in entry}
        self._hosts = {entry for entry in listed if "://" not in entry}

    def check(self, url: str, schemes: frozenset[str]) -> bool:
        """Whether to follow `url`, and if so: whether its address must be public. Raises ForbiddenUrl."""
        try:
            parts = urlsplit(url)
            origin = _origin(parts)
        except ValueError:
            raise ForbiddenUrl("unreadable URL") from None
        scheme, host, port = origin
        if scheme not in schemes or not host or "@" in parts.netloc or not url.isascii():
            raise ForbiddenUrl(f"scheme or form not allowed ({scheme[:8]!r})")
        if origin in self._origins:
            return False
        if host in LOOPBACK and host in self._hosts:
            return False
        if scheme in _SECURE_PORTS and port == 443 and self._names(host):
            return True
        raise ForbiddenUrl("host or port not in VAPI_ALLOWED_HOSTS")

    def _names(self, host: str) -> bool:
        return any(
            host == entry or (entry.startswith("*.") and host.endswith(entry[1:])) for entry in self._hosts
        )


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(scheme, 0)


async def public_address(host: str, port: int) -> str:
    """An address of `host` to connect to. Raises `ForbiddenUrl` unless every address is public.

    The caller connects to the address returned, not to the name: a second look-up could answer otherwise.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # an empty or endless label
        raise ForbiddenUrl("host is no name") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(ipaddress.ip_address(address).is_global for address in addresses):
        raise ForbiddenUrl("host resolves to an address that is not public")
    return addresses[0]
