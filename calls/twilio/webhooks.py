"""Twilio's webhooks, and the health probes: TwiML out, journal entries in.

`voice` answers a ringing call within milliseconds, from memory alone: no query, no wait.
`after` decides what the caller hears once the stream is over. When it does not know why the stream ended, it
answers as if the assistant had failed, so that no caller is left in silence. `status` and `stream` only
record what they report. Each may be requested twice, late and in any order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from binascii import crc32
from concurrent.futures import ThreadPoolExecutor

from django.db import DatabaseError, InterfaceError, OperationalError, connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from twilio.twiml.voice_response import VoiceResponse

from bridge.admission import Offer
from bridge.end_reasons import LIMIT_REACHED, MACHINE_ANSWERED, OUT_OF_HOURS
from bridge.journal import CallOffered, CarrierReported, TimelineEvent
from bridge.routes import Route
from calls import end_reasons
from calls.end_reasons import FollowUp
from calls.masking import mask_number, short_sid
from calls.models import Call
from calls.phone_numbers import choose_caller_id, is_withheld
from calls.statuses import TERMINAL_STATUSES
from calls.twilio import sentences, twiml
from calls.twilio.voices import Voice, describe_voice_problem
from calls.webhook_auth import TwilioRequest, require_bridge, twilio_signed

logger = logging.getLogger(__name__)

# `AnsweredBy` when detection is to hang up on machines. To leave a message, it is `machine_end_...`.
MACHINES = ("machine_start", "fax")

CACHE_TIMEOUT_SECONDS = 0.5
ROW_TIMEOUT_SECONDS = 1.0

# Rows are read on threads of our own: a request can leave one of these while a query hangs in it, which
# it cannot do with the thread that Django gives it. There are never more than four.
_row_readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="after-row")


@twilio_signed
async def voice(call: TwilioRequest) -> HttpResponse:
    """A call came in, or one that we placed was answered: connect it to a media stream."""
    from_number, to_number = call.text("From"), call.text("To")
    direction = call.text("Direction", 16) or "inbound"
    answered_by = call.text("AnsweredBy", 32)
    if answered_by in MACHINES:
        offer = Offer(refused=MACHINE_ANSWERED)
    else:
        offer = call.bridge.admission.offer(
            call.call_sid,
            call.text("AccountSid"),
            call.our_number,
            "" if is_withheld(call.their_number) else call.their_number,
            inbound=call.is_inbound,
        )
    if offer.is_repeated:
        logger.warning("%s = webhook 200, repeated: the call has had its stream", short_sid(call.call_sid))
        return _respond(twiml.hang_up())
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
            release=call.bridge.config.release,
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
        return _respond(twiml.hang_up())
    if offer.refused:
        return _respond(_fallback_or_say(call, _notice_for(offer.refused, call.route)))
    route = call.bridge.admission.route(offer.route_id)
    config = call.bridge.config
    return _respond(
        twiml.connect_stream(
            config.public_url,
            config.stream_url,
            ticket=offer.ticket,
            route_id=offer.route_id,
            disclosure=route.disclosure,
            greeting=route.greeting,
            voice=get_voice(route),
        )
    )


@twilio_signed
async def after(call: TwilioRequest) -> HttpResponse:
    """The stream is over, or the call to a person is: what the caller hears next."""
    if call.query.get("dialed"):
        return _after_dial(call)
    reason = await find_end_reason(call)
    follow_up = end_reasons.explain(reason).follow_up
    logger.info("%s = after %s: %s", short_sid(call.call_sid), reason or "an unknown end", follow_up)
    if follow_up == FollowUp.HANG_UP:
        return _respond(twiml.hang_up())
    is_notice = follow_up == FollowUp.FALLBACK_OR_NOTICE
    sentence = _notice_for(reason, call.route) if is_notice else sentences.UNAVAILABLE
    return _respond(_fallback_or_say(call, sentence))


def _after_dial(call: TwilioRequest) -> HttpResponse:
    """The call to a person is over, or nobody answered it."""
    dial_status = call.text("DialCallStatus", 16)
    was_answered = dial_status in ("completed", "answered")
    kind = "person-answered" if was_answered else "person-not-reached"
    data = {"status": dial_status, "seconds": call.whole_number("DialCallDuration")}
    index = crc32(kind.encode()) >> 1  # the same each time that Twilio repeats the request
    call.bridge.journal.write(TimelineEvent(call.call_sid, index, kind, data=data, source="carrier"))
    logger.info("%s = after dial: %s", short_sid(call.call_sid), "answered" if was_answered else "apology")
    if was_answered:
        return _respond(twiml.hang_up())
    return _respond(twiml.say_and_hang_up(sentences.NOBODY_THERE, get_voice(call.route)))


@twilio_signed
async def whisper(call: TwilioRequest) -> HttpResponse:
    """A person answered: what they hear before the caller is connected."""
    spoken = Voice(call.query.get("language", ""), call.query.get("voice", ""))
    return _respond(
        twiml.whisper(call.query.get("about", ""), Voice() if describe_voice_problem(spoken) else spoken)
    )


@twilio_signed
async def status(call: TwilioRequest) -> HttpResponse:
    """The status of the call changed."""
    if call.text("CallStatus", 16).lower() in TERMINAL_STATUSES:
        call.bridge.admission.cancel_offer(call.call_sid)
    call.bridge.journal.write(
        CarrierReported(
            call_sid=call.call_sid,
            at=time.time(),
            status=call.text("CallStatus", 16).lower(),
            sequence=call.whole_number("SequenceNumber"),
            duration_seconds=call.whole_number("CallDuration"),
            detail=call.text("ErrorCode"),
            answered_by=call.text("AnsweredBy", 32),
            from_number=call.text("From"),
            to_number=call.text("To"),
            direction=call.text("Direction", 16),
            simulated="VoiceaiSimulated" in call.form,
        )
    )
    return HttpResponse(status=204)


@twilio_signed
async def stream(call: TwilioRequest) -> HttpResponse:
    """The media stream started, stopped or failed at Twilio."""
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
    """Liveness of the process. It does not test the database, because calls work without it."""
    return HttpResponse("ok\n", content_type="text/plain")


async def readyz(request: HttpRequest) -> HttpResponse:
    """Readiness: whether this process accepts new calls."""
    admission = require_bridge(request).admission
    accepting = admission.accepting
    facts = {"accepting": accepting, "live_calls": admission.live_calls}
    return JsonResponse(facts, status=200 if accepting else 503)


async def find_end_reason(call: TwilioRequest) -> str | None:
    """Why the stream ended: from memory or the shared cache, then from the call's row, else None."""
    try:
        async with asyncio.timeout(CACHE_TIMEOUT_SECONDS):
            reason = await call.bridge.call_cache.find(call.call_sid)
    except Exception as error:  # the caller gets an answer when the cache is down, too
        logger.warning("%s: cannot read the end reason from the cache: %r", short_sid(call.call_sid), error)
        reason = None
    if reason:
        return reason
    try:
        async with asyncio.timeout(ROW_TIMEOUT_SECONDS):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(_row_readers, _end_reason_in_row, call.call_sid) or None
    except (DatabaseError, InterfaceError, TimeoutError, OSError) as error:
        logger.warning("%s: cannot read the row: %s", short_sid(call.call_sid), type(error).__name__)
        return None


