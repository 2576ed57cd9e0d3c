"""`manage.py configure_number`, as somebody types it, against the stand-in for Twilio's REST API."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from calls.tests.commands import Printed, Shell, manage
from calls.tests.live_server import ACCOUNT_SID, AUTH_TOKEN, Database, LiveServer, live_server, own_database
from sandbox.faults import TwilioRestFaults
from sandbox.twilio.rest.resources import DEMO_URL, IncomingPhoneNumber
from sandbox.twilio.rest.server import NUMBER, TwilioRestSimulator

pytestmark = [pytest.mark.slow, pytest.mark.once]

PUBLIC = "https://voice.example.com"


@dataclass(frozen=True)
class Testbed:
    server: LiveServer  # its settings; it need not run
    api: TwilioRestSimulator
    database: Database
    folder: Path
    shell: Shell

    @property
    def number(self) -> IncomingPhoneNumber:
        return self.api.numbers[NUMBER]

    async def configure(self, *arguments: str, **variables: str) -> Printed:
        return await self.shell.manage(self.server, "configure_number", *arguments, **variables)


@pytest.fixture
async def testbed(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> AsyncIterator[Testbed]:
    async with TwilioRestSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as api:
        with own_database(tmp_path / "rows") as database:
            server = await asyncio.to_thread(
                live_server, api.base_url, database.url, tmp_path / "journal",
                TWILIO_BASE_URL=api.base_url, TWILIO_PHONE_NUMBER=NUMBER, PUBLIC_URL=PUBLIC,
            )  # fmt: skip
            yield Testbed(server, api, database, tmp_path, Shell(django_db_blocker))


def ours(number: IncomingPhoneNumber) -> tuple[str, str, str, str]:
    return number.voice_url, number.voice_method, number.status_callback, number.status_callback_method


async def test_it_shows_what_it_would_do_then_does_it_and_undoes_it(testbed: Testbed) -> None:
    testbed.number.status_callback = "https://elsewhere.example/status"
    testbed.number.voice_fallback_url = "https://handler.twilio.com/twiml/EH1"
    planned = await testbed.configure("--dry-run")
    assert planned.code == 0 and DEMO_URL in planned.out and f"{PUBLIC}/twilio/voice" in planned.out
    assert testbed.number.voice_url == DEMO_URL and not testbed.database.select(
        "SELECT 1 FROM calls_phonenumber"
    )

    done = await manage(testbed.server, "configure_number")
    assert done.code == 0 and "https://elsewhere.example/status" in done.out and "--undo" in done.out
    assert ours(testbed.number) == (f"{PUBLIC}/twilio/voice", "POST", f"{PUBLIC}/twilio/status", "POST")
    assert testbed.number.voice_fallback_url == "https://handler.twilio.com/twiml/EH1"
    assert testbed.database.select("SELECT number, active FROM calls_phonenumber") == [(NUMBER, True)]
    (kept,) = (testbed.folder / "numbers").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    again = await testbed.configure()
    assert again.code == 0 and "nothing to change" in again.out

    undone = await testbed.configure("--undo")
    assert undone.code == 0
    assert (testbed.number.voice_url, testbed.number.status_callback) == (
        DEMO_URL,
        "https://elsewhere.example/status",
    )
    assert (await testbed.configure("--undo")).says("nothing to undo")


async def test_a_number_is_taken_from_an_app_and_may_have_a_fallback(testbed: Testbed) -> None:
    testbed.number.voice_application_sid = "AP" + "1" * 32
    done = await testbed.configure(
        "+1 555 987-0000", "--fallback-url", "https://handler.twilio.com/twiml/EH2"
    )
    assert done.code == 0
    assert testbed.number.voice_application_sid == ""
    assert testbed.number.voice_fallback_url == "https://handler.twilio.com/twiml/EH2"


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (("+15550000000",), {}, "The account has no number +15550000000"),
        (("12",), {}, "Write the number with +"),
        ((), {"TWILIO_PHONE_NUMBER": ""}, "set TWILIO_PHONE_NUMBER"),
        (("--fallback-url", "http://example.com"), {}, "must be an https address"),
        ((), {"TWILIO_AUTH_TOKEN": "wrong"}, "Check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"),
        ((), {"TWILIO_AUTH_TOKEN": ""}, "not both set"),
        ((), {"TWILIO_BASE_URL": "", "PUBLIC_URL": "http://127.0.0.1:8000"}, "Twilio cannot reach http://127"),
    ],
)  # fmt: skip
async def test_what_stands_in_the_way_is_said(
    testbed: Testbed, arguments: tuple[str, ...], variables: dict[str, str], words: str
) -> None:
    refused = await testbed.configure(*arguments, **variables)
    assert refused.code == 1 and refused.says(words), refused
    assert testbed.number.voice_url == DEMO_URL


async def test_trouble_at_twilio_is_said_and_what_it_keeps_too(testbed: Testbed) -> None:
    testbed.number.trunk_sid = "TK" + "1" * 32
    assert (await testbed.configure()).says("SIP trunk")
    testbed.number.trunk_sid = ""
    for faults, words in (
        (TwilioRestFaults(rest_status=429), "rate limiting"),
        (TwilioRestFaults(rest_status=500), "failed with status 500"),
        (TwilioRestFaults(rest_html=True), "cut off or is not JSON"),
    ):
        testbed.api.faults = faults
        refused = await testbed.configure()
        assert refused.code == 1 and refused.says(words), refused
