"""The transcript in rows is what was said: recognised from the audio that crossed, word for word.

The stand-in for the assistant understands what reaches it and nothing else. So a caller's sentences come
out as rows only when their sound came through the bridge whole and in order, and one that was silent on
the line must not.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from calls.tests.live_server import Database, eventually, live_server, own_database
from sandbox.faults import AssistantDials
from sandbox.speech import audio
from sandbox.twilio.carrier import HangUp, Listen, Pause, Say, StayOnTheLine, Step
from sandbox.vapi.recognizer import can_recognise
from sandbox.vapi.server import Assistant

pytestmark = [
    pytest.mark.slow,
    pytest.mark.speech,
    pytest.mark.skipif(not can_recognise(), reason="needs the [speech] extra"),
]

CLIPS = ("move_appointment", "opening_hours", "book_table", "talk_to_person", "correct")
GOODBYE = "goodbye"  # the assistant hangs up after it
WAIT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Story:
    """What a caller says, drawn from a seed."""

    names: tuple[str, ...]  # in order, the silent one included
    silent: str

    @classmethod
    def drawn(cls, seed: int) -> Story:
        rng = random.Random(seed)
        names = rng.sample(CLIPS, len(CLIPS))
        if rng.random() < 0.5:
            names.append(GOODBYE)
        return cls(tuple(names), rng.choice(names[:-1]))

    @property
    def said(self) -> list[str]:
        return [name for name in self.names if name != self.silent]

    def script(self) -> list[Step]:
        clips = audio.load_clips()
        steps: list[Step] = []
        for name in self.names:
            if name == self.silent:
                steps.append(Pause(clips[name].duration_ms))
            elif name == GOODBYE:
                steps += [Say(name), StayOnTheLine(WAIT_SECONDS)]
            else:
                steps += [Say(name), Listen(timeout=WAIT_SECONDS)]
        return [*steps, HangUp()]


async def caller_rows(
    seed: int, story: Story, audio_format: str, database: Database, folder: Path
) -> list[str]:
    """The caller's utterances of a call, as the database has them."""
    dials = AssistantDials(greets=False, delay_ms=(200, 300))
    async with Assistant(seed=seed, dials=dials, listen="speech") as assistant:
        server = await asyncio.to_thread(
            live_server, assistant.base_url, database.url, folder / "journal", VAPI_AUDIO_FORMAT=audio_format
        )
        async with server:
            record = await server.carrier(rng_seed=seed).place_call(story.script())
            assert record.errors == []
            call = await assistant.call_for(record.call_sid)
            rows = await eventually(
                lambda: database.utterances(record.call_sid),
                lambda rows: len(rows) >= len(call.transcripts),
                WAIT_SECONDS,
            )
    return [text for speaker, text in rows if speaker == "caller"]


async def test_the_callers_rows_are_the_sentences_that_crossed_in_their_order(tmp_path: Path) -> None:
    """One call in linear audio and one in mu-law, at the same time, with different stories."""
    seeds = {"pcm_s16le": 0, "mulaw": 1}
    stories = {audio_format: Story.drawn(seed) for audio_format, seed in seeds.items()}
    linear, companded = (story.said for story in stories.values())
    assert set(linear) | set(companded) == {*CLIPS, GOODBYE} and linear[:2] != companded[:2]
    assert (GOODBYE in linear) != (GOODBYE in companded), "one is hung up by each side"

    calls = {}
    with ExitStack() as databases:
        async with asyncio.TaskGroup() as both:
            for audio_format, story in stories.items():
                folder = tmp_path / audio_format
                database = databases.enter_context(own_database(folder))
                work = caller_rows(seeds[audio_format], story, audio_format, database, folder)
                calls[audio_format] = both.create_task(work)

    clips = audio.load_clips()
    for audio_format, story in stories.items():
        assert calls[audio_format].result() == [clips[name].text for name in story.said], audio_format
