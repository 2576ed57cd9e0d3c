"""uvicorn's HTTP protocol with limits: the time and the size of headers, and the number of connections."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Collection
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from voiceai.server.connections import ConnectionLimits
from voiceai.server.refusals import Refusals, refusals

HEADER_TIMEOUT_SECONDS = 10.0
# Longer than a proxy keeps an idle connection (nginx: 60 s), and than any pause in a call's webhooks that we
# cause: a request on a connection that is just being closed gets no response, and Twilio sends no second one.
KEEP_ALIVE_SECONDS = 75
MAX_HEADER_BYTES = 64 << 10

Networks = Collection[ipaddress.IPv4Network | ipaddress.IPv6Network]


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection. `make_protocol` sets the class attributes."""

    limits: ConnectionLimits
    trusted_proxies: Networks = ()
    refusals: Refusals = refusals

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_bytes = 0
        self._reads_headers = True
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if not self.limits.add(self, address, is_trusted=self._is_trusted(address)):
            self.drop("too many connections, all of them busy")
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        self.limits.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._reads_headers:
            self._header_bytes += len(data)
            if self._header_timer is None:  # the first bytes after a response
                self._start_header_timer()
        super().data_received(data)
        if self._reads_headers and self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.drop("headers larger than 64 KB")

    def on_headers_complete(self) -> None:
        self._reads_headers, self._header_bytes = False, 0
        self._stop_header_timer()
        self.limits.set_busy(self)
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        self.limits.remove(self)
        super().handle_websocket_upgrade()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and self.cycle.response_complete:
            self.limits.set_waiting(self)
            # Until its next request the connection stays open for `KEEP_ALIVE_SECONDS`, which uvicorn counts.
            self._reads_headers, self._header_bytes = True, 0

    def drop(self, reason: str) -> None:
        """Close the connection now."""
        self.refusals.count(reason)
        self._stop_header_timer()
        self.transport.abort()

    def _await_headers(self) -> None:
        self._reads_headers, self._header_bytes = True, 0
        self._start_header_timer()

    def _start_header_timer(self) -> None:
        self._stop_header_timer()
        self._header_timer = self.loop.call_later(HEADER_TIMEOUT_SECONDS, self._on_header_timeout)

    def _on_header_timeout(self) -> None:
        if self._header_bytes:
            self.drop(f"headers not complete after {HEADER_TIMEOUT_SECONDS:.0f} s")
        else:  # browsers open connections that they may not need
            self.transport.close()

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self.trusted_proxies)


def make_protocol(limits: ConnectionLimits, trusted_proxies: Networks) -> type[HttpProtocol]:
    """The protocol class of one server process."""
    attributes = {"limits": limits, "trusted_proxies": tuple(trusted_proxies)}
    return type("LimitedHttpProtocol", (HttpProtocol,), attributes)
