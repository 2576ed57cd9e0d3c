"""The live board: what it shows, who may watch it, and what it costs when cache or channel layer are gone."""

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
from calls.staff.live import consumer as consumer
from calls.staff.live import publisher
from calls.staff.live.board import MAX_ROWS, board_html, live_rows
from calls.staff.live.publisher import GROUP, Publisher, notes_of
from calls.tests.builders import call_sid, make_call, make_staff, make_turn, make_utterance
from calls.viewer import Viewer

STAFF = Viewer(sees_calls=True)
OPERATOR = Viewer(sees_calls=True, sees_numbers=True, acts=True)
XSS = "<script>alert(1)</script>"
OWN_CACHE = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "live"}}
DEAD_REDIS = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://127.0.0.1:1",
    }
}


def on_the_line(**changes: Any) -> Call:
    now = timezone.now()
    facts = {"status": "in-progress", "end_reason": "", "ended_by": "", "answered_at": now, "started_at": now}
    return make_call(**(facts | {"vapi_call_id": "vapi-1"} | changes))


def note(call: Call, **changes: Any) -> LiveNote:
    facts: dict[str, Any] = {"at_ms": 1000, "floor_since": time.time()}
    return LiveNote(call.call_sid, **(facts | changes))


def publish(*notes: LiveNote) -> None:
    told = Publisher()
    for each in notes:
        told.note(each)
    assert told.publish()


@contextmanager
def fresh() -> Iterator[None]:
    """A cache of the test's own, that has not failed yet."""
    with override_settings(CACHES=OWN_CACHE), mock.patch.object(publisher, "_asked_in_vain_until", 0.0):
        cache.clear()
        yield


