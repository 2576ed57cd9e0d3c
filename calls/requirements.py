"""What the settings must be, in one table. Four places report it, each in its own form:

- the start of the server: `refuse_to_start()`, called by `voiceai/asgi.py`;
- Django's system checks: `calls/apps.py`;
- the setup panel of the dashboard: `list_dashboard_items()`;
- the doctor: `calls/doctor/settings.py`, by the name of its check.

Only the settings are read: no network, no query. No message contains the value of a secret.
A value that can never be right, such as a limit that is not a number, does not get this far:
`voiceai/settings.py` rejects it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError

from calls.phone_numbers import parse_e164
from calls.vapi.assistant_config import MAX_ENDPOINTING_MS, MIN_ENDPOINTING_MS


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One rule about one setting, and where it is reported."""

    setting: str  # the environment variable
    is_met: Callable[[], bool]
    problem: str  # what is wrong when it is not met
    fix: str
    applies: Callable[[], bool] = _always  # whether the rule matters with the other settings as they are
    is_required: bool = True  # False: calls work without it, so it is a recommendation
    blocks_start: bool = False  # with debug off, a server does not start and `check --deploy` fails
    check_id: str = ""  # of Django's system check; empty: not a system check
    check_applies: Callable[[], bool] = _always  # further condition for the system check alone
    doctor_check: str = ""  # the check of the doctor that reports it; empty: not reported there
    is_on_dashboard: bool = False

    @property
    def is_unmet(self) -> bool:
        return self.applies() and not self.is_met()


def _uses_vapi() -> bool:
    """Whether Vapi answers calls, not a socket server of the installation's own."""
    return not settings.VAPI_SOCKET_URL


def _is_e164(number: str) -> bool:
    try:
        return parse_e164(number) == number
    except ValidationError:
        return False


