"""Which URLs in Vapi's responses may be requested (protection against server-side request forgery, SSRF).

`websocketCallUrl` and `controlUrl` come from outside: whoever controlled them could make this server connect
anywhere. Each must match VAPI_ALLOWED_HOSTS, and a listed name must resolve to public addresses:

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
    """The URL may not be requested. The message does not contain the URL: it may be a secret."""


class AllowedHosts:
    """VAPI_ALLOWED_HOSTS, parsed once."""

    def __init__(self, entries: Iterable[str]) -> None:
        listed = [entry.strip().lower() for entry in entries if entry.strip()]
        self._origins = {_origin(urlsplit(entry)) for entry in listed if "://" in entry}
        self._hosts = {entry for entry in listed if "://" not in entry}

    def check(self, url: str, schemes: frozenset[str]) -> bool:
        """Whether the address of `url` must be public. Raises `ForbiddenUrl` when it may not be requested."""
        try:
            parts = urlsplit(url)
            origin = _origin(parts)
        except ValueError:
            raise ForbiddenUrl("not a valid URL") from None
        scheme, host, port = origin
        if scheme not in schemes or not host or "@" in parts.netloc or not url.isascii():
            raise ForbiddenUrl(f"scheme or form not allowed ({scheme[:8]!r})")
        if origin in self._origins:
            return False
        if host in LOOPBACK and host in self._hosts:
            return False
        if scheme in _SECURE_PORTS and port == 443 and self._is_listed(host):
            return True
        raise ForbiddenUrl("host or port not in VAPI_ALLOWED_HOSTS")

    async def resolve(self, url: str, schemes: frozenset[str]) -> list[str] | None:
        """The checked addresses to connect to, or None when the host of `url` is trusted as it is.

        Raises `ForbiddenUrl`, or `OSError` when the name cannot be resolved.
        """
        if not self.check(url, schemes):
            return None
        return await public_addresses(urlsplit(url).hostname or "", 443)

    def _is_listed(self, host: str) -> bool:
        return any(
            host == entry or (entry.startswith("*.") and host.endswith(entry[1:])) for entry in self._hosts
        )


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(scheme, 0)


async def public_addresses(host: str, port: int) -> list[str]:
    """The addresses of `host`. Raises `ForbiddenUrl` unless every one of them is public.

    Connect to these addresses, not to the name: a second look-up could return others (DNS rebinding).
    """
    loop = asyncio.get_running_loop()
    try:
        results = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # an empty label, or one that is too long
        raise ForbiddenUrl("host is not a valid name") from None
    addresses = [str(result[4][0]) for result in results]
    if not addresses or not all(ipaddress.ip_address(address).is_global for address in addresses):
        raise ForbiddenUrl("host resolves to an address that is not public")
    return addresses
