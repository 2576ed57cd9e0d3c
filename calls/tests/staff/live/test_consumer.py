"""The live board and the `/live` socket: content, permissions, and failures of cache and channel layer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from channels.layers import InMemoryChannelLayer
from channels.sessions import CookieMiddleware
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.test import Client, SimpleTestCase, TestCase, TransactionTestCase, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bridge.journal import LiveNote
from calls.models import AuditEntry, Call, PhoneNumber
from calls.staff.live import consumer, publisher
from calls.staff.live.board import MAX_ROWS, live_rows, render_board
from calls.staff.live.fragments import MAX_CACHED, FragmentCache, Subscription
from calls.staff.live.publisher import GROUP, Publisher, SharedDestination, get_notes
from calls.tests.builders import call_sid, make_call, make_staff, make_turn, make_utterance
from calls.viewer import Viewer

STAFF = Viewer(can_view_calls=True)
OPERATOR = Viewer(can_view_calls=True, can_view_numbers=True, can_act=True)
XSS = "<script>alert(1)</script>"
SEPARATE_CACHE = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "live"}}
DEAD_REDIS = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://127.0.0.1:1",
    }
}


def make_live_call(**changes: Any) -> Call:
    now = timezone.now()
    values = {
        "status": "in-progress",
        "end_reason": "",
        "ended_by": "",
        "answered_at": now,
        "started_at": now,
    }
    return make_call(**(values | {"vapi_call_id": "vapi-1"} | changes))


def make_note(call: Call, **changes: Any) -> LiveNote:
    values: dict[str, Any] = {"at_ms": 1000, "floor_since": time.time()}
    return LiveNote(call.call_sid, **(values | changes))


def publish(*notes: LiveNote) -> None:
    live = Publisher(SharedDestination())
    for each in notes:
        live.put_note(each)
    assert live.publish()


@contextmanager
def separate_cache() -> Iterator[None]:
    """A separate cache without a recorded failure."""
    with override_settings(CACHES=SEPARATE_CACHE), mock.patch.object(publisher, "_cache_retry_at", 0.0):
        cache.clear()
        yield


class CacheTestCase(SimpleTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(separate_cache())


class BoardTests(CacheTestCase, TestCase):
    def test_without_live_calls_the_board_says_so(self) -> None:
        make_call()
        self.assertIn("No live calls", render_board(STAFF))

    def test_the_newest_calls_come_first_up_to_the_limit(self) -> None:
        now = timezone.now()
        calls = [make_live_call(started_at=now - timedelta(seconds=age)) for age in range(MAX_ROWS + 1)]
        rows = live_rows(STAFF)
        self.assertEqual([row.call for row in rows], calls[:MAX_ROWS])
        self.assertIn(f"Showing the newest {MAX_ROWS} calls.", render_board(STAFF))

    def test_ended_and_stale_calls_are_not_listed(self) -> None:
        make_live_call(status="completed", end_reason="caller-hung-up")
        make_live_call(end_reason="assistant-failed")  # Twilio still handles it
        make_live_call(started_at=timezone.now() - timedelta(hours=5))
        make_live_call(status="ringing")
        self.assertEqual(live_rows(STAFF), [])

    def test_it_masks_numbers_unless_the_viewer_may_see_them(self) -> None:
        make_live_call(from_number="+15550100134", to_number="+15559870000")
        with override_settings(FALLBACK_NUMBER="+15550107777"):
            masked, unmasked = render_board(Viewer(can_view_calls=True, can_act=True)), render_board(OPERATOR)
        for number in ("+15550100134", "+15559870000", "+15550107777"):
            self.assertNotIn(number, masked)
            self.assertIn(number, unmasked)

    def test_an_outbound_call_shows_the_callee(self) -> None:
        PhoneNumber.objects.create(number="+15559870000", label="Front desk")
        make_live_call(direction="outbound-api", from_number="+15559870000", to_number="+15550100134")
        (row,) = live_rows(OPERATOR)
        self.assertEqual((row.caller, row.number_label), ("+15550100134", "Front desk"))

    def test_it_shows_the_latest_lines_and_the_partial_transcript(self) -> None:
        call = make_live_call()
        for text in ("First.", "Second.", "Third."):
            make_utterance(call, text=text)
        publish(make_note(call, floor="caller", speaker="caller", partial="can I move it to"))
        html = render_board(STAFF)
        self.assertNotIn("First.", html)
        self.assertLess(html.index("Second."), html.index("Third."))
        self.assertLess(html.index("Third."), html.index("can I move it to…"))
        self.assertIn("Caller speaking", html)

    def test_a_partial_that_is_an_utterance_already_is_shown_once(self) -> None:
        """The row and the live note come from different places, and either may be first."""
        for speaker, stored, partial, expected in (
            ("caller", "Can I move it?", "can I move it?", ""),
            ("caller", "Hello. Can I move it?", "Can I move it?", ""),
            ("caller", "Can I move it?", "Can I move it? And", "Can I move it? And"),
            ("assistant", "Can I move it?", "Can I move it?", "Can I move it?"),
        ):
            call = make_live_call()
            make_utterance(call, text=stored)
            publish(make_note(call, speaker=speaker, partial=partial))
            with self.subTest(partial, speaker=speaker):
                (row,) = (row for row in live_rows(OPERATOR) if row.call == call)
                self.assertEqual(row.partial, expected)

    def test_what_staff_had_the_assistant_say_is_marked(self) -> None:
        call, other = make_live_call(), make_live_call()
        AuditEntry.objects.create(
            call=call, username="ops", action="say", detail="One moment, please. I am looking it up."
        )
        AuditEntry.objects.create(call=other, username="ops", action="say", detail="Yes")
        for at, speaker, text, is_marked in (
            (call, "assistant", "one moment please, I am looking it up", True),
            (call, "assistant", "I am looking it up.", True),
            (call, "assistant", "Well. One moment, please. I am looking it up.", True),
            (call, "assistant", "I am", False),
            (call, "assistant", "How can I help?", False),
            (call, "caller", "One moment, please. I am looking it up.", False),
            (other, "assistant", "Yes.", True),
            (other, "assistant", "Yes, Tuesday is free.", False),
            (other, "assistant", "One moment, please. I am looking it up.", False),
        ):
            with self.subTest(text, speaker=speaker):
                utterance = make_utterance(at, speaker=speaker, text=text)
                row = next(row for row in live_rows(OPERATOR) if row.call == at)
                self.assertEqual(dict(row.spoken)[utterance], is_marked)
                if is_marked:
                    self.assertIn("by staff", render_board(OPERATOR))

    def test_the_latency_comes_from_the_note_or_the_last_turn(self) -> None:
        call = make_live_call()
        make_turn(call, response_latency_ms=880)
        make_turn(call, response_latency_ms=None)
        self.assertEqual(live_rows(STAFF)[0].latency_ms, 880)
        publish(make_note(call, latency_ms=940))
        self.assertIn("0.94 s", render_board(STAFF))

    def test_a_silence_of_five_seconds_is_a_warning(self) -> None:
        call = make_live_call()
        publish(make_note(call, floor="", floor_since=time.time() - 4))
        self.assertFalse(live_rows(STAFF)[0].is_silent)
        self.assertIn("hidden>⚠ silent", render_board(STAFF))
        publish(make_note(call, floor="", floor_since=time.time() - 9))
        self.assertTrue(live_rows(STAFF)[0].is_silent)
        self.assertIn(">⚠ silent for 9 s", render_board(STAFF))
        publish(make_note(call, floor="assistant", floor_since=time.time() - 9))
        self.assertNotIn("⚠ silent", render_board(STAFF))

    def test_there_is_no_silence_warning_before_the_assistant_answers(self) -> None:
        call = make_live_call(answered_at=None)
        publish(make_note(call, floor_since=time.time() - 9))
        self.assertFalse(live_rows(STAFF)[0].is_silent)

    def test_without_a_note_the_state_of_the_call_is_shown(self) -> None:
        for changes, state in (
            ({"answered_at": None}, "Connecting assistant"),
            ({}, "Connected"),
            ({"end_requested": "hung-up-by-staff"}, "Hanging up"),
            ({"end_requested": "transferred"}, "Transferring"),
        ):
            make_live_call(**changes)
            self.assertEqual(live_rows(STAFF)[0].state, state)
            self.assertIn(state, render_board(STAFF))

    def test_the_timer_starts_with_the_call(self) -> None:
        make_live_call(started_at=timezone.now() - timedelta(seconds=102.2))
        make_live_call(started_at=timezone.now() - timedelta(seconds=3 * 3600 + 65.2))
        self.assertEqual([row.timer for row in live_rows(STAFF)], ["1:42", "3:01:05"])

    def test_untrusted_text_is_escaped(self) -> None:
        call = make_live_call(from_number=XSS, to_number=XSS)
        make_utterance(call, text=XSS)
        publish(make_note(call, speaker="caller", partial=XSS + "\ud800\x00"))
        html = render_board(OPERATOR)
        self.assertNotIn(XSS, html)
        self.assertIn("&lt;script&gt;alert(1)", html)
        html.encode()

    def test_actions_need_the_permission_to_act(self) -> None:
        make_live_call()
        self.assertNotIn("hang-up", render_board(STAFF))
        self.assertIn("Hang up now", render_board(OPERATOR))

    def test_it_offers_only_available_actions(self) -> None:
        make_live_call()
        html = render_board(OPERATOR)
        self.assertIn(">Say<", html)
        self.assertIn("FALLBACK_NUMBER", html)
        with override_settings(VAPI_SOCKET_URL="ws://127.0.0.1:1", FALLBACK_NUMBER="+15550107777"):
            html = render_board(OPERATOR)
        self.assertNotIn(">Say<", html)
        self.assertIn("Transfer to +15550107777", html)

    def test_an_active_numbers_fallback_overrides_the_default(self) -> None:
        number = PhoneNumber.objects.create(number="+15559870000", fallback_number="+15550101111")
        make_live_call(to_number=number.number)
        with override_settings(FALLBACK_NUMBER="+15550107777"):
            self.assertEqual(live_rows(OPERATOR)[0].fallback_number, "+15550101111")
            PhoneNumber.objects.update(active=False)
            self.assertEqual(live_rows(OPERATOR)[0].fallback_number, "+15550107777")

    def test_the_number_of_queries_does_not_grow_with_the_calls(self) -> None:
        def count_queries() -> int:
            with CaptureQueriesContext(connection) as queries:
                render_board(OPERATOR)
            return len(queries)

        make_turn(call := make_live_call())
        make_utterance(call)
        few = count_queries()
        for _ in range(20):
            make_turn(call := make_live_call(to_number=f"+1555{call_sid()[-7:]}"))
            make_utterance(call)
        self.assertEqual(count_queries(), few)
        self.assertLessEqual(few, 8)


class PollingTests(CacheTestCase, TestCase):
    def test_polling_returns_the_same_html(self) -> None:
        call = make_live_call()
        self.client.force_login(make_staff("view_call"))
        board = self.client.get("/live/board")
        self.assertContains(board, f'id="live-{call.pk}"')
        self.assertContains(board, 'id="live-board"')
        body = self.client.get(f"/live/calls/{call.pk}")
        self.assertContains(body, 'id="call-body"')
        self.assertEqual(AuditEntry.objects.filter(action="opened", call=call).count(), 1)
        self.assertEqual(self.client.get("/live/calls/999999").status_code, 404)

    def test_polling_needs_the_permission_to_view_calls(self) -> None:
        call = make_live_call()
        for path in ("/live/board", f"/live/calls/{call.pk}"):
            self.assertEqual(Client().get(path).status_code, 302)
            for user, status in ((make_staff(), 403), (User.objects.create_user(call_sid()), 302)):
                client = Client()
                client.force_login(user)
                self.assertEqual(client.get(path).status_code, status)
            self.client.force_login(make_staff("view_call"))
            self.assertEqual(self.client.post(path).status_code, 405)

    def test_the_dashboard_contains_the_board_and_the_update_urls(self) -> None:
        call = make_live_call()
        self.client.force_login(make_staff("view_call"))
        page = self.client.get("/").content.decode()
        self.assertIn(f'id="live-{call.pk}"', page)
        self.assertIn('data-live="/live" data-poll="/live/board"', page)
        self.assertRegex(page, 'data-csrf="[A-Za-z0-9]{64}"')


class NoteTests(CacheTestCase):
    def test_the_latest_note_of_a_call_is_published(self) -> None:
        publish(LiveNote("CA1", 1, partial="first"), LiveNote("CA2", 1), LiveNote("CA1", 2, partial="second"))
        found = get_notes(["CA1", "CA2", "CA3"])
        self.assertEqual({sid: each.partial for sid, each in found.items()}, {"CA1": "second", "CA2": ""})

    def test_a_note_of_another_version_is_ignored(self) -> None:
        cache.set("live:CA1", {"call_sid": "CA1", "what": "ever"})
        publish(LiveNote("CA2", 1))
        self.assertEqual(list(get_notes(["CA1", "CA2"])), ["CA2"])

    def test_pending_changes_are_limited_and_drops_are_counted(self) -> None:
        live = Publisher(SharedDestination())
        with mock.patch.object(publisher, "MAX_PENDING", 2):
            for number in range(5):
                live.put_note(LiveNote(f"CA{number}", 1))
            live.put_note(LiveNote("CA0", 2))  # replaces the pending note
            live.notify_changed(f"CA{number}" for number in range(5))
        self.assertEqual(live.dropped, 6)
        self.assertEqual(live.pending, 4)

    def test_a_failed_publish_is_retried_with_the_latest_note(self) -> None:
        live = Publisher(SharedDestination())
        live.put_note(LiveNote("CA1", 1))
        live.put_note(LiveNote("CA2", 1))
        live.notify_changed({"CA3"})
        with override_settings(CACHES=DEAD_REDIS), self.assertLogs("calls.staff.live.publisher", "WARNING"):
            self.assertFalse(live.publish())
        live.put_note(LiveNote("CA1", 2))
        self.assertEqual((live.failures, live.pending), (1, 3))
        self.assertTrue(live.publish())
        self.assertEqual(
            {sid: each.at_ms for sid, each in get_notes(["CA1", "CA2"]).items()}, {"CA1": 2, "CA2": 1}
        )
        self.assertEqual(live.pending, 0)

    def test_a_failed_cache_gives_no_notes_and_is_not_read_for_a_while(self) -> None:
        publish(LiveNote("CA1", 1))
        with override_settings(CACHES=DEAD_REDIS), self.assertLogs("calls.staff.live.publisher", "WARNING"):
            self.assertEqual(get_notes(["CA1"]), {})
        with self.assertNoLogs("calls.staff.live.publisher", "WARNING"):
            self.assertEqual(get_notes(["CA1"]), {}, "the cache was read again immediately")
        with mock.patch.object(publisher, "_cache_retry_at", time.monotonic() - 1):
            self.assertEqual(list(get_notes(["CA1"])), ["CA1"])


class FrozenLayer(InMemoryChannelLayer):  # type: ignore[misc]
    """Accepts connections and never responds."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await asyncio.Event().wait()