def _end_reason_in_row(call_sid: str) -> str:
    """Read it, once more if the connection broke: PostgreSQL may have restarted."""
    reasons = Call.objects.filter(call_sid=call_sid).values_list("end_reason", flat=True)
    try:
        try:
            return reasons.first() or ""
        except (OperationalError, InterfaceError):
            connections.close_all()
            return reasons.first() or ""
    finally:
        connections.close_all()


def _notice_for(reason: str | None, route: Route) -> str:
    """What a caller hears when we are full, closed or shutting down, or the time limit is reached."""
    if reason == LIMIT_REACHED:
        return sentences.GOODBYE
    if reason == OUT_OF_HOURS:
        return route.closed_message or sentences.CLOSED
    return sentences.BUSY


def _fallback_or_say(call: TwilioRequest, sentence: str) -> VoiceResponse:
    """Dial the fallback number. Without one, say the sentence and hang up."""
    if number := call.route.fallback_number:
        shown = choose_caller_id(call.text("From"), call.our_number)
        return twiml.dial(call.bridge.config.public_url, number, shown)
    return twiml.say_and_hang_up(sentence, get_voice(call.route))


def get_voice(route: Route) -> Voice:
    return Voice(route.say_language, route.say_voice)


def _respond(response: VoiceResponse) -> HttpResponse:
    return HttpResponse(str(response), content_type="text/xml; charset=utf-8")
