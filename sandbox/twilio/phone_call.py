"""One phone call, as Twilio runs it: webhook, TwiML, media stream, action URL, callbacks, REST commands.

TwiML is executed document by document. `<Connect>` blocks until the stream is over. When the caller hung up,
no more TwiML is executed and only the status callback follows. When the server closed the socket, or the
connection broke, the call continues: the action URL is requested, or the next verb runs.

A REST command interrupts the current verb: a stream ends with `stop`, no action URL is requested, and the
command is executed next.
"""

import asyncio
import contextlib
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import assert_never
from urllib.parse import urljoin

from sandbox.faults import TwilioFaults
from sandbox.twilio import twiml
from sandbox.twilio.call_registry import (
    CallDetails,
    CallRegistry,
    Command,
    Connection,
    EndCall,
    FetchTwiml,
    RegistryUnavailable,
    RunTwiml,
    StatusUpdate,
)
from sandbox.twilio.callbacks import Callbacks, NumberConfig
from sandbox.twilio.caller import CallerAudio, OnCallerEvent, Step
from sandbox.twilio.handshake import HandshakeFailed, check_stream_url, open_socket
from sandbox.twilio.media_stream import MediaStream
from sandbox.twilio.record import TwilioCallRecord
from sandbox.twilio.twiml_fetcher import TwimlFetcher
from sandbox.twilio.webhook_client import WebhookClient, sign, url_to_sign

_E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
WITHHELD_NUMBERS = ("+266696687", "+7378742833", "+2562533", "+8656696", "+86282452253")
ANSWERED_DIAL_STATUSES = ("completed", "answered")