async def test_notifications_name_the_changed_calls() -> None:
    layer, destination = InMemoryChannelLayer(), SharedDestination()
    live = Publisher(destination)
    destination.attach(asyncio.get_running_loop())
    channel = await layer.new_channel()
    await layer.group_add(GROUP, channel)
    with mock.patch.object(publisher, "get_channel_layer", return_value=layer):
        live.notify_changed({"CA2", "CA1"})
        assert await asyncio.to_thread(live.publish)
        assert (await layer.receive(channel))["calls"] == ["CA1", "CA2"]
        live.notify_changed(f"CA{number}" for number in range(101))
        assert await asyncio.to_thread(live.publish)
        assert (await layer.receive(channel))["calls"] == [], "too many to name: any call"


async def test_a_hanging_channel_layer_times_out() -> None:
    destination = SharedDestination()
    live = Publisher(destination)
    destination.attach(asyncio.get_running_loop())
    live.notify_changed({"CA1"})
    with mock.patch.object(publisher, "get_channel_layer", return_value=FrozenLayer()):
        started_at = time.monotonic()
        assert not await asyncio.to_thread(live.publish)
    assert time.monotonic() - started_at < 1
    assert (live.failures, live.pending) == (1, 1)


def test_the_thread_publishes_pending_notes_and_stops() -> None:
    with separate_cache(), mock.patch.object(publisher, "INTERVAL_SECONDS", 0.01):
        live = Publisher(SharedDestination())
        live.start()
        for number in range(3):
            live.put_note(LiveNote("CA1", number))
            deadline = time.monotonic() + 5
            while get_notes(["CA1"]).get("CA1") != LiveNote("CA1", number):
                assert time.monotonic() < deadline
        live.stop(5)
        assert not live.is_alive()


