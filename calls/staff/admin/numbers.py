"""Our numbers in the admin: how each is answered, checked before a caller meets it.

What a form lets through is live in every server process within seconds, so nothing passes that the bridge
or Vapi would stumble over: numbers are E.164, hours and zones can be read, overrides are an object that
leaves alone what the bridge lives on.
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
from calls.phone_numbers import e164
from calls.routes import opening_hours
from calls.viewer import Viewer

LIVE = "A change counts from the next call on, within 5 seconds, in every server process."
MAX_SPOKEN = 1000  # characters
ROWS = {"overrides": 5, "disclosure": 2, "greeting": 3, "hours": 2, "closed_message": 2}

# Least and most; beyond them Twilio, Vapi or sense would not follow.
BOUNDS = {
    "endpointing_ms": (0, 5000),
    "max_concurrent_calls": (1, 10_000),
    "max_call_seconds": (10, 14_400),
}

# What of `assistantOverrides` is not a number's to say, and why.
OURS = {
    "clientMessages": "the bridge needs these messages as they are",
    "serverMessages": "the call's page needs these messages as they are",
    "metadata": "calls are recognised by it",
    "server": "events of a call come to this server, with its secret",
    "maxDurationSeconds": "it follows the limit of this number, so that both sides know one",
    "startSpeakingPlan.waitSeconds": "it follows the pause before the assistant answers",
    "artifactPlan.recordingEnabled": "it follows “Records calls”",
    "variableValues.caller": "it is the caller's number",
    "variableValues.twilioCallSid": "it is the call's sid",
}


@cache
def zones() -> Mapping[str, str]:
    """The zones that this server knows, by their names in small letters."""
    return {name.lower(): name for name in available_timezones()}


def zone_name(text: str) -> str:
    """A zone's name as it is spelled. Raises `ValidationError` with the nearest one."""
    name = text.strip().replace(" ", "_").lower()
    if not name or name in zones():
        return zones().get(name, "")
    near = difflib.get_close_matches(name, zones(), n=1)
    meant = f" Is it {zones()[near[0]]}?" if near else " Write one such as Europe/Berlin."
    raise ValidationError(f"“{text[:64]}” is not the name of a time zone.{meant}")


def overrides_of(value: Any) -> dict[str, Any]:
    """Overrides that Vapi and every database take. Raises `ValidationError`."""
    if value in (None, ""):
        return {}
    if not isinstance(value, dict):
        raise ValidationError('Overrides are one JSON object, such as {"firstMessage": "Hello."}.')
    if clean_json(value) != value:
        raise ValidationError("Something in this JSON is too long, too deep, or no proper text or number.")
    for path, why in OURS.items():
        name, _, inner = path.partition(".")
        part = value.get(name)
        if name in value and (not inner or (isinstance(part, dict) and inner in part)):
            raise ValidationError(f"{path} cannot be overridden: {why}.")
    return value


class NumberForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = PhoneNumber
        fields = "__all__"
        labels: ClassVar[dict[str, str]] = {
            "assistant_id": "Assistant",
            "endpointing_ms": "Pause before the assistant answers",
            "discloses_ai": "Says that it is an AI",
            "closed_message": "Outside the hours",
            "fallback_number": "Person who stands in",
            "record_calls": "Records calls",
            "max_concurrent_calls": "Calls at a time",
            "max_call_seconds": "Longest call",
        }
        help_texts: ClassVar[dict[str, str]] = {
            "number": "As Twilio sends it: + and the country's code.",
            "active": "Off: this page is ignored, and the number is answered as the settings say.",
            "assistant_id": "Vapi's id of an assistant. Blank: the one of the settings.",
            "endpointing_ms": "Milliseconds; 300 to 400 is a good range. Blank: as the settings say.",
            "overrides": "Sent to Vapi as assistantOverrides: one JSON object.",
            "discloses_ai": "Callers hear it before all else. Many countries' laws ask for it.",
            "disclosure": "In these words. Blank: those of the settings.",
            "greeting": "Spoken next, before the assistant is connected, such as a consent text.",
            "hours": "When the assistant answers, such as Mon-Fri 08:00-18:00, Sat 09:00-12:00, or "
            "Mon 22:00-06:00 for a night. Blank: always.",
            "time_zone": "Of the hours, such as Europe/Berlin. Blank: UTC.",
            "closed_message": "Spoken where no person stands in. Blank: a polite line.",
            "fallback_number": "Dialled when the assistant fails, when all lines are busy, and outside the "
            "hours. Blank: the one of the settings.",
            "record_calls": "By Vapi. Off: as the settings say. Announce it where the law asks for it.",
            "max_concurrent_calls": "In one server process. Blank: as many as there is room for.",
            "max_call_seconds": "Seconds, 10 to 14400. Blank: as the settings say.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, rows in ROWS.items():
            if name in self.fields:
                self.fields[name].widget.attrs["rows"] = rows
        if "disclosure" in self.fields:
            said = settings.AI_DISCLOSURE or settings.AI_DISCLOSURE_LINE
            self.fields["disclosure"].widget.attrs["placeholder"] = said

    def clean_number(self) -> str:
        return e164(self.cleaned_data["number"])

    def clean_fallback_number(self) -> str:
        text = self.cleaned_data["fallback_number"].strip()
        return e164(text) if text else ""

    def clean_assistant_id(self) -> str:
        found: str = self.cleaned_data["assistant_id"].strip()
        if re.search(r"[^A-Za-z0-9_-]", found):
            raise ValidationError("An assistant's id has letters, digits and hyphens only.")
        return found

    def clean_overrides(self) -> dict[str, Any]:
        return overrides_of(self.cleaned_data["overrides"])

    def clean_hours(self) -> str:
        text: str = self.cleaned_data["hours"].strip()
        if text:
            try:
                parse_hours(text)
            except BadHours as error:
                raise ValidationError(str(error)) from None
        return text

    def clean_time_zone(self) -> str:
        return zone_name(self.cleaned_data["time_zone"])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        for name in ("disclosure", "greeting", "closed_message"):
            if len(cleaned.get(name) or "") > MAX_SPOKEN:
                self.add_error(name, f"Nobody listens to more than {MAX_SPOKEN} characters.")
        for name, (least, most) in BOUNDS.items():
            value = cleaned.get(name)
            if value is not None and not least <= value <= most:
                self.add_error(name, f"This must be from {least} to {most}.")
        person = cleaned.get("fallback_number", self.instance.fallback_number)
        if person and person == cleaned.get("number", self.instance.number) and "number" in self.fields:
            self.add_error("fallback_number", "This is the number itself: its calls would ring here again.")
        return cleaned


@admin.register(PhoneNumber)
class PhoneNumberAdmin(ModelAdmin):  # type: ignore[misc]
    form = NumberForm
    list_filter = ("active",)
    show_full_result_count = False
    # Shown in their places to those who may not see numbers, and never sent to their browsers.
    MASKED: ClassVar[dict[str, str]] = {"number": "our_number", "fallback_number": "person"}

    def get_list_display(self, request: HttpRequest) -> Sequence[Any]:
        return columns_for(Viewer.of(request.user))

    def get_search_fields(self, request: HttpRequest) -> Sequence[str]:
        # Who may not see a number must not find it out digit by digit.
        numbers = ("number__startswith",) if Viewer.of(request.user).sees_numbers else ()
        return (*numbers, "label__istartswith")

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        number = super().get_object(request, object_id, from_field)
        if number is not None:
            number.viewer = Viewer.of(request.user)  # for the two fields below
        return number

    @admin.display(description="number")
    def our_number(self, number: Any) -> str:
        return str(number.viewer.number(number.number))

    @admin.display(description="Person who stands in")
    def person(self, number: Any) -> str:
        return str(number.viewer.number(number.fallback_number)) or "nobody"

    def _masked(self, request: HttpRequest, obj: PhoneNumber | None) -> Mapping[str, str]:
        return {} if obj is None or Viewer.of(request.user).sees_numbers else self.MASKED

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        return tuple(self._masked(request, obj).values())

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        masked = self._masked(request, obj)
        number, person = masked.get("number", "number"), masked.get("fallback_number", "fallback_number")
        return (
            (None, {"fields": (number, "label", "active"), "description": LIVE}),
            ("Who answers", {"fields": ("assistant_id", "endpointing_ms", "overrides")}),
            ("What callers hear first", {"fields": ("discloses_ai", "disclosure", "greeting")}),
            ("Opening hours", {"fields": ("hours", "time_zone", "closed_message")}),
            ("When the assistant cannot", {"fields": (person,)}),
            (
                "Limits and recording",
                {"fields": ("max_concurrent_calls", "max_call_seconds", "record_calls")},
            ),
        )


def columns_for(viewer: Viewer) -> list[Any]:
    """The list's columns for one viewer."""

    @admin.display(description="number", ordering="number" if viewer.sees_numbers else None)
    def number(row: PhoneNumber) -> str:
        return viewer.number(row.number)

    @admin.display(description="now")
    def now(row: PhoneNumber) -> str:
        if not row.active:
            return "as the settings say"
        hours = opening_hours(row.hours, row.time_zone)
        return "open" if hours is None or hours.is_open(time.time()) else "closed"

    @admin.display(description="person who stands in")
    def person(row: PhoneNumber) -> str:
        return viewer.number(row.fallback_number)

    @admin.display(description="assistant", empty_value="of the settings", ordering="assistant_id")
    def assistant(row: PhoneNumber) -> str | None:
        return row.assistant_id or None

    return [number, "label", assistant, now, "discloses_ai", person, "active"]
