"""Checks of the account and the number at Twilio."""

from __future__ import annotations

from django.conf import settings

from calls.doctor.check import Check, Finding, amber, green, red
from calls.twilio import client as twilio_client
from calls.twilio import number_config
from calls.vendor_errors import VendorError


async def check_account() -> Finding:
    try:
        twilio_account = await twilio_client.fetch_account()
    except VendorError as error:
        if error.status is None:
            return red(str(error), "Check TWILIO_BASE_URL, and that this machine can connect to it.")
        return red(str(error), "Copy the Account SID and Auth Token from the first page of Twilio's console.")
    status, kind = str(twilio_account.status), str(twilio_account.type)
    if status != "active":
        return red(f"The account is {status}.", "Open Twilio's console to see what the account needs.")
    if kind.lower() == "trial":
        return amber(
            "This is a trial account: it can call verified numbers only, and callers hear Twilio's trial "
            "notice first.",
            "Upgrade the account before you take real calls.",
        )
    return green("Twilio accepts the credentials, and the account is active.")


async def check_number() -> Finding:
    our_number = settings.TWILIO_PHONE_NUMBER
    if not our_number:
        return amber(
            "TWILIO_PHONE_NUMBER is not set.", "Set TWILIO_PHONE_NUMBER, so that its webhooks can be checked."
        )
    try:
        twilio_number = await twilio_client.find_number(our_number)
    except VendorError as error:
        return red(str(error), "Run this check again when Twilio answers.")
    if twilio_number is None:
        return red(
            "The account does not own TWILIO_PHONE_NUMBER.",
            "Set TWILIO_PHONE_NUMBER to one of the account's numbers, with + and the country code.",
        )
    changes = number_config.find_changes(
        number_config.read_config(twilio_number), number_config.build_config(settings.PUBLIC_URL)
    )
    if changes:
        return red(
            f"The number is not configured for this server: {'; '.join(change.label for change in changes)}.",
            "Run `./manage.py configure_number`. With --dry-run it only shows the changes.",
        )
    if not twilio_number.voice_fallback_url:
        return amber(
            "The number sends calls to this server, but has no fallback URL for when it is down.",
            "Run `./manage.py configure_number --fallback-url` with the address of a TwiML Bin.",
        )
    return green("The number sends calls to this server, and has a fallback URL.")


CHECKS = (
    Check("twilio-account", "Twilio account", check_account, ("twilio-settings",)),
    Check("twilio-number", "Twilio number", check_number, ("twilio-settings", "twilio-account")),
)
