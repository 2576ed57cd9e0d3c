"""Actions of staff on a live call: hang up, have the assistant say something, transfer.

Actions are HTTP requests to Twilio or Vapi and never touch a session: the process that handles the call
sees the result as it sees any other event on the line. For hang-up and transfer the requested end is written
to the call's row first (`end_requested`), because the stream ends within moments and that end must carry the
requested reason. If Twilio refuses, it is removed again. Every request is recorded in the audit log before it
is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST

from bridge.end_reasons import HUNG_UP_BY_STAFF, TRANSFERRED
from calls.ingest.sanitize import clean_text
from calls.masking import mask_number, short_sid
from calls.models import Call, PhoneNumber
from calls.phone_numbers import choose_caller_id
from calls.routes import choose_voice
from calls.staff import audit
from calls.staff.pages import View, view_call_required
from calls.staff.staff_messages import SAY
from calls.twilio import client as twilio_client
from calls.twilio.client import CALL_IS_OVER, TWILIO_API
from calls.vapi import client as vapi_client
from calls.vendor_errors import VendorError
from calls.viewer import Viewer

logger = logging.getLogger(__name__)

MAX_SAY_CHARS = 500  # about 30 seconds of speech
NOT_ANSWERED = "The call has not been answered yet."


class NotLive(VendorError):
    """The call is over, or not answered yet."""


Action = Callable[[HttpRequest, Call], str]


def on_live_call(action: Action) -> View:
    """Make a view from a function that acts on a live call and returns a message for the user.

    The page's script gets the message as an HTML fragment with a matching status code. Without JavaScript
    the message appears on the page that contained the form.
    """

    @view_call_required
    @require_POST
    @wraps(action)
    def view(request: HttpRequest, call_id: int) -> HttpResponse:
        if not Viewer.for_user(request.user).can_act:
            raise PermissionDenied(
                "Actions on live calls require the permission "
                "“Can hang up, speak in and transfer live calls”."
            )
        call = get_object_or_404(Call, pk=call_id)
        try:
            if not call.is_live or call.end_reason:
                raise NotLive(CALL_IS_OVER if call.is_over or call.end_reason else NOT_ANSWERED)
            message, status = action(request, call), HTTPStatus.OK
        except NotLive as error:
            message, status = str(error), HTTPStatus.CONFLICT
        except VendorError as error:
            message, status = str(error), HTTPStatus.BAD_GATEWAY
        succeeded = status == HTTPStatus.OK
        logger.info(
            "%s = staff: %s: %s",
            short_sid(call.call_sid), action.__name__, "done" if succeeded else message,
        )  # fmt: skip
        if request.headers.get("HX-Request") == "true":
            context = {"message": message, "succeeded": succeeded}
            return render(request, "calls/_live_result.html", context, status=status)
        messages.add_message(request, messages.SUCCESS if succeeded else messages.ERROR, message)
        return redirect(call) if request.POST.get("back") == "call" else redirect("dashboard")

    return view


@on_live_call
def hang_up(request: HttpRequest, call: Call) -> str:
    _require_twilio_knows(call)
    audit.record(request.user, "hang-up", call)
    _end_call(call, HUNG_UP_BY_STAFF, twilio_client.hang_up, call.call_sid)
    return "Call ended."


@on_live_call
def transfer(request: HttpRequest, call: Call) -> str:
    number = PhoneNumber.objects.filter(number=call.our_number).first()
    fallback = PhoneNumber.fallback_for(number)
    if not fallback:
        raise VendorError(
            "There is no fallback number. Set one on the phone number, or FALLBACK_NUMBER for all numbers."
        )
    _require_twilio_knows(call)
    audit.record(request.user, "transfer", call, f"to {mask_number(fallback)}")
    shown = choose_caller_id(call.from_number, call.our_number)
    voice = choose_voice(number if number and number.active else None)
    options = {"caller_id": shown, "voice": voice}
    _end_call(call, TRANSFERRED, twilio_client.transfer, call.call_sid, fallback, **options)
    return "Transferring the call to the fallback number."


@on_live_call
def say(request: HttpRequest, call: Call) -> str:
    text = clean_text(request.POST.get("words", "")).strip()
    if not text:
        raise VendorError("Enter a message.")
    if len(text) > MAX_SAY_CHARS:
        raise VendorError(f"The message has {len(text)} characters. The maximum is {MAX_SAY_CHARS}.")
    audit.record(request.user, SAY, call, text)
    async_to_sync(vapi_client.say)(call.vapi_call_id, text)
    return "Message sent to the assistant."


def _require_twilio_knows(call: Call) -> None:
    if call.simulated and settings.TWILIO_BASE_URL == TWILIO_API:
        raise VendorError("This is a simulated call. Twilio does not know it; it ends by itself.")


def _end_call(call: Call, end_reason: str, send: Any, *arguments: str, **options: Any) -> None:
    """Write the requested end reason, then send the request to Twilio.

    The UPDATE carries its condition itself, because the call may have ended since it was read.
    """
    requested_at = timezone.now()
    live = Call.objects.live().filter(pk=call.pk, end_reason="")
    if not live.update(end_requested=end_reason, end_requested_at=requested_at):
        raise NotLive(CALL_IS_OVER)
    try:
        async_to_sync(send)(*arguments, **options)
    except VendorError as error:
        if not error.may_have_happened:
            own = Call.objects.filter(pk=call.pk, end_requested=end_reason, end_requested_at=requested_at)
            own.update(end_requested="", end_requested_at=None)
        raise
