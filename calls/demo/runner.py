"""One simulated call against a real server process: the stage, the script, and the evidence it leaves.

Everything is on loopback. The stand-in for Vapi and the carrier run in this process, where both keep
their records by one clock; the server runs in its own and believes that it talks to Twilio and Vapi.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from django.conf import settings

from calls.demo.evidence import Evidence, Rows, read_rows
from calls.demo.lag import measured
from calls.demo.server import HOST, Server
from sandbox.faults import AssistantDials
from sandbox.speech import audio
from sandbox.twilio.carrier import Carrier, CutIn, Listen, Press, Say, StayOnTheLine, Step
from sandbox.twilio.rest_server import NUMBER, CarrierApi
from sandbox.vapi.record import AssistantCall
from sandbox.vapi.server import Assistant

Listening: TypeAlias = Literal["auto", "energy", "speech"]

ROWS_SECONDS = 10.0
LOOK_SECONDS = 0.1
SOMEBODY = "+15550107777"  # who may be called, and whom a caller is transferred to
# The assistant takes its time to answer the phone, so that there is caller audio to be held.
DIALLING_SECONDS = 0.25

# Longer than the slowest answer and the longest clip take together.
PATIENCE = 10.0

# Four turns; keys; one barge-in, into the longest answer; the assistant hangs up after its goodbye.
SCRIPT: tuple[Step, ...] = (
    Listen(timeout=PATIENCE),
    Say("move_appointment"),
    Listen(timeout=PATIENCE),
    Press("42#"),
    Listen(timeout=PATIENCE),  # the assistant answers to keys as well
    Say("correct"),
    CutIn("talk_to_person", after_ms=1500, timeout=PATIENCE),
    Listen(timeout=PATIENCE),
    Say("goodbye"),
    StayOnTheLine(timeout=PATIENCE),
)
# The same with less talk. The caller speaks first, while the assistant is still being dialled.
SHORT_PATIENCE = 6.0
SHORT_SCRIPT: tuple[Step, ...] = (
    Say("book_table"),
    Listen(timeout=SHORT_PATIENCE),
    Press("42#"),
    Listen(timeout=SHORT_PATIENCE),
    Say("correct"),
    CutIn("talk_to_person", after_ms=800, timeout=SHORT_PATIENCE),
    Listen(timeout=SHORT_PATIENCE),
    Say("goodbye"),
    StayOnTheLine(timeout=SHORT_PATIENCE),
)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the person at the keyboard asked for."""

    seed: int = 0
    port: int = 0  # 0: any
    fast: bool = False
    listen: Listening = "auto"
    asgi: str = "voiceai.asgi:application"
    dialect: Literal["call", "socket"] = "call"
    audio_format: str = "pcm_s16le"
    environment: Mapping[str, str] = field(default_factory=dict)  # further variables of the server's

    @property
    def script(self) -> tuple[Step, ...]:
        return SHORT_SCRIPT if self.fast else SCRIPT

    @property
    def dials(self) -> AssistantDials:
        dials = AssistantDials(rest_delay_s=DIALLING_SECONDS, ws_hang_s=DIALLING_SECONDS)
        return replace(dials, greets=False, delay_ms=(300, 600)) if self.fast else dials


@dataclass(frozen=True, slots=True)
class Audience:
    """Whoever watches; each is called at once and must not wait."""

    on_carrier: Callable[[str, dict[str, object]], None]
    on_assistant: Callable[[AssistantCall, str], None]
    on_log_line: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """Both far ends and the server between them, up and ready."""

    server: Server
    assistant: Assistant
    carrier: Carrier
    carrier_api: CarrierApi
    account_sid: str
    auth_token: str


