"""`manage.py configure_number` against the simulator of Twilio's REST API."""

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
class Installation:
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
async def installation(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> AsyncIterator[Installation]:
    async with TwilioRestSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as api:
        with own_database(tmp_path / "rows") as database:
            server = await asyncio.to_thread(
                live_server, api.base_url, database.url, tmp_path / "journal",
                TWILIO_BASE_URL=api.base_url, TWILIO_PHONE_NUMBER=NUMBER, PUBLIC_URL=PUBLIC,
            )  # fmt: skip
            yield Installation(server, api, database, tmp_path, Shell(django_db_blocker))


def ours(number: IncomingPhoneNumber) -> tuple[str, str, str, str]:
    return number.voice_url, number.voice_method, number.status_callback, number.status_callback_method


async def test_it_shows_makes_and_undoes_the_changes(installation: Installation) -> None:
    installation.number.status_callback = "https://elsewhere.example/status"
    installation.number.voice_fallback_url = "https://handler.twilio.com/twiml/EH1"
    planned = await installation.configure("--dry-run")
    assert planned.code == 0 and DEMO_URL in planned.out and f"{PUBLIC}/twilio/voice" in planned.out
    assert installation.number.voice_url == DEMO_URL and not installation.database.select(
        "SELECT 1 FROM calls_phonenumber"
    )

    done = await manage(installation.server, "configure_number")
    assert done.code == 0 and "https://elsewhere.example/status" in done.out and "--undo" in done.out
    assert ours(installation.number) == (f"{PUBLIC}/twilio/voice", "POST", f"{PUBLIC}/twilio/status", "POST")
    assert installation.number.voice_fallback_url == "https://handler.twilio.com/twiml/EH1"
    assert installation.database.select("SELECT number, active FROM calls_phonenumber") == [(NUMBER, True)]
    (kept,) = (installation.folder / "numbers").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    again = await installation.configure()
    assert again.code == 0 and "nothing to change" in again.out

    undone = await installation.configure("--undo")
    assert undone.code == 0
    assert (installation.number.voice_url, installation.number.status_callback) == (
        DEMO_URL,
        "https://elsewhere.example/status",
    )
    assert (await installation.configure("--undo")).says("nothing to undo")


async def test_it_removes_the_twiml_app_and_sets_a_fallback_url(installation: Installation) -> None:
    installation.number.voice_application_sid = "AP" + "1" * 32
    done = await installation.configure(
        "+1 555 987-0000", "--fallback-url", "https://handler.twilio.com/twiml/EH2"
    )
    assert done.code == 0
    assert installation.number.voice_application_sid == ""
    assert installation.number.voice_fallback_url == "https://handler.twilio.com/twiml/EH2"


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
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
    installation: Installation, arguments: tuple[str, ...], variables: dict[str, str], words: str
) -> None:
    refused = await installation.configure(*arguments, **variables)
    assert refused.code == 1 and refused.says(words), refused
    assert installation.number.voice_url == DEMO_URL


async def test_it_reports_twilios_errors_and_a_sip_trunk(installation: Installation) -> None:
    installation.number.trunk_sid = "TK" + "1" * 32
    assert (await installation.configure()).says("SIP trunk")
    installation.number.trunk_sid = ""
    for faults, words in (
        (TwilioRestFaults(rest_status=429), "rate limiting"),
        (TwilioRestFaults(rest_status=500), "failed with status 500"),
        (TwilioRestFaults(rest_html=True), "cut off or is not JSON"),
    ):
        installation.api.faults = faults
        refused = await installation.configure()
        assert refused.code == 1 and refused.says(words), refused
