"""A stand-in for Vapi: REST API, control URLs and both kinds of socket, real HTTP on one port.

It is true to the wire, strict about what it is sent, irregular in what it sends, and it keeps a record of
every call that tests can hold against what the product believes. A client must create a call before it can
connect, may connect to it once, and has to end it: a socket that merely closes leaves the call alive and
costing money, which the record shows as `alive_after_close`.

    async with Assistant(listen="energy") as assistant:
        ...  # VAPI_BASE_URL=assistant.base_url, or VAPI_SOCKET_URL=assistant.socket_url
        call = await assistant.call_for("CA...", timeout=5)
        await assistant.until(lambda: call.answers, timeout=5)
"""

import asyncio
import secrets
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, Self

import aiohttp
from aiohttp import web

from sandbox.faults import AssistantDials
from sandbox.speech import audio
from sandbox.speech.audio import Pcm
from sandbox.vapi.assistants import Store
from sandbox.vapi.conversation import Conversation
from sandbox.vapi.handlers import Api
from sandbox.vapi.recognizer import Recogniser, can_recognise
from sandbox.vapi.record import AssistantCall
from sandbox.vapi.replies import caller_sentences
from sandbox.vapi.reports import Reporter

CALLS_KEPT = 200
DEFAULT_MAX_SECONDS = 600
NEVER_CONNECTED = "call.in-progress.error-vapifault-transport-never-connected"

OnEvent = Callable[[AssistantCall, str], None]


