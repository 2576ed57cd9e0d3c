"""Phone numbers in the admin: how each number is answered, validated before it takes effect.

A saved form takes effect in every server process within seconds. So the form rejects whatever the bridge
or Vapi could not handle: numbers must be E.164, hours and time zones must parse, and overrides must be an
object that leaves alone what the bridge depends on.
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from bridge.opening_hours import BadHours, parse_hours
from calls.ingest.sanitize import clean_json
from calls.models import PhoneNumber
from calls.phone_numbers import parse_e164
from calls.routes import choose_disclosure, get_default_disclosure, parse_opening_hours
from calls.staff.admin.fields import PositionedJSONField, YesNoDefaultSelect, offer_assistants
from calls.twilio.sentences import SENTENCES, translate
from calls.twilio.voices import (
    DEFAULT_LANGUAGE,
    Voice,
    describe_foreign_script,
    describe_voice_problem,
    normalize_language,
)
from calls.viewer import Viewer

TAKES_EFFECT = "Changes apply to new calls within 5 seconds, in every server process."
MAX_SPOKEN_CHARS = 1000
TEXTAREA_ROWS = {"overrides": 5, "disclosure": 2, "greeting": 3, "hours": 2, "closed_message": 2}

# Minimum and maximum: the limits of Twilio and Vapi, or beyond any sensible use.
BOUNDS = {
    "endpointing_ms": (0, 5000),
    "max_concurrent_calls": (1, 10_000),
    "max_call_seconds": (10, 14_400),
}

# Keys of `assistantOverrides` that a number may not set, and why.
PROTECTED_OVERRIDES = {
    "clientMessages": "the bridge depends on these messages",
    "serverMessages": "call pages depend on these messages",
    "metadata": "it identifies the call",
    "server": "it is this server's own URL and secret",
    "maxDurationSeconds": "it is set from “Maximum call duration”",
    "startSpeakingPlan.waitSeconds": "it is set from “Endpointing”",
    "artifactPlan.recordingEnabled": "it is set from “Record calls”",
    "variableValues.caller": "it is the caller's number",
    "variableValues.twilioCallSid": "it is the CallSid",
}


@cache
def known_time_zones() -> Mapping[str, str]:
    """Names of all time zones on this server, by their lower-case form."""
    return {name.lower(): name for name in available_timezones()}


def normalize_time_zone(text: str) -> str:
    """The time zone's canonical name. Raises `ValidationError` with a suggestion."""
    name = text.strip().replace(" ", "_").lower()
    if not name or name in known_time_zones():
        return known_time_zones().get(name, "")
    close = difflib.get_close_matches(name, known_time_zones(), n=1)
    hint = f"Did you mean {known_time_zones()[close[0]]}?" if close else "Enter one such as Europe/Berlin."
    raise ValidationError(f"“{text[:64]}” is not a time zone. {hint}")


def validate_overrides(value: Any) -> dict[str, Any]:
    """The overrides, if Vapi and every database accept them. Raises `ValidationError`."""
    if value in (None, ""):
        return {}
    if not isinstance(value, dict):
        raise ValidationError('Enter one JSON object, such as {"firstMessage": "Hello."}.')
    if clean_json(value) != value:
        raise ValidationError("This JSON is too long or too deep, or contains invalid text or numbers.")
    for path, reason in PROTECTED_OVERRIDES.items():
        name, _, inner = path.partition(".")
        part = value.get(name)
        if name in value and (not inner or (isinstance(part, dict) and inner in part)):
            raise ValidationError(f"{path} cannot be overridden: {reason}.")
    return value


class NumberForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = PhoneNumber
        fields = "__all__"
        field_classes: ClassVar[dict[str, Any]] = {"overrides": PositionedJSONField}
        labels: ClassVar[dict[str, str]] = {
            "assistant_id": "Assistant ID",
            "endpointing_ms": "Endpointing (ms)",
            "overrides": "Assistant overrides",
            "discloses_ai": "AI disclosure",
            "disclosure": "Disclosure text",
            "closed_message": "Closed message",
            "fallback_number": "Fallback number",
            "record_calls": "Record calls",
            "max_concurrent_calls": "Concurrent calls",
            "max_call_seconds": "Maximum call duration (seconds)",
        }
        help_texts: ClassVar[dict[str, str]] = {
            "number": "In E.164 format, such as +15551234567.",
            "active": "Off: calls to this number use the default settings.",
            "assistant_id": "From your Vapi dashboard. Blank: default.",
            "endpointing_ms": "How long a pause must be for the assistant to answer. "
            "300 to 400 ms works well. Blank: default.",
            "overrides": "One JSON object, sent to Vapi as assistantOverrides.",
            "discloses_ai": "Tell callers first that they are speaking to an AI. Many countries require it.",
            "say_language": "For what Twilio speaks, such as de-DE or zh-CN. Standard sentences are "
            "translated into some languages and spoken in English in others. Blank: default.",
            "say_voice": "Such as Polly.Vicki or Google.de-DE-Standard-A. Blank: Twilio's for the language.",
            "disclosure": "Blank: default.",
            "greeting": "Spoken after the disclosure and before the assistant connects, such as a "
            "consent notice.",
            "hours": "When the assistant answers, such as Mon-Fri 08:00-18:00, Sat 09:00-12:00, or "
            "Mon 22:00-06:00 for a night. Blank: always.",
            "time_zone": "Of the opening hours, such as Europe/Berlin. Blank: UTC.",
            "closed_message": "Spoken outside opening hours if there is no fallback number. Blank: default.",
            "fallback_number": "Dialed when the assistant fails, lines are busy, the number is closed, the "
            "maximum duration is reached, or the server is shutting down, and when the assistant or staff "
            "transfer a call. Blank: default.",
            "record_calls": "Vapi records the call. Announce the recording where the law requires it.",
            "max_concurrent_calls": "In each server process. Blank: limited by the server's capacity only.",
            "max_call_seconds": "10 to 14400. Blank: default.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, rows in TEXTAREA_ROWS.items():
            if name in self.fields:
                self.fields[name].widget.attrs["rows"] = rows
        for name, is_on in (
            ("record_calls", settings.RECORD_CALLS),
            ("discloses_ai", settings.AI_DISCLOSURE),
        ):
            if name in self.fields:
                self.fields[name].widget = YesNoDefaultSelect("on" if is_on else "off")
        if "disclosure" in self.fields:
            language = self.instance.say_language
            line = get_default_disclosure(language)
            default = translate(line, language or settings.SAY_LANGUAGE) if line in SENTENCES else line
            default = default or line
            self.fields["disclosure"].widget.attrs["placeholder"] = default
        for name, default in (
            ("say_language", settings.SAY_LANGUAGE or DEFAULT_LANGUAGE),
            ("say_voice", settings.SAY_VOICE),
        ):
            if name in self.fields:
                self.fields[name].widget.attrs["placeholder"] = default

    def clean_number(self) -> str:
        return parse_e164(self.cleaned_data["number"])

    def clean_fallback_number(self) -> str:
        text = self.cleaned_data["fallback_number"].strip()
        return parse_e164(text) if text else ""

    def clean_assistant_id(self) -> str:
        assistant_id: str = self.cleaned_data["assistant_id"].strip()
        if re.search(r"[^A-Za-z0-9_-]", assistant_id):
            raise ValidationError("An assistant ID contains only letters, digits, hyphens and underscores.")
        return assistant_id

    def clean_overrides(self) -> dict[str, Any]:
        return validate_overrides(self.cleaned_data["overrides"])

    def clean_hours(self) -> str:
        text: str = self.cleaned_data["hours"].strip()
        if text:
            try:
                parse_hours(text)
            except BadHours as error:
                raise ValidationError(str(error)) from None
        return text

    def clean_say_language(self) -> str:
        return normalize_language(self.cleaned_data["say_language"])

    def clean_say_voice(self) -> str:
        return str(self.cleaned_data["say_voice"]).strip()

    def clean_time_zone(self) -> str:
        return normalize_time_zone(self.cleaned_data["time_zone"])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        for name in ("disclosure", "greeting", "closed_message"):
            if len(cleaned.get(name) or "") > MAX_SPOKEN_CHARS:
                self.add_error(name, f"Enter at most {MAX_SPOKEN_CHARS} characters.")
            spoken_in = cleaned.get("say_language") or settings.SAY_LANGUAGE
            if problem := describe_foreign_script(cleaned.get(name) or "", spoken_in):
                self.add_error(name, problem)
        for name, (minimum, maximum) in BOUNDS.items():
            value = cleaned.get(name)
            if value is not None and not minimum <= value <= maximum:
                self.add_error(name, f"Enter a number from {minimum} to {maximum}.")
        language = cleaned.get("say_language", "")
        if problem := describe_voice_problem(Voice(language)):
            self.add_error("say_language", problem)
        elif problem := describe_voice_problem(
            Voice(language or settings.SAY_LANGUAGE, cleaned.get("say_voice", ""))
        ):
            self.add_error("say_voice", problem)
        fallback = cleaned.get("fallback_number", self.instance.fallback_number)
        if fallback and fallback == cleaned.get("number", self.instance.number) and "number" in self.fields:
            self.add_error("fallback_number", "The fallback number must differ from the number itself.")
        return cleaned


@admin.register(PhoneNumber)
class PhoneNumberAdmin(ModelAdmin):  # type: ignore[misc]
    form = NumberForm
    list_filter = ("active",)
    show_full_result_count = False
    # Replacements for viewers who may not see numbers. The full numbers are never sent to their browsers.
    MASKED: ClassVar[dict[str, str]] = {
        "number": "masked_number",
        "fallback_number": "masked_fallback_number",
    }

    def get_list_display(self, request: HttpRequest) -> Sequence[Any]:
        return build_columns(Viewer.for_user(request.user))

    def get_search_fields(self, request: HttpRequest) -> Sequence[str]:
        # Viewers who may not see a number must not be able to guess it digit by digit.
        numbers = ("number__startswith",) if Viewer.for_user(request.user).can_view_numbers else ()
        return (*numbers, "label__istartswith")

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        number = super().get_object(request, object_id, from_field)
        if number is not None:
            number.viewer = Viewer.for_user(request.user)  # for the two fields below
        return number

    @admin.display(description="number")
    def masked_number(self, number: Any) -> str:
        return str(number.viewer.display_number(number.number))

    @admin.display(description="fallback number")
    def masked_fallback_number(self, number: Any) -> str:
        return str(number.viewer.display_number(number.fallback_number)) or "Default"

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        offer_assistants(context["adminform"].form, "assistant_id")
        return super().render_change_form(request, context, *args, **kwargs)

    def _masked_fields(self, request: HttpRequest, obj: PhoneNumber | None) -> Mapping[str, str]:
        """Fields of the form to replace, by name; empty for viewers who may see numbers."""
        return {} if obj is None or Viewer.for_user(request.user).can_view_numbers else self.MASKED

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        return tuple(self._masked_fields(request, obj).values())

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        masked = self._masked_fields(request, obj)
        number = masked.get("number", "number")
        fallback = masked.get("fallback_number", "fallback_number")
        return (
            (None, {"fields": (number, "label", "active"), "description": TAKES_EFFECT}),
            ("Assistant", {"fields": ("assistant_id", "endpointing_ms", "overrides")}),
            (
                "Opening announcement",
                {"fields": ("say_language", "say_voice", "discloses_ai", "disclosure", "greeting")},
            ),
            ("Opening hours", {"fields": ("hours", "time_zone", "closed_message")}),
            ("Fallback", {"fields": (fallback,)}),
            (
                "Limits and recording",
                {"fields": ("max_concurrent_calls", "max_call_seconds", "record_calls")},
            ),
        )


def build_columns(viewer: Viewer) -> list[Any]:
    """The columns of the list for one viewer."""

    @admin.display(description="number", ordering="number" if viewer.can_view_numbers else None)
    def number(row: PhoneNumber) -> str:
        return viewer.display_number(row.number)

    @admin.display(description="now")
    def now(row: PhoneNumber) -> str:
        if not row.active:
            return "Default settings"
        hours = parse_opening_hours(row.hours, row.time_zone)
        return "Open" if hours is None or hours.is_open(time.time()) else "Closed"

    @admin.display(description="fallback number", empty_value="Default")
    def fallback(row: PhoneNumber) -> str | None:
        return viewer.display_number(row.fallback_number) or None

    @admin.display(description="assistant ID", empty_value="Default", ordering="assistant_id")
    def assistant(row: PhoneNumber) -> str | None:
        return row.assistant_id or None

    @admin.display(description="AI disclosure", boolean=True)
    def discloses_ai(row: PhoneNumber) -> bool:
        return bool(choose_disclosure(row))

    return [number, "label", assistant, now, discloses_ai, fallback, "active"]
