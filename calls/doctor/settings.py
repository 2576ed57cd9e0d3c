"""Checks of the settings alone, without the network: `calls/requirements.py`, as the doctor reports it."""

from __future__ import annotations

from django.conf import settings

from calls import requirements
from calls.doctor.check import Check, Finding, amber, green, red


def build_unmet_finding(check_name: str) -> Finding | None:
    """What the requirements of one check report; None when all are met."""
    unmet = requirements.find_unmet_by_check(check_name)
    if not unmet:
        return None
    message = " ".join(requirement.problem for requirement in unmet)
    fix = " ".join(requirement.fix for requirement in unmet)
    return red(message, fix) if any(requirement.is_required for requirement in unmet) else amber(message, fix)


def _build_check(name: str, title: str, ok: str) -> Check:
    async def run() -> Finding:
        return build_unmet_finding(name) or green(ok)

    return Check(name, title, run)


async def _check_values() -> Finding:
    """Values that can never be right. The other checks run with the defaults instead."""
    if settings.SETTING_PROBLEMS:
        return red(
            " ".join(settings.SETTING_PROBLEMS),
            "Correct them in the environment or in .env: neither a server nor a command starts with them. "
            "The other checks use the defaults of these settings.",
        )
    return green("Every setting has a valid value.")


CHECKS = (
    Check("settings", "Settings", _check_values),
    _build_check("public-url", "PUBLIC_URL", "PUBLIC_URL is an https address."),
    _build_check("secret-key", "Secret key", "DJANGO_SECRET_KEY is set, and debug is off."),
    _build_check("twilio-settings", "Twilio settings", "The Twilio account and its Auth Token are set."),
    _build_check("vapi-settings", "Vapi settings", "The assistant settings are complete."),
    _build_check("fallback-number", "Fallback number", "A person is dialed when the assistant fails."),
)
