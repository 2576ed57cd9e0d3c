"""Runs one simulated call against a real server process, and collects its artifacts.

Everything is on loopback. Both simulators run in this process, where their records share one clock; the
server runs in a separate process and is configured as if it used Twilio and Vapi.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from django.conf import settings

from calls.demo.artifacts import CallArtifacts, CallRows, read_rows
from calls.demo.loop_lag import measure_loop_lag
from calls.demo.scenario import Scenario, get_texts
from calls.demo.server_process import HOST, ServerProcess
from sandbox.twilio.rest.server import NUMBER, TwilioRestSimulator
from sandbox.twilio.simulator import TwilioSimulator
from sandbox.vapi.record import VapiCallRecord
from sandbox.vapi.server import VapiSimulator

ROWS_TIMEOUT_SECONDS = 10.0
POLL_INTERVAL_SECONDS = 0.1
PERSON_NUMBER = "+15550107777"  # may be called, and is the fallback number


@dataclass(frozen=True, slots=True)
class Observers:
    """Callbacks during a call. They must not block."""

    on_twilio_event: Callable[[str, dict[str, object]], None]
    on_vapi_event: Callable[[VapiCallRecord, str], None]
    on_log_line: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Testbed:
    """Both simulators and the server between them, running."""

    __test__ = False  # not a test class

    server: ServerProcess
    vapi: VapiSimulator
    twilio: TwilioSimulator
    twilio_rest: TwilioRestSimulator
    account_sid: str
    auth_token: str


@asynccontextmanager
async def start_testbed(scenario: Scenario, port: int, observers: Observers) -> AsyncIterator[Testbed]:
    account_sid, auth_token = f"AC{uuid.uuid4().hex}", secrets.token_hex(16)
    api_key = secrets.token_urlsafe(16)
    vapi = VapiSimulator(
        host=HOST,
        api_key=api_key,
        seed=scenario.seed,
        faults=scenario.faults,
        listen=scenario.listen,
        script=get_texts(scenario.script),
        on_event=observers.on_vapi_event,
    )
    url = f"http://{HOST}:{port}"
    twilio_rest = TwilioRestSimulator(
        host=HOST, account_sid=account_sid, auth_token=auth_token, server_url=url
    )
    async with vapi, twilio_rest:
        environment = {
            "DJANGO_SETTINGS_MODULE": "voiceai.settings",
            "DJANGO_DEBUG": "on",
            "DJANGO_SECRET_KEY": secrets.token_urlsafe(32),
            "PUBLIC_URL": url,
            "TWILIO_ACCOUNT_SID": account_sid,
            "TWILIO_AUTH_TOKEN": auth_token,
            "TWILIO_BASE_URL": twilio_rest.base_url,  # no request may leave this machine
            "TWILIO_PHONE_NUMBER": NUMBER,
            "OUTBOUND_ALLOWED": PERSON_NUMBER,
            "FALLBACK_NUMBER": PERSON_NUMBER,
            "VAPI_BASE_URL": vapi.base_url,
            "VAPI_API_KEY": api_key,
            "VAPI_ASSISTANT_ID": str(uuid.uuid4()),
            "VAPI_WEBHOOK_SECRET": secrets.token_urlsafe(16),
            "VAPI_ALLOWED_HOSTS": HOST,
            "VAPI_SOCKET_URL": vapi.socket_url if scenario.dialect == "socket" else "",
            "VAPI_AUDIO_FORMAT": scenario.audio_format,
            "LOG_FORMAT": "console",
            # A blank variable counts as not set, and overrides the one in `.env`.
            **dict.fromkeys(
                (
                    "AI_DISCLOSURE",
                    "SAY_LANGUAGE",
                    "SAY_VOICE",
                    "SENTRY_DSN",
                    "RECORD_CALLS",
                    "HOLD_BUFFER_MS",
                    "MAX_CALL_SECONDS",
                ),
                "",
            ),
            **scenario.environment,
        }
        server = ServerProcess(port, environment, asgi=scenario.asgi, on_line=observers.on_log_line)
        async with server:
            twilio = TwilioSimulator(
                server.url,
                account_sid=account_sid,
                auth_token=auth_token,
                rng_seed=scenario.seed,
                registry=twilio_rest,
            )
            yield Testbed(server, vapi, twilio, twilio_rest, account_sid, auth_token)


async def run_call(testbed: Testbed, scenario: Scenario, observers: Observers) -> CallArtifacts:
    """Run the call, and wait until its rows are complete."""
    async with measure_loop_lag() as lag:
        record = await testbed.twilio.place_call(
            scenario.script, from_number=scenario.caller, on_event=observers.on_twilio_event
        )
    call = next((call for call in testbed.vapi.calls if call.call_sid == record.call_sid), None)
    rows = await _read_complete_rows(record.call_sid, call, testbed.vapi)
    return CallArtifacts(
        twilio=record,
        vapi=call,
        rows=rows,
        log=list(testbed.server.lines),
        rejected_requests=[f"{status} {body}" for _, status, body in testbed.vapi.rejected_requests],
        audio_format=scenario.audio_format,
        disclosure=settings.AI_DISCLOSURE_LINE,
        lag=lag,
    )


async def _read_complete_rows(
    call_sid: str, call: VapiCallRecord | None, vapi: VapiSimulator
) -> CallRows | None:
    """Wait until all rows of the call are written. Returns those that exist at the timeout.

    Rows are written asynchronously, and Twilio's callbacks and Vapi's report arrive after the call.
    """
    rows: CallRows | None = None
    has_report = call is not None and call.dialect == "call"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ROWS_TIMEOUT_SECONDS):
            if call is not None and has_report:
                await vapi.until(
                    lambda: any(kind == "end-of-call-report" for _, kind, _ in call.webhooks_posted),
                    ROWS_TIMEOUT_SECONDS,
                )
            while True:
                rows = await asyncio.to_thread(read_rows, call_sid)
                if rows is not None and _are_complete(rows, has_report):
                    break
                await asyncio.sleep(POLL_INTERVAL_SECONDS)
    return rows


def _are_complete(rows: CallRows, has_report: bool) -> bool:
    has_ended = bool(rows.end_reason) and rows.status == "completed" and rows.has_duration
    return has_ended and (rows.has_vapi_cost or not has_report)
