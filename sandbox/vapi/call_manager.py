"""The calls of the Vapi simulator, from creation to end.

A call is created over REST or by the first message on `/socket`, opened by its socket, and ended by
`end-call`, by the assistant, or by a timer. A socket that closes does not end a Vapi call.
"""

import asyncio
import secrets
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sandbox.faults import VapiFaults
from sandbox.observable import Observable
from sandbox.speech.audio import Pcm
from sandbox.vapi.assistants import AssistantStore
from sandbox.vapi.conversation import Conversation
from sandbox.vapi.recognizer import SpeechRecognizer
from sandbox.vapi.record import VapiCallRecord
from sandbox.vapi.reports import Reporter

MAX_CALLS = 200
DEFAULT_MAX_SECONDS = 600
NEVER_CONNECTED = "call.in-progress.error-vapifault-transport-never-connected"

OnVapiCallEvent = Callable[[VapiCallRecord, str], None]


class CallManager(Observable):
    def __init__(
        self,
        *,
        api_key: str,
        seed: int,
        faults: VapiFaults,
        script: Sequence[str],
        recognizer: SpeechRecognizer | None,
        on_event: OnVapiCallEvent | None,
    ) -> None:
        super().__init__()
        self.api_key = api_key
        self.seed = seed
        self.faults = faults
        self.script = list(script)  # text of the n-th utterance, cyclic; used without a recognizer
        self.assistant_store = AssistantStore()
        self.calls: deque[VapiCallRecord] = deque(maxlen=MAX_CALLS)
        self.created_count = 0  # including calls that are no longer kept
        # Failed `POST /call` requests: time, status, body.
        self.rejected_requests: deque[tuple[float, int, str]] = deque(maxlen=MAX_CALLS)
        self._recognizer = recognizer
        self._on_event = on_event
        self._conversations: dict[str, Conversation] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}  # end an unconnected call, or one that is too long
        self._reporter: Reporter | None = None

    # Queries

    async def call_for(self, call_sid: str, timeout_seconds: float = 5.0) -> VapiCallRecord:
        """Wait for a call with this CallSid and return the latest. Raises TimeoutError."""

        def matching_calls() -> list[VapiCallRecord]:
            return [call for call in self.calls if call.call_sid == call_sid]

        await self.until(lambda: bool(matching_calls()), timeout_seconds)
        return matching_calls()[-1]

    def active_calls(self) -> list[VapiCallRecord]:
        return [call for call in self.calls if call.is_active]

    def find(self, call_id: str) -> VapiCallRecord | None:
        return next((call for call in self.calls if call.id == call_id), None)

    # Lifecycle

    def create(self, dialect: str, body: dict[str, Any], metadata: Any) -> VapiCallRecord:
        call = VapiCallRecord(str(uuid.uuid4()), dialect, body, time.monotonic(), on_event=self._emit)
        call.url_token = secrets.token_urlsafe(24)
        call.number = self.created_count
        call.tools = self.assistant_store.tool_names(body.get("assistantId"))
        call.first_message = self.assistant_store.first_message(body.get("assistantId"))
        if isinstance(metadata, dict):
            call.call_sid = str(metadata.get("callSid") or metadata.get("call_sid") or "")
        self.created_count += 1
        self.calls.append(call)
        if self._recognizer is not None:
            self.spawn(self._recognizer.warm_up())  # ready before the first utterance
        self._end_after(call, self.faults.connect_timeout_seconds, NEVER_CONNECTED)
        call.emit("= created")
        return call

    def open(self, call: VapiCallRecord, conversation: Conversation) -> None:
        call.opened_at = time.monotonic()
        call.status = "in-progress"
        self._conversations[call.id] = conversation
        conversation.start()
        self.spawn(self._report_started(call))
        overrides = call.body.get("assistantOverrides") or {}
        limit_seconds = overrides.get("maxDurationSeconds", DEFAULT_MAX_SECONDS)
        self._end_after(call, limit_seconds, "exceeded-max-duration")
        call.emit("= open")

    async def on_socket_closed(self, call: VapiCallRecord) -> None:
        call.closed_at = time.monotonic()
        if (conversation := self._conversations.pop(call.id, None)) is not None:
            await conversation.stop()
        call.emit(f"= closed {call.close_code}")

    def end(self, call: VapiCallRecord, reason: str) -> None:
        """End the call on Vapi's side. The first reason is kept."""
        if call.ended_at is not None:
            return
        call.ended_at = time.monotonic()
        call.ended_reason = reason
        call.status = "ended"
        if (timer := self._timers.pop(call.id, None)) is not None:
            timer.cancel()
        call.emit(f"= ended {reason}")
        if (conversation := self._conversations.get(call.id)) is not None:
            self.spawn(conversation.finish(reason))
        if self._reporter is not None and not self.faults.no_reports:
            self.spawn(self._reporter.post_end_of_call(call, self.faults.report_delay_seconds))

    async def call_tool(self, call: VapiCallRecord, tool_call: dict[str, Any]) -> None:
        """Request a tool's result from the server."""
        if self._reporter is not None:
            result = await self._reporter.post(call, "tool-calls", toolCallList=[tool_call])
            call.tool_results.append(result)
            call.emit(f"= tool {tool_call['function']['name']}")

    def handle_control(self, call: VapiCallRecord, message: Any) -> bool:
        """A message to the control URL; False if its type is unknown.

        A call whose socket is closed cannot speak any more, but it can be ended.
        """
        call.record_message(message)
        if not isinstance(message, dict):
            return False
        if (conversation := self._conversations.get(call.id)) is not None:
            return conversation.handle_message(message)
        if message.get("type") == "end-call":
            call.end_call_at = time.monotonic()
            self.end(call, "manually-canceled")
            return True
        return message.get("type") in ("say", "add-message", "control")

    async def recognize(self, number: int, pcm: Pcm, rate: int) -> str:
        """The text of a caller's utterance; `number` counts from 1 in each call."""
        if self._recognizer is not None:
            return await self._recognizer.recognize(pcm, rate)
        return self.script[(number - 1) % len(self.script)] if self.script else ""

    async def _stop_calls(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        await asyncio.gather(*(conversation.shut_down() for conversation in self._conversations.values()))
        await self.cancel_tasks()

    async def _report_started(self, call: VapiCallRecord) -> None:
        if self._reporter is not None and not self.faults.no_reports:
            await self._reporter.post(call, "status-update", status="in-progress")

    def _end_after(self, call: VapiCallRecord, seconds: float, reason: str) -> None:
        if (timer := self._timers.pop(call.id, None)) is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[call.id] = loop.call_later(seconds, self.end, call, reason)

    def _emit(self, call: VapiCallRecord, event: str) -> None:
        self.notify_changed()
        if self._on_event is not None:
            self._on_event(call, event)
