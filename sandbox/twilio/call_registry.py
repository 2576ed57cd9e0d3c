"""Status updates from a simulated call to the REST API simulator, and commands back.

The REST API and the process that runs a call may be two processes. `CallRegistry` is what a call needs of
the REST API: the REST API simulator implements it, and `registry_client` reaches it from another process.
The wire format between the two is JSON on a websocket, one for each call.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeAlias, assert_never

REGISTRY_PATH = "/sandbox/calls"


@dataclass(frozen=True, slots=True)
class EndCall:
    """`Status=completed`, or `canceled` while it rings."""

    status: str = "completed"


@dataclass(frozen=True, slots=True)
class RunTwiml:
    twiml: str


@dataclass(frozen=True, slots=True)
class FetchTwiml:
    url: str
    method: str = "POST"


Command: TypeAlias = EndCall | RunTwiml | FetchTwiml
OnCommand: TypeAlias = Callable[[Command], None]


@dataclass(frozen=True, slots=True)
class CallDetails:
    """What is known about a call when it begins."""

    sid: str
    account_sid: str
    from_number: str
    to_number: str
    direction: str = "inbound"
    parent_call_sid: str = ""


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """A new status of a call. Unknown values are None."""

    status: str
    duration: int | None = None
    answered_by: str | None = None


class Connection(Protocol):
    """A registered call's connection to the registry, open as long as the call lasts."""

    def report(self, update: StatusUpdate) -> None:
        """Never waits, never raises."""

    async def close(self) -> None:
        """The call is over. Waits, within a deadline, until all updates have arrived."""


class CallRegistry(Protocol):
    async def connect(self, details: CallDetails, on_command: OnCommand) -> Connection:
        """Register a call. Raises `RegistryUnavailable`."""


class RegistryUnavailable(Exception):
    """The REST API cannot be reached, or it has no such account."""


def command_to_json(command: Command) -> dict[str, Any]:
    match command:
        case EndCall(status):
            return {"command": "end", "status": status}
        case RunTwiml(twiml):
            return {"command": "twiml", "twiml": twiml}
        case FetchTwiml(url, method):
            return {"command": "url", "url": url, "method": method}
        case _:
            assert_never(command)


def command_from_json(message: Any) -> Command | None:
    match message:
        case {"command": "end", "status": str(status)}:
            return EndCall(status)
        case {"command": "twiml", "twiml": str(twiml)}:
            return RunTwiml(twiml)
        case {"command": "url", "url": str(url), "method": str(method)}:
            return FetchTwiml(url, method)
        case _:
            return None


def to_json(message: CallDetails | StatusUpdate) -> dict[str, Any]:
    return asdict(message)


def details_from_json(message: Any) -> CallDetails | None:
    names = CallDetails.__dataclass_fields__
    if not isinstance(message, dict) or not set(message) <= set(names):
        return None
    values = {name: value for name, value in message.items() if isinstance(value, str) and len(value) < 200}
    try:
        return CallDetails(**values)
    except TypeError:
        return None


def status_update_from_json(message: Any) -> StatusUpdate | None:
    match message:
        case {
            "status": str(status),
            "duration": int() | None as duration,
            "answered_by": str() | None as answered_by,
        }:
            return StatusUpdate(status, duration, answered_by)
        case _:
            return None
