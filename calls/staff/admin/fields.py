"""Form fields of the admin: yes, no or default; JSON with the place of an error; one of Vapi's assistants."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from asgiref.sync import async_to_sync
from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminNullBooleanSelectWidget, UnfoldAdminSelectWidget

from calls.ingest.sanitize import clean_text
from calls.vapi import client as vapi_client
from calls.vendor_errors import VendorError

MAX_NAME_CHARS = 80


class YesNoDefaultSelect(UnfoldAdminNullBooleanSelectWidget):  # type: ignore[misc]
    """Three choices for a nullable boolean; the first names the default."""

    def __init__(self, default: str) -> None:
        super().__init__()
        self.choices = [("unknown", f"Default ({default})"), ("true", "Yes"), ("false", "No")]


class PositionedJSONField(forms.JSONField):
    """JSON whose error names line and column."""

    def to_python(self, value: Any) -> Any:
        try:
            if isinstance(value, str) and value not in self.empty_values:
                json.loads(value)
            return super().to_python(value)
        except json.JSONDecodeError as error:
            raise ValidationError(
                f"Enter valid JSON. Line {error.lineno}, column {error.colno}: {error.msg}.", code="invalid"
            ) from None
        except RecursionError:
            raise ValidationError("This JSON is too deep.", code="invalid") from None

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            return super().bound_data(data, initial)
        except RecursionError:
            return forms.fields.InvalidJSONInput(data)


def offer_assistants(form: forms.ModelForm[Any], name: str) -> None:
    """Make the field a choice of Vapi's assistants.

    Without Vapi's list it stays a text field, whose help text says why.

    Asks Vapi, with a deadline. The form's value stays selectable if Vapi does not list it.
    """
    if name not in form.fields:
        return
    field, bound = form.fields[name], form[name]
    try:
        assistants = _list_assistants()
    except VendorError as error:
        bound.help_text = field.help_text = f"{field.help_text} Enter the ID: {error}"
        return
    field.widget = UnfoldAdminSelectWidget(choices=_choices(assistants, str(bound.value() or "")))
    bound.help_text = field.help_text = "Blank: default."


def _list_assistants() -> list[dict[str, Any]]:
    if settings.VAPI_SOCKET_URL:
        raise VendorError("VAPI_SOCKET_URL is set, so calls do not go to Vapi.")
    if not settings.VAPI_API_KEY:
        raise VendorError("VAPI_API_KEY is not set, so Vapi's list is not available.")
    return async_to_sync(vapi_client.list_assistants)()


def _choices(assistants: Sequence[Mapping[str, Any]], selected: str) -> list[tuple[str, str]]:
    names = {
        str(assistant["id"]): clean_text(str(assistant.get("name") or ""), MAX_NAME_CHARS).strip()
        for assistant in assistants
        if isinstance(assistant.get("id"), str)
    }
    default = settings.VAPI_ASSISTANT_ID
    choices = [("", f"Default ({names.get(default) or default or 'not set'})")]
    if selected and selected not in names:
        choices.append((selected, f"{selected} (not in Vapi's list)"))
    listed = sorted(names.items(), key=lambda item: (item[1].lower(), item[0]))
    return choices + [(key, f"{name} ({key})" if name else key) for key, name in listed]