class Assistant:
    """Words come from recognised speech, or from `script`: text of the n-th utterance, round and round."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str = "sandbox-key",
        seed: int = 0,
        dials: AssistantDials | None = None,
        listen: Literal["auto", "energy", "speech"] = "auto",
        script: Sequence[str] | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.api_key = api_key
        self.seed = seed
        self.dials = dials or AssistantDials()
        self.script = list(script) if script is not None else caller_sentences()
        self.store = Store()  # of assistants
        self.calls: deque[AssistantCall] = deque(maxlen=CALLS_KEPT)
        self.created = 0  # calls ever, kept or not
        self.refused: deque[tuple[float, int, str]] = deque(
            maxlen=CALLS_KEPT
        )  # answers to POST /call that failed
        self._on_event = on_event
        if listen == "speech" and not can_recognise():
            raise ValueError("listen='speech' needs the [speech] extra")
        speech = listen == "speech" or (listen == "auto" and can_recognise())
        self._recogniser = Recogniser() if speech else None
        self._conversations: dict[str, Conversation] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}  # ends a call nobody connects to, or too long
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Future[None]] = set()
        self._runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None
        self._reporter: Reporter | None = None

    # Start and stop

    async def start(self) -> None:
        audio.load_clips()  # from disk now, not in somebody's first turn
        self._http = aiohttp.ClientSession(trust_env=False)
        self._reporter = Reporter(self._http)
        runner = self._runner = web.AppRunner(Api(self).application(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, self.host, self.port).start()
        self.port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        await asyncio.gather(*(conversation.leave() for conversation in self._conversations.values()))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._http is not None:
            await self._http.close()
        if self._recogniser is not None:
            await self._recogniser.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def socket_url(self) -> str:
        return f"ws://{self.host}:{self.port}/socket"

    # For whoever watches

    async def call_for(self, call_sid: str, timeout: float = 5.0) -> AssistantCall:
        """The latest call with this CallSid, once there is one. TimeoutError when there is none in time."""

        def found() -> list[AssistantCall]:
            return [call for call in self.calls if call.call_sid == call_sid]

        await self.until(lambda: bool(found()), timeout)
        return found()[-1]

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

    def alive(self) -> list[AssistantCall]:
        return [call for call in self.calls if call.alive]

    # The life of a call, driven by `Api` and by the conversation itself

    def create(self, dialect: str, body: dict[str, Any], metadata: Any) -> AssistantCall:
        call = AssistantCall(str(uuid.uuid4()), dialect, body, time.monotonic(), on_change=self._changed)
        call.token = secrets.token_urlsafe(24)
        call.number = self.created
        call.tools = self.store.tools_of(body.get("assistantId"))
        call.first_message = self.store.first_message_of(body.get("assistantId"))
        if isinstance(metadata, dict):
            call.call_sid = str(metadata.get("callSid") or metadata.get("call_sid") or "")
        self.created += 1
        self.calls.append(call)
        if self._recogniser is not None:
            self.spawn(self._recogniser.warm_up())  # ready before the first word
        self._end_after(call, self.dials.connect_within_s, NEVER_CONNECTED)
        call.note("= created")
        return call

    def find(self, call_id: str) -> AssistantCall | None:
        return next((call for call in self.calls if call.id == call_id), None)

    def opened(self, call: AssistantCall, conversation: Conversation) -> None:
        call.opened_at = time.monotonic()
        call.status = "in-progress"
        self._conversations[call.id] = conversation
        conversation.begin()
        self.spawn(self._report_started(call))
        overrides = call.body.get("assistantOverrides") or {}
        limit_s = overrides.get("maxDurationSeconds", DEFAULT_MAX_SECONDS)
        self._end_after(call, limit_s, "exceeded-max-duration")
        call.note("= open")

    async def closed(self, call: AssistantCall) -> None:
        call.closed_at = time.monotonic()
        if (conversation := self._conversations.pop(call.id, None)) is not None:
            await conversation.stop()
        call.note(f"= closed {call.close_code}")

    def end(self, call: AssistantCall, reason: str) -> None:
        """The call is over on the assistant's side, whoever wanted it. The first reason stays."""
        if call.ended_at is not None:
            return
        call.ended_at = time.monotonic()
        call.ended_reason = reason
        call.status = "ended"
        if (timer := self._timers.pop(call.id, None)) is not None:
            timer.cancel()
        call.note(f"= ended {reason}")
        if (conversation := self._conversations.get(call.id)) is not None:
            self.spawn(conversation.finish(reason))
        if self._reporter is not None and not self.dials.no_reports:
            self.spawn(self._reporter.post_end_of_call(call, self.dials.report_after_s))

    async def use_tool(self, call: AssistantCall, asked: dict[str, Any]) -> None:
        """Ask the server for a tool's result."""
        if self._reporter is not None:
            said = await self._reporter.post(call, "tool-calls", toolCallList=[asked])
            call.tool_results.append(said)
            call.note(f"= tool {asked['function']['name']}")

    def told(self, call: AssistantCall, message: Any) -> bool:
        """A message from the control URL. An orphan has nobody left to speak, but it can be ended."""
        call.keep_text(message)
        if not isinstance(message, dict):
            return False
        if (conversation := self._conversations.get(call.id)) is not None:
            return conversation.told(message)
        if message.get("type") == "end-call":
            call.end_call_at = time.monotonic()
            self.end(call, "manually-canceled")
            return True
        return message.get("type") in ("say", "add-message", "control")

    async def understand(self, number: int, pcm: Pcm, rate: int) -> str:
        """The words of a caller's utterance, counted from 1 within its call."""
        if self._recogniser is not None:
            return await self._recogniser.understand(pcm, rate)
        return self.script[(number - 1) % len(self.script)] if self.script else ""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _report_started(self, call: AssistantCall) -> None:
        if self._reporter is not None and not self.dials.no_reports:
            await self._reporter.post(call, "status-update", status="in-progress")

    def _end_after(self, call: AssistantCall, seconds: float, reason: str) -> None:
        if (timer := self._timers.pop(call.id, None)) is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[call.id] = loop.call_later(seconds, self.end, call, reason)

    def _changed(self, call: AssistantCall, what: str) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        if self._on_event is not None:
            self._on_event(call, what)
