"""The assistant's tools, called by Vapi's webhook, with the vendors' APIs over real HTTP.

These tests have no access to the database, so a tool that queries it fails.
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
from calls.tests.canned_vendor_api import ACCOUNT, CannedVendorApi
from calls.tests.vapi.test_webhooks import send
from calls.tests.webhook_client import PUBLIC, SID, WebhookClient, make_bridge
from calls.vapi import tools

PERSON = "+15550107777"
FRONT_DESK = Route(id="7", number="+15559870000", fallback_number=PERSON)
VAPI_ID = "0198c5d1-7777-7000-8000-000000000001"


@pytest.fixture
def vendor() -> Iterator[CannedVendorApi]:
    vendor = CannedVendorApi({"status": "completed"})
    yield vendor
    vendor.stop()


@pytest.fixture(autouse=True)
def use_canned_apis(vendor: CannedVendorApi, settings: Settings) -> None:
    for name, value in vendor.settings(PUBLIC_URL=PUBLIC, FALLBACK_NUMBER="").items():
        setattr(settings, name, value)


def make_message(name: str, tool_call_id: str = "", route: str = "7", **arguments: Any) -> dict[str, Any]:
    """A `tool-calls` message. Each has a new id, because a repeated tool call does not run again."""
    tool_call_id = tool_call_id or uuid.uuid4().hex
    return {
        "message": {
            "type": "tool-calls",
            "toolCallList": [{"id": tool_call_id, "function": {"name": name, "arguments": arguments}}],
            "call": {"id": VAPI_ID, "assistantOverrides": {"metadata": {"callSid": SID, "route": route}}},
        }
    }


async def call_tool(client: WebhookClient, message: Any) -> dict[str, str]:
    """Post a message with one tool call. Returns its result."""
    response = await send(client, message)
    assert response.status_code == 200
    (result,) = response.json()["results"]
    return dict(result)


async def test_transfer_call_dials_the_fallback_and_whispers_the_reason(vendor: CannedVendorApi) -> None:
    client = WebhookClient(make_bridge([FRONT_DESK]))
    result = await call_tool(client, make_message("transfer_call", "t1", reason="A crown\nfell out & hurts."))
    assert result == {"toolCallId": "t1", "name": "transfer_call", "result": "The caller is being connected."}
    (request,) = vendor.requests
    assert request[:2] == ("POST", f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{SID}.json")
    (dial,) = ElementTree.fromstring(parse_qs(request.body.decode())["Twiml"][0])
    assert dial.get("action") == f"{PUBLIC}/twilio/after?dialed=1"
    (number,) = dial
    assert number.text == PERSON
    whisper = str(number.get("url")).removeprefix(PUBLIC)
    (say,) = ElementTree.fromstring((await client.twilio(whisper)).content)
    assert str(say.text).endswith("A crown fell out & hurts.")
    requested, event = client.entries
    assert isinstance(requested, EndRequested) and isinstance(event, TimelineEvent)
    assert (requested.end_reason, requested.ended_by) == ("transferred", "assistant")
    assert (event.kind, event.data["tool"], event.source) == ("tool-done", "transfer_call", "vapi")


@pytest.mark.parametrize(
    ("caller", "shown"),
    [("+15550100134", None), ("sip:desk7@pbx.example.com", FRONT_DESK.number), ("", FRONT_DESK.number)],
)
async def test_transfer_call_shows_a_caller_id_that_twilio_accepts(
    vendor: CannedVendorApi, caller: str, shown: str | None
) -> None:
    message = make_message("transfer_call")
    message["message"]["call"]["assistantOverrides"]["variableValues"] = {"caller": caller}
    await call_tool(WebhookClient(make_bridge([FRONT_DESK])), message)
    (request,) = vendor.requests
    (dial,) = ElementTree.fromstring(parse_qs(request.body.decode())["Twiml"][0])
    assert dial.get("callerId") == shown


async def test_transfer_call_fails_without_a_fallback_number(vendor: CannedVendorApi) -> None:
    client = WebhookClient(make_bridge([FRONT_DESK]))
    result = await call_tool(client, make_message("transfer_call", route="deleted"))
    assert "no person" in result["error"] and not vendor.requests
    (event,) = client.entries
    assert isinstance(event, TimelineEvent) and event.kind == "tool-failed"


async def test_a_transfer_that_twilio_rejects_is_withdrawn(vendor: CannedVendorApi) -> None:
    vendor.response = 404, {"code": 20404, "message": "not found"}
    client = WebhookClient(make_bridge([FRONT_DESK]))
    assert "could not be dialed" in (await call_tool(client, make_message("transfer_call")))["error"]
    requested, withdrawn, _ = client.entries
    assert isinstance(requested, EndRequested) and isinstance(withdrawn, EndRequested)
    assert withdrawn.withdrawn and withdrawn.at == requested.at


async def test_a_transfer_that_may_have_happened_is_not_withdrawn(vendor: CannedVendorApi) -> None:
    vendor.response = b"no JSON"
    client = WebhookClient(make_bridge([FRONT_DESK]))
    assert "error" in await call_tool(client, make_message("transfer_call"))
    assert [type(entry) for entry in client.entries] == [EndRequested, TimelineEvent]


async def test_a_repeated_tool_call_runs_once(vendor: CannedVendorApi) -> None:
    client = WebhookClient(make_bridge([FRONT_DESK]))
    message = make_message("transfer_call", tool_call_id="called twice")
    first, second = await asyncio.gather(call_tool(client, message), call_tool(client, message))
    assert first == second == await call_tool(client, message)
    assert len(vendor.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, {"type": "end-call"}),
        ({"goodbye": "Bye!"}, {"type": "say", "content": "Bye!", "endCallAfterSpoken": True}),
    ],
)
async def test_end_call_ends_the_call_at_vapi(
    vendor: CannedVendorApi, arguments: dict[str, Any], message: dict[str, Any]
) -> None:
    client = WebhookClient()
    assert (await call_tool(client, make_message("end_call", **arguments)))["result"] == "The call is ending."
    assert json.loads(vendor.requests[-1].body) == message
    assert VAPI_ID in vendor.requests[0].path


async def test_end_call_reports_a_failure_to_the_model(vendor: CannedVendorApi) -> None:
    vendor.response = 404
    assert "could not be ended" in (await call_tool(WebhookClient(), make_message("end_call")))["error"]


async def test_send_dtmf_checks_the_keys() -> None:
    client = WebhookClient()
    assert (
        "are being pressed" in (await call_tool(client, make_message("send_dtmf", digits="1w42#")))["result"]
    )
    assert "Not pressed" in (await call_tool(client, make_message("send_dtmf", digits="call me")))["error"]
    assert "Not pressed" in (await call_tool(client, make_message("send_dtmf", digits={"a": 1})))["error"]


async def test_a_tool_that_fails_or_hangs_returns_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(use: tools.ToolUse) -> str:
        raise ZeroDivisionError

    async def hangs(use: tools.ToolUse) -> str:
        await asyncio.Event().wait()
        return ""

    monkeypatch.setattr(tools, "TOOL_TIMEOUT_SECONDS", 0.01)
    for name, run, error in (("breaks", breaks, "It failed."), ("hangs", hangs, "took too long")):
        monkeypatch.setitem(tools.TOOLS, name, tools.Tool(name, "", {}, (), run))
        assert error in (await call_tool(WebhookClient(), make_message(name)))["error"]


async def test_tools_need_a_telephone_call() -> None:
    message = {"type": "tool-calls", "toolCallList": [{"id": "t", "function": {"name": "end_call"}}]}
    client = WebhookClient()
    assert "has no telephone line" in (await call_tool(client, message))["error"]
    assert not client.entries, "the entry of no call would never become a row"


def test_the_number_of_stored_results_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "MAX_RESULTS", 50)

    async def call_tools() -> None:
        client = WebhookClient()
        for number in range(tools.MAX_RESULTS + 10):
            call = {"id": f"call-{number}", "function": {"name": "unknown"}}
            await call_tool(client, {"type": "tool-calls", "toolCallList": [call]})

    asyncio.run(call_tools())
    assert len(tools._results) <= tools.MAX_RESULTS


def test_the_declarations_list_all_tools() -> None:
    functions = {each["function"]["name"]: each["function"] for each in tools.build_declarations()}
    assert set(functions) == {"transfer_call", "end_call", "send_dtmf"}
    assert functions["send_dtmf"]["parameters"]["required"] == ["digits"]
    assert all(each["description"] for each in functions.values())
    json.dumps(tools.build_declarations())


async def test_a_tool_is_added_as_the_documentation_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "TOOLS", dict(tools.TOOLS))

    @tools.tool("Says whether the practice is open on a day.", day="A weekday, such as Monday.")
    async def opening_hours(use: tools.ToolUse) -> str:
        return "Closed." if use.text("day") in ("Saturday", "Sunday") else "From eight to six."

    assert "opening_hours" in {each["function"]["name"] for each in tools.build_declarations()}
    assert (await call_tool(WebhookClient(), make_message("opening_hours", day="Sunday")))[
        "result"
    ] == "Closed."
