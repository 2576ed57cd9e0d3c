"""Admission of calls: Twilio's signatures, tickets, capacity, and the route of each number.

A webhook must pass one check, a media stream two. A webhook is signed over the public URL and its form. The
media socket's handshake is signed over the `wss` URL; Twilio documents little about that, so the URL is tried
with and without a trailing slash. Because a signature does not expire, the TwiML also carries a ticket. It is
signed by us, bound to CallSid and AccountSid, and expires. A call gets one stream: afterwards neither another
ticket nor an older one of the same call is accepted.

Routes are a snapshot in memory, replaced as a whole by the thread that reads the database. Nothing here waits
for a database.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from twilio.request_validator import RequestValidator, add_port, remove_port

from bridge import end_reasons
from bridge.call_cache import CallCache
from bridge.config import BridgeConfig, websocket_origin
from bridge.routes import Route

logger = logging.getLogger(__name__)

TICKET_SECONDS = 60  # added to the time that the disclosure and the greeting take at most
MAX_TICKET_SECONDS = 1800
MAX_CALLER_BYTES = 64  # a ticket is a <Parameter>, which Twilio limits to 500 characters
MAX_SERVED_CALLS = 100_000
MAX_PATHS = 8  # of media sockets; there is one
SERVED_CALL_SECONDS = 86_400  # more than any ticket is valid


class TicketError(Exception):
    """The ticket is not valid; the message is one word for the log."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The answer to a voice webhook: a ticket for a stream, or the reason why there is none."""

    ticket: str = ""
    route_id: str = "default"
    refused: str = ""  # an end reason
    is_repeated: bool = False  # the call has had its stream, or is over: somebody replays Twilio's request

    def __repr__(self) -> str:
        """Without the ticket, which is a secret."""
        values = ("route_id", "refused", "is_repeated")
        return f"Offer({', '.join(f'{name}={getattr(self, name)!r}' for name in values)})"


@dataclass(frozen=True, slots=True)
class Claim:
    """The route and the caller of a call whose ticket is valid."""

    route: Route
    caller: str


