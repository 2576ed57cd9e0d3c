"""The transcript in the database equals what the caller said, recognized from the transmitted audio.

The Vapi simulator recognizes only the audio that it receives. So a sentence is in the transcript only if its
audio passed the bridge completely and in order, and a sentence that was not spoken must not be in it.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from calls.tests.live_server import Database, make_server, poll_until, temporary_database
from sandbox.faults import VapiFaults
from sandbox.speech import audio
from sandbox.twilio.caller import HangUp, Listen, Pause, Say, Step, WaitForHangup
from sandbox.vapi.recognizer import can_recognize
from sandbox.vapi.server import VapiSimulator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.speech,
    pytest.mark.skipif(not can_recognize(), reason="needs the [speech] extra"),
]

CLIPS = ("move_appointment", "opening_hours", "book_table", "talk_to_person", "correct")
GOODBYE = "goodbye"  # the assistant hangs up after it
WAIT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class CallerScript:
    """The caller's sentences, chosen by a seed."""

    names: tuple[str, ...]  # of clips, in order, including the one that is replaced with silence
    silent: str

    @classmethod
    def from_seed(cls, seed: int) -> CallerScript:
        rng = random.Random(seed)
        names = rng.sample(CLIPS, len(CLIPS))
        if rng.random() < 0.5:
            names.append(GOODBYE)
        return cls(tuple(names), rng.choice(names[:-1]))

    @property
    def spoken(self) -> list[str]:
        return [name for name in self.names if name != self.silent]

    def steps(self) -> list[Step]:
        clips = audio.load_clips()
        steps: list[Step] = []
        for name in self.names:
            if name == self.silent:
                steps.append(Pause(clips[name].duration_ms))
            elif name == GOODBYE:
                steps += [Say(name), WaitForHangup(WAIT_SECONDS)]
            else:
                steps += [Say(name), Listen(timeout_seconds=WAIT_SECONDS)]
        return [*steps, HangUp()]


async def run_call(
    seed: int, caller_script: CallerScript, audio_format: str, database: Database, folder: Path
) -> list[str]:
    """Run a call. Returns the caller's utterances in the database."""
    faults = VapiFaults(greets=False, delay_ms=(200, 300))
    async with VapiSimulator(seed=seed, faults=faults, listen="speech") as assistant:
        server = await asyncio.to_thread(
            make_server, assistant.base_url, database.url, folder / "journal", VAPI_AUDIO_FORMAT=audio_format
        )
        async with server:
            record = await server.twilio_simulator(rng_seed=seed).place_call(caller_script.steps())
            assert record.errors == []
            call = await assistant.call_for(record.call_sid)
            rows = await poll_until(
                lambda: database.select_utterances(record.call_sid),
                lambda rows: len(rows) >= len(call.transcripts),
                WAIT_SECONDS,
            )
    return [text for speaker, text in rows if speaker == "caller"]


async def test_the_transcript_has_the_callers_sentences_in_order(tmp_path: Path) -> None:
    """One call with PCM and one with mu-law, in parallel, with different scripts."""
    seeds = {"pcm_s16le": 0, "mulaw": 1}
    scripts = {audio_format: CallerScript.from_seed(seed) for audio_format, seed in seeds.items()}
    pcm, mulaw = (caller_script.spoken for caller_script in scripts.values())
    assert set(pcm) | set(mulaw) == {*CLIPS, GOODBYE} and pcm[:2] != mulaw[:2]
    assert (GOODBYE in pcm) != (GOODBYE in mulaw), "one call is ended by each side"

    calls = {}
    with ExitStack() as databases:
        async with asyncio.TaskGroup() as both:
            for audio_format, caller_script in scripts.items():
                folder = tmp_path / audio_format
                database = databases.enter_context(temporary_database(folder))
                call = run_call(seeds[audio_format], caller_script, audio_format, database, folder)
                calls[audio_format] = both.create_task(call)

    clips = audio.load_clips()
    for audio_format, caller_script in scripts.items():
        assert calls[audio_format].result() == [clips[name].text for name in caller_script.spoken], (
            audio_format
        )
