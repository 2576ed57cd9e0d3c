"""What is still to be set before real calls can come, and how. From the settings alone; shows no value."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings


@dataclass(frozen=True, slots=True)
class Missing:
    """A setting that is not there. `needed`: without it no real call works."""

    name: str
    fix: str
    needed: bool = True


def missing() -> list[Missing]:
    """The needed ones first."""
    found = []
    if urlsplit(settings.PUBLIC_URL).scheme != "https":
        found.append(
            Missing(
                "PUBLIC_URL", "The https address under which Twilio reaches this server, such as a tunnel's."
            )
        )
    if not settings.TWILIO_AUTH_TOKENS:
        found.append(
            Missing(
                "TWILIO_AUTH_TOKEN",
                "On the first page of Twilio's console. Requests are not checked without it.",
            )
        )
    if not settings.TWILIO_ACCOUNT_SID:
        found.append(Missing("TWILIO_ACCOUNT_SID", "On the same page; it begins with AC."))
    if not settings.VAPI_SOCKET_URL:
        if not settings.VAPI_API_KEY:
            found.append(Missing("VAPI_API_KEY", "The private key, from Vapi's dashboard."))
        if not settings.VAPI_ASSISTANT_ID:
            found.append(
                Missing("VAPI_ASSISTANT_ID", "Which assistant answers; its page at Vapi has the id.")
            )
        if not settings.VAPI_WEBHOOK_SECRET:
            found.append(
                Missing(
                    "VAPI_WEBHOOK_SECRET",
                    "Any long random string. Without it Vapi's reports (summary, cost) are refused.",
                    needed=False,
                )
            )
    if not settings.FALLBACK_NUMBER:
        found.append(
            Missing(
                "FALLBACK_NUMBER",
                "A person's number, dialled when the assistant fails. Without it callers hear an apology.",
                needed=False,
            )
        )
    return sorted(found, key=lambda each: not each.needed)
