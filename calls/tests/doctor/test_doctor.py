"""The doctor against a real server behind a TLS proxy: each check turns red for a real fault.

The faults are in the proxy, the simulators of Twilio and Vapi, the settings, or a peer that does not exist.
The doctor runs in the process of the tests (`Shell`), and once as a separate process.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pytest_django import DjangoDbBlocker

from calls.demo.server_process import reserve_port
from calls.doctor import NAMES
from calls.doctor.symptoms import SYMPTOMS
from calls.tests.commands import Printed, Shell, manage
from calls.tests.doctor.proxy import END, Authority, Fault, Proxy, tls_proxy
from calls.tests.live_server import ACCOUNT_SID, AUTH_TOKEN, LiveServer, live_server, own_database
from calls.twilio.number_config import desired_config
from calls.vapi import assistant_config, tools
from calls.vapi.assistant_config import Options, ServerDefaults
from sandbox.twilio.rest.server import NUMBER, TwilioRestSimulator
from sandbox.vapi.server import VapiSimulator

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.once]

SECRET = "a-webhook-secret"
LONG_AGO = b"HTTP/1.1 404 No\r\nDate: Mon, 23 Nov 2020 10:00:00 GMT\r\n" + END


@dataclass
class Installation:
    server: LiveServer
    proxy: Proxy
    twilio: TwilioRestSimulator
    vapi: VapiSimulator
    authority: Authority
    shell: Shell
    old_clock: int  # the port of a peer whose clock is years behind
    assistant_id: str = ""
    folder: Path = field(default_factory=Path)

    async def doctor(self, *arguments: str, **variables: str) -> Printed:
        return await self.shell.manage(self.server, "doctor", *arguments, **(self.trusted | variables))

    @property
    def trusted(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.authority.file), "VAPI_ASSISTANT_ID": self.assistant_id}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installation(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> AsyncIterator[Installation]:
    folder = tmp_path_factory.mktemp("doctor")
    authority, stranger = Authority(folder / "ours"), Authority(folder / "theirs")
    async with (
        VapiSimulator(listen="energy") as vapi,
        TwilioRestSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as twilio,
        tls_proxy(authority, stranger) as proxy,
        old_clock() as clock,
    ):
        public = f"https://localhost:{proxy.port}"
        with own_database(folder / "rows") as database:
            server = await asyncio.to_thread(
                live_server, vapi.base_url, database.url, folder / "journal", PUBLIC_URL=public,
                DJANGO_DEBUG="off", TWILIO_BASE_URL=twilio.base_url, TWILIO_PHONE_NUMBER=NUMBER,
                FALLBACK_NUMBER="+15550107777", VAPI_WEBHOOK_SECRET=SECRET, REDIS_URL="",
            )  # fmt: skip
            proxy.target = server.port
            defaults = ServerDefaults(
                server_url=f"{public}/vapi/events", secret=SECRET, max_call_seconds=1800, record=False,
                tools=tools.declarations(),
            )  # fmt: skip
            made = vapi.assistant_store.put(assistant_config.desired_config({}, Options(), defaults))
            for name, value in desired_config(public).items():
                setattr(twilio.numbers[NUMBER], name, value)
            twilio.numbers[NUMBER].voice_fallback_url = "https://handler.twilio.com/twiml/EH1"
            async with server:
                installation = Installation(
                    server, proxy, twilio, vapi, authority, Shell(django_db_blocker), clock,
                    str(made["id"]), folder,
                )  # fmt: skip
                yield installation
                await server.stop()


@asynccontextmanager
async def old_clock() -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(LONG_AGO)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


# What makes a check red: a fault of the proxy, settings, or a change to the simulators that is undone again.


@dataclass(frozen=True)
class Red:
    fix: str  # part of the fix
    fault: Fault = ""
    variables: Callable[[Installation], dict[str, str]] = lambda installation: {}
    broken: Callable[[Installation], Callable[[], None]] | None = None


def variables(**found: str) -> Callable[[Installation], dict[str, str]]:
    return lambda installation: found


def changed(
    thing: Callable[[Installation], Any], name: str, value: Any
) -> Callable[[Installation], Callable[[], None]]:
    """Set an attribute; the function that is returned restores it."""

    def break_it(installation: Installation) -> Callable[[], None]:
        target = thing(installation)
        before = getattr(target, name)
        setattr(target, name, value)
        return lambda: setattr(target, name, before)

    return break_it


def assistant_with(**fields: Any) -> Callable[[Installation], Callable[[], None]]:
    def break_it(installation: Installation) -> Callable[[], None]:
        before = dict(installation.vapi.assistant_store.get(installation.assistant_id) or {})
        installation.vapi.assistant_store.put(fields, installation.assistant_id)

        def restore() -> None:
            installation.vapi.assistant_store.put(before, installation.assistant_id)

        return restore

    return break_it


NO_SERVER = f"127.0.0.1:{reserve_port()}"
REDS: dict[str, Red] = {
    "public-url": Red("Set PUBLIC_URL to the https address", variables=variables(PUBLIC_URL="")),
    "secret-key": Red("Set DJANGO_SECRET_KEY", variables=variables(DJANGO_SECRET_KEY="")),
    "twilio-settings": Red("TWILIO_AUTH_TOKEN", variables=variables(TWILIO_AUTH_TOKEN="")),
    "vapi-settings": Red("VAPI_API_KEY", variables=variables(VAPI_API_KEY="")),
    "fallback-number": Red("with + and the country code", variables=variables(FALLBACK_NUMBER="555 0107")),
    "address": Red("Start the tunnel or the proxy", variables=variables(PUBLIC_URL=f"https://{NO_SERVER}")),
    "certificate": Red(
        "valid certificate for this name",
        variables=lambda installation: {"PUBLIC_URL": f"https://localhost:{installation.proxy.untrusted_port}"},
    ),
    "redirects": Red("Switch the redirect off", "redirects"),
    "this-server": Red("Point the proxy or tunnel to this server's port", "elsewhere"),
    "headers": Red("pass all headers unchanged", "strips-signature"),
    "paths": Red("no decoding of %2B", "decodes-query"),
    "bodies": Red("pass POST requests with their body", "drops-body"),
    "signature": Red("with the same TWILIO_AUTH_TOKEN", variables=variables(TWILIO_AUTH_TOKEN="another")),
    "websocket": Red("Upgrade and Connection headers", "no-upgrade"),
    "twilio-account": Red(
        "see what the account needs",
        broken=changed(lambda installation: installation.twilio.account, "status", "suspended"),
    ),
    "twilio-number": Red(
        "manage.py configure_number",
        broken=changed(lambda installation: installation.twilio.numbers[NUMBER], "voice_url", "https://elsewhere.example/"),
    ),
    "vapi-key": Red("private key", variables=variables(VAPI_API_KEY="a-public-key")),
    "assistant": Red("Set VAPI_ASSISTANT_ID", variables=variables(VAPI_ASSISTANT_ID="nobody")),
    "assistant-parts": Red("Choose a model, a voice", broken=assistant_with(voice=None)),
    "assistant-endpointing": Red(
        "300 to 400", broken=assistant_with(transcriber={"provider": "deepgram", "endpointing": 10})
    ),
    "assistant-limits": Red("Raise MAX_CALL_SECONDS", variables=variables(MAX_CALL_SECONDS="30")),
    "vapi-socket": Red(
        "check the address in VAPI_SOCKET_URL", variables=variables(VAPI_SOCKET_URL=f"ws://{NO_SERVER}/socket")
    ),
    "database": Red("check DATABASE_URL", variables=variables(DATABASE_URL=f"postgres://x@{NO_SERVER}/x")),
    "migrations": Red(
        "manage.py migrate",
        variables=lambda installation: {"DATABASE_URL": f"sqlite:///{installation.folder / 'empty.db'}"},
    ),
    "redis": Red("check REDIS_URL", variables=variables(REDIS_URL=f"redis://{NO_SERVER}/0")),
    "clock": Red(
        "Set the clock by NTP",
        variables=lambda installation: {"TWILIO_BASE_URL": f"http://127.0.0.1:{installation.old_clock}"},
    ),
    "disk": Red("Point JOURNAL_DIR to a folder", variables=variables(JOURNAL_DIR="/dev/null/journal")),
    "workers": Red("Set REDIS_URL, or run one worker", variables=variables(WEB_CONCURRENCY="3")),
}  # fmt: skip


async def test_every_check_has_a_failing_case() -> None:
    assert set(REDS) == set(NAMES)


@pytest.mark.parametrize("name", REDS)
async def test_each_check_fails_and_says_how_to_fix_it(installation: Installation, name: str) -> None:
    red = REDS[name]
    installation.proxy.fault = red.fault
    restore = red.broken(installation) if red.broken else None
    try:
        found = await installation.doctor("--only", name, "--json", **red.variables(installation))
    finally:
        installation.proxy.fault = ""
        if restore is not None:
            restore()
    assert found.code == 1, found
    (check,) = json.loads(found.out)["checks"]
    assert (check["name"], check["level"]) == (name, "red"), check
    assert red.fix in check["fix"], check
    assert AUTH_TOKEN not in found.out + found.err and SECRET not in found.out + found.err


async def test_all_checks_pass_on_a_working_installation(installation: Installation) -> None:
    found = await installation.doctor("--json")
    told = json.loads(found.out)
    assert {check["name"]: check for check in told["checks"] if check["level"] != "green"} == {}
    assert found.code == 0 and told["ok"]
    assert [check["name"] for check in told["checks"]] == list(NAMES)
    as_text = await manage(installation.server, "doctor", **installation.trusted)
    assert as_text.code == 0 and as_text.out.count("green") == len(NAMES)


async def test_a_check_that_depends_on_a_red_one_is_skipped(installation: Installation) -> None:
    found = await installation.doctor(
        "--json", "--only", "websocket", "--only", "address", PUBLIC_URL=f"https://{NO_SERVER}"
    )
    levels = {check["name"]: (check["level"], check["seen"]) for check in json.loads(found.out)["checks"]}
    assert levels["address"][0] == "red"
    assert levels["websocket"] == ("amber", "Not checked: address is red.")


@pytest.mark.parametrize(
    ("name", "red", "words"),
    [
        (
            "twilio-account",
            Red("", broken=changed(lambda installation: installation.twilio.account, "type", "Trial")),
            "trial",
        ),
        ("twilio-number", Red("", variables=variables(TWILIO_PHONE_NUMBER="")), "is not set"),
        (
            "twilio-number",
            Red(
                "",
                broken=changed(
                    lambda installation: installation.twilio.numbers[NUMBER], "voice_fallback_url", ""
                ),
            ),
            "has no fallback URL",
        ),
        ("assistant-parts", Red("", broken=assistant_with(firstMessage="")), "no first message"),
        ("assistant-limits", Red("", broken=assistant_with(maxDurationSeconds=600)), "own limit is 600"),
        ("secret-key", Red("", variables=variables(DJANGO_DEBUG="on")), "DJANGO_DEBUG is on"),
    ],
)
async def test_recommendations_are_amber(installation: Installation, name: str, red: Red, words: str) -> None:
    restore = red.broken(installation) if red.broken else None
    try:
        found = await installation.doctor("--only", name, "--json", **red.variables(installation))
    finally:
        if restore is not None:
            restore()
    (check,) = json.loads(found.out)["checks"]
    assert (found.code, check["level"]) == (0, "amber") and words in check["seen"], check


async def test_every_symptom_names_existing_checks() -> None:
    assert len(SYMPTOMS) >= 3
    for row in SYMPTOMS:
        assert row.checks and set(row.checks) <= set(NAMES), row.title


async def test_symptoms_are_printed(installation: Installation) -> None:
    printed = await installation.doctor("--symptoms")
    assert printed.code == 0
    assert all(row.title in printed.out for row in SYMPTOMS)


async def test_too_many_workers_for_the_database_are_amber(installation: Installation) -> None:
    url = os.environ.get("TEST_POSTGRES_URL")
    if not url:
        pytest.skip("needs PostgreSQL: set TEST_POSTGRES_URL")
    settings = {"DATABASE_URL": url, "WEB_CONCURRENCY": "1000"}
    found = await installation.doctor("--only", "database", "--json", **settings)
    (check,) = json.loads(found.out)["checks"]
    assert check["level"] == "amber" and "may need 10000 connections" in check["seen"], check
