"""The steps in the README for connecting a number, against the simulators."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from calls.tests.commands import run_command_async
from calls.tests.live_server import ACCOUNT_SID, AUTH_TOKEN, make_server, poll_until, temporary_database
from sandbox.faults import TwilioFaults, TwilioRestFaults, VapiFaults
from sandbox.twilio.caller import HangUp, Listen, Say, WaitForHangup
from sandbox.twilio.rest.server import NUMBER, TwilioRestSimulator
from sandbox.vapi.server import VapiSimulator

pytestmark = [pytest.mark.slow, pytest.mark.once]

PERSON, CALLEE = "+15550107777", "+442079460018"
WAIT_SECONDS = 20.0


async def test_from_an_empty_database_to_inbound_and_outbound_calls_and_their_prices(tmp_path: Path) -> None:
    texts = ["I want to talk to a person."]
    async with (
        VapiSimulator(faults=VapiFaults(delay_ms=(200, 300)), listen="energy", script=texts) as vapi,
        TwilioRestSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as twilio,
    ):
        with temporary_database(tmp_path / "rows") as database:
            settings = {
                "TWILIO_BASE_URL": twilio.base_url, "TWILIO_PHONE_NUMBER": NUMBER, "FALLBACK_NUMBER": PERSON,
                "OUTBOUND_ALLOWED": "+4420", "VAPI_AUDIO_FORMAT": "mulaw", "REDIS_URL": "",
                "AI_DISCLOSURE": "An AI speaks.",
            }  # fmt: skip
            server = await asyncio.to_thread(
                make_server, vapi.base_url, database.url, tmp_path / "journal", **settings
            )
            created = await run_command_async(server.environment, "configure_assistant", VAPI_ASSISTANT_ID="")
            assert created.code == 0, created
            (assistant_id,) = re.findall(r"VAPI_ASSISTANT_ID=(\S+)", created.stdout)
            server.environment["VAPI_ASSISTANT_ID"] = assistant_id

            configured = await run_command_async(server.environment, "configure_number")
            assert configured.code == 0, configured
            assert twilio.numbers[NUMBER].voice_url == f"{server.url}/twilio/voice"

            async with server:
                # Only the URL is wrong: it is not https here.
                diagnosis = await run_command_async(server.environment, "doctor", "--json")
                red = [check["name"] for check in diagnosis.report["checks"] if check["level"] == "red"]
                assert red == ["public-url"], diagnosis

                # An inbound call: the caller asks for a person, and the assistant's tool transfers the call.
                simulator = server.twilio_simulator(registry=twilio)
                script = (Listen(), Say("talk_to_person"), WaitForHangup(30))
                record = await simulator.place_call(script, faults=TwilioFaults(dial_status="completed"))
                assert record.spoken_by_twilio == ["An AI speaks."]
                assert record.dialed == [PERSON] and texts[0] in record.whispered[0]
                row = "SELECT end_reason, ended_by, status FROM calls_call WHERE call_sid = %s"
                ended = await poll_until(
                    lambda: database.select(row, record.call_sid), lambda rows: rows[0][0], WAIT_SECONDS
                )
                assert ended[0][:2] == ("transferred", "assistant")
                kinds = "SELECT e.kind FROM calls_callevent e JOIN calls_call c ON c.id = e.call_id"
                event_kinds = await poll_until(
                    lambda: {kind for (kind,) in database.select(kinds)},
                    {"tool-called", "tool-done", "person-answered"}.issubset,
                    WAIT_SECONDS,
                )
                assert {"tool-called", "tool-done", "person-answered"} <= event_kinds
                (call,) = vapi.calls
                await vapi.until(lambda: call.tool_results, WAIT_SECONDS)
                assert call.tool_results[0]["results"][0]["result"] == "The caller is being connected."

                # An outbound call.
                twilio.faults, twilio.callee_script = TwilioRestFaults(ring_seconds=0.1), [Listen(), HangUp()]
                outbound = await run_command_async(server.environment, "place_call", CALLEE, "--wait")
                assert outbound.code == 0, outbound

                # Prices are available later, and only on request.
                for sid in list(twilio.calls):
                    twilio.set_price(sid, "-0.01700")
                synced = await run_command_async(server.environment, "sync_calls", "--after", "0")
                assert synced.code == 0, synced
                prices = database.select("SELECT twilio_price FROM calls_call")
                assert [f"{price:.5f}" for (price,) in prices] == ["-0.01700", "-0.01700"]
                await server.stop()
