"""A number's form in the admin: three choices for yes-or-no settings, and a choice of assistants."""

from __future__ import annotations

import importlib
import re
from html import unescape
from typing import Any

import pytest
from django.apps import apps
from django.test import TestCase, override_settings
from django.urls import reverse

from bridge.config import BridgeConfig
from bridge.routes import Route
from calls.models import PhoneNumber
from calls.routes import read_routes
from calls.tests.builders import make_staff
from calls.tests.canned_vendor_api import CannedVendorApi

ADD = "/admin/calls/phonenumber/add/"
PERMISSIONS = ("view_phonenumber", "add_phonenumber", "change_phonenumber", "view_numbers")
NUMBER = "+15559870000"
LIST = [{"id": "b-2", "name": "Night desk"}, {"id": "a-1", "name": "Front desk <b>"}, {"id": "c-3"}]


class NumberFormTests(TestCase):
    def setUp(self) -> None:
        self.client.force_login(make_staff(*PERMISSIONS))

    def page(self, url: str = ADD) -> str:
        return self.client.get(url).content.decode()

    def options(self, page: str, name: str) -> list[tuple[str, str]]:
        select = re.search(rf'<select name="{name}".*?</select>', page, re.DOTALL)
        if select is None:
            return []
        found = re.findall(r'<option value="([^"]*)"[^>]*>(.*?)</option>', select[0], re.DOTALL)
        return [(value, unescape(" ".join(text.split()))) for value, text in found]

    def save(self, **form: str) -> PhoneNumber:
        PhoneNumber.objects.all().delete()
        saved = self.client.post(ADD, {"number": NUMBER, "overrides": "{}", "active": "on", **form})
        self.assertEqual(saved.status_code, 302)
        return PhoneNumber.objects.get()

    def route(self, config: BridgeConfig) -> Route:
        (values,) = read_routes()
        return Route.resolve(config, values)

    def test_a_yes_or_no_setting_has_three_choices_and_names_the_default(self) -> None:
        for record, disclosure in ((True, ""), (False, "An AI.")):
            with override_settings(RECORD_CALLS=record, AI_DISCLOSURE=disclosure, VAPI_API_KEY=""):
                page = self.page()
                for name, is_on in (("record_calls", record), ("discloses_ai", bool(disclosure))):
                    default = f"Default ({'on' if is_on else 'off'})"
                    choices = [("unknown", default), ("true", "Yes"), ("false", "No")]
                    self.assertEqual(self.options(page, name), choices)
                for choice, expected in (("unknown", None), ("true", True), ("false", False)):
                    number = self.save(record_calls=choice, discloses_ai=choice)
                    self.assertEqual((number.record_calls, number.discloses_ai), (expected, expected))
                    route = self.route(BridgeConfig(record_calls=record))
                    self.assertEqual(route.record, record if expected is None else expected)
                    says = bool(disclosure) if expected is None else expected
                    self.assertEqual(bool(route.disclosure), says)

    def test_without_a_list_the_assistant_is_a_text_field_with_the_reason(self) -> None:
        for changes, reason in (
            ({"VAPI_API_KEY": ""}, "VAPI_API_KEY is not set"),
            ({"VAPI_API_KEY": "k", "VAPI_SOCKET_URL": "wss://agent.example"}, "VAPI_SOCKET_URL is set"),
            ({"VAPI_API_KEY": "k", "VAPI_BASE_URL": "http://127.0.0.1:9"}, "Vapi"),
        ):
            with self.subTest(reason), override_settings(**changes):
                page = self.page()
                self.assertEqual(self.options(page, "assistant_id"), [])
                self.assertRegex(page, r'<input type="text" name="assistant_id"')
                self.assertRegex(unescape(page), f"Enter the ID: .*{reason}")
                self.assertEqual(self.save(assistant_id="typed-1").assistant_id, "typed-1")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (401, "rejected the API key"),
        (500, "500"),
        (429, "Vapi"),
        ({"a": 1}, "no list"),
        (b"<html>", "no list"),
    ],
)
def test_an_answer_that_is_no_list_leaves_a_text_field(client: Any, answer: Any, reason: str) -> None:
    page = open_form(client, answer)
    assert '<input type="text" name="assistant_id"' in page and "Enter the ID: " in page and reason in page


@pytest.mark.django_db
def test_assistants_are_chosen_from_vapis_list(client: Any) -> None:
    page = open_form(client, LIST, assistant_id="gone-4")
    select = re.search(r'<select name="assistant_id".*?</select>', page, re.DOTALL)
    assert select is not None
    options = re.findall(
        r'<option value="([^"]*)"( selected)?[^>]*>\s*(.*?)\s*</option>', select[0], re.DOTALL
    )
    assert [(value, bool(selected), text) for value, selected, text in options] == [
        ("", False, "Default (Night desk)"),
        ("gone-4", True, "gone-4 (not in Vapi's list)"),
        ("c-3", False, "c-3"),
        ("a-1", False, "Front desk <b> (a-1)"),
        ("b-2", False, "Night desk (b-2)"),
    ]


def open_form(client: Any, answer: Any, **row: str) -> str:
    number = PhoneNumber.objects.create(number=NUMBER, **row)
    client.force_login(make_staff(*PERMISSIONS))
    api = CannedVendorApi()
    try:
        api.responses["assistant?limit=1000"] = [answer]
        with override_settings(**api.settings(VAPI_ASSISTANT_ID="b-2")):
            page = client.get(reverse("admin:calls_phonenumber_change", args=[number.pk]))
    finally:
        api.stop()
    assert page.status_code == 200
    # Markup in a name is escaped; only here it is read back.
    assert "<b>" not in page.content.decode()
    return unescape(page.content.decode())


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("record", "discloses", "expected"),
    [(False, False, (None, False)), (True, True, (True, True)), (False, True, (None, True))],
)
def test_the_migration_keeps_how_each_number_behaves(
    record: bool, discloses: bool, expected: tuple[bool | None, bool]
) -> None:
    number = PhoneNumber.objects.create(number=NUMBER, record_calls=record, discloses_ai=discloses)
    migration = importlib.import_module("calls.migrations.0009_number_choices")
    migration.blank_was_off(apps, None)
    number.refresh_from_db()
    assert (number.record_calls, number.discloses_ai) == expected
    migration.off_was_blank(apps, None)
    number.refresh_from_db()
    assert (number.record_calls, number.discloses_ai) == (record, discloses)
