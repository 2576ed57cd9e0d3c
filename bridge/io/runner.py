"""One call's tasks: feeds the session what happens, and does what it says, without awaiting.

Each leg has an outbox with a task of its own, so nothing that a peer does holds up the other. Dialling,
reading from the assistant and hanging up are tasks too. The session's deadline is one timer. Whatever
goes wrong in a task of ours ends the call cleanly, with the traceback in the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, assert_never

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
    SendToAssistant,
    SendToCaller,
    StreamAccepted,
    TellAssistant,
    TicketRefused,
    WriteEntry,
)
from bridge.call.session import CallSession, State
from bridge.config import BridgeConfig
from bridge.context import BridgeContext
from bridge.io.outbox import Outbox, OutboxStuck
from bridge.io.vapi_link import AssistantLink, Dialled, LinkEvent, Unreachable, VapiClient
from bridge.wire import twilio, vapi

log = logging.getLogger(__name__)

FINISH_SECONDS = 8.0
SETTLE_SECONDS = 1.0  # for what is queued to leave, before a leg is closed
TO_ASSISTANT_BYTES = 8000 * 10  # ten seconds of speech, then the oldest goes
TO_CALLER_BYTES = 8000 * 40


class Mail(NamedTuple):
    """One message to Twilio; `size` is its audio in bytes."""

    text: str
    size: int = 0
    report: bool = False
    turn: int | None = None


class CallRunner:
    """The tasks of one call."""

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
        self._link: AssistantLink | None = None
        self._dialled: Dialled | None = None
        self._writer = twilio.Writer("")
        self._claimed = ""  # the call whose place at the door we hold
        self.session = CallSession(
            clock(),
            hold_buffer_ms=config.hold_buffer_ms,
            local_barge_in=config.dialect == "socket",
            worker=worker,
        )
        self._to_caller: Outbox[Mail] = Outbox(self._send_mail, lambda mail: mail.size, TO_CALLER_BYTES)
        self._to_assistant: Outbox[bytes | vapi.Control] = Outbox(
            self._send_to_assistant,
            lambda item: len(item) if isinstance(item, bytes) else 0,
            TO_ASSISTANT_BYTES,
            lambda: self._link is not None and self._link.is_open,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self.when_closed: Callable[[], None] | None = None  # called once we closed Twilio's socket
        self._caller_mail = self._task(self._run_caller_outbox())
        self._assistant_mail: asyncio.Task[None] | None = None
        self._arm_timer()

    def feed(self, event: Event) -> None:
        """Something happened, now."""
        try:
            actions = self.session.handle(event, self._clock())
        except Exception:
            log.exception("%s ! our own error", self.session)
            if isinstance(event, Aborted):
                raise
            actions = []
            self.feed(Aborted())
        for action in actions:
            try:
                self._perform(action)
            except Exception:  # what is left to do is done all the same: hanging up, for one
                log.exception("%s ! our own error", self.session)
                self.feed(Aborted())
        if self.session.deadline < self._timer_at:
            self._arm_timer()

    async def start(self, message: twilio.Start) -> None:
        """Twilio's `start`: the ticket decides whether there is a call."""
        if self.session.state is not State.WAITING:
            self.feed(message)
            return
        parameters = message.custom_parameters
        ticket, route_id = parameters.get("ticket", ""), parameters.get("route", "")
        admission, wall = self._context.admission, time.time()
        try:
            claim = await admission.claim(ticket, route_id, message.call_sid, message.account_sid)
        except TicketError as refusal:
            self._context.endings.note(message.call_sid, "ticket-refused")
            self.feed(TicketRefused(message, wall, str(refusal)))
            return
        self._claimed = message.call_sid
        self._writer = twilio.Writer(message.stream_sid)
        self._dialled = Dialled(message.call_sid, claim.caller, claim.route)
        self.feed(StreamAccepted(message, wall, claim.route.max_call_seconds))

    async def finish(self) -> None:
        """The consumer is leaving, whatever the reason: nothing may stay behind."""
        if not self.session.over:
            self.feed(Aborted())
        if self._timer is not None:
            self._timer.cancel()
        self._to_caller.close()
        self._leave()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=FINISH_SECONDS)
            for task in late:
                task.cancel()

    def _leave(self) -> None:
        """Once: a later stream of the same call has a place of its own."""
        if self._claimed:
            self._context.admission.leave(self._claimed)
            self._claimed = ""

    # What the session wants done

    def _perform(self, action: Action) -> None:
        match action:
            case SendToAssistant(ulaw):
                if dropped := self._to_assistant.put(ulaw):
                    self.feed(Dropped(dropped))
            case SendToCaller(ulaw, report, turn):
                mail = Mail(self._writer.media(ulaw), len(ulaw), report, turn)
                if dropped := self._to_caller.put(mail):
                    self.feed(Dropped(dropped, "caller"))
            case WriteEntry(entry):
                self._context.journal.write(entry)
            case PlaceMark(name):
                self._to_caller.put(Mail(self._writer.mark(name)))
            case ClearPlayout():
                if dropped := self._to_caller.clear_audio():
                    self.feed(Dropped(dropped, "caller"))
                self._to_caller.put(Mail(self._writer.clear()))
            case TellAssistant(message):
                self._to_assistant.put(message)
            case DialAssistant():
                self._task(self._dial())
            case HangUp(code):
                self._task(self._hang_up(code))
            case HangUpAssistant(how):
                self._to_assistant.close()
                if self._link is not None:
                    self._task(self._hang_up_assistant(self._link, how))
            case _:
                assert_never(action)

    async def _hang_up(self, code: int) -> None:
        """Send what is queued, tell the other workers why, then close: Twilio asks at once."""
        session = self.session
        if session.stream_sid:
            self._context.endings.note(session.call_sid, session.end_reason)
            self._leave()
            await self._context.endings.publish(session.call_sid, session.end_reason)
        self._to_caller.close()
        await asyncio.wait({self._caller_mail}, timeout=SETTLE_SECONDS)
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._close(code)
        except Exception as error:  # uvicorn raises when the caller has left already
            log.debug("%s ! closing: %s", session, type(error).__name__)
        if self.when_closed is not None:
            self.when_closed()

    async def _hang_up_assistant(self, link: AssistantLink, how: str) -> None:
        if self._assistant_mail is not None:
            await asyncio.wait({self._assistant_mail}, timeout=SETTLE_SECONDS)
        await link.hang_up(how)

    # The assistant leg

    async def _dial(self) -> None:
        assert self._dialled is not None
        session = self.session
        try:
            link = await self._client.dial(self._dialled, lambda: not session.over)
        except Unreachable as failure:
            self.feed(AssistantUnreachable(str(failure), failure.status, failure.call_id))
            return
        if link is None:
            return
        if session.over:
            await link.hang_up("end-call")
            return
        self._link = link
        self._assistant_mail = self._task(self._run_assistant_outbox())
        self.feed(AssistantConnected(link.call_id))
        await link.listen(self._heard)
        self.feed(AssistantLegClosed(link.close_code))

    def _heard(self, event: LinkEvent) -> None:
        if type(event) is not AssistantAudio and not isinstance(event, vapi.Transcript | vapi.IgnoredEvent):
            log.debug("%s < %s", self.session, type(event).__name__)
        self.feed(event)

    async def _run_assistant_outbox(self) -> None:
        try:
            await self._to_assistant.run()
        except (OSError, OutboxStuck):
            log.warning("%s ! assistant leg takes no more audio", self.session)
            self.feed(AssistantLegClosed(1006))
        except Exception as error:
            # The reader sees a closed socket too, and tells the session its code.
            log.debug("%s ! sending to the assistant ended: %s", self.session, type(error).__name__)

    async def _send_to_assistant(self, item: bytes | vapi.Control) -> None:
        assert self._link is not None
        if isinstance(item, bytes):
            await self._link.send_audio(item)
        else:
            await self._link.send_control(item)

    # The caller leg

    async def _run_caller_outbox(self) -> None:
        try:
            await self._to_caller.run()
        except OutboxStuck:
            log.warning("%s ! caller leg takes no more audio", self.session)
            self.feed(CallerLegClosed(1006))
        except Exception as error:
            # uvicorn raises when the caller has left; the receive loop is told as well.
            log.debug("%s ! sending to the caller ended: %s", self.session, type(error).__name__)

    async def _send_mail(self, mail: Mail) -> None:
        await self._send_text(mail.text)
        if mail.report:
            self.feed(AudioSent(mail.turn))

    # Tasks and time

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("%s ! our own error", self.session)
            self.feed(Aborted())

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self.session.deadline
        if self._timer_at == float("inf"):
            return
        delay = max(0.0, self._timer_at - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay, self._deadline_passed)

    def _deadline_passed(self) -> None:
        self._timer_at = float("inf")
        self.feed(DeadlinePassed())
        if self._timer_at == float("inf"):
            self._arm_timer()