class Admission:
    """Checks signatures and tickets, and counts places, in one server process."""

    def __init__(
        self,
        config: BridgeConfig,
        *,
        call_cache: CallCache | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self._cache = call_cache or CallCache()
        self.stopping = False  # the process has been told to stop
        self.drain_requested = False  # by staff: it finishes its calls, and goes on after that
        self._clock, self._wall_clock = clock, wall_clock
        self._handshakes: dict[str, tuple[bytes, ...]] = {}  # path -> signatures
        self._validators = [RequestValidator(token) for token in config.twilio_auth_tokens]
        self._routes: dict[str, Route] = {}
        self._numbers: dict[str, Route] = {}
        self._default = Route.resolve(config, {})
        # Places are taken by live streams, and by tickets that are not used yet.
        self._live: dict[str, str] = {}  # CallSid -> route id
        self._reserved: dict[str, tuple[float, str]] = {}  # CallSid -> expiry, route id
        self._served: OrderedDict[str, float] = OrderedDict()  # CallSid -> when it can be forgotten
        self.waiting_streams = 0  # sockets of this process without a ticket so far
        if config.allow_unsigned and not self._validators:
            logger.warning(
                "TWILIO_AUTH_TOKEN is not set: signatures are NOT checked. Anyone can place calls here."
            )

    # Signatures

    def verify_request(self, path: str, params: Mapping[str, Any] | str, signature: str) -> bool:
        """Check a webhook's signature. `path` includes the query; `params` is the form or a JSON body."""
        if not self._validators:
            return self.config.allow_unsigned
        return any(
            validator.validate(origin + path, params, signature)
            for validator in self._validators
            for origin in self.config.public_origins
        )

    def verify_handshake(self, path: str, signature: str) -> bool:
        """Check the media socket's signature: over the URL in our TwiML, without parameters."""
        if not self._validators:
            return self.config.allow_unsigned
        known = self._handshake_signatures(path.rstrip("/"))
        return any(hmac.compare_digest(signature.encode(), each) for each in known)

    def _handshake_signatures(self, path: str) -> tuple[bytes, ...]:
        """All signatures that are valid for a path, with and without a slash at its end and a port.

        They never change, and a stranger may ask for thousands a second.
        """
        if path not in self._handshakes:
            urls = [
                websocket_origin(origin) + path + slash
                for origin in self.config.public_origins
                for slash in ("", "/")
            ]
            self._handshakes[path] = tuple(
                validator.compute_signature(form, {}).encode()
                for validator in self._validators
                for url in urls
                for form in (remove_port(urlsplit(url)), add_port(urlsplit(url)))
            )
            while len(self._handshakes) > MAX_PATHS:
                self._handshakes.pop(next(iter(self._handshakes)))
        return self._handshakes[path]

    # Routes

    def replace_routes(self, routes: Iterable[Route]) -> None:
        """Replace all routes at once, so that no reader sees a part of the change."""
        routes_by_id = {route.id: route for route in routes}
        self._numbers = {route.number: route for route in routes_by_id.values()}
        self._routes = routes_by_id

    def route_for(self, number: str) -> Route:
        return self._numbers.get(number, self._default)

    def route(self, route_id: str) -> Route:
        return self._routes.get(route_id, self._default)

    # Capacity

    @property
    def live_calls(self) -> int:
        return len(self._live)

    def live_call_sids(self) -> list[str]:
        return list(self._live)

    @property
    def taken_places(self) -> int:
        """Live calls, and calls whose stream is expected: Twilio still speaks the greeting."""
        now = self._clock()
        for call_sid in [call_sid for call_sid, (until, _) in self._reserved.items() if until <= now]:
            del self._reserved[call_sid]
        return len(self._live) + len(self._reserved)

    def count_free_places(self) -> int:
        """How many more calls this process accepts."""
        return self.config.max_concurrent_calls - self.taken_places

    def _count_free_places_of(self, route: Route) -> int:
        """How many more calls this route accepts."""
        free = self.count_free_places()
        if route.max_concurrent_calls is None:
            return free
        reserved = sum(route_id == route.id for _, route_id in self._reserved.values())
        live = sum(route_id == route.id for route_id in self._live.values())
        return min(free, route.max_concurrent_calls - live - reserved)

    @property
    def draining(self) -> bool:
        """Whether this process takes no new calls, and finishes those that it has."""
        return self.stopping or self.drain_requested

    @property
    def accepting(self) -> bool:
        return not self.draining and self.count_free_places() > 0

    # Tickets

    def offer(
        self, call_sid: str, account_sid: str, our_number: str, caller: str = "", *, inbound: bool = True
    ) -> Offer:
        """Issue a ticket for this call's stream. A second request for the same call reserves no second place.

        Opening hours apply to inbound calls only.
        """
        route = self.route_for(our_number)
        if self._was_served(call_sid):
            return Offer(route_id=route.id, is_repeated=True)
        if inbound and route.hours is not None and not route.hours.is_open(self._wall_clock()):
            return Offer(route_id=route.id, refused=end_reasons.OUT_OF_HOURS)
        if self.draining:
            return Offer(route_id=route.id, refused=end_reasons.DRAINING)
        self._reserved.pop(call_sid, None)
        if self._count_free_places_of(route) <= 0 and call_sid not in self._live:
            return Offer(route_id=route.id, refused=end_reasons.AT_CAPACITY)
        seconds = min(TICKET_SECONDS + math.ceil(route.notice_seconds), MAX_TICKET_SECONDS)
        self._reserved[call_sid] = (self._clock() + seconds, route.id)
        payload = {
            "call": call_sid, "account": account_sid,
            "until": int(self._wall_clock()) + seconds, "caller": _truncate(caller, MAX_CALLER_BYTES),
        }  # fmt: skip
        body = base64.urlsafe_b64encode(
            json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        )
        return Offer(f"{body.decode()}.{self._sign(body)}", route.id)

    async def claim(self, ticket: str, route_id: str, call_sid: str, account_sid: str) -> Claim:
        """Use a ticket and take a place. Raises `TicketError`, which never affects a live call."""
        payload = self._verify_ticket(ticket)
        if payload["call"] != call_sid:
            raise TicketError("other-call")
        if payload["account"] != account_sid:
            raise TicketError("other-account")
        if self.config.twilio_account_sid and account_sid != self.config.twilio_account_sid:
            raise TicketError("foreign-account")
        if call_sid in self._live:
            raise TicketError("second-stream")
        if self._was_served(call_sid):
            raise TicketError("served")
        # Before the shared cache is queried: no other stream of this process can use the ticket meanwhile.
        self._remember_served(call_sid)
        self._live[call_sid] = route_id
        was_offered_here = self._reserved.pop(call_sid, None) is not None
        is_first: bool | None = False
        try:
            is_first = await self._cache.claim_stream(call_sid, SERVED_CALL_SECONDS)
            if is_first is None:  # without the shared cache, a process knows its own tickets only
                is_first = was_offered_here
        finally:  # a cancelled claim must not keep its place
            if not is_first:
                self._live.pop(call_sid, None)
        if not is_first:
            raise TicketError("served-elsewhere")
        return Claim(self.route(route_id), str(payload.get("caller", "")))

    def release(self, call_sid: str) -> None:
        """Free the place of a call whose stream has ended."""
        self._live.pop(call_sid, None)

    def cancel_offer(self, call_sid: str) -> None:
        """Free the place of a call that is over, such as one that ended during the greeting."""
        self._reserved.pop(call_sid, None)
        self._remember_served(call_sid)

    def _remember_served(self, call_sid: str) -> None:
        self._served[call_sid] = self._clock() + SERVED_CALL_SECONDS
        self._served.move_to_end(call_sid)
        if len(self._served) > MAX_SERVED_CALLS:
            self._served.popitem(last=False)

    def _was_served(self, call_sid: str) -> bool:
        """Whether this process has had the call's stream, or knows that the call is over."""
        now = self._clock()
        while self._served and next(iter(self._served.values())) <= now:
            self._served.popitem(last=False)
        return call_sid in self._served

    def _sign(self, body: bytes) -> str:
        digest = hmac.new(self.config.ticket_secret.encode(), b"ticket:" + body, sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def _verify_ticket(self, ticket: str) -> dict[str, Any]:
        """The payload of a ticket with a valid signature that has not expired. Raises `TicketError`."""
        if not ticket:
            raise TicketError("missing")
        body, _, signature = ticket.partition(".")
        try:
            is_genuine = hmac.compare_digest(self._sign(body.encode("ascii")).encode(), signature.encode())
            payload = json.loads(base64.urlsafe_b64decode(body)) if is_genuine else None
        except ValueError:
            payload = None
        if not isinstance(payload, dict):
            raise TicketError("forged")
        if payload["until"] <= self._wall_clock():
            raise TicketError("expired")
        return payload


def _truncate(text: str, max_bytes: int) -> str:
    """The longest start of the text that has at most so many bytes in UTF-8, without control characters."""
    printable = "".join(filter(str.isprintable, text))
    return printable.encode()[:max_bytes].decode(errors="ignore")
