"""What Twilio says of our account and number."""

from __future__ import annotations

from django.conf import settings

from calls.doctor.check import Check, Finding, amber, green, red
from calls.twilio import client as twilio_client
from calls.twilio import number_config as number_config
from calls.vendor_errors import VendorError


async def account() -> Finding:
    try:
        found = await twilio_client.fetch_account()
    except VendorError as refusal:
        return red(str(refusal), "Copy account and token from the first page of Twilio's console.")
    status, kind = str(found.status), str(found.type)
    if status != "active":
        return red(f"The account is {status}.", "Open Twilio's console: it says what the account needs.")
    if kind.lower() == "trial":
        return amber(
            "This is a trial account: it calls verified numbers only, and speaks a line of its own first.",
            "Upgrade the account before real callers come.",
        )
    return green("Twilio knows account and token.")


async def number() -> Finding:
    ours = settings.TWILIO_PHONE_NUMBER
    if not ours:
        return amber("TWILIO_PHONE_NUMBER is not set.", "Set it, so that its webhooks can be looked at.")
    try:
        found = await twilio_client.find_number(ours)
    except VendorError as refusal:
        return red(str(refusal), "Ask again once Twilio answers.")
    if found is None:
        return red(
            "The account has no number like TWILIO_PHONE_NUMBER.",
            "Set TWILIO_PHONE_NUMBER to one of the account's numbers, with + and the country code.",
        )
    changes = number_config.changes(
        number_config.settings_of(found), number_config.wanted(settings.PUBLIC_URL)
    )
    if changes:
        return red(
            f"The number is not set up for us: {'; '.join(each.title for each in changes)}.",
            "Run `manage.py configure_number`, which shows each change before it makes it.",
        )
    if not found.voice_fallback_url:
        return amber(
            "The number's calls come to this server, and nowhere else when it is gone.",
            "Run `manage.py configure_number --fallback-url` with the address of a TwiML bin.",
        )
    return green("The number's calls come to this server, and to a fallback when it is gone.")


CHECKS = (
    Check(
        "twilio-account", "Twilio's account", "Does Twilio know our account, and is it active?", account,
        ("twilio-settings",),
    ),
    Check(
        "twilio-number", "Twilio's number", "Do the number's webhooks lead here?", number,
        ("twilio-settings", "twilio-account"),
    ),
)  # fmt: skip