@asynccontextmanager
async def stage(wishes: Wishes, port: int, audience: Audience) -> AsyncIterator[Stage]:
    account_sid, auth_token = f"AC{uuid.uuid4().hex}", secrets.token_hex(16)
    api_key = secrets.token_urlsafe(16)
    assistant = Assistant(
        host=HOST,
        api_key=api_key,
        seed=wishes.seed,
        dials=wishes.dials,
        listen=wishes.listen,
        script=words_of(wishes.script),
        on_event=audience.on_assistant,
    )
    url = f"http://{HOST}:{port}"
    carrier_api = CarrierApi(host=HOST, account_sid=account_sid, auth_token=auth_token, server_url=url)
    async with assistant, carrier_api:
        environment = {
            "DJANGO_SETTINGS_MODULE": "voiceai.settings",
            "DJANGO_DEBUG": "on",
            "DJANGO_SECRET_KEY": secrets.token_urlsafe(32),
            "PUBLIC_URL": url,
            "TWILIO_ACCOUNT_SID": account_sid,
            "TWILIO_AUTH_TOKEN": auth_token,
            "TWILIO_BASE_URL": carrier_api.base_url,  # nothing may leave this machine
            "TWILIO_PHONE_NUMBER": NUMBER,
            "OUTBOUND_ALLOWED": SOMEBODY,
            "FALLBACK_NUMBER": SOMEBODY,
            "VAPI_BASE_URL": assistant.base_url,
            "VAPI_API_KEY": api_key,
            "VAPI_ASSISTANT_ID": str(uuid.uuid4()),
            "VAPI_WEBHOOK_SECRET": secrets.token_urlsafe(16),
            "VAPI_ALLOWED_HOSTS": HOST,
            "VAPI_SOCKET_URL": assistant.socket_url if wishes.dialect == "socket" else "",
            "VAPI_AUDIO_FORMAT": wishes.audio_format,
            "LOG_FORMAT": "console",
            # A blank variable counts as not set, and one that is there is not taken from `.env`.
            **dict.fromkeys(
                (
                    "AI_DISCLOSURE",
                    "SENTRY_DSN",
                    "RECORD_CALLS",
                    "HOLD_BUFFER_MS",
                    "MAX_CALL_SECONDS",
                ),
                "",
            ),
            **wishes.environment,
        }
        server = Server(port, environment, asgi=wishes.asgi, on_line=audience.on_log_line)
        async with server:
            carrier = Carrier(
                server.url,
                account_sid=account_sid,
                auth_token=auth_token,
                rng_seed=wishes.seed,
                exchange=carrier_api,
            )
            yield Stage(server, assistant, carrier, carrier_api, account_sid, auth_token)


def words_of(script: Sequence[Step]) -> list[str]:
    """What the caller will say, utterance by utterance."""
    clips = audio.load_clips()
    named = [step.clip for step in script if isinstance(step, Say | CutIn)]
    return [clips[clip].text for clip in named if isinstance(clip, str)]


async def play(on: Stage, wishes: Wishes, audience: Audience) -> Evidence:
    """The call, and all that is known of it once its rows are complete."""
    async with measured() as lag:
        record = await on.carrier.place_call(wishes.script, on_event=audience.on_carrier)
    call = next((call for call in on.assistant.calls if call.call_sid == record.call_sid), None)
    rows = await _complete_rows(record.call_sid, call, on.assistant)
    return Evidence(
        record=record,
        call=call,
        rows=rows,
        log=list(on.server.lines),
        refused=[f"{status} {why}" for _, status, why in on.assistant.refused],
        audio_format=wishes.audio_format,
        disclosure=settings.AI_DISCLOSURE_LINE,
        lag=lag,
    )


async def _complete_rows(call_sid: str, call: AssistantCall | None, assistant: Assistant) -> Rows | None:
    """The rows once everything has been written, or what there is of them when that takes too long.

    Rows are written behind the call, and callbacks and the assistant's report come after it.
    """
    rows: Rows | None = None
    reports = call is not None and call.dialect == "call"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ROWS_SECONDS):
            if call is not None and reports:
                await assistant.until(
                    lambda: any(kind == "end-of-call-report" for _, kind, _ in call.webhooks_posted),
                    ROWS_SECONDS,
                )
            while True:
                rows = await asyncio.to_thread(read_rows, call_sid)
                if rows is not None and _are_complete(rows, reports):
                    break
                await asyncio.sleep(LOOK_SECONDS)
    return rows


def _are_complete(rows: Rows, reports: bool) -> bool:
    ended = bool(rows.end_reason) and rows.status == "completed" and rows.duration_known
    return ended and (rows.priced or not reports)
