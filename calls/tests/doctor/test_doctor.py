"""The doctor against a real server behind a TLS proxy: each check is red for a real fault.

The faults are in the proxy, the simulators of Twilio and Vapi, the settings, or a peer that does not exist.
The doctor runs in the process of the tests (`InProcessCommands`), and once as a separate process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
import pytest_asyncio
from pytest_django import DjangoDbBlocker

from calls.demo.server_process import reserve_port
from calls.doctor import NAMES, host, vapi
from calls.doctor.host import grade_database
from calls.doctor.settings import build_unmet_finding
from calls.doctor.symptoms import SYMPTOMS
from calls.tests.commands import CommandResult, InProcessCommands, run_command_async
from calls.tests.doctor.proxy import END, Authority, Fault, Proxy, start_tls_proxy
from calls.tests.live_server import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    Database,
    LiveServer,
    make_server,
    temporary_database,
)
from calls.twilio.number_config import build_config
from calls.vapi import assistant_config, tools
from calls.vapi.assistant_config import Options, ServerDefaults
from sandbox.twilio.rest.server import NUMBER, TwilioRestSimulator
from sandbox.vapi.server import VapiSimulator
from voiceai.environment import normalize_origin

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.once]

SECRET = "a-webhook-secret"
OLD_DATE_RESPONSE = b"HTTP/1.1 404 No\r\nDate: Mon, 23 Nov 2020 10:00:00 GMT\r\n" + END


@dataclass
class DoctorTestbed:
    server: LiveServer
    proxy: Proxy
    twilio: TwilioRestSimulator
    vapi: VapiSimulator
    authority: Authority
    commands: InProcessCommands
    wrong_clock_port: int  # of a peer whose clock is years behind
    assistant_id: str = ""
    folder: Path = field(default_factory=Path)

    async def run_doctor(self, *arguments: str, **variables: str) -> CommandResult:
        return await self.commands.run(
            self.server.environment, "doctor", *arguments, **(self.variables | variables)
        )

    @property
    def variables(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.authority.file), "VAPI_ASSISTANT_ID": self.assistant_id}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def testbed(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> AsyncIterator[DoctorTestbed]:
    folder = tmp_path_factory.mktemp("doctor")
    authority, untrusted_authority = Authority(folder / "trusted"), Authority(folder / "untrusted")
    async with (
        VapiSimulator(listen="energy") as vapi,
        TwilioRestSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as twilio,
        start_tls_proxy(authority, untrusted_authority) as proxy,
        start_peer_with_wrong_clock() as wrong_clock_port,
    ):
        public = f"https://localhost:{proxy.port}"
        with temporary_database(folder / "rows") as database:
            server = await asyncio.to_thread(
                make_server, vapi.base_url, database.url, folder / "journal", PUBLIC_URL=public,
                DJANGO_DEBUG="off", TWILIO_BASE_URL=twilio.base_url, TWILIO_PHONE_NUMBER=NUMBER,
                FALLBACK_NUMBER="+15550107777", VAPI_WEBHOOK_SECRET=SECRET, REDIS_URL="",
            )  # fmt: skip
            proxy.target_port = server.port
            defaults = ServerDefaults(
                server_url=f"{public}/vapi/events", secret=SECRET, max_call_seconds=1800, record=False,
                tools=tools.build_declarations(),
            )  # fmt: skip
            assistant = vapi.assistant_store.put(assistant_config.build_config({}, Options(), defaults))
            for name, value in build_config(public).items():
                setattr(twilio.numbers[NUMBER], name, value)
            twilio.numbers[NUMBER].voice_fallback_url = "https://handler.twilio.com/twiml/EH1"
            async with server:
                testbed = DoctorTestbed(
                    server, proxy, twilio, vapi, authority, InProcessCommands(django_db_blocker),
                    wrong_clock_port, str(assistant["id"]), folder,
                )  # fmt: skip
                yield testbed
                await server.stop()


@asynccontextmanager
async def start_peer_with_wrong_clock() -> AsyncIterator[int]:
    """Yields the port."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OLD_DATE_RESPONSE)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


# What makes a check red: a fault of the proxy, other settings, or a change to the simulators.


# Changes the testbed. Returns a function that undoes it.
Change: TypeAlias = Callable[["DoctorTestbed"], Callable[[], None]]