@pytest.mark.parametrize(
    ("origin", "host", "is_secure", "is_allowed"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", False, True),
        ("http://LOCALHOST:8000", "localhost:8000", False, True),
        # PUBLIC_URL is allowed, regardless of the host that the proxy sends.
        ("https://voice.example.com", "inside:8000", True, True),
        ("", "127.0.0.1:8000", False, False),
        ("null", "127.0.0.1:8000", False, False),
        ("http://[", "127.0.0.1:8000", False, False),
        ("http://127.0.0.1:8001", "127.0.0.1:8000", False, False),
        ("https://evil.example", "127.0.0.1:8000", False, False),
        # A name that resolves to this server, but is not in ALLOWED_HOSTS.
        ("https://evil.example", "evil.example", False, False),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True, False),
    ],
)
def test_a_socket_needs_an_allowed_origin(origin: str, host: str, is_secure: bool, is_allowed: bool) -> None:
    scope = {"headers": [(b"host", host.encode()), (b"origin", origin.encode())]}
    with override_settings(
        SESSION_COOKIE_SECURE=is_secure,
        CSRF_TRUSTED_ORIGINS=["https://voice.example.com"],
        ALLOWED_HOSTS=["voice.example.com", "localhost", "127.0.0.1"],
    ):
        assert consumer._has_allowed_origin(scope) is is_allowed


