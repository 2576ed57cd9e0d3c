from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from bridge.journal import AssistantReported
from calls.tests.webhook_client import SID, WebhookClient, make_bridge
from calls.vapi.webhooks import MAX_TURNS

SECRET = {"X-Vapi-Secret": "topsecret"}
REPORT: dict[str, Any] = {
    "type": "end-of-call-report",
    "endedReason": "customer-ended-call",
    "cost": 0.19,
    "analysis": {"summary": "Moved to Thursday."},
    "artifact": {
        "performanceMetrics": {
            "turnLatencies": [
                {"modelLatency": 420, "voiceLatency": 180, "turnLatency": 1200},
                "odd",
                {"modelLatency": -1},
            ]
        }
    },
    "call": {
        "id": "0198c5d1-7777-7000-8000-000000000001",
        "assistantOverrides": {"metadata": {"callSid": SID}},
    },
}


async def send(client: WebhookClient, body: Any, path: str = "/vapi/events", **headers: str) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.post(path, raw, content_type="application/json", headers=headers or SECRET)


def sign(body: bytes, timestamp: str, secret: bytes = b"topsecret", prefix: str = "") -> dict[str, str]:
    digest = hmac.new(secret, f"{timestamp}.".encode() + body, sha256).hexdigest()
    return {"X-Signature": prefix + digest, "X-Timestamp": timestamp}


def make_timestamp(offset_seconds: float = 0, scale: int = 1) -> str:
    return str(int((time.time() + offset_seconds) * scale))


BODY = b'{"message":{"type":"hang"}}'


# Called when the test runs: a timestamp from the collection of the tests may be too old by then.
Headers = Callable[[], dict[str, str]]

ACCEPTED_CREDENTIALS: dict[str, Headers] = {
    "secret header": lambda: SECRET,
    "bearer": lambda: {"Authorization": "Bearer topsecret"},
    "bearer in lower case, with two spaces": lambda: {"Authorization": "bearer  topsecret"},
    "hmac": lambda: sign(BODY, make_timestamp()),
    "hmac in milliseconds": lambda: sign(BODY, make_timestamp(scale=1000)),
    "hmac almost too old": lambda: sign(BODY, make_timestamp(-280), prefix="sha256="),
}
REJECTED_CREDENTIALS: dict[str, Headers] = {
    "no credentials": lambda: {"X-Other": "1"},
    "empty header": lambda: {"X-Vapi-Secret": ""},
    "prefix of the secret": lambda: {"X-Vapi-Secret": "topsecre"},
    "not ascii": lambda: {"X-Vapi-Secret": "töpsecret"},
    "no scheme": lambda: {"Authorization": "topsecret"},
    "another scheme": lambda: {"Authorization": "Basic topsecret"},
    "empty bearer": lambda: {"Authorization": "Bearer "},
    "hmac too old": lambda: sign(BODY, make_timestamp(-330)),
    "hmac of the future": lambda: sign(BODY, make_timestamp(330)),
    "hmac of another secret": lambda: sign(BODY, make_timestamp(), secret=b"other"),
    "hmac of another body": lambda: sign(BODY + b" ", make_timestamp()),
    "hmac without timestamp": lambda: {"X-Signature": sign(BODY, make_timestamp())["X-Signature"]},
    "hmac with a timestamp that is no number": lambda: sign(BODY, "soon"),
    "hmac with a timestamp of 17 digits": lambda: sign(BODY, "9" * 17),
}


@pytest.mark.parametrize("name", ACCEPTED_CREDENTIALS)
async def test_it_accepts_valid_credentials(name: str) -> None:
    assert (await send(WebhookClient(), BODY, **ACCEPTED_CREDENTIALS[name]())).status_code == 200


@pytest.mark.parametrize("name", REJECTED_CREDENTIALS)
async def test_it_rejects_all_other_credentials(name: str) -> None:
    client = WebhookClient()
    assert (await send(client, BODY, **REJECTED_CREDENTIALS[name]())).status_code == 401
    assert not client.entries


async def test_the_hmac_matches_the_documented_scheme() -> None:
    digest = sign(BODY, "1700000000")["X-Signature"]
    assert digest == "a1758beabad8c89bca930251a8f61bfa4b447482318e293976b66e1878edc6d3"


@pytest.mark.parametrize("name", ACCEPTED_CREDENTIALS | REJECTED_CREDENTIALS)
async def test_without_a_secret_it_rejects_everything(name: str) -> None:
    client = WebhookClient(make_bridge(vapi_webhook_secret=""))
    assert (
        await send(client, BODY, **(ACCEPTED_CREDENTIALS | REJECTED_CREDENTIALS)[name]())
    ).status_code == 401
    assert (await send(client, BODY, **sign(BODY, make_timestamp(), b""))).status_code == 401


