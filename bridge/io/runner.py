"""Runs one call: passes events to its session, and performs the session's actions without awaiting.

Each leg has an outbox with its own task, so that neither peer can block the other. Dialing, reading from the
assistant and hanging up are tasks, too. The session's deadline is one timer. An error in one of our tasks
ends the call cleanly, with the traceback in the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, assert_never

from bridge.admission import TicketError
from bridge.call.events import (
    Aborted,
    Action,
    AssistantAudio,
    AssistantConnected,
    AssistantLegClosed,
    AssistantUnreachable,
    AudioSent,
    CallerLegClosed,
    ClearPlayout,
    DeadlinePassed,
    DialAssistant,
    Dropped,
    Event,
    HangUp,
    HangUpAssistant,
    PlaceMark,
    SendControl,
    SendToAssistant,
    SendToCaller,
    StreamAccepted,
    TicketRefused,
    WriteEntry,
)
from bridge.call.session import CallSession
from bridge.call.states import State
from bridge.config import BridgeConfig
from bridge.context import BridgeContext
from bridge.end_reasons import TICKET_REFUSED
from bridge.io.assistant_leg import SETTLE_SECONDS, AssistantLeg
from bridge.io.outbox import Outbox, OutboxStuck
from bridge.io.vapi_client import DialError, DialRequest, VapiClient
from bridge.io.vapi_link import LinkEvent
from bridge.wire import twilio, vapi

logger = logging.getLogger(__name__)

FINISH_SECONDS = 8.0
MAX_QUEUED_BYTES = 256 << 10  # to the caller: half a minute of speech


class CallerMessage(NamedTuple):
    """One message to Twilio."""

    text: str
    audio_bytes: int = 0
    report: bool = False  # feed `AudioSent` once it is handed to Twilio's socket
    turn: int | None = None


class CallRunner:
    """Runs one call."""

    def __init__(
        self,
        context: BridgeContext,
        client: VapiClient,
        send_text: Callable[[str], Awaitable[None]],
        close: Callable[[int], Awaitable[None]],
        *,
        worker: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        config: BridgeConfig = context.config
        self._context = context
        self._client = client
        self._send_text = send_text
        self._close = close
        self._clock = clock
        self._writer = twilio.Writer("")
        self._dial_request: DialRequest | None = None
        self._claimed = ""  # the CallSid for which this runner holds a place
        self._is_waiting = True  # for a ticket
        context.admission.waiting_streams += 1
        self.session = CallSession(
            clock(),
            hold_buffer_ms=config.hold_buffer_ms,
            local_barge_in=config.dialect == "socket",
            worker=worker,
        )
        self._assistant: AssistantLeg | None = None
        self._caller_outbox: Outbox[CallerMessage] = Outbox(
            self._send_to_caller, lambda message: message.audio_bytes, MAX_QUEUED_BYTES
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self.on_closed: Callable[[], None] | None = None  # called once we have closed Twilio's socket
        self._caller_sender = self._create_task(self._run_caller_outbox)
        self._set_timer()

    def feed(self, event: Event) -> None:
        """Pass an event to the session, and perform the actions that it returns."""
        try:
            actions = self.session.handle(event, self._clock())
        except Exception:
            logger.exception("%s ! internal error", self.session)
            if isinstance(event, Aborted):
                raise
            actions = []
            self.feed(Aborted())
        for action in actions:
            try:
                self._perform(action)
            except Exception:  # continue with the remaining actions: one of them may hang up
                logger.exception("%s ! internal error", self.session)
                self.feed(Aborted())
        if self.session.deadline < self._timer_at:
            self._set_timer()

    async def start(self, message: twilio.Start) -> None:
        """Twilio's `start` arrived: its ticket decides whether the call is accepted."""
        if self.session.state is not State.WAITING:
            self.feed(message)
            return
        parameters = message.custom_parameters
        ticket, route_id = parameters.get("ticket", ""), parameters.get("route", "")
        admission, wall_time = self._context.admission, time.time()
        try:
            claim = await admission.claim(ticket, route_id, message.call_sid, message.account_sid)
        except TicketError as error:
            self._context.call_cache.store(message.call_sid, TICKET_REFUSED)
            self.feed(TicketRefused(message, wall_time, str(error)))
            return
        self._claimed = message.call_sid
        self._stop_waiting()
        self._writer = twilio.Writer(message.stream_sid)
        self._dial_request = DialRequest(message.call_sid, claim.caller, claim.route)
        route, uses_vapi = claim.route, self._context.config.dialect == "call"
        assistant_id = route.assistant_id if uses_vapi else ""
        self.feed(StreamAccepted(message, wall_time, route.max_call_seconds, assistant_id))

    async def finish(self) -> None:
        """End the call and its tasks. The consumer calls this in every case before it returns."""
        if not self.session.is_over:
            self.feed(Aborted())
        if self._timer is not None:
            self._timer.cancel()
        self._caller_outbox.close()
        self._stop_waiting()
        self._release_place()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=FINISH_SECONDS)
            for task in late:
                task.cancel()

    def _stop_waiting(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._context.admission.waiting_streams -= 1

    def _release_place(self) -> None:
        """Release the place once only: a later stream of the same call has its own."""
        if self._claimed:
            self._context.admission.release(self._claimed)
            self._claimed = ""

    # Actions

    def _perform(self, action: Action) -> None:
        match action:
            case SendToAssistant(ulaw):
                self._queue_to_assistant(ulaw)
            case SendToCaller(ulaw, report, turn):
                message = CallerMessage(self._writer.media(ulaw), len(ulaw), report, turn)
                if dropped := self._caller_outbox.put(message):
                    self.feed(Dropped(dropped, "caller"))
            case WriteEntry(entry):
                self._context.journal.write(entry)
            case PlaceMark(name):
                self._caller_outbox.put(CallerMessage(self._writer.mark(name)))
            case ClearPlayout():
                if dropped := self._caller_outbox.clear_audio():
                    self.feed(Dropped(dropped, "caller"))
                self._caller_outbox.put(CallerMessage(self._writer.clear()))
            case SendControl(message):
                self._queue_to_assistant(message)
            case DialAssistant():
                self._create_task(self._dial)
            case HangUp(code):
                self._create_task(partial(self._hang_up, code))
            case HangUpAssistant(how):
                if self._assistant is not None:
                    self._assistant.close_outbox()
                    self._create_task(partial(self._assistant.hang_up, how))
            case _:
                assert_never(action)

    def _queue_to_assistant(self, message: bytes | vapi.Control) -> None:
        assert self._assistant is not None  # the session sends nothing before AssistantConnected
        if dropped := self._assistant.put(message):
            self.feed(Dropped(dropped))

    async def _hang_up(self, code: int) -> None:
        """Publish the end reason, send the queue, then close: Twilio requests `/twilio/after` right away."""
        session = self.session
        if session.stream_sid:
            self._context.call_cache.store(session.call_sid, session.end_reason)
            self._release_place()
            await self._context.call_cache.publish(session.call_sid, session.end_reason)
        self._caller_outbox.close()
        await asyncio.wait({self._caller_sender}, timeout=SETTLE_SECONDS)
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._close(code)
        except Exception as error:  # uvicorn raises when the client has disconnected
            logger.debug("%s ! closing: %s", session, type(error).__name__)
        if self.on_closed is not None:
            self.on_closed()

    # Assistant leg

    async def _dial(self) -> None:
        assert self._dial_request is not None
        session = self.session
        try:
            link = await self._client.dial(self._dial_request, lambda: not session.is_over)
        except DialError as error:
            self.feed(AssistantUnreachable(str(error), error.status, error.call_id))
            return
        if link is None:
            return
        if session.is_over:
            await link.hang_up("end-call")
            return
        leg = self._assistant = AssistantLeg(link)
        leg.start(lambda: self._create_task(partial(self._run_assistant_outbox, leg)))
        self.feed(AssistantConnected(link.call_id))
        await leg.listen(self._on_link_event)
        self.feed(AssistantLegClosed(link.close_code))

    def _on_link_event(self, event: LinkEvent) -> None:
        if type(event) is not AssistantAudio and not isinstance(event, vapi.Transcript | vapi.IgnoredEvent):
            logger.debug("%s < %s", self.session, type(event).__name__)
        self.feed(event)

    async def _run_assistant_outbox(self, leg: AssistantLeg) -> None:
        try:
            await leg.run_outbox()
        except (OSError, OutboxStuck):
            logger.warning("%s ! the assistant leg accepts no more audio", self.session)
            self.feed(AssistantLegClosed(1006))
        except Exception as error:
            # `listen` ends, too, and `_dial` then feeds the close code to the session.
            logger.debug("%s ! sending to the assistant ended: %s", self.session, type(error).__name__)

    # Caller leg

    async def _run_caller_outbox(self) -> None:
        try:
            await self._caller_outbox.run()
        except OutboxStuck:
            logger.warning("%s ! the caller leg accepts no more audio", self.session)
            self.feed(CallerLegClosed(1006))
        except Exception as error:
            # uvicorn raises when the client has disconnected; the receive loop is notified, too.
            logger.debug("%s ! sending to the caller ended: %s", self.session, type(error).__name__)

    async def _send_to_caller(self, message: CallerMessage) -> None:
        await self._send_text(message.text)
        if message.report:
            self.feed(AudioSent(message.turn))

    # Tasks and the timer

    def _create_task(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work; an error ends the call."""
        try:
            await work()
        except Exception:
            logger.exception("%s ! internal error", self.session)
            self.feed(Aborted())

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self.session.deadline
        if self._timer_at == float("inf"):
            return
        delay = max(0.0, self._timer_at - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer_at = float("inf")
        self.feed(DeadlinePassed())
        if self._timer_at == float("inf"):
            self._set_timer()
