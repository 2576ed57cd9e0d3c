"""Who may come in: Twilio's signatures, the ticket, capacity, and which number leads where.

Three proofs, each enough to refuse. A webhook is signed over the public URL and its form. The media
socket's handshake is signed over the `wss` URL; Twilio's documents are thin there, so the URL is tried
with and without a trailing slash. And since a signature carries no time, the TwiML holds a ticket: signed
by us, bound to CallSid and AccountSid, good for a minute, and good once.

Routes are a snapshot in memory, replaced whole by whoever reads the database; nothing here can hang.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from twilio.request_validator import RequestValidator

from bridge import end_reasons
from bridge.config import BridgeConfig
from bridge.end_reason_cache import KnownEnds
from bridge.routes import Route

log = logging.getLogger(__name__)

TICKET_SECONDS = 60
MAX_SPENT = 100_000


class TicketError(Exception):
    """The ticket proves nothing; the message is one word for the log."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The answer to a webhook: a ticket for a stream, or why there is none."""

    ticket: str = ""
    route_id: str = "default"
    refused: str = ""

    def __repr__(self) -> str:
        return f"Offer(route_id={self.route_id!r}, refused={self.refused!r})"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a good ticket says about the call."""

    route: Route
    caller: str


class Admission:
    """The door of one server process."""

    def __init__(
        self,
        config: BridgeConfig,
        *,
        ends: KnownEnds | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.ends = ends or KnownEnds()
        self.draining = False
        self._clock, self._wall = clock, wall
        self._validators = [RequestValidator(token) for token in config.twilio_auth_tokens]
        self._routes: dict[str, Route] = {}
        self._numbers: dict[str, Route] = {}
        self._default = Route.resolve(config, {})
        # Capacity: streams that started, and tickets that may still become one.
        self._live: dict[str, str] = {}  # CallSid to the route's id
        self._promised: OrderedDict[str, tuple[float, str]] = OrderedDict()  # the ticket's expiry, the route
        self._spent: OrderedDict[str, float] = OrderedDict()  # ticket id to the time it is forgotten
        if config.allow_unsigned and not self._validators:
            log.warning("NO TWILIO_AUTH_TOKEN: signatures are NOT checked. Anyone can place calls here.")

    # Signatures

    def verify_request(self, path: str, params: Mapping[str, Any] | str, signature: str) -> bool:
        """A webhook's signature. `path` holds the query; `params` is the form, or a JSON body as text."""
        if not self._validators:
            return self.config.allow_unsigned
        url = self.config.public_url + path
        return any(validator.validate(url, params, signature) for validator in self._validators)

    def verify_handshake(self, path: str, signature: str) -> bool:
        """The media socket's signature, over the URL that our TwiML named, and no parameters."""
        if not self._validators:
            return self.config.allow_unsigned
        parts = urlsplit(self.config.stream_url)
        origin = f"{parts.scheme}://{parts.netloc}"
        candidates = {origin + path, origin + path.rstrip("/"), origin + path.rstrip("/") + "/"}
        return any(
            validator.validate(url, {}, signature) for validator in self._validators for url in candidates
        )

    # Routes

    def replace_routes(self, routes: Iterable[Route]) -> None:
        """The whole snapshot at once, so that no reader sees half of it."""
        fresh = {route.id: route for route in routes}
        self._numbers = {route.number: route for route in fresh.values()}
        self._routes = fresh

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
    def room(self) -> int:
        """How many calls more this process may take on."""
        now = self._clock()
        while self._promised and next(iter(self._promised.values()))[0] <= now:
            self._promised.popitem(last=False)
        return self.config.max_concurrent_calls - len(self._live) - len(self._promised)

    def _room_of(self, route: Route) -> int:
        """How many calls more may come over this route."""
        room = self.room
        if route.max_concurrent_calls is None:
            return room
        promised = sum(route_id == route.id for _, route_id in self._promised.values())
        live = sum(route_id == route.id for route_id in self._live.values())
        return min(room, route.max_concurrent_calls - live - promised)

    @property
    def accepting(self) -> bool:
        return not self.draining and self.room > 0

    # Tickets

    def offer(
        self, call_sid: str, account_sid: str, our_number: str, caller: str = "", *, inbound: bool = True
    ) -> Offer:
        """A ticket for this call's stream. Asking again for the same call costs no second place.

        Opening hours are for those who call us; a call that we placed is answered whenever it is."""
        route = self.route_for(our_number)
        if inbound and route.hours is not None and not route.hours.is_open(self._wall()):
            return Offer(route_id=route.id, refused=end_reasons.OUT_OF_HOURS)
        if self.draining:
            return Offer(route_id=route.id, refused=end_reasons.DRAINING)
        self._promised.pop(call_sid, None)
        if self._room_of(route) <= 0 and call_sid not in self._live:
            return Offer(route_id=route.id, refused=end_reasons.AT_CAPACITY)
        self._promised[call_sid] = (self._clock() + TICKET_SECONDS, route.id)
        facts = {
            "id": secrets.token_urlsafe(12), "call": call_sid, "account": account_sid,
            "until": int(self._wall()) + TICKET_SECONDS, "caller": caller[:40],
        }  # fmt: skip
        body = base64.urlsafe_b64encode(json.dumps(facts, separators=(",", ":")).encode())
        return Offer(f"{body.decode()}.{self._sign(body)}", route.id)

    async def claim(self, ticket: str, route_id: str, call_sid: str, account_sid: str) -> Claim:
        """Spend a ticket and take a place. Raises `TicketError`; a live call is never touched by that."""
        facts = self._read(ticket)
        if facts["call"] != call_sid:
            raise TicketError("other-call")
        if facts["account"] != account_sid:
            raise TicketError("other-account")
        if self.config.twilio_account_sid and account_sid != self.config.twilio_account_sid:
            raise TicketError("foreign-account")
        if call_sid in self._live:
            raise TicketError("second-stream")
        ticket_id = str(facts["id"])
        now = self._clock()
        while self._spent and next(iter(self._spent.values())) <= now:
            self._spent.popitem(last=False)
        if ticket_id in self._spent or len(self._spent) >= MAX_SPENT:
            raise TicketError("spent")
        # Taken before the shared cache is asked: nobody else in this process can come between.
        self._spent[ticket_id] = now + 2 * TICKET_SECONDS
        self._live[call_sid] = route_id
        self._promised.pop(call_sid, None)
        first = False
        try:
            first = await self.ends.spend(ticket_id, 2 * TICKET_SECONDS)
        finally:  # cancelled, too, must not cost a place
            if not first:
                self._live.pop(call_sid, None)
        if not first:
            raise TicketError("spent-elsewhere")
        return Claim(self.route(route_id), str(facts.get("caller", "")))

    def leave(self, call_sid: str) -> None:
        """The call's stream is over; its place is free."""
        self._live.pop(call_sid, None)

    def _sign(self, body: bytes) -> str:
        digest = hmac.new(self.config.ticket_secret.encode(), b"ticket:" + body, sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def _read(self, ticket: str) -> dict[str, Any]:
        if not ticket:
            raise TicketError("missing")
        body, _, signature = ticket.partition(".")
        try:
            genuine = hmac.compare_digest(self._sign(body.encode("ascii")).encode(), signature.encode())
            facts = json.loads(base64.urlsafe_b64decode(body)) if genuine else None
        except ValueError:
            facts = None
        if not isinstance(facts, dict):
            raise TicketError("forged")
        if facts["until"] <= self._wall():
            raise TicketError("expired")
        return facts
