"""One phone call, as Twilio runs it: webhook, TwiML, stream, action, callbacks, and orders from the REST API.

TwiML is obeyed document by document. `<Connect>` blocks until the stream is over. When the caller hung up,
nothing more is executed and only the status callback follows. When the server closed the socket, or the
network did, the call is still there: the action URL is asked, or the next verb runs.

An order breaks off whatever is being obeyed: a stream ends with `stop`, no action URL is asked, and what
was ordered comes next.
"""

import asyncio
import contextlib
import math
import uuid
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import assert_never
from urllib.parse import urljoin, urlsplit

from sandbox.twilio import twiml
from sandbox.twilio.callbacks import XML_TYPES, Notices, Number
from sandbox.twilio.caller import Step, Tell, Voice
from sandbox.twilio.exchange import (
    CallFacts,
    Connection,
    EndCall,
    Exchange,
    News,
    NoExchange,
    ObeyTwiml,
    ObeyUrl,
    Order,
)
from sandbox.twilio.handshake import HandshakeFailed, open_socket
from sandbox.twilio.media_stream import CarrierDials, MediaStream
from sandbox.twilio.record import CallRecord
from sandbox.twilio.webhooks import Answer, Webhooks, sign, signed_form

MAX_DOCUMENTS = 10
MET = ("completed", "answered")