class OwnCache(SimpleTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(fresh())


class BoardTests(OwnCache, TestCase):
    def test_nobody_on_the_line_is_one_line(self) -> None:
        make_call()
        self.assertIn("Nobody is on the line.", board_html(STAFF))

    def test_the_newest_come_first_and_no_more_than_a_page(self) -> None:
        now = timezone.now()
        calls = [on_the_line(started_at=now - timedelta(seconds=age)) for age in range(MAX_ROWS + 1)]
        rows = live_rows(STAFF)
        self.assertEqual([row.call for row in rows], calls[:MAX_ROWS])
        self.assertIn(f"Only the newest {MAX_ROWS} are shown.", board_html(STAFF))

    def test_what_is_over_or_forgotten_is_not_on_the_line(self) -> None:
        on_the_line(status="completed", end_reason="caller-hung-up")
        on_the_line(end_reason="assistant-failed")  # Twilio goes on with it
        on_the_line(started_at=timezone.now() - timedelta(hours=5))
        on_the_line(status="ringing")
        self.assertEqual(live_rows(STAFF), [])

    def test_it_shows_numbers_as_the_viewer_may_see_them(self) -> None:
        on_the_line(from_number="+15550100134", to_number="+15559870000")
        with override_settings(FALLBACK_NUMBER="+15550107777"):
            masked, whole = board_html(Viewer(sees_calls=True, acts=True)), board_html(OPERATOR)
        for number in ("+15550100134", "+15559870000", "+15550107777"):
            self.assertNotIn(number, masked)
            self.assertIn(number, whole)

    def test_an_outbound_call_shows_whom_we_called(self) -> None:
        PhoneNumber.objects.create(number="+15559870000", label="Front desk")
        on_the_line(direction="outbound-api", from_number="+15559870000", to_number="+15550100134")
        (row,) = live_rows(OPERATOR)
        self.assertEqual((row.caller, row.number_label), ("+15550100134", "Front desk"))

    def test_it_shows_the_last_words_and_the_ones_being_spoken(self) -> None:
        call = on_the_line()
        for words in ("First.", "Second.", "Third."):
            make_utterance(call, text=words)
        publish(note(call, floor="caller", speaker="caller", partial="can I move it to"))
        html = board_html(STAFF)
        self.assertNotIn("First.", html)
        self.assertLess(html.index("Second."), html.index("Third."))
        self.assertLess(html.index("Third."), html.index("can I move it to…"))
        self.assertIn("caller speaking", html)

    def test_the_latency_is_that_of_the_note_or_of_the_last_turn(self) -> None:
        call = on_the_line()
        make_turn(call, response_latency_ms=880)
        make_turn(call, response_latency_ms=None)
        self.assertEqual(live_rows(STAFF)[0].latency_ms, 880)
        publish(note(call, latency_ms=940))
        self.assertIn("0.94 s", board_html(STAFF))

    def test_a_silence_of_five_seconds_is_a_warning(self) -> None:
        call = on_the_line()
        publish(note(call, floor="", floor_since=time.time() - 4))
        self.assertFalse(live_rows(STAFF)[0].is_silent)
        self.assertIn("hidden>⚠ silent", board_html(STAFF))
        publish(note(call, floor="", floor_since=time.time() - 9))
        self.assertTrue(live_rows(STAFF)[0].is_silent)
        self.assertIn(">⚠ silent 9 s", board_html(STAFF))
        publish(note(call, floor="assistant", floor_since=time.time() - 9))
        self.assertNotIn("⚠ silent", board_html(STAFF))

    def test_nobody_is_silent_before_the_assistant_is_there(self) -> None:
        call = on_the_line(answered_at=None)
        publish(note(call, floor_since=time.time() - 9))
        self.assertFalse(live_rows(STAFF)[0].is_silent)

    def test_the_state_is_told_where_no_floor_is(self) -> None:
        for changes, state in (
            ({"answered_at": None}, "reaching the assistant"),
            ({}, "on the line"),
            ({"end_requested": "hung-up-by-staff"}, "hanging up"),
            ({"end_requested": "transferred"}, "being handed over"),
        ):
            on_the_line(**changes)
            self.assertEqual(live_rows(STAFF)[0].state, state)
            self.assertIn(state, board_html(STAFF))

    def test_the_timer_counts_from_when_twilio_asked(self) -> None:
        on_the_line(started_at=timezone.now() - timedelta(seconds=102.2))
        on_the_line(started_at=timezone.now() - timedelta(seconds=3 * 3600 + 65.2))
        self.assertEqual([row.timer for row in live_rows(STAFF)], ["1:42", "3:01:05"])

    def test_what_strangers_say_is_text(self) -> None:
        call = on_the_line(from_number=XSS, to_number=XSS)
        make_utterance(call, text=XSS)
        publish(note(call, speaker="caller", partial=XSS + "\ud800\x00"))
        html = board_html(OPERATOR)
        self.assertNotIn(XSS, html)
        self.assertIn("&lt;script&gt;alert(1)", html)
        html.encode()

    def test_only_those_who_may_act_are_offered_to(self) -> None:
        on_the_line()
        self.assertNotIn("hang-up", board_html(STAFF))
        self.assertIn("Hang up now", board_html(OPERATOR))

    def test_it_offers_only_what_can_be_done(self) -> None:
        on_the_line()
        html = board_html(OPERATOR)
        self.assertIn("Say it", html)
        self.assertIn("FALLBACK_NUMBER", html)
        with override_settings(VAPI_SOCKET_URL="ws://127.0.0.1:1", FALLBACK_NUMBER="+15550107777"):
            html = board_html(OPERATOR)
        self.assertNotIn("Say it", html)
        self.assertIn("Send to +15550107777", html)

    def test_a_numbers_own_person_comes_first_while_it_is_active(self) -> None:
        number = PhoneNumber.objects.create(number="+15559870000", fallback_number="+15550101111")
        on_the_line(to_number=number.number)
        with override_settings(FALLBACK_NUMBER="+15550107777"):
            self.assertEqual(live_rows(OPERATOR)[0].person, "+15550101111")
            PhoneNumber.objects.update(active=False)
            self.assertEqual(live_rows(OPERATOR)[0].person, "+15550107777")

    def test_the_number_of_queries_does_not_grow_with_the_calls(self) -> None:
        def queries() -> int:
            with CaptureQueriesContext(connection) as asked:
                board_html(OPERATOR)
            return len(asked)

        make_turn(call := on_the_line())
        make_utterance(call)
        few = queries()
        for _ in range(20):
            make_turn(call := on_the_line(to_number=f"+1555{call_sid()[-7:]}"))
            make_utterance(call)
        self.assertEqual(queries(), few)
        self.assertLessEqual(few, 4)


class FragmentTests(OwnCache, TestCase):
    def test_a_page_without_a_socket_asks_for_the_same(self) -> None:
        call = on_the_line()
        self.client.force_login(make_staff("view_call"))
        board = self.client.get("/live/board")
        self.assertContains(board, f'id="live-{call.pk}"')
        self.assertContains(board, 'id="live-board"')
        body = self.client.get(f"/live/calls/{call.pk}")
        self.assertContains(body, 'id="call-body"')
        self.assertEqual(AuditEntry.objects.filter(action="opened", call=call).count(), 1)
        self.assertEqual(self.client.get("/live/calls/999999").status_code, 404)

    def test_they_are_for_staff_who_may_see_calls(self) -> None:
        call = on_the_line()
        for path in ("/live/board", f"/live/calls/{call.pk}"):
            self.assertEqual(Client().get(path).status_code, 302)
            for user, status in ((make_staff(), 403), (User.objects.create_user(call_sid()), 302)):
                client = Client()
                client.force_login(user)
                self.assertEqual(client.get(path).status_code, status)
            self.client.force_login(make_staff("view_call"))
            self.assertEqual(self.client.post(path).status_code, 405)

    def test_the_dashboard_shows_the_board_and_says_where_news_come_from(self) -> None:
        call = on_the_line()
        self.client.force_login(make_staff("view_call"))
        page = self.client.get("/").content.decode()
        self.assertIn(f'id="live-{call.pk}"', page)
        self.assertIn('data-live="/live" data-poll="/live/board"', page)
        self.assertRegex(page, 'data-csrf="[A-Za-z0-9]{64}"')


class NoteTests(OwnCache):
    def test_the_newest_note_of_a_call_is_what_is_told(self) -> None:
        publish(LiveNote("CA1", 1, partial="first"), LiveNote("CA2", 1), LiveNote("CA1", 2, partial="second"))
        found = notes_of(["CA1", "CA2", "CA3"])
        self.assertEqual({sid: each.partial for sid, each in found.items()}, {"CA1": "second", "CA2": ""})

    def test_a_note_of_another_version_is_no_note(self) -> None:
        cache.set("live:CA1", {"call_sid": "CA1", "what": "ever"})
        publish(LiveNote("CA2", 1))
        self.assertEqual(list(notes_of(["CA1", "CA2"])), ["CA2"])

    def test_news_are_bounded_and_what_is_dropped_is_counted(self) -> None:
        told = Publisher()
        with mock.patch.object(publisher, "MAX_WAITING", 2):
            for number in range(5):
                told.note(LiveNote(f"CA{number}", 1))
            told.note(LiveNote("CA0", 2))  # known: replaced
            told.look_again(f"CA{number}" for number in range(5))
        self.assertEqual(told.dropped, 6)
        self.assertEqual(told.waiting, 4)

    def test_a_cache_that_fails_gets_it_again_later_and_the_newest_by_then(self) -> None:
        told = Publisher()
        told.note(LiveNote("CA1", 1))
        told.note(LiveNote("CA2", 1))
        told.look_again({"CA3"})
        with override_settings(CACHES=DEAD_REDIS), self.assertLogs("calls.staff.live.publisher", "WARNING"):
            self.assertFalse(told.publish())
        told.note(LiveNote("CA1", 2))
        self.assertEqual((told.failures, told.waiting), (1, 3))
        self.assertTrue(told.publish())
        self.assertEqual(
            {sid: each.at_ms for sid, each in notes_of(["CA1", "CA2"]).items()}, {"CA1": 2, "CA2": 1}
        )
        self.assertEqual(told.waiting, 0)

    def test_a_dead_cache_means_no_notes_and_is_left_alone_for_a_while(self) -> None:
        publish(LiveNote("CA1", 1))
        with override_settings(CACHES=DEAD_REDIS), self.assertLogs("calls.staff.live.publisher", "WARNING"):
            self.assertEqual(notes_of(["CA1"]), {})
        with self.assertNoLogs("calls.staff.live.publisher", "WARNING"):
            self.assertEqual(notes_of(["CA1"]), {}, "it was asked again at once")
        with mock.patch.object(publisher, "_asked_in_vain_until", time.monotonic() - 1):
            self.assertEqual(list(notes_of(["CA1"])), ["CA1"])


class FrozenLayer(InMemoryChannelLayer):  # type: ignore[misc]
    """It accepts connections and answers nothing."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await asyncio.Event().wait()


async def test_pages_are_told_which_calls_are_meant() -> None:
    layer, told = InMemoryChannelLayer(), Publisher()
    told.attach(asyncio.get_running_loop())
    channel = await layer.new_channel()
    await layer.group_add(GROUP, channel)
    with mock.patch.object(publisher, "get_channel_layer", return_value=layer):
        told.look_again({"CA2", "CA1"})
        assert await asyncio.to_thread(told.publish)
        assert (await layer.receive(channel))["calls"] == ["CA1", "CA2"]
        told.look_again(f"CA{number}" for number in range(101))
        assert await asyncio.to_thread(told.publish)
        assert (await layer.receive(channel))["calls"] == [], "more than can be named: any"


async def test_a_layer_that_hangs_holds_up_nobody() -> None:
    told = Publisher()
    told.attach(asyncio.get_running_loop())
    told.look_again({"CA1"})
    with mock.patch.object(publisher, "get_channel_layer", return_value=FrozenLayer()):
        began = time.monotonic()
        assert not await asyncio.to_thread(told.publish)
    assert time.monotonic() - began < 1
    assert (told.failures, told.waiting) == (1, 1)


def test_the_thread_tells_what_came_while_it_slept_and_stops_when_told() -> None:
    with fresh(), mock.patch.object(publisher, "PACE_SECONDS", 0.01):
        told = Publisher()
        told.start()
        for number in range(3):
            told.note(LiveNote("CA1", number))
            give_up = time.monotonic() + 5
            while notes_of(["CA1"]).get("CA1") != LiveNote("CA1", number):
                assert time.monotonic() < give_up
        told.stop(5)
        assert not told.is_alive()


@pytest.mark.parametrize(
    ("origin", "host", "secure", "ours"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", False, True),
        ("http://LOCALHOST:8000", "localhost:8000", False, True),
        ("https://voice.example.com", "inside:8000", True, True),  # PUBLIC_URL, whatever the proxy says
        ("", "127.0.0.1:8000", False, False),
        ("null", "127.0.0.1:8000", False, False),
        ("http://[", "127.0.0.1:8000", False, False),
        ("http://127.0.0.1:8001", "127.0.0.1:8000", False, False),
        ("https://evil.example", "127.0.0.1:8000", False, False),
        ("https://evil.example", "evil.example", False, False),  # a name that leads here and is not ours
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True, False),
    ],
)
def test_a_socket_is_opened_by_a_page_of_ours(origin: str, host: str, secure: bool, ours: bool) -> None:
    scope = {"headers": [(b"host", host.encode()), (b"origin", origin.encode())]}
    with override_settings(
        SESSION_COOKIE_SECURE=secure,
        CSRF_TRUSTED_ORIGINS=["https://voice.example.com"],
        ALLOWED_HOSTS=["voice.example.com", "localhost", "127.0.0.1"],
    ):
        assert consumer._is_ours(scope) is ours


@pytest.mark.slow
class ConsumerTests(TransactionTestCase):
    """The consumer itself, with its threads, on a channel layer in memory."""

    def setUp(self) -> None:
        self.enterContext(fresh())
        self.layer = InMemoryChannelLayer()
        self.enterContext(mock.patch.object(consumer, "get_channel_layer", return_value=self.layer))
        self.enterContext(mock.patch.object(consumer, "_fragments", consumer.Fragments()))
        self.user = make_staff("view_call")
        self.client.force_login(self.user)

    def socket(self, path: str = "/live", **changes: str) -> WebsocketCommunicator:
        cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in self.client.cookies.items())
        headers = {"host": "127.0.0.1", "origin": "http://127.0.0.1", "cookie": cookies} | changes
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        return WebsocketCommunicator(CookieMiddleware(consumer.LiveConsumer.as_asgi()), path, raw)

    async def look_again(self, *call_sids: str) -> None:
        await self.layer.group_send(GROUP, {"type": "look.again", "calls": list(call_sids)})

    async def refused(self, path: str = "/live", **changes: str) -> bool:
        socket = self.socket(path, **changes)
        connected, _ = await socket.connect(timeout=5)
        await socket.disconnect()
        return not connected

    async def test_only_staff_who_may_see_calls_watch(self) -> None:
        self.assertFalse(await self.refused())
        self.assertTrue(await self.refused(cookie=""))
        self.assertTrue(await self.refused(cookie="sessionid=" + "x" * 32))
        self.assertTrue(await self.refused(origin="https://evil.example"))
        self.assertTrue(await self.refused("/live?call=999999"))
        self.assertTrue(await self.refused("/live?call=1%20OR%201"))
        for changes in ({"is_staff": False}, {"is_active": False}):
            await User.objects.filter(pk=self.user.pk).aupdate(**changes)
            self.assertTrue(await self.refused())
            await User.objects.filter(pk=self.user.pk).aupdate(is_staff=True, is_active=True)
        await self.user.user_permissions.aclear()
        self.assertTrue(await self.refused())
        self.assertEqual(consumer.LiveConsumer.watchers, 0)

    async def test_there_is_a_bound_on_those_who_watch(self) -> None:
        with mock.patch.object(consumer, "MAX_WATCHERS", 1):
            first = self.socket()
            self.assertTrue((await first.connect())[0])
            self.assertTrue(await self.refused())
            await first.disconnect()
            self.assertFalse(await self.refused())

    async def test_a_call_that_begins_is_on_the_board_within_a_second(self) -> None:
        socket = self.socket()
        await socket.connect()
        self.assertIn("Nobody is on the line.", await socket.receive_from(timeout=5))
        call = await asyncio.to_thread(self.make, on_the_line)
        began = time.monotonic()
        await self.look_again(call.call_sid)
        self.assertIn(f'id="live-{call.pk}"', await socket.receive_from(timeout=5))
        self.assertLess(time.monotonic() - began, 1)
        await socket.disconnect()

    async def test_news_are_told_twice_a_second_and_together(self) -> None:
        socket = self.socket()
        await socket.connect()
        began = time.monotonic()
        await socket.receive_from(timeout=5)
        for _ in range(50):
            await self.look_again("CA1")
        await socket.receive_from(timeout=5)
        self.assertGreaterEqual(time.monotonic() - began, consumer.APART_SECONDS)
        self.assertTrue(await socket.receive_nothing(timeout=consumer.APART_SECONDS + 0.3))
        await socket.disconnect()

    async def test_a_page_of_one_call_hears_of_that_call_only(self) -> None:
        call = await asyncio.to_thread(self.make, on_the_line)
        socket = self.socket(f"/live?call={call.pk}")
        await socket.connect()
        self.assertIn('id="call-body"', await socket.receive_from(timeout=5))
        self.assertEqual(await AuditEntry.objects.filter(action="opened", user=self.user).acount(), 1)
        await self.look_again("CA-other")
        self.assertTrue(await socket.receive_nothing(timeout=consumer.APART_SECONDS + 0.3))
        for sids in ((call.call_sid,), ()):
            await self.look_again(*sids)
            self.assertIn('id="call-body"', await socket.receive_from(timeout=5))
        await Call.objects.all().adelete()
        await self.look_again()
        self.assertEqual((await socket.receive_output(timeout=5))["code"], consumer.NO_MORE)

    async def test_what_watchers_send_is_ignored(self) -> None:
        socket = self.socket()
        await socket.connect()
        await socket.receive_from(timeout=5)
        await socket.send_to(text_data='{"type": "look.again"}')
        await socket.send_to(bytes_data=b"\x00" * 1000)
        self.assertTrue(await socket.receive_nothing(timeout=consumer.APART_SECONDS + 0.3))
        await self.look_again()
        await socket.receive_from(timeout=5)
        await socket.disconnect()

    async def test_it_looks_by_itself_when_no_news_come(self) -> None:
        with mock.patch.object(consumer, "LOOK_SECONDS", 0.2):
            socket = self.socket()
            await socket.connect()
            for _ in range(3):
                self.assertIn("live-board", await socket.receive_from(timeout=5))
            await socket.disconnect()

    async def sent_away(self, take_away: Callable[[], Awaitable[object]]) -> int:
        """The code with which somebody who watches is, once what they stand on is taken away."""
        with mock.patch.multiple(consumer, LOOK_SECONDS=0.1, RECHECK_SECONDS=0.2):
            socket = self.socket()
            self.assertTrue((await socket.connect())[0])
            await socket.receive_from(timeout=5)
            yield_to = await socket.receive_output(timeout=5)
            await take_away()
            while yield_to["type"] == "websocket.send":
                yield_to = await socket.receive_output(timeout=5)
            return int(yield_to["code"])

    async def test_whoever_logs_out_watches_no_more(self) -> None:
        logged_out = await self.sent_away(lambda: asyncio.to_thread(self.make, self.client.logout))
        self.assertEqual(logged_out, consumer.NO_MORE)

    async def test_whoever_may_no_more_watches_no_more(self) -> None:
        self.assertEqual(await self.sent_away(self.user.user_permissions.aclear), consumer.NO_MORE)

    async def test_a_new_password_ends_the_session(self) -> None:
        async def change() -> None:
            self.user.set_password("another one")
            await self.user.asave()

        self.assertEqual(await self.sent_away(change), consumer.NO_MORE)

    async def test_a_layer_that_dies_or_hangs_sends_the_page_to_polling(self) -> None:
        for broken in ("receive", "group_add"):
            with mock.patch.multiple(consumer, LOOK_SECONDS=0.1, LAYER_SECONDS=0.1):
                socket = self.socket()
                self.assertTrue((await socket.connect())[0])
                await socket.receive_from(timeout=5)
                hang = asyncio.Event().wait
                dead = mock.AsyncMock(side_effect=ConnectionError if broken == "receive" else hang)
                with (
                    mock.patch.object(self.layer, broken, dead),
                    self.assertLogs("calls.staff.live.consumer", "INFO"),
                ):
                    await self.look_again()  # wakes whoever receives, to receive again
                    message = await socket.receive_output(timeout=5)
                    while message["type"] == "websocket.send":
                        message = await socket.receive_output(timeout=5)
                self.assertEqual(message["code"], consumer.TRY_LATER, broken)

    async def test_a_database_that_cannot_be_asked_refuses(self) -> None:
        with (
            mock.patch.object(consumer, "_watched", side_effect=ConnectionError),
            self.assertLogs("calls.staff.live.consumer", "WARNING"),
        ):
            self.assertTrue(await self.refused())

    async def test_numbers_are_masked_for_each_viewer_apart(self) -> None:
        await asyncio.to_thread(self.make, lambda: on_the_line(from_number="+15550100134"))
        seen = []
        for user in (
            self.user,
            await asyncio.to_thread(self.make, lambda: make_staff("view_call", "view_numbers")),
        ):
            await asyncio.to_thread(self.make, lambda user=user: self.client.force_login(user))
            socket = self.socket()
            await socket.connect()
            seen.append("+15550100134" in await socket.receive_from(timeout=5))
            await socket.disconnect()
        self.assertEqual(seen, [False, True])

    async def test_times_are_in_the_viewers_zone(self) -> None:
        call = await asyncio.to_thread(self.make, lambda: on_the_line(started_at="2026-01-15T12:00:00Z"))
        self.client.cookies["tz"] = "America%2FNew_York"
        socket = self.socket(f"/live?call={call.pk}")
        await socket.connect()
        html = await socket.receive_from(timeout=5)
        self.assertIn("07:00", html)
        await socket.disconnect()

    @staticmethod
    def make(build: Any) -> Any:
        """Build rows on another thread, whose connection is closed behind it."""
        try:
            return build()
        finally:
            connection.close()


class FragmentsKept(OwnCache, TestCase):
    def test_those_who_ask_at_the_same_time_share_one_look(self) -> None:
        kept = consumer.Fragments()
        asked_at = time.monotonic()
        watched = consumer.Watched(STAFF, "", "")
        with CaptureQueriesContext(connection) as first:
            html = kept.of(watched, None, asked_at)
        self.assertTrue(first)
        with self.assertNumQueries(0):
            self.assertEqual(kept.of(watched, None, asked_at), html)
        with self.assertNumQueries(len(first)):
            kept.of(watched, None, time.monotonic())

    def test_it_keeps_no_more_than_a_few(self) -> None:
        kept = consumer.Fragments()
        for number in range(consumer.MAX_KEPT + 5):
            kept.of(consumer.Watched(STAFF, f"zone{number}", ""), None, 0.0)
        self.assertEqual(len(kept._kept), consumer.MAX_KEPT)
