"""The settings alone: nothing is asked over the network. What is missing comes from `calls.requirements`."""

from __future__ import annotations

import re

from django.conf import settings

from calls import requirements
from calls.doctor.check import Check, Finding, amber, green, red

E164 = re.compile(r"\+[1-9][0-9]{6,14}")


def _missing(*names: str) -> Finding | None:
    found = [each for each in requirements.missing() if each.name in names]
    if not found:
        return None
    what = f"Not set: {', '.join(each.name for each in found)}."
    fix = " ".join(f"{each.name}: {each.fix}" for each in found)
    return red(what, fix) if any(each.needed for each in found) else amber(what, fix)


async def public_url() -> Finding:
    if _missing("PUBLIC_URL"):
        return red(
            "PUBLIC_URL is not an https address.",
            "Set PUBLIC_URL to the https address of this server, such as a tunnel's, and restart.",
        )
    return green("PUBLIC_URL is an https address.")


async def secret_key() -> Finding:
    if not settings.SECRET_KEY_IS_SET:
        return red(
            "DJANGO_SECRET_KEY is not set.",
            "Set DJANGO_SECRET_KEY to a long random string, the same for all workers.",
        )
    if settings.DEBUG:
        return amber("DJANGO_DEBUG is on.", "Turn DJANGO_DEBUG off where strangers can come.")
    return green("There is a secret key, and debug is off.")


async def twilio_settings() -> Finding:
    if missing := _missing("TWILIO_AUTH_TOKEN", "TWILIO_ACCOUNT_SID"):
        return missing
    if not settings.TWILIO_ACCOUNT_SID.startswith("AC"):
        return red(
            "TWILIO_ACCOUNT_SID does not begin with AC.",
            "Set TWILIO_ACCOUNT_SID to the account's own sid: an API key (SK...) signs no webhooks.",
        )
    return green("The account and its token are set.")


async def vapi_settings() -> Finding:
    return _missing("VAPI_API_KEY", "VAPI_ASSISTANT_ID", "VAPI_WEBHOOK_SECRET") or green(
        "The assistant's settings are there."
    )


async def fallback() -> Finding:
    if missing := _missing("FALLBACK_NUMBER"):
        return missing
    if not E164.fullmatch(settings.FALLBACK_NUMBER):
        return red(
            "FALLBACK_NUMBER is not a number in full.",
            "Write FALLBACK_NUMBER with + and the country code, without blanks.",
        )
    return green("A person stands in when the assistant fails.")


CHECKS = (
    Check("public-url", "PUBLIC_URL", "Is PUBLIC_URL an https address?", public_url),
    Check("secret-key", "Secret key", "Do all workers share a secret key?", secret_key),
    Check("twilio-settings", "Twilio's settings", "Are account and token set?", twilio_settings),
    Check("vapi-settings", "Vapi's settings", "Are key and assistant set?", vapi_settings),
    Check("fallback-number", "Fallback number", "Can a person be dialled?", fallback),
)
