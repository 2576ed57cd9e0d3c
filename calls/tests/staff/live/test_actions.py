"""Actions on live calls: requests to Twilio and Vapi over real HTTP, and the messages that users see."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qs

from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.test import Client, TestCase, override_settings

from bridge import allowed_hosts
from bridge.allowed_hosts import AllowedHosts
from bridge.end_reasons import ENDED_BY
from bridge.journal import CallOffered, CarrierReported, LiveNote, StreamEnded
from calls.ingest import upsert
from calls.ingest.journal import SpoolJournal
from calls.ingest.merge import utc_datetime
from calls.models import AuditEntry, Call, PhoneNumber
from calls.tests.builders import make_staff
from calls.tests.canned_vendor_api import ACCOUNT, KEY, TOKEN, CannedVendorApi
from calls.tests.staff.live.test_consumer import make_live_call
from calls.twilio import client as twilio_client
from calls.vapi import client as vapi_client
from calls.vendor_errors import VendorError

FALLBACK = "+15550107777"
T = 1_700_000_000.0
HTMX_HEADERS = {"HX-Request": "true"}


class ActionTests(TestCase):
    def setUp(self) -> None:
        self.vendor = CannedVendorApi({"status": "completed"})
        self.addCleanup(self.vendor.stop)
        self.enterContext(
            override_settings(
                **self.vendor.settings(
                    TWILIO_AUTH_TOKENS=[TOKEN, "the-next"], PUBLIC_URL="https://voice.example.com",
                    FALLBACK_NUMBER="",
                )
            )
        )  # fmt: skip
        self.user = make_staff("view_call", "act_on_call")
        self.client.force_login(self.user)
        self.call = make_live_call()

    def act(self, action: str, status: int = 200, **form: str) -> str:
        response = self.client.post(f"/calls/{self.call.pk}/{action}", form, headers=HTMX_HEADERS)
        self.assertEqual(response.status_code, status, response.content.decode())
        return str(response.content.decode())

    def get_requested_end(self) -> tuple[str, bool]:
        self.call.refresh_from_db()
        return self.call.end_requested, self.call.end_requested_at is not None

    def get_audit_entries(self) -> list[tuple[str, str, str]]:
        entries = AuditEntry.objects.filter(call=self.call).order_by("pk")
        return list(entries.values_list("username", "action", "detail"))

    def parse_last_form(self) -> dict[str, str]:
        """Form fields of the last request to Twilio."""
        body = self.vendor.requests[-1].body.decode()
        return {name: values[0] for name, values in parse_qs(body).items()}


class HangUpTests(ActionTests):
    def test_it_asks_twilio_to_complete_the_call(self) -> None:
        self.assertIn("Call ended.", self.act("hang-up"))
        ((method, path, headers, _),) = self.vendor.requests
        self.assertEqual(
            (method, path),
            ("POST", f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{self.call.call_sid}.json"),
        )
        self.assertEqual(base64.b64decode(headers["Authorization"].split()[1]).decode(), f"{ACCOUNT}:{TOKEN}")
        self.assertEqual(self.parse_last_form(), {"Status": "completed"})
        self.assertEqual(self.get_requested_end(), ("hung-up-by-staff", True))
        self.assertEqual(self.get_audit_entries(), [(self.user.username, "hang-up", "")])

    def test_the_requested_end_is_written_before_the_request_to_twilio(self) -> None:
        requested_ends: list[tuple[str, bool]] = []

        def complete_call(call_sid: str) -> None:
            requested_ends.append(self.get_requested_end())

        with mock.patch("calls.staff.live.actions.async_to_sync", return_value=complete_call):
            self.act("hang-up")
        self.assertEqual(requested_ends, [("hung-up-by-staff", True)])

    def test_a_rejection_by_twilio_is_reverted_and_explained(self) -> None:
        for status, code, text in (
            (404, 20404, "already over"),
            (400, 21220, "already over"),
            (401, 20003, "TWILIO_AUTH_TOKEN"),
            (403, 20003, "TWILIO_AUTH_TOKEN"),
            (429, 20429, "rate limiting"),
            (500, 20500, "failed with status 500"),
            (400, 21218, "Twilio rejected the request (21218)"),
        ):
            with self.subTest(code=code, status=status):
                error = {"code": code, "message": f"{ACCOUNT} is bad", "status": status}
                self.vendor.response = (status, error)
                with self.assertLogs("calls.twilio.client", "WARNING") as logs:
                    html = self.act("hang-up", 502)
                self.assertIn(text, html)
                self.assertNotIn(ACCOUNT, html + "".join(logs.output))
                self.assertEqual(self.get_requested_end(), ("", False))

    def test_a_failed_connection_is_reverted_and_explained(self) -> None:
        with override_settings(TWILIO_BASE_URL="http://127.0.0.1:1"), self.assertLogs("calls.vendor_errors"):
            self.assertIn("Cannot connect", self.act("hang-up", 502))
        self.assertEqual(self.get_requested_end(), ("", False))

    def test_a_timeout_may_have_ended_the_call(self) -> None:
        self.vendor.hang()
        with mock.patch.object(twilio_client, "REQUEST_TIMEOUT_SECONDS", 0.2):
            self.assertIn("may have been carried out", self.act("hang-up", 502))
        self.assertEqual(self.get_requested_end(), ("hung-up-by-staff", True))

    def test_an_invalid_response_may_have_ended_the_call(self) -> None:
        self.vendor.response = b"<html>"
        with self.assertLogs("calls.vendor_errors"):
            self.assertIn("is not JSON", self.act("hang-up", 502))
        self.assertEqual(self.get_requested_end(), ("hung-up-by-staff", True))

    def test_a_redirect_is_not_followed(self) -> None:
        self.vendor.response = 307
        with self.assertLogs("calls.twilio.client"):
            self.act("hang-up", 502)
        self.assertEqual(len(self.vendor.requests), 1)

    def test_without_credentials_no_request_is_sent(self) -> None:
        with override_settings(TWILIO_AUTH_TOKENS=[]):
            self.assertIn("TWILIO_AUTH_TOKEN", self.act("hang-up", 502))
        self.assertEqual((self.vendor.requests, self.get_requested_end()), ([], ("", False)))

    def test_it_rejects_actions_on_an_ended_call(self) -> None:
        for changes in ({"status": "completed"}, {"end_reason": "assistant-failed"}):
            self.call = make_live_call(**changes)
            for action in ("hang-up", "say", "transfer"):
                self.assertIn("already over", self.act(action, 409, words="Hello."))
            self.assertEqual((self.get_requested_end(), self.get_audit_entries()), (("", False), []))
        self.assertEqual(self.vendor.requests, [])

    def test_it_rejects_actions_on_a_call_that_is_not_answered_yet(self) -> None:
        for status in ("queued", "initiated", "ringing"):
            self.call = make_live_call(status=status)
            for action in ("hang-up", "say", "transfer"):
                self.assertIn("not been answered yet", self.act(action, 409, words="Hello."))
        self.assertEqual((self.vendor.requests, self.get_audit_entries()), ([], []))

    def test_it_rejects_a_call_that_ends_during_the_request(self) -> None:
        def end(*_: object) -> None:
            Call.objects.update(status="completed", end_reason="caller-hung-up")

        with mock.patch("calls.staff.live.actions.audit.record", side_effect=end):
            self.assertIn("already over", self.act("hang-up", 409))
        self.assertEqual((self.vendor.requests, self.get_requested_end()), ([], ("", False)))

    def test_a_failure_reverts_its_own_request_only(self) -> None:
        self.vendor.response = 500

        def transfer_and_fail(*_: Any) -> Any:
            Call.objects.update(end_requested="transferred")
            raise VendorError("no")

        with mock.patch("calls.staff.live.actions.async_to_sync", return_value=transfer_and_fail):
            self.act("hang-up", 502)
        self.assertEqual(self.get_requested_end(), ("transferred", True))

    def test_without_javascript_the_result_is_a_message_on_the_page(self) -> None:
        for back, path in (("call", self.call.get_absolute_url()), ("", "/"), ("//evil.example", "/")):
            response = self.client.post(f"/calls/{self.call.pk}/hang-up", {"back": back})
            self.assertRedirects(response, path, fetch_redirect_response=False)
            (message, *_) = get_messages(response.wsgi_request)
            self.assertEqual((message.level_tag, str(message)), ("success", "Call ended."))
        self.call = make_live_call(status="completed")
        response = self.client.post(f"/calls/{self.call.pk}/hang-up")
        self.assertRedirects(response, "/", fetch_redirect_response=False)
        self.assertIn("error", [each.level_tag for each in get_messages(response.wsgi_request)])


class TransferTests(ActionTests):
    def test_it_dials_the_fallback_number_of_our_number(self) -> None:
        PhoneNumber.objects.create(number=self.call.to_number, fallback_number=FALLBACK)
        self.assertIn("Transferring the call to the fallback number.", self.act("transfer"))
        self.assertEqual(
            self.parse_last_form()["Twiml"],
            '<?xml version="1.0" encoding="UTF-8"?><Response>'
            '<Dial action="https://voice.example.com/twilio/after?dialed=1" timeout="20">'
            '<Number url="https://voice.example.com/twilio/whisper?about=">+15550107777</Number></Dial>'
            "</Response>",
        )
        self.assertEqual(self.get_requested_end(), ("transferred", True))
        self.assertEqual(self.get_audit_entries(), [(self.user.username, "transfer", "to +1 555 …7777")])

    def test_it_shows_our_number_if_the_callers_cannot_be_shown(self) -> None:
        for caller in ("sip:desk7@pbx.example.com", "client:desk_7", "+266696687", ""):
            with self.subTest(caller), override_settings(FALLBACK_NUMBER=FALLBACK):
                self.call = make_live_call(from_number=caller, to_number="+15559870000")
                self.act("transfer")
                self.assertIn('callerId="+15559870000"', self.parse_last_form()["Twiml"])

    def test_it_dials_the_default_fallback_number(self) -> None:
        with override_settings(FALLBACK_NUMBER=FALLBACK):
            self.act("transfer")
        self.assertIn(FALLBACK, self.parse_last_form()["Twiml"])

    def test_an_outbound_call_uses_the_fallback_of_our_number(self) -> None:
        PhoneNumber.objects.create(number="+15559870000", fallback_number=FALLBACK)
        self.call = make_live_call(
            direction="outbound-api", from_number="+15559870000", to_number="+15550100134"
        )
        self.act("transfer")
        self.assertIn(FALLBACK, self.parse_last_form()["Twiml"])

    def test_without_a_fallback_number_no_request_is_sent(self) -> None:
        self.assertIn("FALLBACK_NUMBER", self.act("transfer", 502))
        self.assertEqual(
            (self.vendor.requests, self.get_requested_end(), self.get_audit_entries()), ([], ("", False), [])
        )


class SayTests(ActionTests):
    def say(self, status: int = 200, text: str = "One moment please.") -> str:
        return self.act("say", status, words=text)

    def test_it_looks_up_the_control_url_and_posts_the_message(self) -> None:
        self.call = make_live_call(vapi_call_id="vapi/1")
        self.assertIn("Message sent to the assistant.", self.say())
        (lookup, control) = self.vendor.requests
        self.assertEqual(lookup[:2], ("GET", "/call/vapi%2F1"))
        self.assertEqual(lookup.headers["Authorization"], f"Bearer {KEY}")
        self.assertEqual(control[:2], ("POST", "/vapi%2F1/control?secret=s"))
        self.assertNotIn("Authorization", control.headers)
        self.assertEqual(json.loads(control.body), {"type": "say", "content": "One moment please."})
        self.assertEqual(self.get_requested_end(), ("", False))
        self.assertEqual(self.get_audit_entries(), [(self.user.username, "say", "One moment please.")])

    def test_a_rejection_by_vapi_is_explained(self) -> None:
        for status, text in (
            (401, "VAPI_API_KEY"),
            (404, "already over at Vapi"),
            (429, "rate limiting"),
            (503, "failed with status 503"),
        ):
            for name in ("response", "control_status"):
                with (
                    self.subTest(name=name, status=status),
                    mock.patch.object(self.vendor, name, status),
                    self.assertLogs("calls.vapi.client", "WARNING"),
                ):
                    self.assertIn(text, self.say(502))

    def test_it_rejects_a_control_url_on_another_host(self) -> None:
        for url in ("http://evil.example/control", "file:///etc/passwd", "https://10.0.0.1/control"):
            self.vendor.control_url = url
            with self.assertLogs("calls.vapi.client", "WARNING") as logs:
                html = self.say(502)
            self.assertIn("VAPI_ALLOWED_HOSTS", html)
            self.assertNotIn("evil", html + "".join(logs.output))
        self.assertEqual({request.path for request in self.vendor.requests}, {"/call/vapi-1"})

    def test_a_redirect_is_not_followed(self) -> None:
        self.vendor.control_status = 307
        with self.assertLogs("calls.vapi.client", "WARNING"):
            self.say(502)
        self.assertNotIn("/elsewhere", [request.path for request in self.vendor.requests])

    def test_a_public_host_is_reached_at_the_address_that_was_checked(self) -> None:
        self.vendor.control_url = f"http://api.vapi.ai:{self.vendor.server_address[1]}/vapi-1/control"
        with (
            mock.patch.object(AllowedHosts, "check", return_value=True),
            mock.patch.object(allowed_hosts, "public_addresses", return_value=["127.0.0.1"]) as resolve,
        ):
            self.say()
        resolve.assert_awaited_once_with("api.vapi.ai", 443)
        self.assertEqual(
            self.vendor.requests[-1].headers["Host"], f"api.vapi.ai:{self.vendor.server_address[1]}"
        )

    def test_a_response_without_a_control_url_is_an_error(self) -> None:
        no_url, unreadable = "no control URL", "was cut off or is not JSON"
        responses: tuple[tuple[Any, str], ...] = (
            ({"monitor": {}}, no_url),
            ({"monitor": {"controlUrl": 7}}, no_url),
            ([], unreadable),
            (b"<html>", unreadable),
            (b"x" * (vapi_client.MAX_RESPONSE_BYTES + 9), unreadable),
        )
        for response, sentence in responses:
            self.vendor.response = response
            self.assertIn(sentence, self.say(502))

    def test_a_failed_connection_and_a_timeout_are_explained(self) -> None:
        with override_settings(VAPI_BASE_URL="http://127.0.0.1:1"), self.assertLogs("calls.vendor_errors"):
            self.assertIn("Cannot connect", self.say(502))
        self.vendor.hang()
        with mock.patch.object(vapi_client, "REQUEST_TIMEOUT_SECONDS", 0.2):
            self.assertIn("did not respond", self.say(502))

    def test_it_needs_an_assistant_that_can_speak(self) -> None:
        self.call = make_live_call(vapi_call_id="")
        self.assertIn("not answered this call yet", self.say(502))
        with override_settings(VAPI_SOCKET_URL="ws://127.0.0.1:1"):
            self.assertIn("cannot be told what to say", self.say(502))
        self.assertEqual(self.vendor.requests, [])

    def test_the_message_is_limited_and_cleaned(self) -> None:
        self.assertIn("Enter a message.", self.say(502, "  "))
        self.assertIn("501 characters. The maximum is 500", self.say(502, "x" * 501))
        self.assertEqual((self.vendor.requests, self.get_audit_entries()), ([], []))
        self.say(200, " Hello\x00 <b>\ud83d\ude00 ".encode("utf-16", "surrogatepass").decode("utf-16"))
        self.assertEqual(json.loads(self.vendor.requests[-1].body)["content"], "Hello <b>😀")


class AccessTests(ActionTests):
    def test_it_needs_post_a_permission_and_a_csrf_token(self) -> None:
        for action in ("hang-up", "say", "transfer"):
            path = f"/calls/{self.call.pk}/{action}"
            self.assertEqual(self.client.get(path).status_code, 405)
            self.assertEqual(self.client.post(f"/calls/999999/{action}").status_code, 404)
            self.assertEqual(Client().post(path).status_code, 302)
            for user, status in (
                (make_staff("view_call"), 403),
                (make_staff("act_on_call"), 403),
                (User.objects.create_user(f"not-staff-{action}"), 302),
            ):
                client = Client()
                client.force_login(user)
                self.assertEqual(client.post(path).status_code, status)
            checked = Client(enforce_csrf_checks=True)
            checked.force_login(self.user)
            self.assertEqual(checked.post(path, headers=HTMX_HEADERS).status_code, 403)
        self.assertEqual(
            (self.vendor.requests, self.get_requested_end(), self.get_audit_entries()), ([], ("", False), [])
        )

    def test_the_csrf_token_of_the_page_is_accepted(self) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(self.user)
        page = client.get("/").content.decode()
        token = page.partition('data-csrf="')[2].partition('"')[0]
        path = f"/calls/{self.call.pk}/hang-up"
        self.assertEqual(client.post(path, headers=HTMX_HEADERS | {"X-CSRFToken": token}).status_code, 200)

    def test_an_action_that_cannot_be_audited_does_not_happen(self) -> None:
        with (
            mock.patch("calls.staff.audit.AuditEntry.objects.create", side_effect=RuntimeError),
            self.assertRaises(RuntimeError),
        ):
            self.act("hang-up")
        self.assertEqual((self.vendor.requests, self.get_requested_end()), ([], ("", False)))


class SimulatedTests(ActionTests):
    def test_a_simulated_call_is_never_sent_to_the_real_twilio(self) -> None:
        self.call = make_live_call(simulated=True)
        with override_settings(TWILIO_BASE_URL="https://api.twilio.com"):
            self.assertIn("simulated", self.act("hang-up", 502))
        self.assertEqual(self.get_requested_end(), ("", False))
        self.act("hang-up")  # the simulator knows the call


class EndTests(TestCase):
    """The end reason of a call whose end was requested."""

    def end_call(self, requested: str, reason: str, after_seconds: float, **changes: Any) -> Call:
        call = make_live_call(end_requested=requested, end_requested_at=utc_datetime(T), **changes)
        ended_by = ENDED_BY[reason]
        self.assertEqual(
            upsert.apply_entries([StreamEnded(call.call_sid, T + after_seconds, 9000, reason, ended_by)]), []
        )
        call.refresh_from_db()
        return call

    def test_a_requested_end_outranks_the_end_of_the_stream(self) -> None:
        for reported in ("caller-hung-up", "stream-lost", "assistant-ended", "assistant-failed"):
            call = self.end_call("hung-up-by-staff", reported, 0.4)
            self.assertEqual(
                (call.end_reason, call.ended_by, call.status), ("hung-up-by-staff", "staff", "completed")
            )
            self.assertFalse(call.is_failed)

    def test_a_transferred_call_stays_in_progress(self) -> None:
        call = self.end_call("transferred", "caller-hung-up", 0.4)
        self.assertEqual(
            (call.end_reason, call.ended_by, call.status), ("transferred", "staff", "in-progress")
        )
        upsert.apply_entries(
            [CarrierReported(call.call_sid, T + 60, status="completed", duration_seconds=61)]
        )
        call.refresh_from_db()
        self.assertEqual((call.end_reason, call.status), ("transferred", "completed"))

    def test_a_requested_end_applies_for_ten_seconds(self) -> None:
        for after_seconds, reason in (
            (-60.0, "caller-hung-up"),
            (-1.0, "hung-up-by-staff"),  # clock skew between machines
            (10.0, "hung-up-by-staff"),
            (10.5, "caller-hung-up"),
        ):
            self.assertEqual(
                self.end_call("hung-up-by-staff", "caller-hung-up", after_seconds).end_reason, reason
            )

    def test_an_end_by_the_bridge_keeps_its_reason(self) -> None:
        for reason in ("limit-reached", "protocol-abuse", "assistant-stalled", "worker-lost"):
            self.assertEqual(self.end_call("hung-up-by-staff", reason, 0.4).end_reason, reason)

    def test_without_a_request_nothing_changes(self) -> None:
        self.assertEqual(self.end_call("", "caller-hung-up", 0.4).end_reason, "caller-hung-up")

    def test_a_live_note_is_never_written_to_the_database(self) -> None:
        call = make_live_call()
        with self.assertRaises(ValueError):
            upsert.apply_entries([LiveNote(call.call_sid, 1)])


def test_a_live_note_is_passed_on_and_not_spooled(tmp_path: Path) -> None:
    notes: list[LiveNote] = []
    journal = SpoolJournal(tmp_path, "1-abcd", on_note=notes.append)
    journal.write(LiveNote("CA1", 1))
    assert (notes, journal.spool.size, journal.wake.is_set()) == ([LiveNote("CA1", 1)], 0, False)
    journal.write(CallOffered("CA1", T))
    assert journal.spool.size and journal.wake.is_set()
    journal.close()


def test_a_live_note_without_a_receiver_is_dropped(tmp_path: Path) -> None:
    journal = SpoolJournal(tmp_path, "1-abcd")
    journal.write(LiveNote("CA1", 1))
    assert (journal.spool.size, journal.unwritable) == (0, 0)
    journal.close()
