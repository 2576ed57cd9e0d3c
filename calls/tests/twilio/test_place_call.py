"""`manage.py place_call`, and "call back" in the admin: outbound calls against the simulators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from django.test import TestCase, override_settings
from django.urls import reverse
from pytest_django import DjangoDbBlocker

from calls.models import AuditEntry, Call
from calls.phone_numbers import is_allowed
from calls.tests.builders import make_call, make_staff
from calls.tests.canned_vendor_api import CannedVendorApi
from calls.tests.commands import CommandResult, InProcessCommands, run_command_async
from calls.tests.live_server import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    Database,
    LiveServer,
    make_server,
    temporary_database,
)
from sandbox.faults import TwilioRestFaults, VapiFaults
from sandbox.twilio.caller import HangUp, Listen
from sandbox.twilio.rest.server import NUMBER, TwilioRestSimulator
from sandbox.vapi.server import VapiSimulator

CALLEE = "+442079460018"
PLACED_SID = "CA" + "9" * 32
MODULE_LOOP = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class OutboundTestbed:
    server: LiveServer
    api: TwilioRestSimulator
    assistant: VapiSimulator
    database: Database
    commands: InProcessCommands

    async def place_call(self, *arguments: str, **variables: str) -> CommandResult:
        return await self.commands.run(self.server.environment, "place_call", *arguments, **variables)

    def select_last_call(self) -> tuple[Any, ...]:
        """The row of the call that was placed last."""
        (row,) = self.database.select(
            "SELECT direction, from_number, to_number, status, end_reason, answered_by, frames_to_assistant"
            " FROM calls_call ORDER BY id DESC LIMIT 1"
        )
        return row


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def testbed(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> AsyncIterator[OutboundTestbed]:
    folder = tmp_path_factory.mktemp("outbound")
    faults = VapiFaults(delay_ms=(200, 300))
    async with (
        VapiSimulator(faults=faults, listen="energy", script=["Good bye."]) as assistant,
        TwilioRestSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as api,
    ):
        with temporary_database(folder / "rows") as database:
            server = await asyncio.to_thread(
                make_server, assistant.base_url, database.url, folder / "journal",
                TWILIO_BASE_URL=api.base_url, TWILIO_PHONE_NUMBER=NUMBER, OUTBOUND_ALLOWED="+4420",
                VAPI_AUDIO_FORMAT="mulaw", REDIS_URL="", AI_DISCLOSURE="An AI speaks.",
            )  # fmt: skip
            async with server:
                yield OutboundTestbed(server, api, assistant, database, InProcessCommands(django_db_blocker))
                await server.stop()


@pytest.mark.slow
@pytest.mark.once
@MODULE_LOOP
async def test_the_callee_hears_the_disclosure_and_talks_to_the_assistant(testbed: OutboundTestbed) -> None:
    testbed.api.faults, testbed.api.callee_script = (
        TwilioRestFaults(ring_seconds=0.1),
        [Listen(), HangUp()],
    )
    result = await run_command_async(testbed.server.environment, "place_call", CALLEE, "--wait")
    assert result.code == 0, result
    assert result.contains(f"Calling {CALLEE} from {NUMBER}") and result.contains("The callee hung up.")
    direction, from_number, to_number, status, reason, _, frames = testbed.select_last_call()
    assert (direction, from_number, to_number) == ("outbound-api", NUMBER, CALLEE)
    assert (status, reason) == ("completed", "caller-hung-up") and frames > 20
    record = testbed.api.records[-1]
    assert record.spoken_by_twilio == ["An AI speaks."] and record.heard_segments
    form = next(each for each in reversed(testbed.api.received_requests) if each.method == "POST").form
    assert form["TimeLimit"] == "1800" and form["Timeout"] == "30"


@pytest.mark.slow
@pytest.mark.once
@MODULE_LOOP
@pytest.mark.parametrize(
    ("machines", "answered_by", "reason"),
    [
        ("hang-up", "machine_start", "machine-answered"),
        ("hang-up", "human", "caller-hung-up"),
        ("leave-message", "machine_end_beep", "caller-hung-up"),
    ],
)
async def test_it_hangs_up_on_a_machine_or_leaves_a_message(
    testbed: OutboundTestbed, machines: str, answered_by: str, reason: str
) -> None:
    testbed.api.faults = TwilioRestFaults(ring_seconds=0.1, detection_seconds=0.1, answered_by=answered_by)
    testbed.api.callee_script = [Listen(), HangUp()]
    result = await testbed.place_call(CALLEE, "--wait", "--machines", machines)
    assert result.code == (1 if reason == "machine-answered" else 0), result
    *_, end_reason, answered, frames = testbed.select_last_call()
    assert (end_reason, answered) == (reason, answered_by)
    assert bool(frames) is (reason != "machine-answered")


@pytest.mark.slow
@pytest.mark.once
@MODULE_LOOP
@pytest.mark.parametrize(("outcome", "text"), [("busy", "The line was busy."), ("no-answer", "No answer.")])
async def test_it_reports_a_call_that_nobody_answers(
    testbed: OutboundTestbed, outcome: str, text: str
) -> None:
    testbed.api.faults = TwilioRestFaults(ring_seconds=0.1, outcome=outcome)
    result = await testbed.place_call(CALLEE, "--wait")
    assert result.code == 1 and result.contains(text), result
    assert testbed.select_last_call()[3] == outcome


@pytest.mark.slow
@pytest.mark.once
@MODULE_LOOP
@pytest.mark.parametrize(
    ("arguments", "variables", "text"),
    [
        (("+493012345678",), {}, "Add it to OUTBOUND_ALLOWED"),
        ((CALLEE,), {"OUTBOUND_ALLOWED": ""}, "OUTBOUND_ALLOWED is not set"),
        ((CALLEE,), {"TWILIO_PHONE_NUMBER": ""}, "Set TWILIO_PHONE_NUMBER."),
        (("me",), {}, "Enter the number with +"),
        ((CALLEE, "--from", "+15550000000"), {}, "The number to call from does not belong"),
        ((CALLEE,), {"TWILIO_AUTH_TOKEN": "wrong"}, "Check TWILIO_ACCOUNT_SID"),
    ],
)
async def test_it_does_not_place_a_call_that_is_not_allowed(
    testbed: OutboundTestbed, arguments: tuple[str, ...], variables: dict[str, str], text: str
) -> None:
    before = testbed.api.outbound_count
    failed = await testbed.place_call(*arguments, **variables)
    assert failed.code == 1 and failed.contains(text), failed
    assert testbed.api.outbound_count == before


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        ([], False), (["+4420"], True), (["+442079460018"], True), (["+44 20 7946"], True),
        (["+4421"], False), (["+"], False), (["4420"], False), (["", "+1", "+44"], True),
    ],
)  # fmt: skip
def test_a_number_is_allowed_whole_or_by_prefix(allowed: list[str], expected: bool) -> None:
    assert is_allowed(CALLEE, allowed) is expected


class CallBackTests(TestCase):
    def setUp(self) -> None:
        self.vendor = CannedVendorApi({"sid": PLACED_SID, "status": "queued"})
        self.addCleanup(self.vendor.stop)
        self.enterContext(override_settings(**self.vendor.settings(OUTBOUND_ALLOWED=["+1555"])))
        self.call = make_call()

    def call_back(self, *permissions: str, calls: int = 1) -> str:
        self.client.force_login(make_staff("view_call", *permissions))
        selected = [self.call.pk, *(make_call().pk for _ in range(calls - 1))]
        data = {"action": "call_back", "_selected_action": selected}
        return str(
            self.client.post(reverse("admin:calls_call_changelist"), data, follow=True).content.decode()
        )

    def test_a_caller_is_called_back_from_the_number_they_called(self) -> None:
        self.assertIn("Call placed.", self.call_back("place_call"))
        call = Call.objects.get(call_sid=PLACED_SID)
        self.assertEqual(
            (call.direction, call.from_number, call.to_number),
            ("outbound-api", self.call.to_number, self.call.from_number),
        )
        self.assertTrue(AuditEntry.objects.filter(action="call-back", call=self.call).exists())

    def test_it_needs_the_permission_and_one_call(self) -> None:
        self.call_back("change_call")
        self.assertIn("exactly one call", self.call_back("place_call", calls=2))
        self.assertFalse(self.vendor.requests)

    def test_a_number_that_is_not_allowed_is_not_called(self) -> None:
        with override_settings(OUTBOUND_ALLOWED=["+44"]):
            self.assertIn("Add it to OUTBOUND_ALLOWED", self.call_back("place_call"))
        self.assertFalse(self.vendor.requests)
        self.assertFalse(AuditEntry.objects.filter(action="call-back").exists())
