"""The doctor at a real server behind a TLS proxy: each check is made red over the wire, and green again.

What is broken is the world: the proxy, the stand-ins for Twilio and Vapi, a setting, a far end that is not
there. The doctor is a process of its own, as somebody types it.
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

from calls.demo.server_process import free_port
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
class Testbed:
    server: LiveServer
    proxy: Proxy
    twilio: TwilioRestSimulator
    vapi: VapiSimulator
    authority: Authority
    shell: Shell
    old_clock: int  # the port of a far end that lives in another year
    assistant_id: str = ""
    folder: Path = field(default_factory=Path)

    async def doctor(self, *arguments: str, **variables: str) -> Printed:
        return await self.shell.manage(self.server, "doctor", *arguments, **(self.trusted | variables))

    @property
    def trusted(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.authority.file), "VAPI_ASSISTANT_ID": self.assistant_id}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def testbed(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> AsyncIterator[Testbed]:
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
                testbed = Testbed(
                    server, proxy, twilio, vapi, authority, Shell(django_db_blocker), clock,
                    str(made["id"]), folder,
                )  # fmt: skip
                yield testbed
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


# What makes a check red: a fault of the proxy, settings, or something done to the stand-ins and undone again.


@dataclass(frozen=True)
class Red:
    fix: str  # words of the fix
    fault: Fault = ""
    variables: Callable[[Testbed], dict[str, str]] = lambda testbed: {}
    broken: Callable[[Testbed], Callable[[], None]] | None = None


def variables(**found: str) -> Callable[[Testbed], dict[str, str]]:
    return lambda testbed: found


def changed(
    thing: Callable[[Testbed], Any], name: str, value: Any
) -> Callable[[Testbed], Callable[[], None]]:
    """Set it so; what is returned sets it as it was."""

    def break_it(testbed: Testbed) -> Callable[[], None]:
        target = thing(testbed)
        before = getattr(target, name)
        setattr(target, name, value)
        return lambda: setattr(target, name, before)

    return break_it


def assistant_with(**fields: Any) -> Callable[[Testbed], Callable[[], None]]:
    def break_it(testbed: Testbed) -> Callable[[], None]:
        before = dict(testbed.vapi.assistant_store.get(testbed.assistant_id) or {})
        testbed.vapi.assistant_store.put(fields, testbed.assistant_id)

        def mend() -> None:
            testbed.vapi.assistant_store.put(before, testbed.assistant_id)

        return mend

    return break_it


NOBODY = f"127.0.0.1:{free_port()}"
REDS: dict[str, Red] = {
    "public-url": Red("Set PUBLIC_URL to the https address", variables=variables(PUBLIC_URL="")),
    "secret-key": Red("Set DJANGO_SECRET_KEY", variables=variables(DJANGO_SECRET_KEY="")),
    "twilio-settings": Red("TWILIO_AUTH_TOKEN", variables=variables(TWILIO_AUTH_TOKEN="")),
    "vapi-settings": Red("VAPI_API_KEY", variables=variables(VAPI_API_KEY="")),
    "fallback-number": Red("with + and the country code", variables=variables(FALLBACK_NUMBER="555 0107")),
    "address": Red("Start the tunnel or the proxy", variables=variables(PUBLIC_URL=f"https://{NOBODY}")),
    "certificate": Red(
        "valid certificate for this name",
        variables=lambda testbed: {"PUBLIC_URL": f"https://localhost:{testbed.proxy.untrusted_port}"},
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
        broken=changed(lambda testbed: testbed.twilio.account, "status", "suspended"),
    ),
    "twilio-number": Red(
        "manage.py configure_number",
        broken=changed(lambda testbed: testbed.twilio.numbers[NUMBER], "voice_url", "https://elsewhere.example/"),
    ),
    "vapi-key": Red("private key", variables=variables(VAPI_API_KEY="a-public-key")),
    "assistant": Red("Set VAPI_ASSISTANT_ID", variables=variables(VAPI_ASSISTANT_ID="nobody")),
    "assistant-parts": Red("Choose a model, a voice", broken=assistant_with(voice=None)),
    "assistant-endpointing": Red(
        "300 to 400", broken=assistant_with(transcriber={"provider": "deepgram", "endpointing": 10})
    ),
    "assistant-limits": Red("Raise MAX_CALL_SECONDS", variables=variables(MAX_CALL_SECONDS="30")),
    "vapi-socket": Red(
        "check the address in VAPI_SOCKET_URL", variables=variables(VAPI_SOCKET_URL=f"ws://{NOBODY}/socket")
    ),
    "database": Red("check DATABASE_URL", variables=variables(DATABASE_URL=f"postgres://x@{NOBODY}/x")),
    "migrations": Red(
        "manage.py migrate", variables=lambda testbed: {"DATABASE_URL": f"sqlite:///{testbed.folder / 'empty.db'}"}
    ),
    "redis": Red("check REDIS_URL", variables=variables(REDIS_URL=f"redis://{NOBODY}/0")),
    "clock": Red(
        "Set the clock by NTP",
        variables=lambda testbed: {"TWILIO_BASE_URL": f"http://127.0.0.1:{testbed.old_clock}"},
    ),
    "disk": Red("Point JOURNAL_DIR to a folder", variables=variables(JOURNAL_DIR="/dev/null/journal")),
    "workers": Red("Set REDIS_URL, or run one worker", variables=variables(WEB_CONCURRENCY="3")),
}  # fmt: skip


async def test_no_check_is_without_a_red() -> None:
    assert set(REDS) == set(NAMES)


@pytest.mark.parametrize("name", REDS)
async def test_each_red_is_seen_and_says_the_way_out(testbed: Testbed, name: str) -> None:
    red = REDS[name]
    testbed.proxy.fault = red.fault
    mend = red.broken(testbed) if red.broken else None
    try:
        found = await testbed.doctor("--only", name, "--json", **red.variables(testbed))
    finally:
        testbed.proxy.fault = ""
        if mend is not None:
            mend()
    assert found.code == 1, found
    (check,) = json.loads(found.out)["checks"]
    assert (check["name"], check["level"]) == (name, "red"), check
    assert red.fix in check["fix"], check
    assert AUTH_TOKEN not in found.out + found.err and SECRET not in found.out + found.err


async def test_all_is_green_where_all_is_well(testbed: Testbed) -> None:
    found = await testbed.doctor("--json")
    told = json.loads(found.out)
    assert {check["name"]: check for check in told["checks"] if check["level"] != "green"} == {}
    assert found.code == 0 and told["ok"]
    assert [check["name"] for check in told["checks"]] == list(NAMES)
    in_words = await manage(testbed.server, "doctor", **testbed.trusted)
    assert in_words.code == 0 and in_words.out.count("green") == len(NAMES)


async def test_what_builds_on_a_red_is_not_looked_at(testbed: Testbed) -> None:
    found = await testbed.doctor(
        "--json", "--only", "websocket", "--only", "address", PUBLIC_URL=f"https://{NOBODY}"
    )
    levels = {check["name"]: (check["level"], check["seen"]) for check in json.loads(found.out)["checks"]}
    assert levels["address"][0] == "red"
    assert levels["websocket"] == ("amber", "Not checked: address is red.")


@pytest.mark.parametrize(
    ("name", "red", "words"),
    [
        (
            "twilio-account",
            Red("", broken=changed(lambda testbed: testbed.twilio.account, "type", "Trial")),
            "trial",
        ),
        ("twilio-number", Red("", variables=variables(TWILIO_PHONE_NUMBER="")), "is not set"),
        (
            "twilio-number",
            Red("", broken=changed(lambda testbed: testbed.twilio.numbers[NUMBER], "voice_fallback_url", "")),
            "has no fallback URL",
        ),
        ("assistant-parts", Red("", broken=assistant_with(firstMessage="")), "no first message"),
        ("assistant-limits", Red("", broken=assistant_with(maxDurationSeconds=600)), "own limit is 600"),
        ("secret-key", Red("", variables=variables(DJANGO_DEBUG="on")), "DJANGO_DEBUG is on"),
    ],
)
async def test_what_is_not_wrong_but_not_well_is_amber(
    testbed: Testbed, name: str, red: Red, words: str
) -> None:
    mend = red.broken(testbed) if red.broken else None
    try:
        found = await testbed.doctor("--only", name, "--json", **red.variables(testbed))
    finally:
        if mend is not None:
            mend()
    (check,) = json.loads(found.out)["checks"]
    assert (found.code, check["level"]) == (0, "amber") and words in check["seen"], check


async def test_every_row_of_the_founding_table_is_there_and_names_checks() -> None:
    assert len(SYMPTOMS) >= 3
    for row in SYMPTOMS:
        assert row.checks and set(row.checks) <= set(NAMES), row.title


async def test_symptoms_are_printed(testbed: Testbed) -> None:
    printed = await testbed.doctor("--symptoms")
    assert printed.code == 0
    assert all(row.title in printed.out for row in SYMPTOMS)


async def test_more_workers_than_the_database_has_room_for_are_seen(testbed: Testbed) -> None:
    url = os.environ.get("TEST_POSTGRES_URL")
    if not url:
        pytest.skip("needs PostgreSQL: set TEST_POSTGRES_URL")
    settings = {"DATABASE_URL": url, "WEB_CONCURRENCY": "1000"}
    found = await testbed.doctor("--only", "database", "--json", **settings)
    (check,) = json.loads(found.out)["checks"]
    assert check["level"] == "amber" and "may need 10000 connections" in check["seen"], check
