"""What staff do to a live call: hang up, have the assistant say something, hand the caller to a person.

Each is asked of Twilio or Vapi over HTTP and never of a session: whichever process carries the call, it
learns of it as of anything that happens on the line. What ends the call is written to its row first, so
that the stream's end, which follows within moments, is named by whoever asked for it; if Twilio refuses,
it is taken back. Every attempt that reaches a live call leaves an audit entry.
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
from calls.staff import audit
from calls.staff.live.board import fallback_number, our_number
from calls.staff.pages import staff_page
from calls.twilio import client as twilio_client
from calls.twilio.client import TWILIO
from calls.vapi import client as vapi_client
from calls.vendor_errors import VendorError
from calls.viewer import Viewer

log = logging.getLogger(__name__)

MAX_WORDS = 500  # characters; half a minute of speech
OVER = "The call is already over."


class NotLive(VendorError):
    """There is nothing to act on."""


Action = Callable[[HttpRequest, Call], str]


def on_live_call(action: Action) -> Callable[..., HttpResponse]:
    """A view that acts on a live call and answers with what came of it, in one sentence.

    To a page's script it is a fragment, with a status; without scripts it is a message on the page that
    the form was on.
    """

    @staff_page
    @require_POST
    @wraps(action)
    def view(request: HttpRequest, call_id: int) -> HttpResponse:
        if not Viewer.of(request.user).acts:
            raise PermissionDenied("Acting on live calls needs the permission “Can hang up, speak into …”.")
        call = get_object_or_404(Call, pk=call_id)
        try:
            if not call.is_live or call.end_reason:
                raise NotLive(OVER)
            said, status = action(request, call), HTTPStatus.OK
        except NotLive as refusal:
            said, status = str(refusal), HTTPStatus.CONFLICT
        except VendorError as failure:
            said, status = str(failure), HTTPStatus.BAD_GATEWAY
        done = status == HTTPStatus.OK
        log.info("%s = staff: %s: %s", short_sid(call.call_sid), action.__name__, "done" if done else said)
        if request.headers.get("HX-Request") == "true":
            facts = {"said": said, "done": done}
            return render(request, "calls/_live_result.html", facts, status=status)
        messages.add_message(request, messages.SUCCESS if done else messages.ERROR, said)
        return redirect(call) if request.POST.get("back") == "call" else redirect("dashboard")

    return view


@on_live_call
def hang_up(request: HttpRequest, call: Call) -> str:
    audit.note(request.user, "hang-up", call)
    _end(call, HUNG_UP_BY_STAFF, twilio_client.hang_up, call.call_sid)
    return "The call was hung up."


@on_live_call
def transfer(request: HttpRequest, call: Call) -> str:
    ours = our_number(call)
    person = fallback_number(PhoneNumber.objects.filter(number=ours).first())
    if not person:
        raise VendorError(
            "There is nobody to send the caller to: give the number a fallback number, "
            "or set FALLBACK_NUMBER."
        )
    audit.note(request.user, "transfer", call, f"to {mask_number(person)}")
    _end(call, TRANSFERRED, twilio_client.transfer, call.call_sid, person)
    return "The caller is being connected to a person."


@on_live_call
def say(request: HttpRequest, call: Call) -> str:
    words = clean_text(request.POST.get("words", "")).strip()
    if not words:
        raise VendorError("There are no words to say.")
    if len(words) > MAX_WORDS:
        raise VendorError(f"That is too long to say: {len(words)} characters, {MAX_WORDS} at most.")
    audit.note(request.user, "say", call, words)
    async_to_sync(vapi_client.say)(call.vapi_call_id, words)
    return "The assistant was told to say it."


def _end(call: Call, how: str, ask: Any, *arguments: str) -> None:
    """Name the end, then ask for it. The condition stands in the UPDATE: the call may just have ended."""
    if call.simulated and settings.TWILIO_BASE_URL == TWILIO:
        raise VendorError("This call is simulated, and Twilio knows nothing of it: it ends by itself.")
    asked_at = timezone.now()
    live = Call.objects.live().filter(pk=call.pk, end_reason="")
    if not live.update(end_requested=how, end_requested_at=asked_at):
        raise NotLive(OVER)
    try:
        async_to_sync(ask)(*arguments)
    except VendorError as failure:
        if not failure.may_have_happened:
            mine = Call.objects.filter(pk=call.pk, end_requested=how, end_requested_at=asked_at)
            mine.update(end_requested="", end_requested_at=None)
        raise
