"""A change of a number takes effect for the next call, in every server process.

Two servers use one PostgreSQL. The change is made in the admin of the first, and the call comes in at the
second. Then the database is frozen, and the second answers as fast as before: no webhook needs the database.
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
    Cluster,
    LiveServer,
    eventually,
    live_server,
)
from calls.tests.staff.live.watching import log_in
from calls.twilio import sentences
from sandbox.twilio.caller import Listen, Say, Step
from sandbox.twilio.webhook_client import UrlResolver, WebhookClient, WebhookResponse
from sandbox.vapi.server import VapiSimulator

pytestmark = [pytest.mark.slow, pytest.mark.once]

OURS, ONE_LINE, PERSON = "+15559870000", "+15559870001", "+15550101111"
AN_AI = "You are speaking with an AI assistant."
LIVE_SECONDS = 5.0
WEBHOOK_MS = 500
WAIT_SECONDS = 20.0
RINGS_WHILE_FROZEN = 5
SCRIPT: list[Step] = [Listen(timeout=8), Say("correct"), Listen(timeout=8)]
ROW = {
    "number": OURS, "label": "Front desk", "active": "on", "assistant_id": "", "endpointing_ms": "",
    "overrides": "{}", "discloses_ai": "unknown", "disclosure": "", "greeting": "", "hours": "",
    "time_zone": "",
    "closed_message": "", "fallback_number": "", "max_concurrent_calls": "", "max_call_seconds": "",
}  # fmt: skip
_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


@dataclass
class Installation:
    """A staff user who is logged in at one server, and callers of all servers."""

    server: LiveServer
    session: aiohttp.ClientSession
    key: str
    rung: int = 0

    async def save(self, path: str, **changes: str) -> str:
        """Submit the form at `path`. Returns the URL that the admin redirects to."""
        headers = {"Cookie": f"sessionid={self.key}"}
        async with self.session.get(f"{self.server.url}{path}", headers=headers) as page:
            token = _TOKEN.search(await page.text())
            assert page.status == 200 and token
            headers["Cookie"] += f"; csrftoken={page.cookies['csrftoken'].value}"
        form = {**ROW, **changes, "csrfmiddlewaretoken": token[1], "_continue": "1"}
        headers["Referer"] = f"{self.server.url}{path}"
        async with self.session.post(
            f"{self.server.url}{path}", data=form, headers=headers, allow_redirects=False
        ) as saved:
            assert saved.status == 302, re.findall(r"errorlist[^<]*<li>([^<]+)", await saved.text())
            return saved.headers["Location"]

    async def ring(self, server: LiveServer, to: str = OURS, *, again: bool = False) -> WebhookResponse:
        """Send the voice webhook of a new caller or, with `again`, of the last one."""
        self.rung += not again
        form = {
            "CallSid": self.sid, "AccountSid": ACCOUNT_SID, "From": "+15550100135", "To": to,
            "CallStatus": "ringing", "Direction": "inbound",
        }  # fmt: skip
        webhooks = WebhookClient(UrlResolver(server.url), self.session)
        return await webhooks.send(f"{server.url}/twilio/voice", form, method="POST", token=AUTH_TOKEN)

    @property
    def sid(self) -> str:
        """The CallSid of the last caller."""
        return f"CA{self.rung:032d}"

    async def until_heard(self, server: LiveServer, wanted: list[str], to: str = OURS) -> float:
        """Ring until the TwiML is as wanted. Returns the seconds that it took."""
        began = time.monotonic()
        self.rung += 1
        while (told := heard(await self.ring(server, to, again=True))) != wanted:
            assert time.monotonic() - began < WAIT_SECONDS, f"{told}, not {wanted}"
            await asyncio.sleep(0.05)
        return time.monotonic() - began


def heard(answer: WebhookResponse) -> list[str]:
    """What the TwiML does, in order: sentences, the number dialled, `Connect`, `Hangup`."""
    assert (answer.status, answer.problem) == (200, "")
    verbs = list(ElementTree.fromstring(answer.text))
    found = [verb.text or "" if verb.tag in ("Say", "Dial") else verb.tag for verb in verbs]
    return found[: found.index("Connect") + 1] if "Connect" in found else found


@asynccontextmanager
async def two_servers(
    cluster: Cluster, assistant: VapiSimulator, folder: Path
) -> AsyncIterator[list[LiveServer]]:
    servers = [
        await asyncio.to_thread(
            live_server, assistant.base_url, cluster.database.url, folder / name, REDIS_URL=""
        )
        for name in ("here", "there")
    ]
    async with servers[0], servers[1]:
        yield servers


async def test_a_change_takes_effect_for_the_next_call_at_every_server(
    cluster: Cluster, tmp_path: Path
) -> None:
    timeout = aiohttp.ClientTimeout(total=WAIT_SECONDS)
    async with (
        VapiSimulator(listen="energy", script=["correct"]) as assistant,
        two_servers(cluster, assistant, tmp_path) as (here, there),
        aiohttp.ClientSession(trust_env=False, timeout=timeout) as session,
    ):
        permissions = ("add_phonenumber", "change_phonenumber", "view_phonenumber", "view_numbers")
        installation = Installation(
            here, session, await asyncio.to_thread(log_in, here, "staff", *permissions)
        )
        assert heard(await installation.ring(there)) == [AN_AI, "Connect"], (
            "the disclosure is on without a row, too"
        )

        row = await installation.save(
            "/admin/calls/phonenumber/add/",
            greeting="This call is recorded.",
            assistant_id="the-front-desk",
            endpointing_ms="450",
            max_call_seconds="600",
            record_calls="true",
            overrides='{"firstMessage": "Front desk."}',
        )
        took = [await installation.until_heard(there, [AN_AI, "This call is recorded.", "Connect"])]

        record = await there.twilio_simulator().place_call(SCRIPT, to_number=OURS, call_sid="CA" + "e" * 32)
        assert record.errors == []
        assert record.spoken_by_twilio[: record.spoken_before_stream] == [AN_AI, "This call is recorded."]
        (call,) = assistant.calls
        assert call.body["assistantId"] == "the-front-desk"
        overrides = call.body["assistantOverrides"]
        assert overrides["firstMessage"] == "Front desk."
        assert overrides["startSpeakingPlan"] == {"waitSeconds": 0.45}
        assert overrides["maxDurationSeconds"] == 600
        assert overrides["artifactPlan"] == {"recordingEnabled": True}

        await installation.save(row, disclosure="A machine speaks.")
        took.append(await installation.until_heard(there, ["A machine speaks.", "Connect"]))

        another_day = datetime.now(UTC) + timedelta(days=3)
        hours = {"hours": f"{another_day:%a} 08:00-18:00", "time_zone": "Europe/Berlin"}
        await installation.save(row, **hours)
        took.append(await installation.until_heard(there, [sentences.CLOSED, "Hangup"]))
        closed = installation.sid
        await installation.save(row, **hours, fallback_number=PERSON)
        took.append(await installation.until_heard(there, [PERSON]))
        await installation.save(
            "/admin/calls/phonenumber/add/", number=ONE_LINE, discloses_ai="false", max_concurrent_calls="1"
        )
        took.append(await installation.until_heard(there, ["Connect"], ONE_LINE))
        assert heard(await installation.ring(there, ONE_LINE)) == [sentences.BUSY, "Hangup"], (
            "that was its one line"
        )
        took.append(await installation.until_heard(here, ["Connect"], ONE_LINE))
        assert max(took) < LIVE_SECONDS, took

        ended = await eventually(
            lambda: cluster.database.select(
                "SELECT end_reason, ended_by FROM calls_call WHERE call_sid = %s AND end_reason <> ''", closed
            ),
            bool,
            WAIT_SECONDS,
        )
        assert ended == [("out-of-hours", "us")]

        cluster.freeze()
        try:
            answers = [await installation.ring(there) for _ in range(RINGS_WHILE_FROZEN)]
            others = [await installation.ring(there, "+15559879999") for _ in range(RINGS_WHILE_FROZEN)]
            assert cluster.states() <= {"T", "Z"}, "nothing of it moves"
        finally:
            cluster.thaw()
        assert [heard(answer) for answer in answers] == [[PERSON]] * RINGS_WHILE_FROZEN
        assert [heard(answer) for answer in others] == [[AN_AI, "Connect"]] * RINGS_WHILE_FROZEN
        assert max(answer.elapsed_ms for answer in (*answers, *others)) < WEBHOOK_MS
