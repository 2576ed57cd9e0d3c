"""A number's row, from the admin form to the route that the bridge uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import unescape
from typing import Any

from django.contrib.admin.models import LogEntry
from django.db import OperationalError, connection
from django.test import TestCase, TransactionTestCase, override_settings
from django.urls import reverse

from bridge.config import BridgeConfig
from bridge.routes import Route
from calls import routes
from calls.ingest.housekeeping import Housekeeping
from calls.models import PhoneNumber
from calls.routes import read_routes
from calls.staff.admin.numbers import TAKES_EFFECT, NumberForm
from calls.tests.builders import make_staff

NUMBER = "+15559870000"
AN_AI = "You are speaking with an AI assistant."
MAY_CHANGE = ("view_phonenumber", "add_phonenumber", "change_phonenumber")
FORM = {"number": NUMBER, "overrides": "{}", "active": "on", "discloses_ai": "true"}
LIST, ADD = "admin:calls_phonenumber_changelist", "admin:calls_phonenumber_add"


def make_number(**changes: Any) -> PhoneNumber:
    return PhoneNumber.objects.create(**({"number": NUMBER} | changes))


def resolve_route() -> Route:
    """The route of the only number, as the bridge resolves it."""
    (row,) = read_routes()
    return Route.resolve(BridgeConfig(), row)


class FormTests(TestCase):
    def make_form(self, **changes: str) -> NumberForm:
        return NumberForm({**FORM, **changes})

    def save(self, **changes: str) -> PhoneNumber:
        form = self.make_form(**changes)
        self.assertEqual(form.errors, {})
        number: PhoneNumber = form.save()
        number.refresh_from_db()
        return number

    def get_error(self, field: str, value: str) -> str:
        errors = self.make_form(**{field: value}).errors
        self.assertEqual(list(errors), [field], value)
        return str(errors[field][0])

    def test_numbers_are_stored_in_e164_format(self) -> None:
        for text in (NUMBER, " +1 (555) 987-0000 ", "001.555.987.0000", "+1/555 987\u20110000"):
            form = self.make_form(number=text, fallback_number="+44 20 7946 0011")
            self.assertEqual(form.errors, {})
            self.assertEqual(form.cleaned_data["number"], NUMBER)
            self.assertEqual(form.cleaned_data["fallback_number"], "+442079460011")

    def test_it_rejects_an_invalid_number(self) -> None:
        for text in ("5559870000", "+0555987000", "+1555", "+1555987000012345", "sip:a@b.c"):
            self.assertIn("such as +15551234567", self.get_error("number", text))
            self.assertIn("such as +15551234567", self.get_error("fallback_number", text))

    def test_a_number_is_unique_however_it_is_written(self) -> None:
        make_number()
        self.assertIn("already exists", self.get_error("number", "+1 555 987 0000"))

    def test_a_number_cannot_be_its_own_fallback(self) -> None:
        self.assertIn("must differ from the number itself", self.get_error("fallback_number", NUMBER))

    def test_it_rejects_invalid_hours_with_a_sentence(self) -> None:
        self.assertIn("“Fry” is not a day", self.get_error("hours", "Mon-Fry 08:00-18:00"))
        number = self.save(hours=" Mon-Fri 08:00-18:00 ", time_zone="europe/berlin")
        self.assertEqual((number.hours, number.time_zone), ("Mon-Fri 08:00-18:00", "Europe/Berlin"))

    def test_it_rejects_an_unknown_time_zone(self) -> None:
        self.assertEqual(
            self.get_error("time_zone", "Europe/Berln"),
            "“Europe/Berln” is not a time zone. Did you mean Europe/Berlin?",
        )
        for text in ("Mars", "../../etc/passwd", "Europe"):
            self.assertIn("is not a time zone.", self.get_error("time_zone", text))
        self.assertEqual(self.save(time_zone=" America/New York ").time_zone, "America/New_York")

    def test_overrides_must_be_a_json_object(self) -> None:
        for text in ("[]", '"x"', "3", "true"):
            self.assertIn("one JSON object", self.get_error("overrides", text))
        for text, place in (
            ("{", "Line 1, column 2"),
            ('{"a": 1,\n  "b": }', "Line 2, column 8"),
            ('{"a": 1}\n\nx', "Line 3, column 1"),
            ("{'a': 1}", "Line 1, column 2"),
            ('{"a": "\t"}', "Line 1, column 8"),
        ):
            self.assertIn(f"Enter valid JSON. {place}: ", self.get_error("overrides", text))
        self.assertIn("too deep", self.get_error("overrides", "[" * 100_000))
        for text in ('{"a": NaN}', '{"a": "\\u0000"}', '{"a": "\\ud800"}', '{"a": "' + "x" * 3000 + '"}'):
            self.assertIn("too long or too deep", self.get_error("overrides", text))
        self.assertEqual(self.save(overrides="").overrides, {})

    def test_overrides_cannot_change_what_the_bridge_needs(self) -> None:
        for text, error in (
            ('{"clientMessages": []}', "clientMessages cannot be overridden"),
            ('{"metadata": {}}', "metadata cannot be overridden"),
            ('{"server": {"url": "https://evil.example"}}', "server cannot be overridden"),
            ('{"maxDurationSeconds": 5}', "maxDurationSeconds cannot be overridden"),
            ('{"startSpeakingPlan": {"waitSeconds": 1}}', "startSpeakingPlan.waitSeconds cannot"),
            ('{"artifactPlan": {"recordingEnabled": true}}', "artifactPlan.recordingEnabled cannot"),
            ('{"variableValues": {"caller": "x"}}', "variableValues.caller cannot"),
        ):
            self.assertIn(error, self.get_error("overrides", text))
        overrides = '{"firstMessage": "Hello.", "variableValues": {"shop": "x"}, "startSpeakingPlan": null}'
        self.assertEqual(self.save(overrides=overrides).overrides["variableValues"], {"shop": "x"})

    def test_values_have_limits(self) -> None:
        for field, text in (
            ("endpointing_ms", "5001"), ("max_concurrent_calls", "0"), ("max_call_seconds", "9"),
            ("max_call_seconds", "14401"),
        ):  # fmt: skip
            self.assertIn("Enter a number from", self.get_error(field, text))
        for field in ("greeting", "disclosure", "closed_message"):
            self.assertIn("at most 1000 characters", self.get_error(field, "x" * 1001))
        self.assertIn("letters, digits, hyphens", self.get_error("assistant_id", "a/b"))


class RouteTests(TestCase):
    def test_a_row_becomes_a_route(self) -> None:
        number = make_number(
            assistant_id="a1", overrides={"firstMessage": "Hi"}, endpointing_ms=400, greeting="Hello.",
            hours="Mon-Fri 08:00-18:00", time_zone="Europe/Berlin", closed_message="Later.",
            fallback_number="+15550101111", record_calls=True, max_concurrent_calls=3, max_call_seconds=60,
        )  # fmt: skip
        hours = routes.parse_opening_hours("Mon-Fri 08:00-18:00", "Europe/Berlin")
        assert hours is not None and str(hours.zone) == "Europe/Berlin"
        expected = Route(
            id=str(number.pk), number=NUMBER, assistant_id="a1", overrides={"firstMessage": "Hi"},
            endpointing_ms=400, greeting="Hello.", fallback_number="+15550101111", max_call_seconds=60,
            record=True, disclosure=AN_AI, hours=hours, closed_message="Later.", max_concurrent_calls=3,
        )  # fmt: skip
        self.assertEqual(resolve_route(), expected)

    def test_every_number_discloses_the_ai_unless_switched_off(self) -> None:
        number = make_number()
        with override_settings(AI_DISCLOSURE="An AI."):
            self.assertEqual(resolve_route().disclosure, "An AI.")
        with override_settings(AI_DISCLOSURE=""):
            self.assertEqual(resolve_route().disclosure, "")
            PhoneNumber.objects.update(discloses_ai=True)
            self.assertEqual(resolve_route().disclosure, AN_AI)
        PhoneNumber.objects.update(disclosure=" A machine. ")
        self.assertEqual(resolve_route().disclosure, "A machine.")
        PhoneNumber.objects.filter(pk=number.pk).update(discloses_ai=False)
        self.assertEqual(resolve_route().disclosure, "")

    def test_an_inactive_number_uses_the_settings(self) -> None:
        make_number(active=False)
        self.assertEqual(read_routes(), [])

    def test_invalid_hours_count_as_always_open_and_are_logged_once(self) -> None:
        routes.parse_opening_hours.cache_clear()
        for hours, zone in (("always", ""), ("Mon 08:00-09:00", "Mars"), ("Mon 08:00-09:00", "../x")):
            PhoneNumber.objects.all().delete()
            make_number(hours=hours, time_zone=zone)
            with self.assertLogs("calls.routes", "WARNING") as logs:
                self.assertEqual([resolve_route().hours for _ in range(3)], [None] * 3)
            self.assertEqual(len(logs.output), 1, logs.output)


class DatabaseDownTests(TransactionTestCase):
    def test_routes_stay_while_the_database_is_down_which_is_logged_once(self) -> None:
        make_number()
        received: list[list[Mapping[str, Any]]] = []

        def receive(routes: Iterable[Mapping[str, Any]]) -> None:
            received.append(list(routes))

        housekeeping = Housekeeping(list, receive, started_at=0.0)
        housekeeping.refresh()
        down = connection.execute_wrapper(raise_error)
        with self.assertLogs("calls.ingest.housekeeping", "INFO") as logs:
            with down:
                for _ in range(3):
                    housekeeping.refresh()
            self.assertEqual(len(received), 1)
            housekeeping.refresh()
        self.assertEqual(len(received), 2)
        self.assertEqual([record.levelname for record in logs.records], ["WARNING", "INFO"], logs.output)
        self.assertIn("OperationalError", logs.output[0])


def raise_error(*_: Any) -> Any:
    raise OperationalError("the server closed the connection unexpectedly")


class NumberAdminTests(TestCase):
    def get_page(self, url: str, *permissions: str) -> str:
        self.client.force_login(make_staff(*permissions))
        response = self.client.get(url)
        self.assertEqual(response.status_code, 200)
        return unescape(response.content.decode())

    def change_url(self, number: PhoneNumber) -> str:
        return reverse("admin:calls_phonenumber_change", args=[number.pk])

    def test_it_says_when_a_change_takes_effect(self) -> None:
        for url in (reverse(ADD), self.change_url(make_number())):
            self.assertIn(TAKES_EFFECT, self.get_page(url, *MAY_CHANGE, "view_numbers"))

    def test_a_saved_form_is_logged_with_a_masked_number(self) -> None:
        self.client.force_login(make_staff(*MAY_CHANGE, "view_numbers"))
        response = self.client.post(
            reverse(ADD), {**FORM, "number": "+1 555 987 0000", "hours": "Mon 08:00-9:00"}
        )
        self.assertRedirects(response, reverse(LIST))
        self.assertEqual(PhoneNumber.objects.get().number, NUMBER)
        self.assertNotIn("9870000", LogEntry.objects.get().object_repr)
        response = self.client.post(reverse(ADD), {**FORM, "hours": "Mon"})
        self.assertIn("Mon has no times.", unescape(response.content.decode()))

    def test_numbers_are_masked_without_the_permission(self) -> None:
        number = make_number(label="Front desk", fallback_number="+15550101111")
        for url in (reverse(LIST), self.change_url(number)):
            for permissions in (MAY_CHANGE, MAY_CHANGE[:1]):
                page = self.get_page(url, *permissions)
                self.assertNotRegex(page, "5559870000|5550101111")
                self.assertIn("+1 555 …0000", page)
                self.assertIn("+1 555 …1111", page)
            unmasked = self.get_page(url, *MAY_CHANGE, "view_numbers")
            self.assertRegex(unmasked, re.escape(NUMBER))

    def test_without_the_permission_other_fields_can_be_changed(self) -> None:
        number = make_number(fallback_number="+15550101111")
        self.client.force_login(make_staff(*MAY_CHANGE))
        form = {**FORM, "number": "+15550000000", "fallback_number": "", "greeting": "Hello."}
        self.assertRedirects(self.client.post(self.change_url(number), form), reverse(LIST))
        number.refresh_from_db()
        self.assertEqual(
            (number.number, number.fallback_number, number.greeting), (NUMBER, "+15550101111", "Hello.")
        )

    def test_search_does_not_reveal_masked_numbers(self) -> None:
        url = self.change_url(make_number(label="Front desk"))
        for permissions, query, found in (
            (MAY_CHANGE, "?q=%2B1555987", False),
            (MAY_CHANGE, "?q=front", True),
            ((*MAY_CHANGE, "view_numbers"), "?q=%2B1555987", True),
        ):
            self.assertEqual(url in self.get_page(reverse(LIST) + query, *permissions), found, query)

    def test_the_list_shows_which_numbers_are_open(self) -> None:
        make_number()
        make_number(number="+15559870001", hours="Mon 00:00-00:01", time_zone="", active=False)
        page = self.get_page(reverse(LIST), *MAY_CHANGE)
        self.assertRegex(page, r">\s*Open\s*<")
        self.assertRegex(page, r">\s*Default settings\s*<")
