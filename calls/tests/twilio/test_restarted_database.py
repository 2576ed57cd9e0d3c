"""PostgreSQL restarts while the server runs: the next page and the next webhook work."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from calls.tests.live_server import ACCOUNT_SID, AUTH_TOKEN, Cluster, LiveServer, make_server, poll_until
from calls.tests.staff.live.live_socket_client import log_in
from sandbox.twilio.webhook_client import UrlResolver, WebhookClient

pytestmark = [pytest.mark.slow, pytest.mark.once]

PAGES = 8  # requested concurrently, so that the pool opens this many connections
UNREACHABLE_URL = "http://127.0.0.1:1"
FALLBACK = "+15550107777"
# Calls that ended normally at another server: their end reasons are not in this server's memory.
CREATE_ENDED_CALLS = """
import sys
import django
django.setup()
from calls.tests.builders import make_call
for call_sid in sys.argv[1:]:
    make_call(call_sid=call_sid, end_reason="caller-hung-up", ended_by="caller")
"""
ENDED_CALLS = [f"CA{number:032d}" for number in range(4)]
NEW_CALLS = [f"CA{number:032d}" for number in range(10, 13)]
WAIT_SECONDS = 20.0


async def request_pages(server: LiveServer, session: aiohttp.ClientSession, key: str) -> list[int]:
    async def status() -> int:
        async with session.get(f"{server.url}/", headers={"Cookie": f"sessionid={key}"}) as response:
            await response.read()
            return response.status

    return await asyncio.gather(*(status() for _ in range(PAGES)))


async def send_webhook(server: LiveServer, session: aiohttp.ClientSession, path: str, call_sid: str) -> str:
    """Send a signed webhook. Returns the TwiML."""
    form = {
        "CallSid": call_sid, "AccountSid": ACCOUNT_SID, "From": "+15550100135", "To": "+15559870000",
        "CallStatus": "ringing", "Direction": "inbound",
    }  # fmt: skip
    webhooks = WebhookClient(UrlResolver(server.url), session)
    response = await webhooks.send(f"{server.url}{path}", form, method="POST", token=AUTH_TOKEN)
    assert (response.status, response.problem) == (200, "")
    return response.text


async def test_pages_and_webhooks_work_after_a_restart(cluster: Cluster, tmp_path: Path) -> None:
    server = await asyncio.to_thread(
        make_server,
        UNREACHABLE_URL,
        cluster.database.url,
        tmp_path / "journal",
        REDIS_URL="",
        FALLBACK_NUMBER=FALLBACK,
    )
    key = await asyncio.to_thread(log_in, server, "staff", "view_call")
    await asyncio.to_thread(server.run, "-c", CREATE_ENDED_CALLS, *ENDED_CALLS)
    async with server, aiohttp.ClientSession(trust_env=False) as session:
        assert set(await request_pages(server, session, key)) == {200}
        assert "<Hangup" in await send_webhook(server, session, "/twilio/after", ENDED_CALLS[0])
        for ended, new in zip(ENDED_CALLS[1:], NEW_CALLS, strict=True):
            await asyncio.to_thread(cluster.restart)
            # Before any page, so that no page request has repaired the pool.
            assert "<Hangup" in await send_webhook(server, session, "/twilio/after", ended)
            assert await request_pages(server, session, key) == [200] * PAGES
            assert "<Stream" in await send_webhook(server, session, "/twilio/voice", new)
            rows = await poll_until(
                lambda new=new: cluster.database.select("SELECT 1 FROM calls_call WHERE call_sid = %s", new),  # type: ignore[misc]
                bool,
                WAIT_SECONDS,
            )
            assert rows, "the journal writer has no new connection"
