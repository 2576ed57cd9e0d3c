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
        "provider": "deepgram", "model": "nova-2", "language": "de", "endpointing": 300,
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
    fields = assistant_config.build_config({}, Options(), defaults)
    assert "server" not in fields
    assert (fields["maxDurationSeconds"], fields["artifactPlan"]["recordingEnabled"]) == (10, True)


def test_it_replaces_invalid_values_from_vapi() -> None:
    invalid: dict[str, Any] = {
        "model": None,
        "voice": [],
        "transcriber": {"provider": "other", "endpointing": "?"},
        "server": 3,
    }
    fields = assistant_config.build_config(invalid, Options(), DEFAULTS)
    again = assistant_config.build_config(fields, Options(), DEFAULTS)
    assert fields["transcriber"]["provider"] == "other" and fields["voice"]["provider"] == "vapi"
    assert assistant_config.find_changed_fields(fields, again) == {}
    assert assistant_config.find_changes(fields, again, Options()) == []


AZURE = {
    "provider": "azure", "language": "th-TH",
    "fallbackPlan": {"transcribers": [{"provider": "google", "language": "Thai"}]},
}  # fmt: skip
CHOICES: dict[str, Any] = {
    "name": "Reception",
    "firstMessageMode": "assistant-waits-for-user",
    "firstMessage": "",
    "voice": {"provider": "azure", "voiceId": "th-TH-PremwadeeNeural", "fallbackPlan": {"voices": []}},
    "model": {"provider": "custom-llm", "url": "https://llm.example.com", "model": "m", "temperature": 0.2},
    "transcriber": AZURE,
    "startSpeakingPlan": {"waitSeconds": 1.2, "smartEndpointingPlan": {"provider": "livekit"}},
    "stopSpeakingPlan": {"numWords": 3, "voiceSeconds": 0.4, "backoffSeconds": 2},
    "backgroundSound": "office",
    "clientMessages": ["model-output"],
    "serverMessages": ["conversation-update"],
    "artifactPlan": {"transcriptPlan": {"enabled": True}},
    "server": {"url": "https://crm.example.com/vapi", "timeoutSeconds": 20, "headers": {"X-Own": "1"}},
}


def test_what_was_chosen_at_vapi_stays() -> None:
    fields = assistant_config.build_config(CHOICES, Options(), DEFAULTS)
    changed = {name for name in CHOICES if name in fields and fields[name] != CHOICES[name]}
    assert changed == {"model", "clientMessages", "serverMessages", "artifactPlan", "server"}
    assert {name: fields["model"][name] for name in CHOICES["model"]} == CHOICES["model"]
    assert fields["clientMessages"][0] == "model-output" and "transcript" in fields["clientMessages"]
    assert fields["serverMessages"][0] == "conversation-update"
    assert fields["artifactPlan"] == {"transcriptPlan": {"enabled": True}, "recordingEnabled": False}
    assert fields["server"]["timeoutSeconds"] == 20 and fields["server"]["headers"]["X-Own"] == "1"
    assert "firstMessageMode" not in fields and "firstMessage" not in fields
    assert "transcriptionEndpointingPlan" not in fields["startSpeakingPlan"]


def test_every_change_says_why() -> None:
    fields = assistant_config.build_config(CHOICES, Options(language="en-GB"), DEFAULTS)
    reasons = {
        change.path: change.reason
        for change in assistant_config.find_changes(CHOICES, fields, Options(language="en-GB"))
    }
    assert all(reasons.values())
    assert reasons["transcriber.language"] == "--language"
    assert reasons["server.url"] == "reports and tool calls come to this server"
    assert reasons["artifactPlan.recordingEnabled"] == "RECORD_CALLS"
    fields = assistant_config.build_config({"name": "bare"}, Options(), DEFAULTS)
    assert all(change.reason for change in assistant_config.find_changes({"name": "bare"}, fields, Options()))


@pytest.mark.parametrize(
    ("transcriber", "options", "expected"),
    [
        (AZURE, Options(language="en-GB"), {**AZURE, "language": "en-GB"}),
        ({"provider": "deepgram", "model": "nova-2", "endpointing": 450}, Options(), {"endpointing": 450}),
        ({"provider": "deepgram", "model": "nova-2", "endpointing": 10}, Options(), {"endpointing": 300}),
        ({"provider": "deepgram", "model": "nova-2"}, Options(endpointing_ms=350), {"endpointing": 350}),
        ({"provider": "deepgram", "model": "flux-general-en"}, Options(), {"model": "flux-general-en"}),
    ],
)
def test_a_transcriber_keeps_its_provider(transcriber: Any, options: Options, expected: Any) -> None:
    fields = assistant_config.build_config({"transcriber": transcriber}, options, DEFAULTS)
    assert fields["transcriber"] == {**transcriber, **expected}


@pytest.mark.parametrize("transcriber", [AZURE, {"provider": "deepgram", "model": "flux-general-en"}])
def test_endpointing_is_refused_where_the_transcriber_has_none(transcriber: Any) -> None:
    with pytest.raises(
        ValueError,
        match="is for Deepgram transcribers without turn detection; this assistant",
    ):
        assistant_config.build_config({"transcriber": transcriber}, Options(endpointing_ms=300), DEFAULTS)
