"""What joins a call to the account that it belongs to: news of the call go up, orders come down.

The account's REST API and whatever carries a call may be two processes. `Exchange` is what a call needs of
the account; the stand-in for the REST API is one itself, and `carrier_relay` reaches it from elsewhere.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeAlias, assert_never


@dataclass(frozen=True, slots=True)
class EndCall:
    """`Status=completed`, or `canceled` while it rings."""

    status: str = "completed"


@dataclass(frozen=True, slots=True)
class ObeyTwiml:
    text: str


@dataclass(frozen=True, slots=True)
class ObeyUrl:
    url: str
    method: str = "POST"


Order: TypeAlias = EndCall | ObeyTwiml | ObeyUrl
Give: TypeAlias = Callable[[Order], None]


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What is known of a call when it begins."""

    sid: str
    account_sid: str
    from_number: str
    to_number: str
    direction: str = "inbound"
    parent_call_sid: str = ""


@dataclass(frozen=True, slots=True)
class News:
    """A call has a new status. What is not known is None."""

    status: str
    duration: int | None = None
    answered_by: str | None = None


class Connection(Protocol):
    """One call's, for as long as it lasts."""

    def report(self, news: News) -> None:
        """Never waits, never raises."""

    async def close(self) -> None:
        """The call is over, and all that was reported has arrived; or nobody was there to take it."""


class Exchange(Protocol):
    async def connect(self, facts: CallFacts, give: Give) -> Connection:
        """Make the call known. Raises `NoExchange` when there is nobody to know it."""


class NoExchange(Exception):
    """The REST API cannot be reached, or does not know this account."""


def order_to_wire(order: Order) -> dict[str, Any]:
    match order:
        case EndCall(status):
            return {"order": "end", "status": status}
        case ObeyTwiml(text):
            return {"order": "twiml", "twiml": text}
        case ObeyUrl(url, method):
            return {"order": "url", "url": url, "method": method}
        case _:
            assert_never(order)


def order_from_wire(message: Any) -> Order | None:
    match message:
        case {"order": "end", "status": str(status)}:
            return EndCall(status)
        case {"order": "twiml", "twiml": str(text)}:
            return ObeyTwiml(text)
        case {"order": "url", "url": str(url), "method": str(method)}:
            return ObeyUrl(url, method)
        case _:
            return None


def to_wire(what: CallFacts | News) -> dict[str, Any]:
    return asdict(what)


def facts_from_wire(message: Any) -> CallFacts | None:
    names = CallFacts.__dataclass_fields__
    if not isinstance(message, dict) or not set(message) <= set(names):
        return None
    texts = {name: value for name, value in message.items() if isinstance(value, str) and len(value) < 200}
    try:
        return CallFacts(**texts)
    except TypeError:
        return None


def news_from_wire(message: Any) -> News | None:
    match message:
        case {
            "status": str(status),
            "duration": int() | None as duration,
            "answered_by": str() | None as who,
        }:
            return News(status, duration, who)
        case _:
            return None
