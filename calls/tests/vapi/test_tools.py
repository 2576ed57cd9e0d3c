"""The assistant's tools, called by Vapi's webhook, with the vendors' APIs behind real HTTP.

These tests have no access to the database, which proves that no tool queries it.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs
from xml.etree import ElementTree

import pytest
from pytest_django import Settings

from bridge.journal import EndRequested, TimelineEvent
from bridge.routes import Route
from calls.tests.staff.live.test_actions import ACCOUNT, CannedVendor
from calls.tests.vapi.test_webhooks import send
from calls.tests.webhook_client import PUBLIC, SID, WebhookClient, make_bridge
from calls.vapi import tools

PERSON = "+15550107777"
FRONT_DESK = Route(id="7", number="+15559870000", fallback_number=PERSON)
VAPI_ID = "0198c5d1-7777-7000-8000-000000000001"


@pytest.fixture
def vendor() -> Iterator[CannedVendor]:
    vendor = CannedVendor()
    yield vendor
    vendor.stop()


@pytest.fixture(autouse=True)
def outside(vendor: CannedVendor, settings: Settings) -> None:
    settings.TWILIO_ACCOUNT_SID, settings.TWILIO_AUTH_TOKENS = ACCOUNT, ["a-token"]
    settings.TWILIO_BASE_URL = settings.VAPI_BASE_URL = vendor.url
    settings.PUBLIC_URL, settings.VAPI_API_KEY, settings.VAPI_SOCKET_URL = PUBLIC, "a-key", ""
    settings.VAPI_ALLOWED_HOSTS, settings.FALLBACK_NUMBER = ["127.0.0.1"], ""


def asked(name: str, number: str = "", route: str = "7", **arguments: Any) -> dict[str, Any]:
    """A `tool-calls` message. Each has a new id, because a repeated tool call does not run again."""
    number = number or uuid.uuid4().hex
    return {
        "message": {
            "type": "tool-calls",
            "toolCallList": [{"id": number, "function": {"name": name, "arguments": arguments}}],
            "call": {"id": VAPI_ID, "assistantOverrides": {"metadata": {"callSid": SID, "route": route}}},
        }
    }


async def result(client: WebhookClient, message: Any) -> dict[str, str]:
    answer = await send(client, message)
    assert answer.status_code == 200
    (found,) = answer.json()["results"]
    return dict(found)


async def test_transfer_call_dials_the_fallback_and_whispers_the_reason(vendor: CannedVendor) -> None:
    client = WebhookClient(make_bridge([FRONT_DESK]))
    told = await result(client, asked("transfer_call", "t1", reason="A crown\nfell out & hurts."))
    assert told == {"toolCallId": "t1", "name": "transfer_call", "result": "The caller is being connected."}
    ((method, path, _, body),) = vendor.requests
    assert (method, path) == ("POST", f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{SID}.json")
    (dial,) = ElementTree.fromstring(parse_qs(body.decode())["Twiml"][0])
    assert dial.get("action") == f"{PUBLIC}/twilio/after?dialed=1"
    (number,) = dial
    assert number.text == PERSON
    whisper = str(number.get("url")).removeprefix(PUBLIC)
    (said,) = ElementTree.fromstring((await client.twilio(whisper)).content)
    assert str(said.text).endswith("A crown fell out & hurts.")
    requested, happened = client.entries
    assert isinstance(requested, EndRequested) and isinstance(happened, TimelineEvent)
    assert (requested.end_reason, requested.ended_by) == ("transferred", "assistant")
    assert (happened.kind, happened.data["tool"], happened.source) == ("tool-done", "transfer_call", "vapi")


@pytest.mark.parametrize(
    ("caller", "shown"),
    [("+15550100134", None), ("sip:desk7@pbx.example.com", FRONT_DESK.number), ("", FRONT_DESK.number)],
)
async def test_transfer_call_shows_a_caller_id_that_twilio_accepts(
    vendor: CannedVendor, caller: str, shown: str | None
) -> None:
    message = asked("transfer_call")
    message["message"]["call"]["assistantOverrides"]["variableValues"] = {"caller": caller}
    await result(WebhookClient(make_bridge([FRONT_DESK])), message)
    ((_, _, _, body),) = vendor.requests
    (dial,) = ElementTree.fromstring(parse_qs(body.decode())["Twiml"][0])
    assert dial.get("callerId") == shown


async def test_transfer_call_fails_without_a_fallback_number(vendor: CannedVendor) -> None:
    client = WebhookClient(make_bridge([FRONT_DESK]))
    told = await result(client, asked("transfer_call", route="of another time"))
    assert "no person" in told["error"] and not vendor.requests
    (happened,) = client.entries
    assert isinstance(happened, TimelineEvent) and happened.kind == "tool-failed"


async def test_a_transfer_that_twilio_rejects_is_withdrawn(vendor: CannedVendor) -> None:
    vendor.status, vendor.answer = 404, {"code": 20404, "message": "not found"}
    client = WebhookClient(make_bridge([FRONT_DESK]))
    assert "could not be dialled" in (await result(client, asked("transfer_call")))["error"]
    requested, withdrawn, _ = client.entries
    assert isinstance(requested, EndRequested) and isinstance(withdrawn, EndRequested)
    assert withdrawn.withdrawn and withdrawn.at == requested.at


async def test_a_transfer_that_may_have_happened_is_not_withdrawn(vendor: CannedVendor) -> None:
    vendor.answer = b"no JSON"
    client = WebhookClient(make_bridge([FRONT_DESK]))
    assert "error" in await result(client, asked("transfer_call"))
    assert [type(note) for note in client.entries] == [EndRequested, TimelineEvent]


async def test_a_repeated_tool_call_runs_once(vendor: CannedVendor) -> None:
    client = WebhookClient(make_bridge([FRONT_DESK]))
    message = asked("transfer_call", number="asked twice")
    first, second = await asyncio.gather(result(client, message), result(client, message))
    assert first == second == await result(client, message)
    assert len(vendor.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({}, {"type": "end-call"}),
        ({"goodbye": "Bye!"}, {"type": "say", "content": "Bye!", "endCallAfterSpoken": True}),
    ],
)
async def test_end_call_ends_the_call_at_vapi(
    vendor: CannedVendor, arguments: dict[str, Any], sent: dict[str, Any]
) -> None:
    client = WebhookClient()
    assert (await result(client, asked("end_call", **arguments)))["result"] == "The call is ending."
    (_, _, _, body) = vendor.requests[-1]
    assert json.loads(body) == sent
    assert VAPI_ID in vendor.requests[0][1]


async def test_end_call_reports_a_failure_to_the_model(vendor: CannedVendor) -> None:
    vendor.status = 404
    assert "could not be ended" in (await result(WebhookClient(), asked("end_call")))["error"]


async def test_send_dtmf_checks_the_keys() -> None:
    client = WebhookClient()
    assert "are being pressed" in (await result(client, asked("send_dtmf", digits="1w42#")))["result"]
    assert "Not pressed" in (await result(client, asked("send_dtmf", digits="call me")))["error"]
    assert "Not pressed" in (await result(client, asked("send_dtmf", digits={"a": 1})))["error"]


async def test_a_tool_that_fails_or_hangs_returns_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(use: tools.ToolUse) -> str:
        raise ZeroDivisionError

    async def hangs(use: tools.ToolUse) -> str:
        await asyncio.Event().wait()
        return ""

    monkeypatch.setattr(tools, "TOOL_SECONDS", 0.01)
    for name, run, said in (("breaks", breaks, "It failed."), ("hangs", hangs, "took too long")):
        monkeypatch.setitem(tools.TOOLS, name, tools.Tool(name, "", {}, (), run))
        assert said in (await result(WebhookClient(), asked(name)))["error"]


async def test_tools_need_a_telephone_call() -> None:
    message = {"type": "tool-calls", "toolCallList": [{"id": "t", "function": {"name": "end_call"}}]}
    assert "not a call on the telephone" in (await result(WebhookClient(), message))["error"]


def test_the_number_of_stored_results_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "MAX_RESULTS", 50)

    async def many() -> None:
        client = WebhookClient()
        for number in range(tools.MAX_RESULTS + 10):
            call = {"id": f"{number} of many", "function": {"name": "nothing of ours"}}
            await result(client, {"type": "tool-calls", "toolCallList": [call]})

    asyncio.run(many())
    assert len(tools._results) <= tools.MAX_RESULTS


def test_the_declarations_list_all_tools() -> None:
    found = {each["function"]["name"]: each["function"] for each in tools.declarations()}
    assert set(found) == {"transfer_call", "end_call", "send_dtmf"}
    assert found["send_dtmf"]["parameters"]["required"] == ["digits"]
    assert all(each["description"] for each in found.values())
    json.dumps(tools.declarations())


async def test_a_tool_is_added_as_the_documentation_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "TOOLS", dict(tools.TOOLS))

    @tools.tool("Says whether the practice is open on a day.", day="A weekday, such as Monday.")
    async def opening_hours(use: tools.ToolUse) -> str:
        return "Closed." if use.text("day") in ("Saturday", "Sunday") else "From eight to six."

    assert "opening_hours" in {each["function"]["name"] for each in tools.declarations()}
    assert (await result(WebhookClient(), asked("opening_hours", day="Sunday")))["result"] == "Closed."
