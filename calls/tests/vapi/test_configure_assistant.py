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

from calls.tests.commands import Printed, Shell, manage
from calls.tests.live_server import LiveServer, live_server, own_database
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
class Installation:
    server: LiveServer  # its settings; it need not run
    vapi: VapiSimulator
    shell: Shell

    async def configure(self, *arguments: str, **variables: str) -> Printed:
        return await self.shell.manage(self.server, "configure_assistant", *arguments, **variables)

    def kept(self, assistant_id: str) -> dict[str, Any]:
        found = self.vapi.assistant_store.get(assistant_id)
        assert found is not None
        return found


@pytest.fixture
async def installation(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> AsyncIterator[Installation]:
    async with VapiSimulator(listen="energy") as vapi:
        with own_database(tmp_path / "rows") as database:
            server = await asyncio.to_thread(
                live_server, vapi.base_url, database.url, tmp_path / "journal",
                PUBLIC_URL=PUBLIC, VAPI_WEBHOOK_SECRET=SECRET, VAPI_ASSISTANT_ID="",
            )  # fmt: skip
            yield Installation(server, vapi, Shell(django_db_blocker))


async def test_it_creates_an_assistant_with_fast_settings_and_our_tools(installation: Installation) -> None:
    planned = await installation.configure("--dry-run")
    assert planned.code == 0 and installation.vapi.assistant_store.newest(9) == []
    arguments = ("--name", "Front desk", "--first-message", "Harbour Dental, hello?")
    made = await manage(installation.server, "configure_assistant", *arguments)
    assert made.code == 0, made
    assert SECRET not in made.out + made.err and made.says("server.headers.X-Vapi-Secret")
    (name,) = re.findall(r"VAPI_ASSISTANT_ID=(\S+)", made.out)
    found = installation.kept(name)
    assert (found["name"], found["firstMessage"]) == ("Front desk", "Harbour Dental, hello?")
    assert found["transcriber"] == {
        "provider": "deepgram", "model": "nova-3", "language": "en", "endpointing": 300,
    }  # fmt: skip
    assert found["server"]["url"] == f"{PUBLIC}/vapi/events"
    assert found["server"]["headers"] == {"X-Vapi-Secret": SECRET}
    assert {tool["function"]["name"] for tool in found["model"]["tools"]} >= {"transfer_call", "end_call"}
    assert (found["maxDurationSeconds"], found["artifactPlan"]) == (1800, {"recordingEnabled": False})
    assert "tool-calls" in found["serverMessages"] and "tool-calls" in found["clientMessages"]
    again = await installation.configure(VAPI_ASSISTANT_ID=name)
    assert again.code == 0 and again.says("nothing to change"), again


async def test_it_updates_an_assistant_and_keeps_what_no_option_names(installation: Installation) -> None:
    theirs = {
        "name": "Mine",
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
    mine = installation.vapi.assistant_store.put(theirs)["id"]
    changed = await installation.configure(VAPI_ASSISTANT_ID=mine)
    assert changed.code == 0 and changed.says("transcriber.endpointing"), changed
    found = installation.kept(mine)
    assert (found["name"], found["voice"], found["endCallMessage"]) == ("Mine", theirs["voice"], "Bye.")
    assert found["model"]["messages"] == theirs["model"]["messages"]  # type: ignore[index]
    names = [tool["function"]["name"] for tool in found["model"]["tools"]]
    assert names[0] == "book" and "transfer_call" in names
    assert found["transcriber"] == {
        "provider": "deepgram", "model": "nova-3", "language": "de", "endpointing": 300,
    }  # fmt: skip
    assert found["maxDurationSeconds"] == 1800
    await installation.configure(
        "--voice", "vapi/Elliot", "--model", "openai/m", "--endpointing", "400", VAPI_ASSISTANT_ID=mine
    )
    found = installation.kept(mine)
    assert found["voice"] == {"provider": "vapi", "voiceId": "Elliot"}
    assert (found["model"]["model"], found["transcriber"]["endpointing"]) == ("m", 400)
    made = await installation.configure("--new", VAPI_ASSISTANT_ID=mine)
    assert made.says("VAPI_ASSISTANT_ID=") and len(installation.vapi.assistant_store.newest(9)) == 2


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
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
    installation: Installation, arguments: tuple[str, ...], variables: dict[str, str], words: str
) -> None:
    refused = await installation.configure(*arguments, **variables)
    assert refused.code == 1 and refused.says(words), refused
    assert installation.vapi.assistant_store.newest(9) == []


async def test_it_reports_vapis_errors(installation: Installation) -> None:
    for status, words in ((429, "rate limiting"), (503, "failed with status 503")):
        installation.vapi.faults = VapiFaults(rest_status=status)
        refused = await installation.configure()
        assert refused.code == 1 and refused.says(words), refused


async def test_a_changed_secret_is_reported_but_not_printed(installation: Installation) -> None:
    await installation.configure()
    (made,) = installation.vapi.assistant_store.newest(9)
    server = {**made["server"], "headers": {"X-Vapi-Secret": SECRET, "X-Theirs": "kept"}}
    mine = installation.vapi.assistant_store.put({"server": server}, made["id"])["id"]
    changed = await installation.configure(VAPI_ASSISTANT_ID=mine, VAPI_WEBHOOK_SECRET="another-secret")
    assert changed.code == 0 and changed.says("(changed)"), changed
    assert not any(secret in changed.out + changed.err for secret in (SECRET, "another-secret"))
    assert installation.kept(mine)["server"]["headers"] == {
        "X-Vapi-Secret": "another-secret",
        "X-Theirs": "kept",
    }


def test_without_a_secret_the_assistant_gets_no_webhook_url() -> None:
    defaults = ServerDefaults(server_url=PUBLIC, secret="", max_call_seconds=5, record=True)
    fields = assistant_config.desired_config({}, Options(), defaults)
    assert "server" not in fields
    assert (fields["maxDurationSeconds"], fields["artifactPlan"]["recordingEnabled"]) == (10, True)


def test_it_replaces_invalid_values_from_vapi() -> None:
    strange: dict[str, Any] = {
        "model": None,
        "voice": [],
        "transcriber": {"provider": "other", "endpointing": "?"},
        "server": 3,
    }
    fields = assistant_config.desired_config(strange, Options(), DEFAULTS)
    again = assistant_config.desired_config(fields, Options(), DEFAULTS)
    assert fields["transcriber"]["endpointing"] == 300 and fields["voice"]["provider"] == "vapi"
    assert (
        assistant_config.changed_fields(fields, again) == {} and assistant_config.changes(fields, again) == []
    )
