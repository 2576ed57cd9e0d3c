"""What a row of the fault table needs: a server with both simulators, and calls whose outcome is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calls.tests.live_server import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    Database,
    ServeProcess,
    make_serve_process,
    poll_until,
)
from sandbox.faults import TwilioFaults, VapiFaults
from sandbox.scenarios import NO_FAULT, SCENARIOS, FaultScenario
from sandbox.twilio.caller import HangUp, Listen, Pause, Say, Step, WaitForHangup
from sandbox.twilio.record import TwilioCallRecord
from sandbox.twilio.rest.server import TwilioRestSimulator
from sandbox.vapi.record import VapiCallRecord
from sandbox.vapi.server import VapiSimulator

FALLBACK = "+15550109999"
FINAL_SECONDS = 15.0  # until a call's row has its end
SHORT_CALL: tuple[Step, ...] = (Listen(timeout_seconds=6.0), Say("correct"), Listen(), HangUp())
UNTIL_HANG_UP: tuple[Step, ...] = (Listen(timeout_seconds=6.0), Say("correct"), WaitForHangup(30.0))


@dataclass(slots=True)
class Outcome:
    """One call: what the phone line and Vapi saw of it, and its row."""

    record: TwilioCallRecord
    vapi_calls: list[VapiCallRecord]
    end_reason: str = ""
    frames_dropped: int = 0

    @property
    def stream_seconds(self) -> float:
        """From the stream's start to its close by the server; Twilio then asks for the failover TwiML."""
        if self.record.started_at is None or self.record.closed_at is None:
            return float("inf")
        return self.record.closed_at - self.record.started_at

    @property
    def got_person_or_apology(self) -> bool:
        spoken = self.record.spoken_by_twilio[self.record.spoken_before_stream :]
        return bool(self.record.dialed or spoken)

    @property
    def open_vapi_calls(self) -> int:
        return sum(call.is_active for call in self.vapi_calls)


@dataclass(slots=True)
class Rig:
    """A server, and the simulators that it talks to."""

    server: ServeProcess
    vapi: VapiSimulator
    rest: TwilioRestSimulator
    folder: Path
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def database(self) -> Database:
        return self.server.database

    async def call(
        self,
        fault: str | FaultScenario = NO_FAULT,
        script: Sequence[Step] = UNTIL_HANG_UP,
        *,
        vapi: VapiFaults | None = None,
        twilio: TwilioFaults | None = None,
        **options: Any,
    ) -> Outcome:
        """Place a call with this fault, and wait until its row has its end."""
        scenario = SCENARIOS[fault] if isinstance(fault, str) else fault
        self.vapi.faults = vapi or scenario.vapi
        simulator = self.server.twilio_simulator(**options)
        record = await simulator.place_call(script, faults=twilio or scenario.twilio)
        return await self.read(record)

    async def read(self, record: TwilioCallRecord) -> Outcome:
        rows = await poll_until(
            lambda: self.database.select(
                "SELECT end_reason, frames_dropped FROM calls_call WHERE call_sid = %s", record.call_sid
            ),
            lambda rows: rows and rows[0][0],
            FINAL_SECONDS,
        )
        calls = [call for call in self.vapi.calls if call.call_sid == record.call_sid]
        outcome = Outcome(record, calls, *(rows[0] if rows else ("", 0)))
        self.outcomes.append(outcome)
        return outcome

    async def count_open_vapi_calls(self, timeout_seconds: float) -> int:
        """The calls that Vapi would still bill, after this time at the latest."""
        try:
            await self.vapi.until(lambda: not self.vapi.active_calls(), timeout_seconds)
        except TimeoutError:
            return len(self.vapi.active_calls())
        return 0


@asynccontextmanager
async def start_rig(folder: Path, database_url: str = "", **variables: str) -> AsyncIterator[Rig]:
    """A running server with these settings. Without a database URL, it has a SQLite database of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    url = database_url or f"sqlite:///{folder / 'rows.sqlite3'}"
    async with (
        VapiSimulator(listen="energy") as vapi,
        TwilioRestSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as rest,
    ):
        settings = {"FALLBACK_NUMBER": FALLBACK, "TWILIO_BASE_URL": rest.base_url, "REDIS_URL": ""}
        server = await asyncio.to_thread(
            make_serve_process, vapi.base_url, url, folder, **(settings | variables)
        )
        async with server:
            yield Rig(server, vapi, rest, folder)


def speak_for(seconds: float) -> tuple[Step, ...]:
    """A caller who speaks once, and hangs up after so many seconds."""
    return (Listen(timeout_seconds=6.0), Say("correct"), Pause(round(seconds * 1000)), HangUp())
