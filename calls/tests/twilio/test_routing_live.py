"""A change of a number takes effect for the next call, in every server process.

Two servers use one PostgreSQL. The change is made in the admin of the first server, and the webhooks are sent
to the second. Then the database is frozen, and the second responds as fast as before: no webhook needs the
database.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import aiohttp
import pytest

from calls.tests.live_server import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    POLL_INTERVAL_SECONDS,
    Cluster,
    LiveServer,
    make_server,
    poll_until,
)
from calls.tests.staff.live.live_socket_client import log_in
from calls.twilio import sentences
from sandbox.twilio.caller import Listen, Say, Step
from sandbox.twilio.webhook_client import UrlResolver, WebhookClient, WebhookResponse
from sandbox.vapi.server import VapiSimulator

pytestmark = [pytest.mark.slow, pytest.mark.once]

OURS, LIMITED_NUMBER, PERSON = "+15559870000", "+15559870001", "+15550101111"
AN_AI = "You are speaking with an AI assistant."
MAX_ROUTE_DELAY_SECONDS = 5.0
MAX_WEBHOOK_MS = 500
WAIT_SECONDS = 20.0
WEBHOOKS_WHILE_FROZEN = 5
SCRIPT: list[Step] = [Listen(timeout_seconds=8), Say("correct"), Listen(timeout_seconds=8)]
FORM = {
    "number": OURS, "label": "Front desk", "active": "on", "assistant_id": "", "endpointing_ms": "",
    "overrides": "{}", "discloses_ai": "unknown", "disclosure": "", "greeting": "", "hours": "",
    "time_zone": "",
    "closed_message": "", "fallback_number": "", "max_concurrent_calls": "", "max_call_seconds": "",
}  # fmt: skip
CSRF_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


@dataclass
class RoutingClient:
    """Changes numbers in the admin of one server, and sends webhooks to any server."""

    server: LiveServer
    session: aiohttp.ClientSession
    session_key: str
    caller_count: int = 0

    async def save(self, path: str, **changes: str) -> str:
        """Submit the form at `path`. Returns the URL that the admin redirects to."""
        headers = {"Cookie": f"sessionid={self.session_key}"}
        async with self.session.get(f"{self.server.url}{path}", headers=headers) as page:
            token = CSRF_TOKEN.search(await page.text())
            assert page.status == 200 and token
            headers["Cookie"] += f"; csrftoken={page.cookies['csrftoken'].value}"
        form = {**FORM, **changes, "csrfmiddlewaretoken": token[1], "_continue": "1"}
        headers["Referer"] = f"{self.server.url}{path}"
        async with self.session.post(
            f"{self.server.url}{path}", data=form, headers=headers, allow_redirects=False
        ) as saved:
            assert saved.status == 302, re.findall(r"errorlist[^<]*<li>([^<]+)", await saved.text())
            return saved.headers["Location"]

    async def send_voice_webhook(
        self, server: LiveServer, to: str = OURS, *, again: bool = False
    ) -> WebhookResponse:
        """Send the voice webhook of a new caller; with `again`, of the last caller."""
        self.caller_count += not again
        form = {
            "CallSid": self.sid, "AccountSid": ACCOUNT_SID, "From": "+15550100135", "To": to,
            "CallStatus": "ringing", "Direction": "inbound",
        }  # fmt: skip
        webhooks = WebhookClient(UrlResolver(server.url), self.session)
        return await webhooks.send(f"{server.url}/twilio/voice", form, method="POST", token=AUTH_TOKEN)

    @property
    def sid(self) -> str:
        """The CallSid of the last caller."""
        return f"CA{self.caller_count:032d}"

    async def wait_for_actions(self, server: LiveServer, expected: list[str], to: str = OURS) -> float:
        """Send voice webhooks until the TwiML does this. Returns the seconds that it took."""
        started_at = time.monotonic()
        self.caller_count += 1
        while (actual := parse_actions(await self.send_voice_webhook(server, to, again=True))) != expected:
            assert time.monotonic() - started_at < WAIT_SECONDS, f"{actual}, expected {expected}"
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
        return time.monotonic() - started_at


def parse_actions(response: WebhookResponse) -> list[str]:
    """What the TwiML does, in order: spoken texts, the dialed number, `Connect`, `Hangup`."""
    assert (response.status, response.problem) == (200, "")
    verbs = list(ElementTree.fromstring(response.text))
    actions = [verb.text or "" if verb.tag in ("Say", "Dial") else verb.tag for verb in verbs]
    return actions[: actions.index("Connect") + 1] if "Connect" in actions else actions


@asynccontextmanager
async def start_two_servers(
    cluster: Cluster, assistant: VapiSimulator, folder: Path
) -> AsyncIterator[list[LiveServer]]:
    servers = [
        await asyncio.to_thread(
            make_server, assistant.base_url, cluster.database.url, folder / name, REDIS_URL=""
        )
        for name in ("first", "second")
    ]
    async with servers[0], servers[1]:
        yield servers


async def test_a_change_takes_effect_for_the_next_call_at_every_server(
    cluster: Cluster, tmp_path: Path
) -> None:
    async with (
        VapiSimulator(listen="energy", script=["correct"]) as assistant,
        start_two_servers(cluster, assistant, tmp_path) as (first, second),
        aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=WAIT_SECONDS)) as session,
    ):
        permissions = ("add_phonenumber", "change_phonenumber", "view_phonenumber", "view_numbers")
        client = RoutingClient(first, session, await asyncio.to_thread(log_in, first, "staff", *permissions))
        assert parse_actions(await client.send_voice_webhook(second)) == [AN_AI, "Connect"], (
            "a number without a row discloses the AI, too"
        )

        row = await client.save(
            "/admin/calls/phonenumber/add/",
            greeting="This call is recorded.",
            assistant_id="the-front-desk",
            endpointing_ms="450",
            max_call_seconds="600",
            record_calls="true",
            overrides='{"firstMessage": "Front desk."}',
        )
        delays = [await client.wait_for_actions(second, [AN_AI, "This call is recorded.", "Connect"])]

        record = await second.twilio_simulator().place_call(SCRIPT, to_number=OURS)
        assert record.errors == []
        assert record.spoken_by_twilio[: record.spoken_before_stream] == [AN_AI, "This call is recorded."]
        (call,) = assistant.calls
        assert call.body["assistantId"] == "the-front-desk"
        overrides = call.body["assistantOverrides"]
        assert overrides["firstMessage"] == "Front desk."
        assert overrides["startSpeakingPlan"] == {"waitSeconds": 0.45}
        assert overrides["maxDurationSeconds"] == 600
        assert overrides["artifactPlan"] == {"recordingEnabled": True}

        await client.save(row, disclosure="A machine speaks.")
        delays.append(await client.wait_for_actions(second, ["A machine speaks.", "Connect"]))

        another_day = datetime.now(UTC) + timedelta(days=3)
        hours = {"hours": f"{another_day:%a} 08:00-18:00", "time_zone": "Europe/Berlin"}
        await client.save(row, **hours)
        delays.append(await client.wait_for_actions(second, [sentences.CLOSED, "Hangup"]))
        closed_sid = client.sid
        await client.save(row, **hours, fallback_number=PERSON)
        delays.append(await client.wait_for_actions(second, [PERSON]))
        await client.save(
            "/admin/calls/phonenumber/add/",
            number=LIMITED_NUMBER,
            discloses_ai="false",
            max_concurrent_calls="1",
        )
        delays.append(await client.wait_for_actions(second, ["Connect"], LIMITED_NUMBER))
        assert parse_actions(await client.send_voice_webhook(second, LIMITED_NUMBER)) == [
            sentences.BUSY,
            "Hangup",
        ], "the limit of this number is one call"
        delays.append(await client.wait_for_actions(first, ["Connect"], LIMITED_NUMBER))
        assert max(delays) < MAX_ROUTE_DELAY_SECONDS, delays

        ended = await poll_until(
            lambda: cluster.database.select(
                "SELECT end_reason, ended_by FROM calls_call WHERE call_sid = %s AND end_reason <> ''",
                closed_sid,
            ),
            bool,
            WAIT_SECONDS,
        )
        assert ended == [("out-of-hours", "us")]

        cluster.freeze()
        try:
            responses = [await client.send_voice_webhook(second) for _ in range(WEBHOOKS_WHILE_FROZEN)]
            others = [
                await client.send_voice_webhook(second, "+15559879999") for _ in range(WEBHOOKS_WHILE_FROZEN)
            ]
            assert cluster.process_states() <= {"T", "Z"}, "a process of PostgreSQL is not suspended"
        finally:
            cluster.thaw()
        assert [parse_actions(response) for response in responses] == [[PERSON]] * WEBHOOKS_WHILE_FROZEN
        assert [parse_actions(response) for response in others] == [
            [AN_AI, "Connect"]
        ] * WEBHOOKS_WHILE_FROZEN
        assert max(response.elapsed_ms for response in (*responses, *others)) < MAX_WEBHOOK_MS
