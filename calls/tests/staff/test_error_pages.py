"""Error pages of strangers, and of everyone when the server fails."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import OperationalError, connection
from django.http import Http404, HttpRequest
from django.test import Client, SimpleTestCase, TestCase, override_settings
from django.urls import path, reverse

from calls.tests.builders import make_staff
from voiceai.urls import urlpatterns as project_urls


def fail(error: Exception) -> Any:
    def view(request: HttpRequest) -> Any:
        raise error

    return view


class Urls:
    """The project's URLs, and pages that fail."""

    urlpatterns = [
        path("fails/400", fail(SuspiciousOperation("a secret detail"))),
        path("fails/403", fail(PermissionDenied("a secret detail"))),
        path("fails/404", fail(Http404("a secret detail"))),
        path("fails/500", fail(RuntimeError("a secret detail"))),
        path("fails/database", fail(OperationalError("a secret detail"))),
        *project_urls,
    ]
    handler400 = "calls.staff.pages.handler400"
    handler403 = "calls.staff.pages.handler403"
    handler404 = "calls.staff.pages.handler404"
    handler500 = "calls.staff.pages.handler500"


CASES = (
    ("/fails/400", 400, "Bad request", False),
    ("/fails/403", 403, "Permission denied", True),
    ("/fails/404", 404, "Page not found", True),
    ("/no/such/page", 404, "Page not found", True),
    ("/static/no-such-file.css", 404, "Page not found", True),
    ("/fails/500", 500, "Server error", False),
    ("/fails/database", 500, "Server error", False),
)


@override_settings(ROOT_URLCONF=Urls, DEBUG=False)
class StrangersErrorPageTests(SimpleTestCase):
    def check(self, response: Any, status: int, title: str, can_sign_in: bool) -> None:
        page = unescape(response.content.decode())
        self.assertEqual(response.status_code, status)
        self.assertIn(f"<h1>{title}</h1>", page)
        self.assertIn("prefers-color-scheme: dark", page)
        self.assertNotIn("a secret detail", page)
        # Nothing else is loaded or linked.
        links = re.findall(r"""(?:href|src|action|url)\s*[=(]\s*["']?([^"')>\s]+)""", page)
        self.assertEqual(links, [reverse("admin:login")] if can_sign_in else [])

    def test_each_error_has_a_page_without_the_database(self) -> None:
        client = Client(raise_request_exception=False)
        for address, status, title, can_sign_in in CASES:
            with self.subTest(address):
                self.check(client.get(address), status, title, can_sign_in)

    def test_a_wrong_host_has_a_page(self) -> None:
        self.check(Client().get("/", headers={"host": "evil.example"}), 400, "Bad request", False)

    def test_a_form_without_a_token_has_a_page(self) -> None:
        client = Client(enforce_csrf_checks=True)
        self.check(client.post(reverse("admin:login"), {"username": "x"}), 403, "Form expired", False)

    def test_a_broken_static_manifest_does_not_matter(self) -> None:
        storage = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
        with override_settings(STORAGES={"staticfiles": {"BACKEND": storage}}):
            self.check(Client(raise_request_exception=False).get("/fails/500"), 500, "Server error", False)


@override_settings(DEBUG=False)
class DatabaseAwayTests(TestCase):
    def test_staff_get_the_page_when_the_database_is_away(self) -> None:
        self.client.force_login(make_staff("view_call"))
        self.client.raise_request_exception = False

        def refuse(*_: Any) -> Any:
            raise OperationalError("the server closed the connection unexpectedly")

        for address in ("/", "/no/such/page", "/admin/"):
            with self.subTest(address), connection.execute_wrapper(refuse):
                response = self.client.get(address)
                self.assertEqual(response.status_code, 500)
                self.assertContains(response, "<h1>Server error</h1>", status_code=500)
