"""Calls that we place: whom they may reach, and how Twilio is asked for one.

Only numbers that OUTBOUND_ALLOWED names are dialled, by whoever asks: a form, a command. Once somebody has
picked up, the call is like any other: the same webhook, the same bridge, the same line on who speaks.
"""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ValidationError

from calls.models import Call, PhoneNumber
from calls.phone_numbers import parse_e164, is_allowed
from calls.twilio import client as twilio_client
from calls.vendor_errors import VendorError

RING_SECONDS = 30
EVENTS = ["initiated", "ringing", "answered", "completed"]
# What is done about machines -> what Twilio calls it. The first connects whoever answers; the second hangs
# up on a machine (`webhooks.voice`); the third waits for its beep, and the assistant leaves a message.
MACHINES = {"off": "", "hang-up": "Enable", "leave-message": "DetectMessageEnd"}


def numbers_for(to_number: str, from_number: str = "") -> tuple[str, str]:
    """Both numbers as Twilio wants them, if this call may be placed. Raises `VendorError`."""
    try:
        callee, ours = parse_e164(to_number), parse_e164(from_number or settings.TWILIO_PHONE_NUMBER or _only_number())
    except ValidationError as error:
        raise VendorError(" ".join(error.messages)) from None
    if not settings.OUTBOUND_ALLOWED:
        raise VendorError("No number may be called: OUTBOUND_ALLOWED is not set.")
    if not is_allowed(callee, settings.OUTBOUND_ALLOWED):
        raise VendorError("This number is not among those of OUTBOUND_ALLOWED.")
    return callee, ours


async def place(callee: str, ours: str, machines: str = "off") -> str:
    """Ask Twilio for the call and return its CallSid. Raises `VendorError`."""
    public = settings.PUBLIC_URL
    detection = {"machine_detection": MACHINES[machines]} if MACHINES[machines] else {}
    return await twilio_client.create_call(
        to=callee,
        from_=ours,
        url=f"{public}/twilio/voice",
        method="POST",
        status_callback=f"{public}/twilio/status",
        status_callback_event=EVENTS,
        status_callback_method="POST",
        timeout=RING_SECONDS,
        time_limit=settings.MAX_CALL_SECONDS,
        **detection,
    )


def note(call_sid: str, callee: str, ours: str) -> Call:
    """The call's row, before anybody has answered: who is called is known at once."""
    facts = {"direction": "outbound-api", "from_number": ours, "to_number": callee, "status": "queued"}
    call, _ = Call.objects.get_or_create(call_sid=call_sid, defaults=facts)
    return call


def _only_number() -> str:
    """The one active number, where there is no doubt which."""
    found = list(PhoneNumber.objects.filter(active=True).values_list("number", flat=True)[:2])
    return found[0] if len(found) == 1 else ""
