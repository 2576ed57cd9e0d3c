"""A database that freezes for ten seconds during a call affects no audio and loses no row.

Its processes are suspended, not stopped: connections stay open and queries do not return.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from calls.tests.live_server import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    Cluster,
    Database,
    LiveServer,
    make_server,
    poll_until,
)
from sandbox.faults import VapiFaults
from sandbox.twilio.caller import Listen, Say, Step
from sandbox.twilio.webhook_client import UrlResolver, WebhookClient, WebhookResponse
from sandbox.vapi.record import VapiCallRecord
from sandbox.vapi.server import VapiSimulator

pytestmark = [pytest.mark.slow, pytest.mark.once]

FROZEN_SECONDS = 10.0
WEBHOOK_INTERVAL_SECONDS = 2.0
MAX_WEBHOOK_MS = 500
PAGES = 3
WAIT_SECONDS = 20.0
MAX_IN_FLIGHT_BYTES = 3 * 160  # not delivered when the caller hung up
CLIPS = ("correct", "book_table", "opening_hours", "correct")
SCRIPT: list[Step] = [step for name in CLIPS for step in (Say(name), Listen(timeout_seconds=8))]
SID = "CA" + uuid.uuid4().hex


async def send_voice_webhook(server: LiveServer, webhooks: WebhookClient, number: int) -> WebhookResponse:
    """Send the first webhook of another caller."""
    form = {
        "CallSid": f"CA{number:032d}",
        "AccountSid": ACCOUNT_SID,
        "From": "+15550100135",
        "To": "+15559870000",
        "CallStatus": "ringing",
        "Direction": "inbound",
    }
    return await webhooks.send(f"{server.url}/twilio/voice", form, method="POST", token=AUTH_TOKEN)


async def request_page(server: LiveServer, session: aiohttp.ClientSession) -> None:
    """Request a page with a session cookie, which needs the database. The response does not matter."""
    cookie = {"Cookie": "sessionid=" + "s" * 32}
    with suppress(aiohttp.ClientError, TimeoutError):
        async with session.get(server.url, headers=cookie, allow_redirects=False) as response:
            await response.read()


async def freeze_and_send_webhooks(server: LiveServer, cluster: Cluster) -> list[WebhookResponse]:
    """Freeze the database, and collect the responses to new callers while pages are blocked."""
    responses: list[WebhookResponse] = []
    async with aiohttp.ClientSession(
        trust_env=False, timeout=aiohttp.ClientTimeout(total=WAIT_SECONDS)
    ) as session:
        webhooks = WebhookClient(UrlResolver(server.url), session)
        cluster.freeze()
        frozen_until = time.monotonic() + FROZEN_SECONDS
        try:
            pages = [asyncio.create_task(request_page(server, session)) for _ in range(PAGES)]
            while (left_seconds := frozen_until - time.monotonic()) > 0:
                responses.append(await send_voice_webhook(server, webhooks, len(responses)))
                await asyncio.sleep(min(WEBHOOK_INTERVAL_SECONDS, left_seconds))
            assert cluster.process_states() == {"T"}
        finally:
            cluster.thaw()
        await asyncio.gather(*pages)
    return responses


async def test_a_frozen_database_loses_no_row_no_frame_and_no_call(cluster: Cluster, tmp_path: Path) -> None:
    database = cluster.database
    faults = VapiFaults(greets=False, delay_ms=(200, 300))
    script = [f"these are words number {number}" for number in range(1, 50)]
    async with VapiSimulator(faults=faults, listen="energy", script=script) as assistant:
        server = await asyncio.to_thread(
            make_server, assistant.base_url, database.url, tmp_path / "journal", VAPI_AUDIO_FORMAT="mulaw"
        )
        async with server:
            call_task = asyncio.create_task(server.twilio_simulator().place_call(SCRIPT, call_sid=SID))
            try:
                call = await assistant.call_for(SID, WAIT_SECONDS)
                await assistant.until(lambda: call.transcripts, WAIT_SECONDS)
                responses = await freeze_and_send_webhooks(server, cluster)
                assert not call_task.done(), "the call ended before the freeze"
                record = await call_task
            finally:
                call_task.cancel()
            await check_rows(database, call, responses)

    assert [(response.status, response.problem) for response in responses] == [(200, "")] * len(responses)
    assert max(response.elapsed_ms for response in responses) < MAX_WEBHOOK_MS
    assert record.errors == []
    # Without transcoding, both ends have the same bytes.
    received = call.received_audio
    assert record.sent_ulaw.startswith(received)
    assert len(record.sent_ulaw) - len(received) <= MAX_IN_FLIGHT_BYTES
    assert record.received_ulaw == call.sent_audio


async def check_rows(database: Database, call: VapiCallRecord, responses: list[WebhookResponse]) -> None:
    sent = [(speaker, text) for _, speaker, text in call.transcripts]
    assert len(sent) == 2 * len(CLIPS)
    assert await poll_until(lambda: database.select_utterances(SID), sent.__eq__, WAIT_SECONDS) == sent
    others = "SELECT count(*) FROM calls_call WHERE call_sid <> %s"
    expected = [(len(responses),)]
    assert await poll_until(lambda: database.select(others, SID), expected.__eq__, WAIT_SECONDS) == expected
    ended = await poll_until(
        lambda: database.select(
            "SELECT status, end_reason, ended_by, frames_to_assistant, frames_dropped, barge_ins,"
            " (SELECT count(*) FROM calls_turn t WHERE t.call_id = c.id AND response_latency_ms IS NOT NULL)"
            " FROM calls_call c WHERE call_sid = %s AND end_reason <> '' AND status = 'completed'",
            SID,
        ),
        bool,
        WAIT_SECONDS,
    )
    frames = len(call.received_audio) // 160
    assert ended == [("completed", "caller-hung-up", "caller", frames, 0, 0, len(CLIPS))]