def add_server_process(testbed: DoctorTestbed) -> Callable[[], None]:
    """Another server process reports to the same database."""
    database = Database(testbed.server.environment["DATABASE_URL"])
    database.execute(
        "INSERT INTO calls_worker (name, host, started_at, seen_at, live_calls, max_calls, stopping,"
        " drain_requested) SELECT 'another', host, started_at, seen_at, 0, 50, stopping, drain_requested"
        " FROM calls_worker"
    )
    return lambda: database.execute("DELETE FROM calls_worker WHERE name = 'another'")


@dataclass(frozen=True)
class FailingCase:
    fix: str  # text that the advice must contain
    fault: Fault = ""
    variables: Callable[[DoctorTestbed], dict[str, str]] = lambda testbed: {}
    change: Change | None = None


def variables(**values: str) -> Callable[[DoctorTestbed], dict[str, str]]:
    return lambda testbed: values


def set_attribute(find_target: Callable[[DoctorTestbed], Any], name: str, value: Any) -> Change:
    def apply(testbed: DoctorTestbed) -> Callable[[], None]:
        target = find_target(testbed)
        before = getattr(target, name)
        setattr(target, name, value)
        return lambda: setattr(target, name, before)

    return apply


def update_assistant(**fields: Any) -> Change:
    def apply(testbed: DoctorTestbed) -> Callable[[], None]:
        before = dict(testbed.vapi.assistant_store.get(testbed.assistant_id) or {})
        testbed.vapi.assistant_store.put(fields, testbed.assistant_id)

        def restore() -> None:
            testbed.vapi.assistant_store.put(before, testbed.assistant_id)

        return restore

    return apply


NO_SERVER = f"127.0.0.1:{reserve_port()}"
FAILING_CASES: dict[str, FailingCase] = {
    "settings": FailingCase("Correct them in the environment", variables=variables(HOLD_BUFFER_MS="7 s")),
    "public-url": FailingCase("Set PUBLIC_URL to the https address", variables=variables(PUBLIC_URL="")),
    "secret-key": FailingCase("Set DJANGO_SECRET_KEY", variables=variables(DJANGO_SECRET_KEY="")),
    "twilio-settings": FailingCase("TWILIO_AUTH_TOKEN", variables=variables(TWILIO_AUTH_TOKEN="")),
    "vapi-settings": FailingCase("VAPI_API_KEY", variables=variables(VAPI_API_KEY="")),
    "fallback-number": FailingCase(
        "with + and the country code", variables=variables(FALLBACK_NUMBER="555 0107")
    ),
    "address": FailingCase("Start the tunnel or the proxy", variables=variables(PUBLIC_URL=f"https://{NO_SERVER}")),
    "certificate": FailingCase(
        "valid certificate for this name",
        variables=lambda testbed: {"PUBLIC_URL": f"https://localhost:{testbed.proxy.untrusted_port}"},
    ),
    "redirects": FailingCase("Switch the redirect off", "redirects"),
    "this-server": FailingCase("Point the proxy or tunnel to this server's port", "wrong-server"),
    "headers": FailingCase("pass all headers unchanged", "strips-signature"),
    "paths": FailingCase("no decoding of %2B", "decodes-query"),
    "bodies": FailingCase("pass POST requests with their body", "drops-body"),
    "signature": FailingCase(
        "with the same TWILIO_AUTH_TOKEN", variables=variables(TWILIO_AUTH_TOKEN="another")
    ),
    "websocket": FailingCase("Upgrade and Connection headers", "no-upgrade"),
    "twilio-account": FailingCase(
        "see what the account needs",
        change=set_attribute(lambda testbed: testbed.twilio.account, "status", "suspended"),
    ),
    "twilio-number": FailingCase(
        "manage.py configure_number",
        change=set_attribute(lambda testbed: testbed.twilio.numbers[NUMBER], "voice_url", "https://elsewhere.example/"),
    ),
    "vapi-key": FailingCase("private key", variables=variables(VAPI_API_KEY="a-public-key")),
    "assistant": FailingCase("Set VAPI_ASSISTANT_ID", variables=variables(VAPI_ASSISTANT_ID="unknown")),
    "assistant-parts": FailingCase("Choose a model, a voice", change=update_assistant(voice=None)),
    "assistant-tools": FailingCase(
        "Set the tool's own server URL",
        change=update_assistant(
            model={"provider": "p", "tools": [{"type": "function", "function": {"name": "book"}}]}
        ),
    ),
    "assistant-endpointing": FailingCase(
        "300 to 400", change=update_assistant(transcriber={"provider": "deepgram", "endpointing": 10})
    ),
    "assistant-limits": FailingCase("Raise MAX_CALL_SECONDS", variables=variables(MAX_CALL_SECONDS="30")),
    "vapi-socket": FailingCase(
        "check the address in VAPI_SOCKET_URL", variables=variables(VAPI_SOCKET_URL=f"ws://{NO_SERVER}/socket")
    ),
    "database": FailingCase("check DATABASE_URL", variables=variables(DATABASE_URL=f"postgres://x@{NO_SERVER}/x")),
    "migrations": FailingCase(
        "manage.py migrate",
        variables=lambda testbed: {"DATABASE_URL": f"sqlite:///{testbed.folder / 'empty.db'}"},
    ),
    "redis": FailingCase("check REDIS_URL", variables=variables(REDIS_URL=f"redis://{NO_SERVER}/0")),
    "clock": FailingCase(
        "Set the clock by NTP",
        variables=lambda testbed: {"TWILIO_BASE_URL": f"http://127.0.0.1:{testbed.wrong_clock_port}"},
    ),
    "disk": FailingCase(
        "Point JOURNAL_DIR to a folder", variables=variables(JOURNAL_DIR="/dev/null/journal")
    ),
    "workers": FailingCase("Set REDIS_URL, or run one server process", change=add_server_process),
}  # fmt: skip


