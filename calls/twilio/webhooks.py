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
from binascii import crc32
from concurrent.futures import ThreadPoolExecutor

from django.db import DatabaseError, InterfaceError, connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from twilio.twiml.voice_response import VoiceResponse

from bridge.admission import Offer
from bridge.context import BridgeContext
from bridge.end_reasons import MACHINE_ANSWERED
from bridge.journal import CallOffered, CarrierReported, TimelineEvent
from calls import end_reasons as words
from calls.masking import mask_number, short_sid
from calls.models import Call
from calls.twilio import client as twilio_client
from calls.webhook_auth import TwilioRequest, bridge_of, twilio_signed

logger = logging.getLogger(__name__)

UNAVAILABLE = "We are sorry, our assistant is not available at the moment. Please call again later."
BUSY = "All our lines are busy at the moment. Please call again in a few minutes."
GOODBYE = "We have to end this call here. Thank you for calling. Goodbye."
CLOSED = "We are closed at the moment. Please call again during our opening hours."
WHISPER = "This is a call that was handed over to you."
NOBODY_THERE = "We are sorry, nobody can take your call right now. Please call again later."

# What detection says at once. One that waits for the beep, to leave a message, says something else.
MACHINES = ("machine_start", "fax")

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
    inbound = not direction.startswith("outbound")
    ours = to_number if inbound else from_number
    answered_by = call.text("AnsweredBy", 32)
    if answered_by in MACHINES:
        offer = Offer(refused=MACHINE_ANSWERED)
    else:
        offer = call.bridge.admission.offer(
            call.call_sid, call.text("AccountSid"), ours, from_number, inbound=inbound
        )
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
            answered_by=answered_by,
        )
    )
    logger.info(
        "%s = webhook 200, %s calls %s%s",
        short_sid(call.call_sid),
        mask_number(from_number) or "unknown",
        mask_number(to_number) or "unknown",
        f", refused: {offer.refused}" if offer.refused else "",
    )
    if offer.refused == MACHINE_ANSWERED:
        return hang_up()
    if offer.refused:
        return twiml(human_or(polite_line(offer.refused, call.bridge, ours), call.bridge, ours))

    public = call.bridge.config.public_url
    response = VoiceResponse()
    route = call.bridge.admission.route(offer.route_id)
    if route.disclosure:
        response.say(speakable(route.disclosure))  # before all else
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
        dial_status = call.text("DialCallStatus", 16)
        met = dial_status in ("completed", "answered")
        kind = "person-answered" if met else "person-not-reached"
        facts = {"status": dial_status, "seconds": call.whole_number("DialCallDuration")}
        call.bridge.journal.write(
            TimelineEvent(call.call_sid, crc32(kind.encode()) >> 1, kind, data=facts, source="carrier")
        )
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
        return hang_up()
    direction = call.text("Direction", 16)
    ours = call.text("From") if direction.startswith("outbound") else call.text("To")
    line = polite_line(reason, call.bridge, ours) if answer == words.Answer.POLITE else UNAVAILABLE
    return twiml(human_or(line, call.bridge, ours))


@twilio_signed
async def whisper(call: TwilioRequest) -> HttpResponse:
    """A person has picked up: what they hear before the caller is put through."""
    about = speakable(twilio_client.unwrap(call.query.get("about", "")))
    response = VoiceResponse()
    response.say(f"{WHISPER} {about}".strip())
    return twiml(response)


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
            answered_by=call.text("AnsweredBy", 32),
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


def hang_up() -> HttpResponse:
    response = VoiceResponse()
    response.hangup()
    return twiml(response)


def polite_line(reason: str | None, bridge: BridgeContext, our_number: str) -> str:
    """What is said where nothing broke and the call still does not go on."""
    match reason:
        case "limit-reached":
            return GOODBYE
        case "out-of-hours":
            return bridge.admission.route_for(our_number).closed_message or CLOSED
        case _:
            return BUSY


def human_or(line: str, bridge: BridgeContext, our_number: str) -> VoiceResponse:
    """Dial the person who stands in, or say `line` where nobody does."""
    response = VoiceResponse()
    person = bridge.admission.route_for(our_number).fallback_number
    if person:
        response.dial(
            speakable(person),
            action=f"{bridge.config.public_url}/twilio/after?dialed=1",
            timeout=DIAL_SECONDS,
        )
    else:
        response.say(speakable(line))
        response.hangup()
    return response


def speakable(text: str) -> str:
    """`text` without the characters that XML cannot hold, whose presence would cost the whole answer."""
    return _NOT_XML.sub(" ", text)


def twiml(response: VoiceResponse) -> HttpResponse:
    return HttpResponse(str(response), content_type="text/xml; charset=utf-8")