class PhoneCall:
    """An inbound call, and the base of outbound calls. Without a registry it receives no commands."""

    direction = "inbound"

    def __init__(
        self,
        number: NumberConfig,
        webhooks: WebhookClient,
        record: TwilioCallRecord,
        audio: CallerAudio,
        faults: TwilioFaults,
        on_event: OnCallerEvent,
        registry: CallRegistry | None = None,
    ) -> None:
        self._number = number
        self._record = record
        self._audio = audio
        self._faults = faults
        self._on_event = on_event
        self._registry = registry
        self._callbacks = Callbacks(number, webhooks, record, faults, self.direction)
        self._twiml = TwimlFetcher(webhooks, self._callbacks, record, number.voice_url, on_event)
        self._answered_at = monotonic()  # an inbound call is answered at once
        self._answered = True
        self._sends_final_callback = True
        self._background_task: asyncio.Task[None] | None = None  # asynchronous machine detection
        self._hung_up = False
        self._final_status = "completed"
        self._connection: Connection | None = None
        self._command: Command | None = None  # a newer command replaces an older one
        self._command_received = asyncio.Event()

    async def run(self, script: Sequence[Step]) -> None:
        self._connection = await self._connect(self._details())
        try:
            document = await self._open()
            if document is not None and not _rejects(document):
                self._report(StatusUpdate("in-progress"))
            while not self._hung_up and (document is not None or self._command is not None):
                if self._command is not None:
                    document = await self._execute_command(self._command)
                elif document is not None:
                    document = await self._execute(document, script)
            self._end()
            await self._callbacks.wait_until_sent()
        finally:
            if self._background_task is not None:
                self._background_task.cancel()
            if self._connection is not None:
                await self._connection.close()

    def on_command(self, command: Command) -> None:
        """A REST request for this call."""
        self._on_event("rest-command", {"command": type(command).__name__})
        self._command = command
        self._command_received.set()

    async def _open(self) -> list[twiml.Verb] | None:
        """The first document; None if the call cannot continue."""
        return await self._fetch(self._twiml.url, "POST", {"CallStatus": "ringing"})

    def _end(self) -> None:
        record, status = self._record, self._final_status
        record.ended_by = record.ended_by or "server"
        record.final_status = status
        seconds = math.ceil(monotonic() - self._answered_at) if self._answered else None
        self._report(StatusUpdate(status, seconds))
        if self._sends_final_callback:
            self._callbacks.send_status("completed", status, seconds)

    # REST commands

    async def _execute_command(self, command: Command) -> list[twiml.Verb] | None:
        self._command = None
        self._command_received.clear()
        match command:
            case EndCall(status):
                self._final_status = status
                self._record.ended_by = "rest-api"
                return None
            case RunTwiml(text):
                return self._set_final_status(self._twiml.parse(text, "the TwiML of the REST request"))
            case FetchTwiml(url, method):
                return await self._fetch(url, method, {"CallStatus": "in-progress"})
            case _:
                assert_never(command)

    async def _wait(self, seconds: float) -> None:
        """Wait this long, or until a command arrives or the call reaches its limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, max(0.0, self._seconds_left()))):
                await self._command_received.wait()

    def _details(self) -> CallDetails:
        record = self._record
        return CallDetails(
            record.call_sid, record.account_sid, record.from_number, record.to_number, self.direction
        )

    async def _connect(self, details: CallDetails) -> Connection | None:
        if self._registry is None:
            return None
        try:
            return await self._registry.connect(details, self.on_command)
        except RegistryUnavailable as error:
            self._record.add_error(0, f"the Twilio REST API simulator does not know this call: {error}")
            return None

    def _report(self, update: StatusUpdate) -> None:
        if self._connection is not None:
            self._connection.report(update)

    # TwiML

    async def _execute(self, document: list[twiml.Verb], script: Sequence[Step]) -> list[twiml.Verb] | None:
        """Execute the verbs in order. Returns the next document; None at the end or after a command."""
        for verb in document:
            if self._command is not None:
                return None
            if self._seconds_left() <= 0:
                limit_seconds = self._number.limit_seconds
                self._record.add_error(0, f"the call reached its limit of {limit_seconds:.0f} s")
                return None
            match verb:
                case twiml.ConnectVerb(stream, action, method):
                    await self._stream(stream, script)
                    if self._hung_up or self._command is not None:
                        return None
                    if action:
                        return await self._fetch(action, method, {"CallStatus": "in-progress"})
                case twiml.SayVerb(text):
                    self._record.spoken_by_twilio.append(text)
                    self._on_event("said-by-twilio", {"text": text})
                case twiml.DialVerb(action=action, method=method):
                    action_params = await self._dial(verb)
                    if action and self._command is None:
                        return await self._fetch(action, method, action_params)
                case twiml.PauseVerb(seconds):
                    await self._wait(seconds)
                case twiml.RedirectVerb(url, method):
                    return await self._fetch(url, method, {"CallStatus": "in-progress"})
                case twiml.RejectVerb(reason):
                    self._final_status = "busy" if reason == "busy" else "no-answer"
                    return None
                case twiml.HangupVerb():
                    return None
        return None

    async def _fetch(self, url: str, method: str, params: Mapping[str, str]) -> list[twiml.Verb] | None:
        return self._set_final_status(await self._twiml.fetch(url, method, params))

    def _set_final_status(self, document: list[twiml.Verb] | None) -> list[twiml.Verb] | None:
        """Return the document. A call whose first document is unusable ends as `failed`."""
        if document is None:
            self._final_status = "completed" if self._record.twiml else "failed"
        return document

    async def _dial(self, verb: twiml.DialVerb) -> dict[str, str]:
        """Run a child call to the dialed number. Returns the parameters for the action URL.

        The dialed party hears the TwiML of `<Number url>`, then talks for `dial_talk_seconds`.
        """
        record, status = self._record, self._faults.dial_status
        caller_id = verb.caller_id or record.from_number
        if not _E164.fullmatch(caller_id) or caller_id in WITHHELD_NUMBERS:
            record.add_error(13214, f"<Dial>: {caller_id!r} cannot be a caller id; nobody was dialed")
            return self._callbacks.dial_action_params("CA" + uuid.uuid4().hex, "failed", 0)
        record.dialed.append(verb.number)
        self._on_event("dialed", {"number": verb.number})
        params = self._callbacks.child_call_params("CA" + uuid.uuid4().hex, verb.number)
        details = CallDetails(
            params["CallSid"],
            record.account_sid,
            params["From"],
            verb.number,
            "outbound-dial",
            record.call_sid,
        )
        child_connection = await self._connect_child(details)
        is_answered = status in ANSWERED_DIAL_STATUSES
        seconds = 0
        if is_answered:
            child_connection.report(StatusUpdate("in-progress"))
            if verb.whisper_url:
                verbs = await self._twiml.fetch_for_child_call(verb.whisper_url, params)
                record.whispered += [say.text for say in verbs if isinstance(say, twiml.SayVerb)]
            answered_at = monotonic()
            await self._wait(self._faults.dial_talk_seconds)
            seconds = max(1, math.ceil(monotonic() - answered_at))
        child_connection.report(StatusUpdate("completed" if is_answered else status, seconds or None))
        await child_connection.close()
        return self._callbacks.dial_action_params(params["CallSid"], status, seconds)

    async def _connect_child(self, details: CallDetails) -> Connection:
        if self._registry is not None:
            with contextlib.suppress(RegistryUnavailable):
                return await self._registry.connect(details, lambda command: None)
        return _NoConnection()

    # The media stream

    async def _stream(self, noun: twiml.Stream, script: Sequence[Step]) -> None:
        record, url_resolver = self._record, self._number.url_resolver
        record.params = dict(noun.params)
        if record.started_at is None:
            record.spoken_before_stream = len(record.spoken_by_twilio)
        try:
            check_stream_url(noun.url, url_resolver)
        except HandshakeFailed as error:
            record.add_error(error.code, str(error))
            return
        token = self._callbacks.signing_token("stream")
        signature = sign(token, url_to_sign(noun.url)) if token else ""
        try:
            ws = await open_socket(noun.url, url_resolver.resolve(noun.url, media=True), signature)
        except (HandshakeFailed, PermissionError) as error:
            record.add_error(error.code if isinstance(error, HandshakeFailed) else 31902, str(error))
            self._send_stream_status(noun, "stream-error", error=str(error))
            return
        stream = MediaStream(ws, record, self._audio, self._faults, self._on_event, self._command_received)
        self._on_event("connected", {"stream_sid": record.stream_sid})
        self._send_stream_status(noun, "stream-started")
        record.ended_by = await stream.run(script, max(0.0, self._seconds_left()))
        self._hung_up = record.ended_by == "caller"
        self._send_stream_status(noun, "stream-stopped")

    def _send_stream_status(self, noun: twiml.Stream, event: str, *, error: str = "") -> None:
        if noun.status_callback:
            url = urljoin(self._twiml.url, noun.status_callback)
            self._callbacks.send_stream_status(url, noun.status_callback_method, noun.name, event, error)

    def _seconds_left(self) -> float:
        return self._number.limit_seconds - (monotonic() - self._answered_at)


class _NoConnection:
    """The connection of a child call when there is no registry."""

    def report(self, update: StatusUpdate) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


def _rejects(document: list[twiml.Verb]) -> bool:
    return bool(document) and isinstance(document[0], twiml.RejectVerb)