async def test_every_check_has_a_failing_case() -> None:
    assert set(FAILING_CASES) == set(NAMES)


@pytest.mark.parametrize("name", FAILING_CASES)
async def test_each_check_fails_and_says_how_to_fix_it(testbed: DoctorTestbed, name: str) -> None:
    case = FAILING_CASES[name]
    testbed.proxy.fault = case.fault
    restore = case.change(testbed) if case.change else None
    try:
        result = await testbed.run_doctor("--only", name, "--json", **case.variables(testbed))
    finally:
        testbed.proxy.fault = ""
        if restore is not None:
            restore()
    assert result.code == 1, result
    (check,) = result.report["checks"]
    assert (check["name"], check["level"]) == (name, "red"), check
    assert case.fix in check["fix"], check
    assert AUTH_TOKEN not in result.stdout + result.stderr and SECRET not in result.stdout + result.stderr


async def test_all_checks_pass_on_a_working_installation(testbed: DoctorTestbed) -> None:
    result = await testbed.run_doctor("--json")
    report = result.report
    assert {check["name"]: check for check in report["checks"] if check["level"] != "green"} == {}
    assert result.code == 0 and report["ok"]
    assert [check["name"] for check in report["checks"]] == list(NAMES)
    as_text = await run_command_async(testbed.server.environment, "doctor", **testbed.variables)
    assert as_text.code == 0 and as_text.stdout.count("green") == len(NAMES)


async def test_a_check_that_depends_on_a_red_one_is_skipped(testbed: DoctorTestbed) -> None:
    result = await testbed.run_doctor(
        "--json", "--only", "websocket", "--only", "address", PUBLIC_URL=f"https://{NO_SERVER}"
    )
    levels = {check["name"]: (check["level"], check["seen"]) for check in result.report["checks"]}
    assert levels["address"][0] == "red"
    assert levels["websocket"] == ("amber", "Not checked: address is red.")


@pytest.mark.parametrize(
    ("name", "case", "text"),
    [
        (
            "twilio-account",
            FailingCase("", change=set_attribute(lambda testbed: testbed.twilio.account, "type", "Trial")),
            "trial",
        ),
        ("twilio-number", FailingCase("", variables=variables(TWILIO_PHONE_NUMBER="")), "is not set"),
        (
            "twilio-number",
            FailingCase(
                "",
                change=set_attribute(
                    lambda testbed: testbed.twilio.numbers[NUMBER], "voice_fallback_url", ""
                ),
            ),
            "has no fallback URL",
        ),
        ("assistant-parts", FailingCase("", change=update_assistant(firstMessage="")), "no first message"),
        (
            "assistant-limits",
            FailingCase("", change=update_assistant(maxDurationSeconds=600)),
            "own limit is 600",
        ),
        ("secret-key", FailingCase("", variables=variables(DJANGO_DEBUG="on")), "DJANGO_DEBUG is on"),
    ],
)
async def test_recommendations_are_amber(
    testbed: DoctorTestbed, name: str, case: FailingCase, text: str
) -> None:
    restore = case.change(testbed) if case.change else None
    try:
        result = await testbed.run_doctor("--only", name, "--json", **case.variables(testbed))
    finally:
        if restore is not None:
            restore()
    (check,) = result.report["checks"]
    assert (result.code, check["level"]) == (0, "amber") and text in check["seen"], check


