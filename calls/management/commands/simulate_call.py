"""`manage.py simulate_call`: one call into a running server, as Twilio would place it.

Signs with the configured token, over the configured public URL, whatever address `--url` really leads
to: from inside a container that may be `http://web:8000`. Plays a WAV file, or a few of the clips that
come with the sandbox, listens, and says what happened. Exit code 1 when the caller got no conversation.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from calls.demo.console import Screen
from calls.twilio.client import TWILIO
from sandbox.speech import audio
from sandbox.twilio.carrier import (
    CallRecord,
    Carrier,
    CarrierDials,
    CutIn,
    HangUp,
    Listen,
    Pause,
    Press,
    Say,
    Step,
)
from sandbox.twilio.relay import RemoteExchange

ACCOUNT_SID = "AC" + "0" * 32  # where none is configured
GREETING_SECONDS = 8.0
LONGEST_CLIP_SECONDS = 600
MARGIN_SECONDS = 90.0
TALK_SECONDS = 3.0  # with the person to whom staff transfer the call

CLIPS_SCRIPT: tuple[Step, ...] = (
    Listen(timeout=GREETING_SECONDS),
    Say("opening_hours"),
    Listen(),
    Press("42#"),
    Listen(),
    Say("correct"),
    CutIn("talk_to_person", after_ms=1200),
    Listen(),
    Say("goodbye"),
)


class Command(BaseCommand):
    help = "Places one simulated call into a running server and says what happened."
    # The server may be configured in other ways than this shell: only the answer tells.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--wav", type=Path, help="what the caller says (default: a few clips)")
        parser.add_argument("--url", help="where the server really is (default: PUBLIC_URL)")
        parser.add_argument("--to", default="+15559870000", help="our number")
        parser.add_argument("--from", dest="caller", default="+15550100134", help="the caller's number")
        parser.add_argument("--listen-seconds", type=float, default=8.0, help="after the last words")
        parser.add_argument("--save-heard", type=Path, help="WAV file for what the caller heard")
        parser.add_argument("--seed", type=int, default=0, help="of the line's noise")

    def handle(self, *args: Any, **options: Any) -> None:
        listen_seconds = min(max(options["listen_seconds"], 0.0), float(LONGEST_CLIP_SECONDS))
        script, length_s = _script(options["wav"], listen_seconds)
        tokens = settings.TWILIO_AUTH_TOKENS
        url = options["url"] or settings.PUBLIC_URL
        try:
            carrier = Carrier(
                url,
                public_url=settings.PUBLIC_URL,
                account_sid=settings.TWILIO_ACCOUNT_SID or ACCOUNT_SID,
                auth_token=tokens[0] if tokens else "",
                rng_seed=options["seed"],
                limit_s=length_s + MARGIN_SECONDS,
                exchange=_exchange(),
            )
        except ValueError as problem:
            raise CommandError(f"--url: {problem}") from None
        screen = Screen(Console(highlight=False))
        screen.say(f"Calling {options['to']} at {url}, signed for {settings.PUBLIC_URL} ...")
        try:
            record = asyncio.run(
                carrier.place_call(
                    script,
                    from_number=options["caller"],
                    to_number=options["to"],
                    dials=CarrierDials(dial_s=TALK_SECONDS),
                    on_event=screen.carrier,
                )
            )
        except KeyboardInterrupt:
            screen.say("Stopped.")
            sys.exit(130)
        _tell(screen, record)
        if record.started_at is not None:
            path = options["save_heard"] or settings.VAR_DIR / "heard.wav"
            with contextlib.suppress(FileExistsError):
                path.parent.mkdir(parents=True)
            audio.write_wav(path, audio.ulaw_decode(record.heard), audio.LINE_RATE)
            screen.say(f"What the caller heard: {path}")
        if troubles := failures(record):
            raise CommandError("\n".join(troubles))


def _exchange() -> RemoteExchange | None:
    """The stand-in for Twilio's REST API, which then can hang up and transfer this call; Twilio cannot."""
    sid, tokens = settings.TWILIO_ACCOUNT_SID, settings.TWILIO_AUTH_TOKENS
    if settings.TWILIO_BASE_URL == TWILIO or not sid or not tokens:
        return None
    return RemoteExchange(settings.TWILIO_BASE_URL, sid, tokens[0])


def _script(wav: Path | None, listen_seconds: float) -> tuple[Sequence[Step], float]:
    """What the caller does, and how long their own part of it takes."""
    last = (Pause(round(listen_seconds * 1000)), HangUp())
    if wav is None:
        return (*CLIPS_SCRIPT, *last), listen_seconds
    try:
        pcm = audio.read_wav_8k(wav)
    except (OSError, ValueError) as problem:
        raise CommandError(f"--wav: {problem}") from None
    if not 0 < len(pcm) <= LONGEST_CLIP_SECONDS * audio.LINE_RATE:
        raise CommandError(f"--wav: {wav} is empty, or longer than {LONGEST_CLIP_SECONDS // 60} minutes")
    clip = audio.as_clip(pcm, wav.name)
    # An assistant may wait for the caller to speak first: no greeting is no failure.
    said = (Listen(timeout=GREETING_SECONDS), Say(clip))
    return (*said, *last), listen_seconds + len(pcm) / audio.LINE_RATE


def _tell(screen: Screen, record: CallRecord) -> None:
    frames, messages = len(record.frames), len(record.received)
    heard_s = sum(part.ended_at - part.started_at for part in record.heard_segments)
    screen.say(
        f"Webhook: {record.webhook_status} in {record.webhook_ms or 0:.0f} ms. {frames} frames sent, "
        f"{messages} media messages received, {len(record.clears)} clears; the assistant was heard "
        f"for {heard_s:.1f} s. Ended by: {record.ended_by}."
    )
    for said in record.said:
        ended_at = said.ended_at or 0.0
        answer = next((part for part in record.heard_segments if part.started_at > ended_at), None)
        waited = (
            "no answer heard" if answer is None else f"answered after {answer.started_at - ended_at:.2f} s"
        )
        screen.say(f"  “{said.text or said.name}”: {waited}")
    for text in record.spoken_by_twilio:
        screen.say(f"  Twilio said: “{text}”")
    for note in (error for error in record.errors if error.code == 0):
        screen.say(f"  note: {note.text}")


def failures(record: CallRecord) -> list[str]:
    """Why the caller got no conversation, or what was wrong with it; empty when all was well."""
    found = [f"{error.code}: {error.text}" for error in record.errors if error.code]
    if record.started_at is None:
        found.append("The media stream never started.")
    elif not record.heard_segments:
        found.append("The caller never heard the assistant.")
    if record.spoken_by_twilio[record.said_before_stream :]:
        found.append("The caller heard an announcement in place of the assistant.")
    return found