REQUIREMENTS = (
    Requirement(
        setting="DJANGO_SECRET_KEY",
        is_met=lambda: settings.SECRET_KEY_IS_SET,
        problem="DJANGO_SECRET_KEY is not set.",
        fix="Set DJANGO_SECRET_KEY to a long random string, the same for all workers: it signs tickets "
        "and sessions.",
        blocks_start=True,
        check_id="voiceai.E001",
        doctor_check="secret-key",
    ),
    Requirement(
        setting="DJANGO_DEBUG",
        is_met=lambda: not settings.DEBUG,
        problem="DJANGO_DEBUG is on.",
        fix="Turn DJANGO_DEBUG off on every server that can be reached from the internet.",
        is_required=False,
        doctor_check="secret-key",
    ),
    Requirement(
        setting="PUBLIC_URL",
        is_met=lambda: urlsplit(settings.PUBLIC_URL).scheme == "https",
        problem="PUBLIC_URL is not an https address.",
        fix="Set PUBLIC_URL to the https address at which Twilio reaches this server, such as a tunnel's, "
        "and restart.",
        doctor_check="public-url",
        is_on_dashboard=True,
    ),
    Requirement(
        setting="PUBLIC_URL",
        applies=lambda: bool(settings.PUBLIC_URL_AS_WRITTEN) and not settings.SETTING_PROBLEMS,
        is_met=lambda: settings.PUBLIC_URL_AS_WRITTEN == settings.PUBLIC_URL,
        problem="PUBLIC_URL is not written as browsers and Twilio write it.",
        fix="Write PUBLIC_URL in lower case, without a standard port, and an international name in ASCII "
        "(xn--...). The same address is used either way.",
        is_required=False,
        doctor_check="public-url",
    ),
    Requirement(
        setting="TWILIO_AUTH_TOKEN",
        is_met=lambda: bool(settings.TWILIO_AUTH_TOKENS),
        problem="TWILIO_AUTH_TOKEN is not set.",
        fix="Set TWILIO_AUTH_TOKEN to the Auth Token on the first page of Twilio's console: webhook "
        "signatures cannot be verified without it. DJANGO_DEBUG=on allows unsigned requests for local "
        "development.",
        blocks_start=True,
        check_id="voiceai.E002",
        doctor_check="twilio-settings",
        is_on_dashboard=True,
    ),
    Requirement(
        setting="TWILIO_ACCOUNT_SID",
        is_met=lambda: bool(settings.TWILIO_ACCOUNT_SID),
        problem="TWILIO_ACCOUNT_SID is not set.",
        fix="Set TWILIO_ACCOUNT_SID to the Account SID (AC...) on the first page of Twilio's console.",
        doctor_check="twilio-settings",
        is_on_dashboard=True,
    ),
    Requirement(
        setting="TWILIO_PHONE_NUMBER",
        applies=lambda: bool(settings.TWILIO_PHONE_NUMBER),
        is_met=lambda: _is_e164(settings.TWILIO_PHONE_NUMBER),
        problem="TWILIO_PHONE_NUMBER is not in E.164 format.",
        fix="Write TWILIO_PHONE_NUMBER with + and the country code, without spaces, such as +15551234567.",
        doctor_check="twilio-settings",
    ),
    Requirement(
        setting="VAPI_API_KEY",
        is_met=lambda: bool(settings.VAPI_API_KEY),
        problem="VAPI_API_KEY is not set.",
        fix="Set VAPI_API_KEY to the private key from Vapi's dashboard.",
        applies=_uses_vapi,
        doctor_check="vapi-settings",
        is_on_dashboard=True,
    ),
    Requirement(
        setting="VAPI_SOCKET_URL",
        applies=lambda: bool(settings.VAPI_SOCKET_URL),
        is_met=lambda: settings.VAPI_AUDIO_FORMAT != "pcm_s16le",
        problem="VAPI_SOCKET_URL is set and VAPI_AUDIO_FORMAT is pcm_s16le.",
        fix="Unset VAPI_AUDIO_FORMAT if your socket server speaks mulaw, as most of them do.",
        is_required=False,
        check_id="voiceai.W001",
        doctor_check="vapi-socket",
    ),
    Requirement(
        setting="VAPI_ASSISTANT_ID",
        is_met=lambda: bool(settings.VAPI_ASSISTANT_ID),
        problem="VAPI_ASSISTANT_ID is not set.",
        fix="Set VAPI_ASSISTANT_ID to the id on the assistant's page at Vapi, or give every phone number "
        "its own assistant.",
        applies=_uses_vapi,
        check_id="voiceai.W002",
        check_applies=lambda: bool(settings.VAPI_API_KEY),  # a fresh checkout has neither, and no warning
        doctor_check="vapi-settings",
        is_on_dashboard=True,
    ),
    Requirement(
        setting="VAPI_WEBHOOK_SECRET",
        is_met=lambda: bool(settings.VAPI_WEBHOOK_SECRET),
        problem="VAPI_WEBHOOK_SECRET is not set.",
        fix="Set VAPI_WEBHOOK_SECRET to a long random string. Without it Vapi's reports (summary, cost) and "
        "tool calls are rejected.",
        applies=_uses_vapi,
        is_required=False,
        doctor_check="vapi-settings",
        is_on_dashboard=True,
    ),
    Requirement(
        setting="TWILIO_ACCOUNT_SID",
        applies=lambda: bool(settings.TWILIO_ACCOUNT_SID),
        is_met=lambda: settings.TWILIO_ACCOUNT_SID.startswith("AC"),
        problem="TWILIO_ACCOUNT_SID does not begin with AC.",
        fix="Set TWILIO_ACCOUNT_SID to the Account SID. Webhooks are signed for the account, not for an "
        "API key (SK...).",
        check_id="voiceai.W003",
        doctor_check="twilio-settings",
    ),
    Requirement(
        setting="VAPI_ENDPOINTING_MS",
        is_met=lambda: settings.VAPI_ENDPOINTING_MS >= MIN_ENDPOINTING_MS,
        problem=f"VAPI_ENDPOINTING_MS is under {MIN_ENDPOINTING_MS}.",
        fix=f"Set VAPI_ENDPOINTING_MS to {MIN_ENDPOINTING_MS} to {MAX_ENDPOINTING_MS} ms: below, callers "
        "are cut off when they pause.",
        is_required=False,
        check_id="voiceai.W004",
        # The doctor's `assistant-endpointing` grades this setting together with the assistant's own.
    ),
    Requirement(
        setting="FALLBACK_NUMBER",
        is_met=lambda: bool(settings.FALLBACK_NUMBER),
        problem="FALLBACK_NUMBER is not set.",
        fix="Set FALLBACK_NUMBER to the number of a person, who is dialed when the assistant fails, all "
        "lines are busy, or a time limit is reached, and to whom calls are transferred. Without it, callers "
        "hear an announcement.",
        is_required=False,
        doctor_check="fallback-number",
        is_on_dashboard=True,
    ),
    Requirement(
        setting="FALLBACK_NUMBER",
        applies=lambda: bool(settings.FALLBACK_NUMBER),
        is_met=lambda: _is_e164(settings.FALLBACK_NUMBER),
        problem="FALLBACK_NUMBER is not in E.164 format.",
        fix="Write FALLBACK_NUMBER with + and the country code, without spaces, such as +15551234567.",
        doctor_check="fallback-number",
    ),
)


def find_unmet() -> Iterator[Requirement]:
    """The requirements that the settings do not meet, in the order of the table."""
    return (requirement for requirement in REQUIREMENTS if requirement.is_unmet)


def find_unmet_by_check(doctor_check: str) -> list[Requirement]:
    """What one of the doctor's checks reports."""
    return [requirement for requirement in find_unmet() if requirement.doctor_check == doctor_check]


def list_dashboard_items() -> list[Requirement]:
    """What the dashboard's setup panel lists: what is required before what is recommended."""
    listed = (requirement for requirement in find_unmet() if requirement.is_on_dashboard)
    return sorted(listed, key=lambda requirement: not requirement.is_required)


def find_start_blockers() -> list[Requirement]:
    """Why a server must not start. Debug allows everything."""
    if settings.DEBUG:
        return []
    return [requirement for requirement in find_unmet() if requirement.blocks_start]


def refuse_to_start() -> None:
    """Raise `ImproperlyConfigured` when the secrets that keep strangers out are missing and debug is off."""
    if missing := [requirement.setting for requirement in find_start_blockers()]:
        raise ImproperlyConfigured(
            f"{' and '.join(missing)} must be set when DJANGO_DEBUG is off: without them anyone could"
            " place calls at your expense. Set them in the environment or in .env."
        )