async def test_a_secret_may_contain_any_character() -> None:
    client = WebhookClient(make_bridge(vapi_webhook_secret="schlüssel"))
    header = "schlüssel".encode().decode("latin-1")
    assert (await send(client, BODY, **{"X-Vapi-Secret": header})).status_code == 200


@pytest.mark.parametrize("method", ["get", "put", "delete"])
async def test_it_allows_post_only(method: str) -> None:
    assert (await getattr(WebhookClient(), method)("/vapi/events")).status_code == 405


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"[]", b"3", b'{"message": 3}', b"\xff"])
async def test_it_rejects_a_body_that_is_not_a_message(body: bytes) -> None:
    assert (await send(WebhookClient(), body)).status_code == 400


async def test_it_reads_a_report_larger_than_djangos_own_limit() -> None:
    client = WebhookClient()
    large = REPORT | {"transcript": "x" * (3 * 1024 * 1024)}
    assert (await send(client, {"message": large})).status_code == 200
    assert len(client.entries) == 1
    huge = {"message": {"transcript": "x" * (8 * 1024 * 1024)}}
    assert (await send(client, huge)).status_code == 413


@pytest.mark.parametrize("wrapped", [True, False])
async def test_it_writes_a_report_to_the_journal(wrapped: bool) -> None:
    client = WebhookClient()
    response = await send(client, {"message": REPORT} if wrapped else REPORT, "/vapi/events/")
    assert response.status_code == 200
    (report,) = client.entries
    assert isinstance(report, AssistantReported)
    assert report.call_sid == SID
    assert report.vapi_call_id == "0198c5d1-7777-7000-8000-000000000001"
    assert (report.kind, report.ended_reason) == ("end-of-call-report", "customer-ended-call")
    assert (report.cost, report.summary) == (0.19, "Moved to Thursday.")
    assert report.turn_latencies == ({"modelLatency": 420, "voiceLatency": 180, "turnLatency": 1200}, {}, {})


async def test_it_reads_the_callsid_from_the_query_first() -> None:
    client = WebhookClient()
    await send(client, REPORT, "/vapi/events?callSid=CAquery")
    await send(client, REPORT, "/vapi/events?callSid=../odd")
    assert [entry.call_sid for entry in client.entries] == ["CAquery", SID]


async def test_it_writes_a_status_update_to_the_journal() -> None:
    client = WebhookClient()
    update = {"type": "status-update", "status": "ended", "endedReason": "x" * 999, "call": {"id": "0198"}}
    await send(client, update)
    (report,) = client.entries
    assert isinstance(report, AssistantReported)
    assert (report.call_sid, report.vapi_call_id, report.status) == ("", "0198", "ended")
    assert len(report.ended_reason) == 255


async def test_it_drops_a_report_without_a_call() -> None:
    client = WebhookClient()
    assert (await send(client, {"type": "status-update", "status": "ended"})).status_code == 200
    assert not client.entries


@pytest.mark.parametrize(
    "changes", [{"cost": float("nan")}, {"cost": True}, {"cost": -1}, {"cost": "1"}, {"cost": 1e300}]
)
async def test_it_ignores_an_invalid_cost(changes: dict[str, Any]) -> None:
    client = WebhookClient()
    assert (await send(client, REPORT | changes)).status_code == 200
    (report,) = client.entries
    assert isinstance(report, AssistantReported)
    assert report.cost is None


async def test_it_bounds_what_it_stores() -> None:
    client = WebhookClient()
    many = {"performanceMetrics": {"turnLatencies": [{"modelLatency": 1}] * 5000}}
    await send(
        client, REPORT | {"artifact": many, "analysis": None, "summary": "x" * 50_000, "call": {"id": "0"}}
    )
    (report,) = client.entries
    assert isinstance(report, AssistantReported)
    assert len(report.turn_latencies) == MAX_TURNS
    assert len(report.summary) == 10_000


async def test_it_answers_a_call_of_an_unknown_tool() -> None:
    calls = [{"id": "t1", "function": {"name": "book"}}, {"id": "t2", "name": "pay"}, 3]
    response = await send(WebhookClient(), {"message": {"type": "tool-calls", "toolCallList": calls}})
    assert response.json()["results"][:2] == [
        {"toolCallId": "t1", "name": "book", "error": "no such tool"},
        {"toolCallId": "t2", "name": "pay", "error": "no such tool"},
    ]
    nested = {"type": "tool-calls", "toolWithToolCallList": [{"toolCall": {"id": "t3", "function": {}}}]}
    assert (await send(WebhookClient(), nested)).json()["results"][0]["toolCallId"] == "t3"
    assert (await send(WebhookClient(), {"type": "tool-calls"})).json() == {"results": []}


@pytest.mark.parametrize("kind", ["transcript", "speech-update", "hang", "", None, 7, "a new one"])
async def test_it_ignores_every_other_message(kind: Any) -> None:
    client = WebhookClient()
    assert (await send(client, {"message": {"type": kind}})).status_code == 200
    assert not client.entries
