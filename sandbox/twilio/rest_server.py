"""A stand-in for Twilio's REST API: one account, its numbers and its calls, real HTTP on one port.

It is true to the wire and strict about what it is sent. Calls become known in three ways: they are placed
here (`POST Calls.json`), they are carried by a process that has told us (`carrier_relay`), or a test put
them into the book. What is done to a call here happens to it wherever it is carried: it is hung up, or
obeys new TwiML. Prices are a bill of its own, and come when told or after a while, as Twilio's do.

    async with CarrierApi(account_sid=ACCOUNT, auth_token=TOKEN) as api:
        ...  # TWILIO_BASE_URL=api.base_url
        api.dials = CarrierApiDials(rest_status=429)
        await api.until(lambda: api.call("CA...").is_over)
"""

import asyncio
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Self

from aiohttp import web

from sandbox.faults import CarrierApiDials
from sandbox.twilio import outbound_call
from sandbox.twilio.caller import Step
from sandbox.twilio.exchange import CallFacts, EndCall, Give, News, Order
from sandbox.twilio.media_stream import CarrierDials
from sandbox.twilio.outbound_call import SOMEBODY, Request
from sandbox.twilio.record import CallRecord
from sandbox.twilio.resources import Account, Asked, Call, Number, now_utc
from sandbox.twilio.rest_handlers import Rest
from sandbox.twilio.webhooks import Addresses

ACCOUNT_SID = "AC" + "5a" * 16
AUTH_TOKEN = "sandbox-token"
NUMBER = "+15559870000"
CALLS_KEPT = 10_000
RECORDS_KEPT = 20
REQUESTS_KEPT = 1_000

OnEvent = Callable[[str, str], None]  # CallSid or path, and what happened


class CarrierApi:
    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        account_sid: str = ACCOUNT_SID,
        auth_token: str = AUTH_TOKEN,
        numbers: Iterable[str] = (NUMBER,),
        dials: CarrierApiDials | None = None,
        server_url: str = "",
        public_url: str = "",
        on_event: OnEvent | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.account = Account(account_sid, auth_token)
        # Where the server that our calls lead to really is, and what it calls itself. Without either, only
        # addresses on loopback are called.
        self.addresses = Addresses(server_url or "http://127.0.0.1", public_url or None)
        self.script: Sequence[Step] = SOMEBODY  # what those do whom we call
        self.call_dials = CarrierDials()  # of their media streams, and of those who are dialled from them
        self.records: deque[CallRecord] = deque(maxlen=RECORDS_KEPT)  # of calls that were placed here
        self.numbers = {number: Number(account_sid, number) for number in numbers}
        self.dials = dials or CarrierApiDials()
        self.calls: OrderedDict[str, Call] = OrderedDict()  # the book: the oldest first
        self.asked: deque[Asked] = deque(maxlen=REQUESTS_KEPT)
        self.stopping = asyncio.Event()
        self.placed = 0  # calls ever
        self._on_event = on_event
        self._runner: web.AppRunner | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()

    # Start and stop

    async def start(self) -> None:
        runner = self._runner = web.AppRunner(Rest(self).application(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, self.host, self.port).start()
        self.port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        self.stopping.set()
        for timer in self._timers:
            timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    # For whoever watches

    def call(self, sid: str) -> Call:
        return self.calls[sid]

    def live(self) -> list[Call]:
        return [call for call in self.calls.values() if not call.is_over]

    async def until(self, condition: Callable[[], object], timeout: float = 5.0) -> None:
        """Return once the condition holds; it is asked again after each change. TimeoutError if too late."""
        async with asyncio.timeout(timeout):
            while not condition():
                changed = asyncio.get_running_loop().create_future()
                self._waiting.add(changed)
                try:
                    await changed
                finally:
                    self._waiting.discard(changed)

    # The book of calls

    def enter(self, call: Call) -> Call:
        """A call is known from now on; the oldest that are over make room."""
        self.calls[call.sid] = call
        while len(self.calls) > CALLS_KEPT:
            self.calls.popitem(last=False)
        self.note(call.sid, f"= {call.status}, {call.direction}")
        return call

    def moved(self, call: Call, news: News) -> None:
        if not call.moved(news, now_utc()):
            return
        self.note(call.sid, f"= {news.status}")
        if call.is_over and self.dials.price_after_s is not None:
            self._later(self.dials.price_after_s, call)

    def bill(self, sid: str, price: str | None = None) -> None:
        """The price is there: as given, or by the started minute."""
        self.calls[sid].bill(price)
        self.note(sid, f"= costs {self.calls[sid].price}")

    def order(self, call: Call, order: Order) -> None:
        """Hand an order to whoever carries the call. A call that nobody carries just ends."""
        self.note(call.sid, f"< {type(order).__name__}")
        if call.give is not None:
            call.give(order)
        elif isinstance(order, EndCall):
            self.moved(call, News(order.status))

    async def connect(self, facts: CallFacts, give: Give) -> "Line":
        """As an `Exchange`: a call of this process begins, or of one that has told us."""
        call = self.calls.get(facts.sid)
        if call is None:
            ours = facts.to_number if facts.direction == "inbound" else facts.from_number
            call = Call(facts.sid, facts.account_sid, facts.from_number, facts.to_number, facts.direction)
            call.status, call.parent_call_sid = "ringing", facts.parent_call_sid
            call.phone_number_sid = self.numbers[ours].sid if ours in self.numbers else ""
            self.enter(call)
        if call.is_over:  # canceled before it was carried
            give(EndCall(call.status))
        else:
            call.give = give
        return Line(self, call)

    def place(self, from_number: str, to_number: str, request: Request) -> Call:
        """Queue a call; it is on its way when this returns."""
        call = Call("CA" + uuid.uuid4().hex, self.account.sid, from_number, to_number, "outbound-api")
        call.phone_number_sid = self.numbers[from_number].sid
        self.enter(call)
        self.spawn(self._place(call, request))
        return call

    async def _place(self, call: Call, request: Request) -> None:
        facts = CallFacts(call.sid, call.account_sid, call.from_number, call.to_number, call.direction)
        self.placed += 1
        record = await outbound_call.place(
            facts, request,
            addresses=self.addresses, auth_token=self.account.token, exchange=self,
            people=self.dials, dials=self.call_dials, script=self.script, seed=self.placed,
        )  # fmt: skip
        self.records.append(record)
        self.note(call.sid, f"= over, {len(record.errors)} errors")

    # For `Rest`

    def note(self, what: str, happened: str) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        if self._on_event is not None:
            self._on_event(what, happened)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _later(self, seconds: float, call: Call) -> None:
        def bill() -> None:
            self._timers.discard(timer)
            if call.price is None:
                self.bill(call.sid)

        timer = asyncio.get_running_loop().call_later(seconds, bill)
        self._timers.add(timer)


class Line:
    """The connection of one call in this process."""

    def __init__(self, api: CarrierApi, call: Call) -> None:
        self._api = api
        self._call = call

    def report(self, news: News) -> None:
        self._api.moved(self._call, news)

    async def close(self) -> None:
        """A call whose end nobody reported ended all the same."""
        self._api.moved(self._call, News("completed"))
