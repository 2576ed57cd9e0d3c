"""Outbound calls: which numbers may be called, and how a call is placed at Twilio.

Pages and commands can call only the numbers that OUTBOUND_ALLOWED names. Once somebody has answered, the call
is like any other: the same webhook, the same bridge, the same disclosure.
"""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ValidationError

from calls.models import Call, PhoneNumber
from calls.phone_numbers import is_allowed, parse_e164
from calls.twilio import client as twilio_client
from calls.vendor_errors import VendorError

RING_TIMEOUT_SECONDS = 30
STATUS_EVENTS = ["initiated", "ringing", "answered", "completed"]
# What to do about answering machines -> Twilio's MachineDetection. `off` connects whoever answers; `hang-up`
# hangs up on a machine (`webhooks.voice`); `leave-message` waits for the beep, then connects the assistant.
MACHINE_DETECTION = {"off": "", "hang-up": "Enable", "leave-message": "DetectMessageEnd"}


def resolve_numbers(to_number: str, from_number: str = "") -> tuple[str, str]:
    """Both numbers in E.164 format, the callee's first.

    Without `from_number` the call comes from TWILIO_PHONE_NUMBER, or from the only active number. Raises
    `VendorError` when a number is invalid or the callee is not allowed.
    """
    our_number = from_number or settings.TWILIO_PHONE_NUMBER or _only_active_number()
    if not our_number:
        raise VendorError("No number to call from. Set TWILIO_PHONE_NUMBER.")
    try:
        callee, our_number = parse_e164(to_number), parse_e164(our_number)
    except ValidationError as error:
        raise VendorError(" ".join(error.messages)) from None
    if not settings.OUTBOUND_ALLOWED:
        raise VendorError("Outbound calls are not allowed: OUTBOUND_ALLOWED is not set.")
    if not is_allowed(callee, settings.OUTBOUND_ALLOWED):
        raise VendorError("Calls to this number are not allowed. Add it to OUTBOUND_ALLOWED.")
    return callee, our_number


async def place_call(callee: str, our_number: str, machines: str = "off") -> str:
    """Place the call at Twilio and return its CallSid. `machines` is a key of `MACHINE_DETECTION`.

    Raises `VendorError`.
    """
    public_url = settings.PUBLIC_URL
    detection = MACHINE_DETECTION[machines]
    return await twilio_client.create_call(
        to=callee,
        from_=our_number,
        url=f"{public_url}/twilio/voice",
        method="POST",
        status_callback=f"{public_url}/twilio/status",
        status_callback_event=STATUS_EVENTS,
        status_callback_method="POST",
        timeout=RING_TIMEOUT_SECONDS,
        time_limit=settings.MAX_CALL_SECONDS,
        **({"machine_detection": detection} if detection else {}),
    )


def create_row(call_sid: str, callee: str, our_number: str) -> Call:
    """The call's row, so that the call is visible before the first callback."""
    values = {"direction": "outbound-api", "from_number": our_number, "to_number": callee, "status": "queued"}
    call, _ = Call.objects.get_or_create(call_sid=call_sid, defaults=values)
    return call


def _only_active_number() -> str:
    """Empty when there is more than one."""
    numbers = list(PhoneNumber.objects.filter(active=True).values_list("number", flat=True)[:2])
    return numbers[0] if len(numbers) == 1 else ""
