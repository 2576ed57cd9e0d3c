"""Sabotages of the bridge: each breaks one thing on purpose, so that tests can prove that a check fails.

Each function permanently replaces one part of the bridge in its process. The product has no such switch:
only `sabotaged_asgi.py` calls these, in a server that only the tests start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridge.audio import resample, transcode
from bridge.audio.transcode import Transcoder
from bridge.call import turn_taking
from bridge.call.events import ClearPlayout
from bridge.call.turns import Turn, Turns
from bridge.io import runner, vapi_link
from bridge.io.runner import CallRunner
from bridge.io.vapi_link import LinkEvent, VapiLink
from bridge.journal import Entry, UtteranceSpoken
from bridge.wire import twilio

EVERY = 500  # frames
LATE_SECONDS = 0.1
WRONG_SID = "MZ" + "0" * 32


class TamperingTranscoder:
    """A transcoder that tampers with the last two of every 500 caller frames."""

    def __init__(self, transcoder: Transcoder, tamper: Callable[[list[bytes]], list[bytes]]) -> None:
        self._transcoder = transcoder
        self._tamper = tamper
        self._count = 0
        self._frames: list[bytes] = []

    def to_assistant(self, ulaw: bytes) -> bytes:
        self._count += 1
        self._frames.append(ulaw)
        if self._count % EVERY == EVERY - 1:
            return b""
        frames = self._frames if self._count % EVERY else self._tamper(self._frames)
        self._frames = []
        return b"".join(map(self._transcoder.to_assistant, frames))

    def to_caller(self, chunk: bytes) -> bytes:
        return self._transcoder.to_caller(chunk)

    def interrupted(self) -> None:
        self._transcoder.interrupted()


def tamper_with_frames(tamper: Callable[[list[bytes]], list[bytes]]) -> None:
    vapi_link.transcoder_for = lambda audio_format: TamperingTranscoder(  # type: ignore[attr-defined]
        transcode.transcoder_for(audio_format), tamper
    )


def drop() -> None:
    tamper_with_frames(lambda pair: pair[1:])


def swap() -> None:
    tamper_with_frames(lambda pair: pair[::-1])


def repeat() -> None:
    tamper_with_frames(lambda pair: [pair[0], *pair])


def wrong_stream_sid() -> None:
    class Writer(twilio.Writer):
        def __init__(self, stream_sid: str) -> None:
            super().__init__(WRONG_SID if stream_sid else "")

    runner.twilio.Writer = Writer  # type: ignore[attr-defined]


def no_clear() -> None:
    perform = CallRunner._perform

    def without_clear(self: CallRunner, action: Any) -> None:
        if not isinstance(action, ClearPlayout):
            perform(self, action)

    CallRunner._perform = without_clear  # type: ignore[method-assign]


def late_audio() -> None:
    """Everything from the assistant reaches the session 100 ms late."""
    listen = VapiLink.listen

    async def late(self: VapiLink, on_event: Callable[[LinkEvent], None]) -> None:
        loop = asyncio.get_running_loop()

        def on_event_late(event: LinkEvent) -> None:
            loop.call_later(LATE_SECONDS, on_event, event)

        await listen(self, on_event_late)
        await asyncio.sleep(LATE_SECONDS)

    VapiLink.listen = late  # type: ignore[method-assign]


def noise_for_speech() -> None:
    """Replace speech to the assistant by noise of the same length and level."""

    class Upsampler(resample.Upsampler):
        def feed(self, pcm_8k: NDArray[np.int16]) -> NDArray[np.int16]:
            pcm_16k = super().feed(pcm_8k)
            level = float(np.std(pcm_16k))
            noise = np.random.default_rng(1).standard_normal(len(pcm_16k)) * level
            return np.clip(noise, -32_768, 32_767).astype(np.int16)

    transcode.Upsampler = Upsampler  # type: ignore[attr-defined]


def lost_transcript() -> None:
    from calls.ingest.journal import SpoolJournal  # imports models: only after Django is set up

    write = SpoolJournal.write

    def write_without_one(self: SpoolJournal, entry: Entry) -> None:
        if not (isinstance(entry, UtteranceSpoken) and entry.index == 1):
            write(self, entry)

    SpoolJournal.write = write_without_one  # type: ignore[method-assign]


def turns_by_vapi() -> None:
    """Measure an answer by Vapi's `started` event instead of its first audible audio."""

    class TurnsByVapi(Turns):
        def assistant_audible(self, *args: Any, **kwargs: Any) -> Turn | None:
            reported_at = self._started_at
            turn = super().assistant_audible(*args, **kwargs)
            if turn is not None and reported_at is not None:
                turn.first_audio = max(reported_at, turn.end_of_speech)
            return turn

    turn_taking.Turns = TurnsByVapi  # type: ignore[attr-defined]


SABOTAGES: dict[str, Callable[[], None]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        drop, swap, repeat, wrong_stream_sid, no_clear, late_audio, noise_for_speech, lost_transcript,
        turns_by_vapi,
    )
}  # fmt: skip
