"""Twilio asks, Twilio tells, Vapi tells: TwiML out, journal entries in.

`voice` answers a ringing call within milliseconds, from memory alone: no query, nothing to wait for.
`after` decides what the caller hears once the stream is over; whatever it does not know, it answers
as if the assistant had failed, so that nobody is left in silence. The rest only take note. Every one
may be asked twice, late, and in any order.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from twilio.twiml.voice_response import VoiceResponse

from bridge.context import BridgeContext
from bridge.journal import CallOffered, CarrierReported
from calls import words
from calls.decorators import TwilioRequest, bridge_of, twilio_signed
from calls.masking import mask_number, short_sid
from calls.models import Call

logger = logging.getLogger(__name__)

UNAVAILABLE = "We are sorry, our assistant is not available at the moment. Please call again later."
BUSY = "All our lines are busy at the moment. Please call again in a few minutes."
GOODBYE = "We have to end this call here. Thank you for calling. Goodbye."
NOBODY_THERE = "We are sorry, nobody can take your call right now. Please call again later."

DIAL_SECONDS = 20
FIND_SECONDS = 0.5
ROW_SECONDS = 1.0

# Rows are read on threads of our own. The thread that Django gives to a request cannot be left while a
# query hangs in it; one of these can, and there are never more than four of them.
_row_readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="after-row")

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@twilio_signed
async def voice(call: TwilioRequest) -> HttpResponse:
    """A call has come (or one that we placed was picked up): connect it to a media stream."""
    from_number, to_number = call.text("From"), call.text("To")
    direction = call.text("Direction", 16) or "inbound"
    ours = from_number if direction.startswith("outbound") else to_number
    offer = call.bridge.admission.offer(call.call_sid, call.text("AccountSid"), ours, from_number)
    call.bridge.journal.write(
        CallOffered(
            call_sid=call.call_sid,
            at=time.time(),
            from_number=from_number,
            to_number=to_number,
            direction=direction,
            refused=offer.refused,
            simulated="VoiceaiSimulated" in call.form,
            caller_name=call.text("CallerName", 255),
        )
    )
    logger.info(
        "%s = webhook 200, %s calls %s%s",
        short_sid(call.call_sid),
        mask_number(from_number) or "unknown",
        mask_number(to_number) or "unknown",
        f", refused: {offer.refused}" if offer.refused else "",
    )
    if offer.refused:
        return twiml(human_or(BUSY, call.bridge, ours))

    public = call.bridge.config.public_url
    response = VoiceResponse()
    route = call.bridge.admission.route(offer.route_id)
    if route.greeting:
        response.say(speakable(route.greeting))
    connect = response.connect(action=f"{public}/twilio/after")
    stream = connect.stream(url=call.bridge.config.stream_url, status_callback=f"{public}/twilio/stream")
    stream.parameter(name="ticket", value=offer.ticket)
    stream.parameter(name="route", value=offer.route_id)
    response.say(UNAVAILABLE)  # heard only when the stream never opened and nobody could be asked why
    return twiml(response)


@twilio_signed
async def after(call: TwilioRequest) -> HttpResponse:
    """The stream is over, or the human whom we dialled is: what does the caller hear now?"""
    if call.query.get("dialed"):
        met = call.text("DialCallStatus") in ("completed", "answered")
        response = VoiceResponse()
        if not met:
            response.say(NOBODY_THERE)
        response.hangup()
        logger.info("%s = after dial: %s", short_sid(call.call_sid), "met a person" if met else "apology")
        return twiml(response)

    reason = await end_reason_of(call)
    answer = words.ending(reason).answer
    logger.info("%s = after %s: %s", short_sid(call.call_sid), reason or "an unknown end", answer)
    if answer == words.Answer.HANG_UP:
        response = VoiceResponse()
        response.hangup()
        return twiml(response)
    direction = call.text("Direction", 16)
    ours = call.text("From") if direction.startswith("outbound") else call.text("To")
    line = GOODBYE if reason == "limit-reached" else BUSY if answer == words.Answer.POLITE else UNAVAILABLE
    return twiml(human_or(line, call.bridge, ours))


@twilio_signed
async def status(call: TwilioRequest) -> HttpResponse:
    """How the call stands, in Twilio's words."""
    call.bridge.journal.write(
        CarrierReported(
            call_sid=call.call_sid,
            at=time.time(),
            status=call.text("CallStatus", 16).lower(),
            sequence=call.whole_number("SequenceNumber"),
            duration_seconds=call.whole_number("CallDuration"),
            detail=call.text("ErrorCode"),
        )
    )
    return HttpResponse(status=204)


@twilio_signed
async def stream(call: TwilioRequest) -> HttpResponse:
    """The media stream started, stopped, or failed, as Twilio saw it."""
    call.bridge.journal.write(
        CarrierReported(
            call_sid=call.call_sid,
            at=time.time(),
            stream_event=call.text("StreamEvent"),
            detail=call.text("StreamError", 255),
        )
    )
    return HttpResponse(status=204)


async def healthz(request: HttpRequest) -> HttpResponse:
    """The process lives. Says nothing about the database, on purpose: calls go on without it."""
    return HttpResponse("ok\n", content_type="text/plain")


async def readyz(request: HttpRequest) -> HttpResponse:
    """Whether this process takes new calls."""
    admission = bridge_of(request).admission
    accepting = admission.accepting
    facts = {"accepting": accepting, "live_calls": admission.live_calls}
    return JsonResponse(facts, status=200 if accepting else 503)


async def end_reason_of(call: TwilioRequest) -> str | None:
    """Why the stream ended: from memory or the shared cache, else from the row, else None."""
    try:
        async with asyncio.timeout(FIND_SECONDS):
            reason = await call.bridge.endings.find(call.call_sid)
    except Exception as error:  # a dead cache must not cost the caller the answer
        logger.warning("%s: the end reason could not be looked up: %r", short_sid(call.call_sid), error)
        reason = None
    if reason:
        return reason
    try:
        async with asyncio.timeout(ROW_SECONDS):
            found = asyncio.get_running_loop().run_in_executor(
                _row_readers, _end_reason_in_row, call.call_sid
            )
            return await found or None
    except (DatabaseError, InterfaceError, TimeoutError, OSError) as error:
        logger.warning("%s: the row could not be read: %s", short_sid(call.call_sid), type(error).__name__)
        return None


def _end_reason_in_row(call_sid: str) -> str:
    try:
        return Call.objects.filter(call_sid=call_sid).values_list("end_reason", flat=True).first() or ""
    finally:
        connections.close_all()


def human_or(line: str, bridge: BridgeContext, our_number: str) -> VoiceResponse:
    """Dial the person who stands in, or say `line` where nobody does."""
    response = VoiceResponse()
    person = bridge.admission.route_for(our_number).fallback_number or settings.FALLBACK_NUMBER
    if person:
        response.dial(
            speakable(person),
            action=f"{bridge.config.public_url}/twilio/after?dialed=1",
            timeout=DIAL_SECONDS,
        )
    else:
        response.say(line)
        response.hangup()
    return response


def speakable(text: str) -> str:
    """`text` without the characters that XML cannot hold, whose presence would cost the whole answer."""
    return _NOT_XML.sub(" ", text)


def twiml(response: VoiceResponse) -> HttpResponse:
    return HttpResponse(str(response), content_type="text/xml; charset=utf-8")
