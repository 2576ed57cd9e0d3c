"""The permission matrix: every URL, socket and admin model, with the expected status for each role.

The test walks the URL resolver, so a new URL without an entry fails. Each page is requested as every role
with GET and POST, each admin model with GET. 302 is the redirect to the login page, 405 a method that the URL
does not support. Webhooks authenticate by signature or secret and ignore sessions; the test client sends
neither and has no bridge, so they are only listed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from io import StringIO
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import async_to_sync
from channels.layers import InMemoryChannelLayer
from channels.sessions import CookieMiddleware
from channels.testing import WebsocketCommunicator
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client, TestCase, TransactionTestCase, override_settings
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from calls.models import AuditEntry, Call, PhoneNumber
from calls.staff import place_test_call
from calls.staff.live import consumer as live
from calls.stats import call_summary
from calls.tests.builders import make_call, make_event, make_staff, make_turn, make_utterance

WHO = ("anonymous", "no role", "viewer", "operator", "admin")

WEBHOOKS = {
    "twilio_voice",
    "twilio_after",
    "twilio_status",
    "twilio_whisper",
    "twilio_stream",
    "vapi_events",
    "healthz",
    "readyz",
    "doctor_echo",
}

# name: statuses of GET for each of WHO, then of POST.
PAGES: dict[str, tuple[str, str]] = {
    "dashboard": ("302 403 200 200 200", "302 403 405 405 405"),
    "call_list": ("302 403 200 200 200", "302 403 405 405 405"),
    "call_export": ("302 403 403 200 200", "302 403 405 405 405"),
    "saved_views": ("302 403 405 405 405", "302 403 302 302 302"),
    "saved_view_delete": ("302 403 405 405 405", "302 403 302 302 302"),
    "call_detail": ("302 403 200 200 200", "302 403 405 405 405"),
    "call_note": ("302 403 405 405 405", "302 403 403 302 302"),
    "live_board": ("302 403 200 200 200", "302 403 405 405 405"),
    "live_call": ("302 403 200 200 200", "302 403 405 405 405"),
    "call_hang_up": ("302 403 405 405 405", "302 403 403 302 302"),
    "call_say": ("302 403 405 405 405", "302 403 403 302 302"),
    "call_transfer": ("302 403 405 405 405", "302 403 403 302 302"),
    "drain": ("302 403 405 405 405", "302 403 403 403 302"),
    "set_up": ("302 403 200 200 200", "302 403 200 200 200"),
    "test_call_started": ("302 403 200 200 200", "302 403 405 405 405"),
    "test_call": ("302 403 405 405 405", "302 403 403 302 302"),
    "admin:index": ("302 200 200 200 200", "302 200 200 200 200"),
    "admin:login": ("200 302 302 302 302", "200 200 200 200 200"),
    "admin:logout": ("302 405 405 405 405", "302 200 200 200 200"),
    "admin:password_change": ("302 200 200 200 200", "302 200 200 200 200"),
    "admin:password_change_done": ("302 200 200 200 200", "302 405 405 405 405"),
    "admin:jsi18n": ("302 200 200 200 200", "302 405 405 405 405"),
    "admin:autocomplete": ("302 403 403 403 403", "302 405 405 405 405"),
    "admin:app_list": ("302 404 200 200 200", "302 404 200 200 200"),
    "admin:search": ("302 200 200 200 200", "302 200 200 200 200"),
    "admin:view_on_site": ("302 404 404 404 404", "302 404 404 404 404"),
}
# Websockets by pattern: the roles that are accepted. Twilio signs the handshake of the media stream.
SOCKETS = {"live": "viewer operator admin", "^media-stream/?$": ""}
# Rows of the admin by model: who may list and open them, add them, change them, delete them.
MODELS: dict[str, dict[str, str]] = {
    "calls_call": {"view": "viewer operator admin", "change": "operator admin", "delete": "admin"},
    "calls_utterance": {"view": "viewer operator admin"},
    "calls_turn": {"view": "viewer operator admin"},
    "calls_callevent": {"view": "viewer operator admin"},
    "calls_phonenumber": {"view": "operator admin", "add": "admin", "change": "admin", "delete": "admin"},
    "calls_auditentry": {"view": "admin"},
    "auth_user": {"view": "admin", "add": "admin", "change": "admin", "delete": "admin"},
    "auth_group": {"view": "admin", "add": "admin", "change": "admin", "delete": "admin"},
}
ACTIONS = {"changelist": "view", "add": "add", "change": "view", "history": "view", "delete": "delete"}


def iterate_names(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            namespace = f"{pattern.namespace}:" if pattern.namespace else ""
            yield from iterate_names(pattern, prefix + namespace)
        else:
            assert isinstance(pattern, URLPattern)
            yield prefix + (pattern.name or f"<{pattern.pattern}>")


# URLs of the admin without an entry: a redirect without a name, and the catch-all.
UNNAMED = {"admin:<<path:object_id>/>", "admin:<(?P<url>.*)$>"}


@pytest.mark.slow
class PermissionMatrixTests(TestCase):
    call: Call
    users: dict[str, User | None]

    @classmethod
    def setUpTestData(cls) -> None:
        cls.call = make_call()
        make_utterance(cls.call)
        make_turn(cls.call)
        make_event(cls.call)
        PhoneNumber.objects.create(number="+15559870000")
        call_summary.update_summaries([cls.call])
        cls.users = {"anonymous": None, "no role": make_staff()}
        for role in WHO[2:]:
            user = make_staff()
            call_command("create_roles", user=user.username, role=role, stdout=StringIO())
            cls.users[role] = user
        AuditEntry.objects.create(username="somebody", action="opened")

    def request_status(self, who: str, method: str, url: str) -> int:
        user = self.users[who]
        self.client.logout()
        if user is not None:
            self.client.force_login(user)
        response: Any = getattr(self.client, method)(url)
        if response.status_code == 302 and user is None:
            self.assertIn("/admin/", response["Location"])
        return int(response.status_code)

    def build_url(self, name: str) -> str:
        if name in ("call_list", "call_export"):
            return reverse(name)
        if name == "test_call_started":
            return reverse(name, args=["CA" + "0" * 32])
        if name.startswith(("call_", "live_call", "saved_view_")):
            return reverse(name, args=[self.call.pk])
        if name == "admin:app_list":
            return reverse(name, args=["calls"])
        if name == "admin:view_on_site":
            return reverse(name, args=[999, 1])
        return reverse(name)

    def test_every_url_is_in_the_table(self) -> None:
        names = set(iterate_names(get_resolver()))
        rows = {f"admin:{model}_{action}" for model in MODELS for action in ACTIONS}
        expected = rows | PAGES.keys() | WEBHOOKS | UNNAMED | {"admin:auth_user_password_change"}
        self.assertEqual(names - expected, set(), "URLs without an entry")
        self.assertEqual(expected - names, set(), "entries without a URL")

    # The set-up page runs the doctor, which contacts the configured hosts: here a port that refuses at once.
    @override_settings(
        TWILIO_BASE_URL="http://127.0.0.1:9", VAPI_BASE_URL="http://127.0.0.1:9", PUBLIC_URL=""
    )
    def test_each_page_responds_with_the_status_in_the_table(self) -> None:
        # All slots are taken, so that no test call is placed.
        for _ in range(place_test_call.MAX_CONCURRENT):
            place_test_call._free_slots.acquire()
            self.addCleanup(place_test_call._free_slots.release)
        for name, statuses in PAGES.items():
            for method, expected in zip(("get", "post"), statuses, strict=True):
                actual = " ".join(str(self.request_status(who, method, self.build_url(name))) for who in WHO)
                self.assertEqual(actual, expected, f"{method.upper()} {name}")

    def test_each_admin_page_responds_with_the_status_in_the_table(self) -> None:
        for model, roles in MODELS.items():
            app, name = model.split("_", 1)
            for action, needed in ACTIONS.items():
                pk = self.find_pk(model)
                args = [] if action in ("changelist", "add") else [pk]
                url = reverse(f"admin:{app}_{name}_{action}", args=args)
                for who in WHO:
                    allowed = who in roles.get(needed, "").split()
                    expected = 302 if who == "anonymous" else 200 if allowed else 403
                    self.assertEqual(self.request_status(who, "get", url), expected, f"{who}: GET {url}")

    def find_pk(self, model: str) -> int:
        app, name = model.split("_", 1)
        row = apps.get_model(app, name)._default_manager.order_by("pk").first()
        if row is None:
            self.fail(f"no row of {model}")
        return int(row.pk)

    def test_changes_need_the_permission_to_change(self) -> None:
        data = {"outcome": "booked", "note": "", "inlines": ""}
        for name in ("utterances", "turns"):
            data |= {f"{name}-TOTAL_FORMS": "0", f"{name}-INITIAL_FORMS": "0"}
        url = reverse("admin:calls_call_change", args=[self.call.pk])
        for who in WHO:
            Call.objects.update(outcome="")
            self.client.logout()
            if (user := self.users[who]) is not None:
                self.client.force_login(user)
            self.client.post(url, data)
            is_changed = Call.objects.get(pk=self.call.pk).outcome == "booked"
            self.assertEqual(is_changed, who in MODELS["calls_call"]["change"].split(), who)

    def test_deleting_needs_the_permission_to_delete(self) -> None:
        for who in WHO:
            call = make_call()
            self.client.logout()
            if (user := self.users[who]) is not None:
                self.client.force_login(user)
            self.client.post(reverse("admin:calls_call_delete", args=[call.pk]), {"post": "yes"})
            is_deleted = not Call.objects.filter(pk=call.pk).exists()
            self.assertEqual(is_deleted, who == "admin", who)


PRINT_SOCKETS = (
    "from voiceai.asgi import build_sockets;"
    "print(*(route.pattern for route in build_sockets(None, '').routes), sep='\\n')"
)


@pytest.mark.slow
class SocketMatrixTests(TransactionTestCase):
    """The websockets of the matrix."""

    def setUp(self) -> None:
        self.enterContext(mock.patch.object(live, "get_channel_layer", return_value=InMemoryChannelLayer()))

    def test_every_socket_is_in_the_table(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            variables = {"DATABASE_URL": "", "REDIS_URL": "", "JOURNAL_DIR": folder, "DJANGO_DEBUG": "on"}
            result = subprocess.run(
                [sys.executable, "-c", PRINT_SOCKETS],
                cwd=settings.BASE_DIR, env=os.environ | variables, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
        self.assertEqual(set(result.stdout.split()), SOCKETS.keys(), result.stderr)

    async def can_connect(self, client: Client, path: str) -> bool:
        cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
        headers = {"host": "127.0.0.1", "origin": "http://127.0.0.1", "cookie": cookies}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        socket = WebsocketCommunicator(CookieMiddleware(live.LiveConsumer.as_asgi()), path, raw)
        connected, _ = await socket.connect(timeout=5)
        await socket.disconnect()
        return bool(connected)

    def test_the_live_socket_accepts_the_roles_in_the_table(self) -> None:
        call = make_call(status="in-progress", end_reason="")
        for who in WHO:
            client = Client()
            if who != "anonymous":
                user = make_staff()
                if who != "no role":
                    call_command("create_roles", user=user.username, role=who, stdout=StringIO())
                client.force_login(user)
            for path in ("/live", f"/live?call={call.pk}"):
                connected = async_to_sync(self.can_connect)(client, path)
                self.assertEqual(connected, who in SOCKETS["live"].split(), f"{who}: {path}")