class PhoneCall:
    """A call that comes in. Without an exchange it is nobody's, and nobody can give it orders."""

    direction = "inbound"

    def __init__(
        self,
        number: Number,
        webhooks: Webhooks,
        record: CallRecord,
        voice: Voice,
        dials: CarrierDials,
        tell: Tell,
        exchange: Exchange | None = None,
    ) -> None:
        self._number = number
        self._webhooks = webhooks
        self._record = record
        self._voice = voice
        self._dials = dials
        self._tell = tell
        self._exchange = exchange
        self._notices = Notices(number, webhooks, record, dials, self.direction)
        self._began = monotonic()  # a call that comes in is answered at once
        self._answered = True
        self._silent = False  # it ends without a callback
        self._aside: asyncio.Task[None] | None = None  # what goes on beside the call
        self._url = number.voice_url  # of the document being obeyed
        self._hung_up = False
        self._final_status = "completed"
        self._connection: Connection | None = None
        self._order: Order | None = None  # the latest counts
        self._ordered = asyncio.Event()

    async def run(self, script: Sequence[Step]) -> None:
        self._connection = await self._connect(self._facts())
        try:
            document = await self._open()
            if document is not None and not _rejects(document):
                self._report(News("in-progress"))
            while not self._hung_up and (document is not None or self._order is not None):
                if self._order is not None:
                    document = await self._obey_order(self._order)
                elif document is not None:
                    document = await self._obey_all(document, script)
            self._end()
            await self._notices.all_sent()
        finally:
            if self._aside is not None:
                self._aside.cancel()
            if self._connection is not None:
                await self._connection.close()

    def order(self, order: Order) -> None:
        """Somebody asked for it over REST."""
        self._tell("ordered", {"what": type(order).__name__})
        self._order = order
        self._ordered.set()

    async def _open(self) -> list[twiml.Verb] | None:
        """The first document, or None when there will be no conversation."""
        return await self._fetch(self._url, "POST", {"CallStatus": "ringing"})

    def _end(self) -> None:
        record, status = self._record, self._final_status
        record.ended_by = record.ended_by or "server"
        record.final_status = status
        seconds = math.ceil(monotonic() - self._began) if self._answered else None
        self._report(News(status, seconds))
        if not self._silent:
            self._notices.of_status("completed", status, seconds)

    # Orders

    async def _obey_order(self, order: Order) -> list[twiml.Verb] | None:
        self._order = None
        self._ordered.clear()
        match order:
            case EndCall(status):
                self._final_status = status
                self._record.ended_by = "carrier"
                return None
            case ObeyTwiml(text):
                return self._document(Answer(200, text, "text/xml", 0.0), "the TwiML that was ordered")
            case ObeyUrl(url, method):
                return await self._fetch(url, method, {"CallStatus": "in-progress"})
            case _:
                assert_never(order)

    async def _wait(self, seconds: float) -> None:
        """So long, or until an order comes, or the call's limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, max(0.0, self._left_s()))):
                await self._ordered.wait()

    def _facts(self) -> CallFacts:
        record = self._record
        return CallFacts(
            record.call_sid, record.account_sid, record.from_number, record.to_number, self.direction
        )

    async def _connect(self, facts: CallFacts) -> Connection | None:
        if self._exchange is None:
            return None
        try:
            return await self._exchange.connect(facts, self.order)
        except NoExchange as error:
            self._record.trouble(0, f"the REST API of the carrier does not know this call: {error}")
            return None

    def _report(self, news: News) -> None:
        if self._connection is not None:
            self._connection.report(news)

    # TwiML

    async def _obey_all(self, document: list[twiml.Verb], script: Sequence[Step]) -> list[twiml.Verb] | None:
        """The verbs in order. Returns the document that takes over; None when the call is over, or an order
        is."""
        for verb in document:
            if self._order is not None:
                return None
            if self._left_s() <= 0:
                self._record.trouble(0, f"the call reached its limit of {self._number.limit_s:.0f} s")
                return None
            match verb:
                case twiml.ConnectVerb(stream, action, method):
                    await self._stream(stream, script)
                    if self._hung_up or self._order is not None:
                        return None
                    if action:
                        return await self._fetch(action, method, {"CallStatus": "in-progress"})
                case twiml.SayVerb(text):
                    self._record.spoken_by_twilio.append(text)
                    self._tell("said-by-twilio", {"text": text})
                case twiml.DialVerb(action=action, method=method):
                    outcome = await self._dial(verb)
                    if action and self._order is None:
                        return await self._fetch(action, method, outcome)
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

    async def _dial(self, verb: twiml.DialVerb) -> dict[str, str]:
        """Ring a person: a leg of its own. They hear the whisper, then talk as long as the dials say."""
        record, status = self._record, self._dials.dial_status
        record.dialed.append(verb.number)
        self._tell("dialed", {"number": verb.number})
        params = self._notices.child_params("CA" + uuid.uuid4().hex, verb.number)
        facts = CallFacts(
            params["CallSid"],
            record.account_sid,
            params["From"],
            verb.number,
            "outbound-dial",
            record.call_sid,
        )
        leg = await self._connect_leg(facts)
        seconds = 0
        if status in MET:
            leg.report(News("in-progress"))
            if verb.whisper:
                whisper = await self._fetch_text(verb.whisper, params, "POST")
                record.whispered += [heard.text for heard in whisper if isinstance(heard, twiml.SayVerb)]
            answered_at = monotonic()
            await self._wait(self._dials.dial_s)
            seconds = max(1, math.ceil(monotonic() - answered_at))
        leg.report(News("completed" if status in MET else status, seconds or None))
        await leg.close()
        return self._notices.dial_outcome(params["CallSid"], status, seconds)

    async def _connect_leg(self, facts: CallFacts) -> Connection:
        if self._exchange is not None:
            with contextlib.suppress(NoExchange):
                return await self._exchange.connect(facts, lambda order: None)
        return _Nobody()

    async def _fetch(self, url: str, method: str, more: Mapping[str, str]) -> list[twiml.Verb] | None:
        record = self._record
        if len(record.twiml) >= MAX_DOCUMENTS:
            record.trouble(11215, "too many documents in one call")
            return None
        self._url = urljoin(self._url, url)
        answer = await self._ask(self._url, self._notices.params(more), method)
        if record.webhook_ms is None:
            record.webhook_status, record.webhook_ms = answer.status, answer.took_ms
        path = urlsplit(self._url).path
        self._tell("webhook", {"path": path, "status": answer.status, "ms": round(answer.took_ms)})
        return self._document(answer, path)

    async def _fetch_text(self, url: str, params: Mapping[str, str], method: str) -> list[twiml.Verb]:
        """A document for another leg: what is wrong with it costs this one nothing."""
        answer = await self._ask(urljoin(self._url, url), params, method)
        try:
            return _read(answer, urlsplit(url).path)[0]
        except twiml.TwimlError as error:
            self._record.trouble(error.code, str(error))
            return []

    async def _ask(self, url: str, params: Mapping[str, str], method: str) -> Answer:
        try:
            token = self._notices.token("webhooks")
            return await self._webhooks.send(url, params, method=method, token=token)
        except (PermissionError, ValueError) as error:
            return Answer(None, "", "", 0.0, str(error))

    def _document(self, answer: Answer, source: str) -> list[twiml.Verb] | None:
        record = self._record
        try:
            verbs, warnings = _read(answer, source)
        except twiml.TwimlError as error:
            record.trouble(error.code, str(error))
            self._final_status = "failed" if not record.twiml else "completed"
            return None
        record.twiml.append(answer.text)
        for warning in warnings:
            record.trouble(warning.code, str(warning))
        return verbs

    # The media stream

    async def _stream(self, noun: twiml.Stream, script: Sequence[Step]) -> None:
        record = self._record
        record.params = dict(noun.params)
        if record.started_at is None:
            record.said_before_stream = len(record.spoken_by_twilio)
        if not self._is_valid(noun.url):
            return
        token = self._notices.token("stream")
        signature = sign(token, signed_form(noun.url)) if token else ""
        try:
            ws = await open_socket(noun.url, self._number.addresses.real(noun.url, media=True), signature)
        except (HandshakeFailed, PermissionError) as error:
            record.trouble(error.code if isinstance(error, HandshakeFailed) else 31902, str(error))
            self._call_back_stream(noun, "stream-error", error=str(error))
            return
        stream = MediaStream(ws, record, self._voice, self._dials, self._tell, self._ordered)
        self._tell("connected", {"stream_sid": record.stream_sid})
        self._call_back_stream(noun, "stream-started")
        record.ended_by = await stream.run(script, max(0.0, self._left_s()))
        self._hung_up = record.ended_by == "caller"
        self._call_back_stream(noun, "stream-stopped")

    def _is_valid(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            usable = bool(parts.hostname and parts.port != 0)
        except ValueError:
            usable = False
        if not usable:
            self._record.trouble(31923, "the stream's url is malformed")
        elif parts.scheme != "wss" and not (
            parts.scheme == "ws" and self._number.addresses.may_be_plain(url)
        ):
            self._record.trouble(31922, f"the stream's scheme is {parts.scheme}, not wss")
        elif parts.query:
            self._record.trouble(31920, "the stream's url has a query string")
        else:
            return True
        return False

    def _call_back_stream(self, noun: twiml.Stream, event: str, *, error: str = "") -> None:
        if noun.status_callback:
            url = urljoin(self._url, noun.status_callback)
            self._notices.of_stream(url, noun.status_callback_method, noun.name, event, error)

    def _left_s(self) -> float:
        return self._number.limit_s - (monotonic() - self._began)


class _Nobody:
    """The connection of a leg that nobody keeps a book of."""

    def report(self, news: News) -> None:
        """It is not told."""

    async def close(self) -> None:
        """Nothing is open."""


def _read(answer: Answer, source: str) -> tuple[list[twiml.Verb], list[twiml.TwimlError]]:
    if answer.status is None:
        raise twiml.TwimlError(11205, f"no answer from {source}: {answer.problem}")
    if answer.status != 200:
        raise twiml.TwimlError(11200, f"{source} answered {answer.status}")
    if answer.content_type not in XML_TYPES:
        raise twiml.TwimlError(12300, f"{source} answered with {answer.content_type}")
    return twiml.parse(answer.text)


def _rejects(document: list[twiml.Verb]) -> bool:
    return bool(document) and isinstance(document[0], twiml.RejectVerb)
