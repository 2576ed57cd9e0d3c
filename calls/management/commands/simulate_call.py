"""`./manage.py simulate_call`: one simulated Twilio call to a running server.

Requests are signed with the configured token for the configured public URL, and sent to `--url`, which may
differ: inside a container it may be `http://web:8000`. The caller plays a WAV file or clips of the sandbox,
then listens. Exit code 1 if the caller did not hear the assistant or heard an announcement instead, or if
Twilio would have logged an error. With `--fault` something goes wrong on purpose: problems are printed only.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from calls.demo.console import CallConsole
from calls.twilio.client import TWILIO_API
from sandbox.scenarios import NO_FAULT, SCENARIOS, FaultScenario
from sandbox.speech import audio
from sandbox.speech.wav_file import read_wav_file
from sandbox.twilio.caller import BargeIn, HangUp, Listen, Pause, Press, Say, Step
from sandbox.twilio.record import TwilioCallRecord
from sandbox.twilio.registry_client import RemoteCallRegistry
from sandbox.twilio.simulator import TwilioSimulator

ACCOUNT_SID = "AC" + "0" * 32  # if none is configured
GREETING_SECONDS = 8.0
MAX_CLIP_SECONDS = 600
MARGIN_SECONDS = 90.0
TALK_SECONDS = 3.0  # with the person to whom the call is transferred
VAPI_API = "https://api.vapi.ai"
NEEDS_SIMULATOR = "VAPI_BASE_URL must be the address that `./manage.py sandbox` prints, with its key."

CLIPS_SCRIPT: tuple[Step, ...] = (
    Listen(timeout_seconds=GREETING_SECONDS),
    Say("opening_hours"),
    Listen(),
    Press("42#"),
    Listen(),
    Say("correct"),
    BargeIn("talk_to_person", after_ms=1200),
    Listen(),
    Say("goodbye"),
)


class Command(BaseCommand):
    help = "Places one simulated call into a running server and prints what happened."
    # The server may be configured differently from this shell.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--wav",
            type=Path,
            help="WAV file that the caller plays, up to ten minutes (default: a few clips)",
        )
        parser.add_argument("--url", help="URL at which the server is reached (default: PUBLIC_URL)")
        parser.add_argument("--to", default="+15559870000", help="number to call")
        parser.add_argument("--from", dest="caller", default="+15550100134", help="the caller's number")
        parser.add_argument(
            "--listen-seconds", type=float, default=8.0, help="seconds to listen after the last utterance"
        )
        parser.add_argument(
            "--save-heard", type=Path, help="WAV file to write what the caller heard (default: var/heard.wav)"
        )
        parser.add_argument("--call-sid", help="CallSid of the call (default: a new one)")
        parser.add_argument("--seed", type=int, default=0, help="seed of the line noise")
        parser.add_argument(
            "--fault",
            choices=SCENARIOS,
            default=NO_FAULT.name,
            metavar="NAME",
            help="what goes wrong in this call; faults of Vapi need the simulator at VAPI_BASE_URL",
        )
        parser.add_argument("--list-faults", action="store_true", help="print the names of all faults")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["list_faults"]:
            for each in SCENARIOS.values():
                self.stdout.write(f"{each.name:30} {each.description}")
            return
        scenario = SCENARIOS[options["fault"]]
        listen_seconds = min(max(options["listen_seconds"], 0.0), float(MAX_CLIP_SECONDS))
        script, script_seconds = _build_script(options["wav"], listen_seconds)
        tokens = settings.TWILIO_AUTH_TOKENS
        url = options["url"] or settings.PUBLIC_URL
        try:
            simulator = TwilioSimulator(
                url,
                public_url=settings.PUBLIC_URL,
                account_sid=settings.TWILIO_ACCOUNT_SID or ACCOUNT_SID,
                auth_token=tokens[0] if tokens else "",
                rng_seed=options["seed"],
                limit_seconds=script_seconds + MARGIN_SECONDS,
                registry=_find_registry(),
            )
        except ValueError as error:
            raise CommandError(f"--url: {error}") from None
        console = CallConsole(Console(highlight=False))
        console.print(f"Calling {options['to']} at {url}, signed for {settings.PUBLIC_URL} ...")

        async def place_call() -> TwilioCallRecord:
            async with set_vapi_fault(scenario):
                return await simulator.place_call(
                    script,
                    from_number=options["caller"],
                    to_number=options["to"],
                    call_sid=options["call_sid"],
                    faults=replace(scenario.twilio, dial_talk_seconds=TALK_SECONDS),
                    on_event=console.on_twilio_event,
                )

        try:
            record = asyncio.run(place_call())
        except KeyboardInterrupt:
            console.print("Stopped.")
            sys.exit(130)
        _print_result(console, record)
        if record.started_at is not None:
            path = options["save_heard"] or settings.VAR_DIR / "heard.wav"
            with contextlib.suppress(FileExistsError):
                path.parent.mkdir(parents=True)
            audio.write_wav(path, audio.ulaw_decode(record.heard), audio.LINE_RATE)
            console.print(f"What the caller heard: {path}")
        if not (problems := find_problems(record)):
            return
        if scenario is NO_FAULT:
            raise CommandError("\n".join(problems))
        console.print(f"With the fault {scenario.name}: {' '.join(problems)}")


@asynccontextmanager
async def set_vapi_fault(scenario: FaultScenario) -> AsyncIterator[None]:
    """Set the fault at the Vapi simulator for the time of a block. Raises `CommandError` without one."""
    if scenario.vapi == NO_FAULT.vapi:
        yield
        return
    url = f"{settings.VAPI_BASE_URL}/sandbox/fault"
    headers = {"Authorization": f"Bearer {settings.VAPI_API_KEY}"}
    if settings.VAPI_SOCKET_URL or settings.VAPI_BASE_URL == VAPI_API:
        raise CommandError(f"--fault {scenario.name}: {NEEDS_SIMULATOR}")

    async def set_fault(http: aiohttp.ClientSession, name: str) -> None:
        async with http.post(url, json={"name": name}, headers=headers) as response:
            if response.status != 200:
                raise CommandError(f"--fault {name}: {NEEDS_SIMULATOR}")

    try:
        async with aiohttp.ClientSession(trust_env=False) as http:
            await set_fault(http, scenario.name)
            try:
                yield
            finally:
                await set_fault(http, NO_FAULT.name)
    except aiohttp.ClientConnectionError:
        raise CommandError(f"--fault {scenario.name}: {NEEDS_SIMULATOR}") from None


def _find_registry() -> RemoteCallRegistry | None:
    """The REST API simulator, which can then end and redirect this call. Twilio itself does not know it."""
    sid, tokens = settings.TWILIO_ACCOUNT_SID, settings.TWILIO_AUTH_TOKENS
    if settings.TWILIO_BASE_URL == TWILIO_API or not sid or not tokens:
        return None
    return RemoteCallRegistry(settings.TWILIO_BASE_URL, sid, tokens[0])


def _build_script(wav: Path | None, listen_seconds: float) -> tuple[Sequence[Step], float]:
    """The caller's script, and the seconds of its WAV and its final pause.

    The bundled clips are not counted: `MARGIN_SECONDS` covers them.
    """
    final_steps = (Pause(round(listen_seconds * 1000)), HangUp())
    if wav is None:
        return (*CLIPS_SCRIPT, *final_steps), listen_seconds
    try:
        pcm = read_wav_file(wav, MAX_CLIP_SECONDS)
    except (OSError, ValueError) as error:
        raise CommandError(f"--wav: {error}") from None
    clip = audio.as_clip(pcm, wav.name)
    # The assistant may wait for the caller to speak first: a missing greeting is not an error.
    first_steps = (Listen(timeout_seconds=GREETING_SECONDS), Say(clip))
    return (*first_steps, *final_steps), listen_seconds + len(pcm) / audio.LINE_RATE


def _print_result(console: CallConsole, record: TwilioCallRecord) -> None:
    frames, messages = len(record.frames), len(record.received)
    heard_seconds = sum(segment.ended_at - segment.started_at for segment in record.heard_segments)
    console.print(
        f"Webhook: {record.webhook_status} in {record.webhook_ms or 0:.0f} ms. {frames} frames sent, "
        f"{messages} media messages received, {len(record.clears)} clears; the assistant was heard "
        f"for {heard_seconds:.1f} s. Ended by: {record.ended_by}."
    )
    for utterance in record.utterances:
        result = _describe_answer(record, utterance.ended_at)
        console.print(f"  “{utterance.text or utterance.name}”: {result}")
    for text in record.spoken_by_twilio:
        console.print(f"  Twilio said: “{text}”")
    for error in (error for error in record.errors if error.code == 0):
        console.print(f"  note: {error.text}")


def _describe_answer(record: TwilioCallRecord, ended_at: float | None) -> str:
    """Whether an utterance that ended at this time was answered; None: the call ended before it did."""
    if ended_at is None:
        return "the call ended before it did"
    answer = next((segment for segment in record.heard_segments if segment.started_at > ended_at), None)
    return "no answer" if answer is None else f"answered after {answer.started_at - ended_at:.2f} s"


def find_problems(record: TwilioCallRecord) -> list[str]:
    """The problems of the call; empty if there were none."""
    problems = [f"{error.code}: {error.text}" for error in record.errors if error.code]
    if record.started_at is None:
        problems.append("The media stream never started.")
    elif not record.heard_segments:
        problems.append("The caller never heard the assistant.")
    if record.spoken_by_twilio[record.spoken_before_stream :]:
        problems.append("The caller heard an announcement instead of the assistant.")
    return problems
