"""`manage.py configure_number` against the simulator of Twilio's REST API."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from calls.tests.commands import CommandResult, InProcessCommands, run_command_async
from calls.tests.live_server import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    Database,
    LiveServer,
    make_server,
    temporary_database,
)
from sandbox.faults import TwilioRestFaults
from sandbox.twilio.rest.resources import DEMO_URL, IncomingPhoneNumber
from sandbox.twilio.rest.server import NUMBER, TwilioRestSimulator

pytestmark = [pytest.mark.slow, pytest.mark.once]

PUBLIC = "https://voice.example.com"


@dataclass(frozen=True)
class NumberTestbed:
    server: LiveServer  # for its environment; it does not run
    api: TwilioRestSimulator
    database: Database
    folder: Path
    commands: InProcessCommands

    @property
    def number(self) -> IncomingPhoneNumber:
        return self.api.numbers[NUMBER]

    async def configure(self, *arguments: str, **variables: str) -> CommandResult:
        return await self.commands.run(self.server.environment, "configure_number", *arguments, **variables)


@pytest.fixture
async def testbed(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> AsyncIterator[NumberTestbed]:
    async with TwilioRestSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as api:
        with temporary_database(tmp_path / "rows") as database:
            server = await asyncio.to_thread(
                make_server, api.base_url, database.url, tmp_path / "journal",
                TWILIO_BASE_URL=api.base_url, TWILIO_PHONE_NUMBER=NUMBER, PUBLIC_URL=PUBLIC,
            )  # fmt: skip
            yield NumberTestbed(server, api, database, tmp_path, InProcessCommands(django_db_blocker))


def get_webhooks(number: IncomingPhoneNumber) -> tuple[str, str, str, str]:
    return number.voice_url, number.voice_method, number.status_callback, number.status_callback_method


async def test_it_previews_applies_and_reverts_the_changes(testbed: NumberTestbed) -> None:
    testbed.number.status_callback = "https://elsewhere.example/status"
    testbed.number.voice_fallback_url = "https://handler.twilio.com/twiml/EH1"
    preview = await testbed.configure("--dry-run")
    assert preview.code == 0 and DEMO_URL in preview.stdout and f"{PUBLIC}/twilio/voice" in preview.stdout
    assert testbed.number.voice_url == DEMO_URL and not testbed.database.select(
        "SELECT 1 FROM calls_phonenumber"
    )

    applied = await run_command_async(testbed.server.environment, "configure_number")
    assert (
        applied.code == 0
        and "https://elsewhere.example/status" in applied.stdout
        and "--undo" in applied.stdout
    )
    assert get_webhooks(testbed.number) == (
        f"{PUBLIC}/twilio/voice",
        "POST",
        f"{PUBLIC}/twilio/status",
        "POST",
    )
    assert testbed.number.voice_fallback_url == "https://handler.twilio.com/twiml/EH1"
    assert testbed.database.select("SELECT number, active FROM calls_phonenumber") == [(NUMBER, True)]
    (backup,) = (testbed.folder / "numbers").iterdir()
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600

    again = await testbed.configure()
    assert again.code == 0 and "nothing to change" in again.stdout

    reverted = await testbed.configure("--undo")
    assert reverted.code == 0
    assert (testbed.number.voice_url, testbed.number.status_callback) == (
        DEMO_URL,
        "https://elsewhere.example/status",
    )
    assert (await testbed.configure("--undo")).contains("nothing to undo")


async def test_it_removes_the_twiml_app_and_sets_a_fallback_url(testbed: NumberTestbed) -> None:
    testbed.number.voice_application_sid = "AP" + "1" * 32
    applied = await testbed.configure(
        "+1 555 987-0000", "--fallback-url", "https://handler.twilio.com/twiml/EH2"
    )
    assert applied.code == 0
    assert testbed.number.voice_application_sid == ""
    assert testbed.number.voice_fallback_url == "https://handler.twilio.com/twiml/EH2"


@pytest.mark.parametrize(
    ("arguments", "variables", "text"),
    [
        (("+15550000000",), {}, "The account has no number +15550000000"),
        (("12",), {}, "Enter the number with +"),
        ((), {"TWILIO_PHONE_NUMBER": ""}, "set TWILIO_PHONE_NUMBER"),
        (("--fallback-url", "http://example.com"), {}, "must be an https address"),
        ((), {"TWILIO_AUTH_TOKEN": "wrong"}, "Check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"),
        ((), {"TWILIO_AUTH_TOKEN": ""}, "not both set"),
        ((), {"TWILIO_BASE_URL": "", "PUBLIC_URL": "http://127.0.0.1:8000"}, "Twilio cannot reach http://127"),
    ],
)  # fmt: skip
async def test_it_explains_why_it_cannot_configure(
    testbed: NumberTestbed, arguments: tuple[str, ...], variables: dict[str, str], text: str
) -> None:
    failed = await testbed.configure(*arguments, **variables)
    assert failed.code == 1 and failed.contains(text), failed
    assert testbed.number.voice_url == DEMO_URL


async def test_it_reports_twilios_errors_and_a_sip_trunk(testbed: NumberTestbed) -> None:
    testbed.number.trunk_sid = "TK" + "1" * 32
    assert (await testbed.configure()).contains("SIP trunk")
    testbed.number.trunk_sid = ""
    for faults, text in (
        (TwilioRestFaults(rest_status=429), "rate limiting"),
        (TwilioRestFaults(rest_status=500), "failed with status 500"),
        (TwilioRestFaults(rest_html=True), "cut off or is not JSON"),
    ):
        testbed.api.faults = faults
        failed = await testbed.configure()
        assert failed.code == 1 and failed.contains(text), failed