@pytest.mark.slow
class ConsumerTests(TransactionTestCase):
    """The consumer with its threads, on an in-memory channel layer."""

    def setUp(self) -> None:
        self.enterContext(separate_cache())
        self.layer = InMemoryChannelLayer()
        self.enterContext(mock.patch.object(consumer, "get_channel_layer", return_value=self.layer))
        self.enterContext(mock.patch.object(consumer, "fragment_cache", FragmentCache()))
        self.user = make_staff("view_call")
        self.client.force_login(self.user)

    def open_communicator(self, path: str = "/live", **changes: str) -> WebsocketCommunicator:
        cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in self.client.cookies.items())
        headers = {"host": "127.0.0.1", "origin": "http://127.0.0.1", "cookie": cookies} | changes
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        return WebsocketCommunicator(CookieMiddleware(consumer.LiveConsumer.as_asgi()), path, raw)

    async def notify_changed(self, *call_sids: str) -> None:
        await self.layer.group_send(GROUP, {"type": "calls.changed", "calls": list(call_sids)})

    async def is_rejected(self, path: str = "/live", **changes: str) -> bool:
        socket = self.open_communicator(path, **changes)
        connected, _ = await socket.connect(timeout=5)
        await socket.disconnect()
        return not connected

    async def test_a_socket_needs_the_permission_to_view_calls(self) -> None:
        self.assertFalse(await self.is_rejected())
        self.assertTrue(await self.is_rejected(cookie=""))
        self.assertTrue(await self.is_rejected(cookie="sessionid=" + "x" * 32))
        self.assertTrue(await self.is_rejected(origin="https://evil.example"))
        self.assertTrue(await self.is_rejected("/live?call=999999"))
        self.assertTrue(await self.is_rejected("/live?call=1%20OR%201"))
        for changes in ({"is_staff": False}, {"is_active": False}):
            await User.objects.filter(pk=self.user.pk).aupdate(**changes)
            self.assertTrue(await self.is_rejected())
            await User.objects.filter(pk=self.user.pk).aupdate(is_staff=True, is_active=True)
        await self.user.user_permissions.aclear()
        self.assertTrue(await self.is_rejected())
        self.assertEqual(consumer.LiveConsumer.subscribers, 0)

    async def test_the_number_of_sockets_is_limited(self) -> None:
        with mock.patch.object(consumer, "MAX_SUBSCRIBERS", 1):
            first = self.open_communicator()
            self.assertTrue((await first.connect())[0])
            self.assertTrue(await self.is_rejected())
            await first.disconnect()
            self.assertFalse(await self.is_rejected())

    async def test_a_new_call_appears_within_a_second(self) -> None:
        socket = self.open_communicator()
        await socket.connect()
        self.assertIn("No live calls", await socket.receive_from(timeout=5))
        call = await asyncio.to_thread(self.run_and_close, make_live_call)
        started_at = time.monotonic()
        await self.notify_changed(call.call_sid)
        self.assertIn(f'id="live-{call.pk}"', await socket.receive_from(timeout=5))
        self.assertLess(time.monotonic() - started_at, 1)
        await socket.disconnect()

    async def test_changes_are_batched_twice_a_second(self) -> None:
        socket = self.open_communicator()
        await socket.connect()
        started_at = time.monotonic()
        await socket.receive_from(timeout=5)
        for _ in range(50):
            await self.notify_changed("CA1")
        await socket.receive_from(timeout=5)
        self.assertGreaterEqual(time.monotonic() - started_at, consumer.MIN_INTERVAL_SECONDS)
        self.assertTrue(await socket.receive_nothing(timeout=consumer.MIN_INTERVAL_SECONDS + 0.3))
        await socket.disconnect()

    async def test_a_call_page_is_notified_of_its_call_only(self) -> None:
        call = await asyncio.to_thread(self.run_and_close, make_live_call)
        socket = self.open_communicator(f"/live?call={call.pk}")
        await socket.connect()
        self.assertIn('id="call-body"', await socket.receive_from(timeout=5))
        self.assertEqual(await AuditEntry.objects.filter(action="opened", user=self.user).acount(), 1)
        await self.notify_changed("CA-other")
        self.assertTrue(await socket.receive_nothing(timeout=consumer.MIN_INTERVAL_SECONDS + 0.3))
        for sids in ((call.call_sid,), ()):
            await self.notify_changed(*sids)
            self.assertIn('id="call-body"', await socket.receive_from(timeout=5))
        await Call.objects.all().adelete()
        await self.notify_changed()
        self.assertEqual((await socket.receive_output(timeout=5))["code"], consumer.CLOSE_FORBIDDEN)

    async def test_messages_from_the_page_are_ignored(self) -> None:
        socket = self.open_communicator()
        await socket.connect()
        await socket.receive_from(timeout=5)
        await socket.send_to(text_data='{"type": "calls.changed"}')
        await socket.send_to(bytes_data=b"\x00" * 1000)
        self.assertTrue(await socket.receive_nothing(timeout=consumer.MIN_INTERVAL_SECONDS + 0.3))
        await self.notify_changed()
        await socket.receive_from(timeout=5)
        await socket.disconnect()

    async def test_it_refreshes_without_notifications(self) -> None:
        with mock.patch.object(consumer, "REFRESH_SECONDS", 0.2):
            socket = self.open_communicator()
            await socket.connect()
            for _ in range(3):
                self.assertIn("live-board", await socket.receive_from(timeout=5))
            await socket.disconnect()

    async def wait_for_close(self, revoke: Callable[[], Awaitable[object]]) -> int:
        """The close code after `revoke` has removed session or permission."""
        with mock.patch.multiple(consumer, REFRESH_SECONDS=0.1, RECHECK_SECONDS=0.2):
            socket = self.open_communicator()
            self.assertTrue((await socket.connect())[0])
            await socket.receive_from(timeout=5)
            message = await socket.receive_output(timeout=5)
            await revoke()
            while message["type"] == "websocket.send":
                message = await socket.receive_output(timeout=5)
            return int(message["code"])

    async def test_logging_out_closes_the_socket(self) -> None:
        logged_out = await self.wait_for_close(
            lambda: asyncio.to_thread(self.run_and_close, self.client.logout)
        )
        self.assertEqual(logged_out, consumer.CLOSE_FORBIDDEN)

    async def test_losing_the_permission_closes_the_socket(self) -> None:
        self.assertEqual(
            await self.wait_for_close(self.user.user_permissions.aclear), consumer.CLOSE_FORBIDDEN
        )

    async def test_a_new_password_closes_the_socket(self) -> None:
        async def change() -> None:
            self.user.set_password("another one")
            await self.user.asave()

        self.assertEqual(await self.wait_for_close(change), consumer.CLOSE_FORBIDDEN)

    async def test_a_failed_channel_layer_closes_the_socket(self) -> None:
        for method in ("receive", "group_add"):
            with mock.patch.multiple(consumer, REFRESH_SECONDS=0.1, LAYER_TIMEOUT_SECONDS=0.1):
                socket = self.open_communicator()
                self.assertTrue((await socket.connect())[0])
                await socket.receive_from(timeout=5)
                hang = asyncio.Event().wait
                dead = mock.AsyncMock(side_effect=ConnectionError if method == "receive" else hang)
                with (
                    mock.patch.object(self.layer, method, dead),
                    self.assertLogs("calls.staff.live.consumer", "INFO"),
                ):
                    await self.notify_changed()  # makes the receiver call receive() again
                    message = await socket.receive_output(timeout=5)
                    while message["type"] == "websocket.send":
                        message = await socket.receive_output(timeout=5)
                self.assertEqual(message["code"], consumer.CLOSE_TRY_LATER, method)

    async def test_a_failed_database_rejects_the_socket(self) -> None:
        with (
            mock.patch.object(consumer, "_authorize", side_effect=ConnectionError),
            self.assertLogs("calls.staff.live.consumer", "WARNING"),
        ):
            self.assertTrue(await self.is_rejected())

    async def test_numbers_are_masked_per_viewer(self) -> None:
        await asyncio.to_thread(self.run_and_close, lambda: make_live_call(from_number="+15550100134"))
        are_shown = []
        for user in (
            self.user,
            await asyncio.to_thread(self.run_and_close, lambda: make_staff("view_call", "view_numbers")),
        ):
            await asyncio.to_thread(self.run_and_close, lambda user=user: self.client.force_login(user))
            socket = self.open_communicator()
            await socket.connect()
            are_shown.append("+15550100134" in await socket.receive_from(timeout=5))
            await socket.disconnect()
        self.assertEqual(are_shown, [False, True])

    async def test_times_are_in_the_viewers_time_zone(self) -> None:
        call = await asyncio.to_thread(
            self.run_and_close, lambda: make_live_call(started_at="2026-01-15T12:00:00Z")
        )
        self.client.cookies["tz"] = "America%2FNew_York"
        socket = self.open_communicator(f"/live?call={call.pk}")
        await socket.connect()
        html = await socket.receive_from(timeout=5)
        self.assertIn("07:00", html)
        await socket.disconnect()

    @staticmethod
    def run_and_close(function: Any) -> Any:
        """Call a function that uses the database on another thread, and close its connection."""
        try:
            return function()
        finally:
            connection.close()


class FragmentCacheTests(CacheTestCase, TestCase):
    def test_equal_subscriptions_share_one_rendering(self) -> None:
        fragments = FragmentCache()
        requested_at = time.monotonic()
        subscription = Subscription(STAFF, "", "")
        with CaptureQueriesContext(connection) as first:
            html = fragments.render(subscription, requested_at)
        self.assertTrue(first)
        with self.assertNumQueries(0):
            self.assertEqual(fragments.render(subscription, requested_at), html)
        with self.assertNumQueries(len(first)):
            fragments.render(subscription, time.monotonic())

    def test_the_number_of_cached_fragments_is_limited(self) -> None:
        fragments = FragmentCache()
        for number in range(MAX_CACHED + 5):
            fragments.render(Subscription(STAFF, f"zone{number}", ""), 0.0)
        self.assertEqual(len(fragments._cached), MAX_CACHED)