OURS = [{"type": "function", "function": {"name": name}} for name in tools.TOOLS]
WITH_URL = {"type": "function", "function": {"name": "book"}, "server": {"url": "https://tools.example.com"}}
WITHOUT_URL = {"type": "function", "function": {"name": "book"}}
UNNAMED = {"type": "function", "function": {}}


@pytest.mark.parametrize(
    ("declared", "level", "text"),
    [
        (OURS, "green", "no tool that cannot be called"),
        ([*OURS, WITH_URL], "green", "no tool that cannot be called"),
        ([*OURS, {"type": "endCall"}], "green", "no tool that cannot be called"),
        ([*OURS, "nonsense"], "green", "no tool that cannot be called"),
        ([*OURS, WITHOUT_URL], "red", "calls of book to this server"),
        ([*OURS, WITHOUT_URL, UNNAMED | {"function": {"name": "pay"}}], "red", "calls of book, pay to"),
        ([WITH_URL], "amber", "does not have these tools"),
        (OURS[1:], "amber", "does not have these tools"),
        (None, "amber", "does not have these tools"),
        ({"a": 1}, "amber", "does not have these tools"),
    ],
)
async def test_tools_whose_calls_would_fail_are_named(
    monkeypatch: pytest.MonkeyPatch, declared: Any, level: str, text: str
) -> None:
    async def fetch_assistant() -> dict[str, Any]:
        return {"model": {"provider": "openai", "tools": declared}}

    monkeypatch.setattr("calls.doctor.vapi._fetch_assistant", fetch_assistant)
    finding = await vapi.check_assistant_tools()
    assert finding.level == level and text in finding.message, finding


@pytest.mark.parametrize(
    ("written", "is_amber"),
    [
        ("https://voice.example.com", False), ("https://Voice.Example.com", True),
        ("https://voice.example.com:443", True), ("https://münchen.example", True),
    ],
)  # fmt: skip
async def test_another_spelling_of_the_public_url_is_amber(
    settings: Any, written: str, is_amber: bool
) -> None:
    settings.PUBLIC_URL_AS_WRITTEN, settings.PUBLIC_URL = written, normalize_origin(written)
    finding = build_unmet_finding("public-url")
    assert (finding is not None) == is_amber
    assert finding is None or (finding.level, "lower case" in finding.fix) == ("amber", True)


@pytest.mark.parametrize(
    ("free_mb", "level", "text"),
    [(5, "red", "is full"), (100, "amber", "has 100 MB left"), (700, "green", "has 700 MB left"),
     (1023, "green", "has 1023 MB left"), (1024, "green", "has 1.0 GB left"), (54_000, "green", "52.7 GB")],
)  # fmt: skip
async def test_the_disk_check_names_the_space_that_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Any, free_mb: int, level: str, text: str
) -> None:
    settings.JOURNAL_DIR = tmp_path
    usage = SimpleNamespace(free=free_mb << 20)
    monkeypatch.setattr("calls.doctor.host.shutil.disk_usage", lambda folder: usage)
    finding = await host.check_disk()
    assert finding.level == level and text in finding.message


async def test_every_symptom_names_existing_checks() -> None:
    assert len(SYMPTOMS) >= 3
    for row in SYMPTOMS:
        assert row.checks and set(row.checks) <= set(NAMES), row.title


async def test_symptoms_are_printed(testbed: DoctorTestbed) -> None:
    result = await testbed.run_doctor("--symptoms")
    assert result.code == 0
    assert all(row.title in result.stdout for row in SYMPTOMS)


@pytest.mark.parametrize(
    ("max_connections", "workers", "level"),
    [(None, 1, "green"), (None, 2, "amber"), (100, 4, "green"), (100, 5, "amber"), (10, 0, "green")],
)
async def test_the_database_must_be_enough_for_all_server_processes(
    max_connections: int | None, workers: int, level: str
) -> None:
    assert grade_database(max_connections, workers).level == level
