"""`manage.py configure_assistant` against the simulator of Vapi's REST API."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_django import DjangoDbBlocker

from calls.tests.commands import CommandResult, InProcessCommands, run_command_async
from calls.tests.live_server import LiveServer, make_server, temporary_database
from calls.vapi import assistant_config
from calls.vapi.assistant_config import Options, ServerDefaults
from sandbox.faults import VapiFaults
from sandbox.vapi.server import VapiSimulator

pytestmark = [pytest.mark.slow, pytest.mark.once]

SECRET = "a-webhook-secret"
PUBLIC = "https://voice.example.com"
DEFAULTS = ServerDefaults(
    server_url=f"{PUBLIC}/vapi/events", secret=SECRET, max_call_seconds=1800, record=False
)


@dataclass(frozen=True)
class AssistantTestbed:
    server: LiveServer  # for its environment; it does not run
    vapi: VapiSimulator
    commands: InProcessCommands

    async def configure(self, *arguments: str, **variables: str) -> CommandResult:
        return await self.commands.run(
            self.server.environment, "configure_assistant", *arguments, **variables
        )

    def get_assistant(self, assistant_id: str) -> dict[str, Any]:
        assistant = self.vapi.assistant_store.get(assistant_id)
        assert assistant is not None
        return assistant


@pytest.fixture
async def testbed(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> AsyncIterator[AssistantTestbed]:
    async with VapiSimulator(listen="energy") as vapi:
        with temporary_database(tmp_path / "rows") as database:
            server = await asyncio.to_thread(
                make_server, vapi.base_url, database.url, tmp_path / "journal",
                PUBLIC_URL=PUBLIC, VAPI_WEBHOOK_SECRET=SECRET, VAPI_ASSISTANT_ID="",
            )  # fmt: skip
            yield AssistantTestbed(server, vapi, InProcessCommands(django_db_blocker))


async def test_it_creates_an_assistant_with_settings_for_low_latency_and_our_tools(
    testbed: AssistantTestbed,
) -> None:
    preview = await testbed.configure("--dry-run")
    assert preview.code == 0 and testbed.vapi.assistant_store.newest(9) == []
    arguments = ("--name", "Front desk", "--first-message", "Harbour Dental, hello?")
    created = await run_command_async(testbed.server.environment, "configure_assistant", *arguments)
    assert created.code == 0, created
    assert SECRET not in created.stdout + created.stderr and created.contains("server.headers.X-Vapi-Secret")
    (assistant_id,) = re.findall(r"VAPI_ASSISTANT_ID=(\S+)", created.stdout)
    assistant = testbed.get_assistant(assistant_id)
    assert (assistant["name"], assistant["firstMessage"]) == ("Front desk", "Harbour Dental, hello?")
    assert assistant["transcriber"] == {
        "provider": "deepgram", "model": "nova-3", "language": "en", "endpointing": 300,
    }  # fmt: skip
    assert assistant["server"]["url"] == f"{PUBLIC}/vapi/events"
    assert assistant["server"]["headers"] == {"X-Vapi-Secret": SECRET}
    assert {tool["function"]["name"] for tool in assistant["model"]["tools"]} >= {"transfer_call", "end_call"}
    assert (assistant["maxDurationSeconds"], assistant["artifactPlan"]) == (1800, {"recordingEnabled": False})
    assert "tool-calls" in assistant["serverMessages"] and "tool-calls" in assistant["clientMessages"]
    again = await testbed.configure(VAPI_ASSISTANT_ID=assistant_id)
    assert again.code == 0 and again.contains("nothing to change"), again


async def test_it_updates_an_assistant_and_keeps_what_no_option_names(testbed: AssistantTestbed) -> None:
    existing = {
        "name": "Reception",
        "voice": {"provider": "11labs", "voiceId": "abc"},
        "model": {
            "provider": "anthropic", "model": "a-model",
            "messages": [{"role": "system", "content": "Be kind."}],
            "tools": [{"type": "function", "function": {"name": "book"}}],
        },
        "transcriber": {"provider": "deepgram", "model": "nova-2", "language": "de", "endpointing": 10},
        "endCallMessage": "Bye.",
        "maxDurationSeconds": 600,
    }  # fmt: skip
    assistant_id = testbed.vapi.assistant_store.put(existing)["id"]
    updated = await testbed.configure(VAPI_ASSISTANT_ID=assistant_id)
    assert updated.code == 0 and updated.contains("transcriber.endpointing"), updated
    assistant = testbed.get_assistant(assistant_id)
    assert (assistant["name"], assistant["voice"], assistant["endCallMessage"]) == (
        "Reception",
        existing["voice"],
        "Bye.",
    )
    assert assistant["model"]["messages"] == existing["model"]["messages"]  # type: ignore[index]
    names = [tool["function"]["name"] for tool in assistant["model"]["tools"]]
    assert names[0] == "book" and "transfer_call" in names
    assert assistant["transcriber"] == {
        "provider": "deepgram", "model": "nova-3", "language": "de", "endpointing": 300,
    }  # fmt: skip
    assert assistant["maxDurationSeconds"] == 1800
    await testbed.configure(
        "--voice",
        "vapi/Elliot",
        "--model",
        "openai/m",
        "--endpointing",
        "400",
        VAPI_ASSISTANT_ID=assistant_id,
    )
    assistant = testbed.get_assistant(assistant_id)
    assert assistant["voice"] == {"provider": "vapi", "voiceId": "Elliot"}
    assert (assistant["model"]["model"], assistant["transcriber"]["endpointing"]) == ("m", 400)
    created = await testbed.configure("--new", VAPI_ASSISTANT_ID=assistant_id)
    assert created.contains("VAPI_ASSISTANT_ID=") and len(testbed.vapi.assistant_store.newest(9)) == 2


@pytest.mark.parametrize(
    ("arguments", "variables", "text"),
    [
        (("--endpointing", "200"), {}, "callers are cut off while they think"),
        (("--voice", "Elliot"), {}, "--voice must be provider/name"),
        (("--id", "nobody"), {}, "Vapi has no such assistant"),
        (("--name", "x" * 41), {}, "name must be shorter than or equal to 40 characters"),
        ((), {"VAPI_API_KEY": "public-key"}, "the private key, not the public one"),
        ((), {"VAPI_API_KEY": ""}, "VAPI_API_KEY is not set"),
        ((), {"VAPI_SOCKET_URL": "ws://127.0.0.1:1/socket"}, "a socket server of your own"),
    ],
)
async def test_it_explains_why_it_cannot_configure(
    testbed: AssistantTestbed, arguments: tuple[str, ...], variables: dict[str, str], text: str
) -> None:
    failed = await testbed.configure(*arguments, **variables)
    assert failed.code == 1 and failed.contains(text), failed
    assert testbed.vapi.assistant_store.newest(9) == []


async def test_it_reports_vapis_errors(testbed: AssistantTestbed) -> None:
    for status, text in ((429, "rate limiting"), (503, "failed with status 503")):
        testbed.vapi.faults = VapiFaults(rest_status=status)
        failed = await testbed.configure()
        assert failed.code == 1 and failed.contains(text), failed


async def test_a_changed_secret_is_reported_but_not_printed(testbed: AssistantTestbed) -> None:
    await testbed.configure()
    (assistant,) = testbed.vapi.assistant_store.newest(9)
    server = {**assistant["server"], "headers": {"X-Vapi-Secret": SECRET, "X-Other": "kept"}}
    assistant_id = testbed.vapi.assistant_store.put({"server": server}, assistant["id"])["id"]
    updated = await testbed.configure(VAPI_ASSISTANT_ID=assistant_id, VAPI_WEBHOOK_SECRET="another-secret")
    assert updated.code == 0 and updated.contains("(changed)"), updated
    assert not any(secret in updated.stdout + updated.stderr for secret in (SECRET, "another-secret"))
    assert testbed.get_assistant(assistant_id)["server"]["headers"] == {
        "X-Vapi-Secret": "another-secret",
        "X-Other": "kept",
    }


def test_without_a_secret_the_assistant_gets_no_webhook_url() -> None:
    defaults = ServerDefaults(server_url=PUBLIC, secret="", max_call_seconds=5, record=True)
    fields = assistant_config.desired_config({}, Options(), defaults)
    assert "server" not in fields
    assert (fields["maxDurationSeconds"], fields["artifactPlan"]["recordingEnabled"]) == (10, True)


def test_it_replaces_invalid_values_from_vapi() -> None:
    invalid: dict[str, Any] = {
        "model": None,
        "voice": [],
        "transcriber": {"provider": "other", "endpointing": "?"},
        "server": 3,
    }
    fields = assistant_config.desired_config(invalid, Options(), DEFAULTS)
    again = assistant_config.desired_config(fields, Options(), DEFAULTS)
    assert fields["transcriber"]["endpointing"] == 300 and fields["voice"]["provider"] == "vapi"
    assert (
        assistant_config.changed_fields(fields, again) == {} and assistant_config.changes(fields, again) == []
    )
