"""State of the simulated account: its numbers, its calls, and the changes to them.

A call is added in one of three ways: it is placed here (`POST Calls.json`), it runs in a process that has
registered it (`CallRegistry`), or a test adds it. A REST command for a call is passed to the process
that runs it. Prices are set by a test, or after a delay, as Twilio's are.
"""

import asyncio
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence

from sandbox.faults import TwilioFaults, TwilioRestFaults
from sandbox.observable import Observable
from sandbox.twilio.call_registry import CallDetails, Command, EndCall, OnCommand, StatusUpdate
from sandbox.twilio.caller import Step
from sandbox.twilio.outbound_call import CALLEE_SCRIPT, CallRequest, place_outbound_call
from sandbox.twilio.record import TwilioCallRecord
from sandbox.twilio.rest.resources import Account, Call, IncomingPhoneNumber, ReceivedRequest, now_utc
from sandbox.twilio.webhook_client import UrlResolver

MAX_CALLS = 10_000
MAX_RECORDS = 20
MAX_REQUESTS = 1_000

OnAccountEvent = Callable[[str, str], None]  # CallSid or path, and what happened


class AccountState(Observable):
    def __init__(
        self,
        *,
        account_sid: str,
        auth_token: str,
        numbers: Iterable[str],
        faults: TwilioRestFaults,
        url_resolver: UrlResolver,
        on_event: OnAccountEvent | None,
    ) -> None:
        super().__init__()
        self.account = Account(account_sid, auth_token)
        self.url_resolver = url_resolver  # for the webhooks of outbound calls
        self.callee_script: Sequence[Step] = CALLEE_SCRIPT
        self.call_faults = TwilioFaults()  # of the media streams and child calls of outbound calls
        self.records: deque[TwilioCallRecord] = deque(maxlen=MAX_RECORDS)  # of outbound calls
        self.numbers = {number: IncomingPhoneNumber(account_sid, number) for number in numbers}
        self.faults = faults
        self.calls: OrderedDict[str, Call] = OrderedDict()  # the oldest first
        self.received_requests: deque[ReceivedRequest] = deque(maxlen=MAX_REQUESTS)
        self.stopping = asyncio.Event()
        self.outbound_count = 0
        self._on_event = on_event
        self._timers: set[asyncio.TimerHandle] = set()

    def call(self, sid: str) -> Call:
        """Raises `KeyError` for an unknown CallSid."""
        return self.calls[sid]

    def active_calls(self) -> list[Call]:
        return [call for call in self.calls.values() if not call.is_over]

    def add_call(self, call: Call) -> Call:
        """Add a call; beyond `MAX_CALLS` the oldest is removed."""
        self.calls[call.sid] = call
        while len(self.calls) > MAX_CALLS:
            self.calls.popitem(last=False)
        self.emit(call.sid, f"= {call.status}, {call.direction}")
        return call

    def update_status(self, call: Call, update: StatusUpdate) -> None:
        if not call.apply(update, now_utc()):
            return
        self.emit(call.sid, f"= {update.status}")
        if call.is_over and self.faults.price_delay_seconds is not None:
            self._set_price_after(self.faults.price_delay_seconds, call)

    def set_price(self, sid: str, price: str | None = None) -> None:
        """Set this price, or one for each started minute."""
        self.calls[sid].set_price(price)
        self.emit(sid, f"= costs {self.calls[sid].price}")

    def send_command(self, call: Call, command: Command) -> None:
        """Pass a command to the process that runs the call. A call without a process just ends."""
        self.emit(call.sid, f"< {type(command).__name__}")
        if call.on_command is not None:
            call.on_command(command)
        elif isinstance(command, EndCall):
            self.update_status(call, StatusUpdate(command.status))

    async def connect(self, details: CallDetails, on_command: OnCommand) -> "LocalConnection":
        """Implements `CallRegistry`: a call of this process, or of a remote one, begins."""
        call = self.calls.get(details.sid)
        if call is None:
            number = details.to_number if details.direction == "inbound" else details.from_number
            call = Call(
                details.sid, details.account_sid, details.from_number, details.to_number, details.direction
            )
            call.status, call.parent_call_sid = "ringing", details.parent_call_sid
            call.phone_number_sid = self.numbers[number].sid if number in self.numbers else ""
            self.add_call(call)
        if call.is_over:  # canceled before it began
            on_command(EndCall(call.status))
        else:
            call.on_command = on_command
        return LocalConnection(self, call)

    def place_call(self, from_number: str, to_number: str, request: CallRequest) -> Call:
        """Queue an outbound call and start it in the background."""
        call = Call("CA" + uuid.uuid4().hex, self.account.sid, from_number, to_number, "outbound-api")
        call.phone_number_sid = self.numbers[from_number].sid
        self.add_call(call)
        self.spawn(self._run_outbound_call(call, request))
        return call

    async def _run_outbound_call(self, call: Call, request: CallRequest) -> None:
        self.outbound_count += 1
        record = await place_outbound_call(
            CallDetails(call.sid, call.account_sid, call.from_number, call.to_number, call.direction),
            request,
            url_resolver=self.url_resolver,
            auth_token=self.account.token,
            registry=self,
            rest_faults=self.faults,
            faults=self.call_faults,
            script=self.callee_script,
            seed=self.outbound_count,
        )
        self.records.append(record)
        self.emit(call.sid, f"= ended, errors: {len(record.errors)}")

    def emit(self, subject: str, event: str) -> None:
        self.notify_changed()
        if self._on_event is not None:
            self._on_event(subject, event)

    def cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def _set_price_after(self, seconds: float, call: Call) -> None:
        def set_price() -> None:
            self._timers.discard(timer)
            if call.price is None:
                self.set_price(call.sid)

        timer = asyncio.get_running_loop().call_later(seconds, set_price)
        self._timers.add(timer)


class LocalConnection:
    """The `Connection` of one call to the account."""

    def __init__(self, state: AccountState, call: Call) -> None:
        self._state = state
        self._call = call

    def report(self, update: StatusUpdate) -> None:
        self._state.update_status(self._call, update)

    async def close(self) -> None:
        """A call that never reported its end is completed."""
        self._state.update_status(self._call, StatusUpdate("completed"))
