"""Fault injection: bugs in the bridge, so that tests can prove that the demo's checks detect them.

`install` replaces parts of the bridge in its process. The caller's number selects the bug of a call, see
`CALLERS`; the calls of other callers are not changed. The product has no such switch: only
`asgi_with_bugs.py` calls `install`, in a server that only the tests start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridge.admission import Admission, Claim
from bridge.audio import resample, transcode
from bridge.audio.transcode import Transcoder
from bridge.call import turn_taking
from bridge.call.events import ClearPlayout
from bridge.call.turns import Turn, Turns
from bridge.config import AudioFormat
from bridge.io import runner, vapi_link
from bridge.io.runner import CallRunner
from bridge.io.vapi_link import LinkEvent, VapiLink
from bridge.journal import Entry, UtteranceSpoken
from bridge.wire import twilio

TAMPER_INTERVAL_FRAMES = 500
DELAY_SECONDS = 0.1
WRONG_SID = "MZ" + "0" * 32

FRAME_BUGS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "drop": lambda pair: pair[1:],
    "swap": lambda pair: pair[::-1],
    "repeat": lambda pair: [pair[0], *pair],
}
BUGS = (
    *FRAME_BUGS, "wrong_stream_sid", "no_clear", "late_audio", "noise_for_speech", "lost_transcript",
    "turns_by_vapi",
)  # fmt: skip
CALLERS = {f"+155501001{number:02d}": name for number, name in enumerate(BUGS)}

# The bug in the call that the current task belongs to.
_current: ContextVar[str] = ContextVar("bug", default="")


def install() -> None:
    _select_by_caller()
    _tamper_with_frames()
    _use_wrong_stream_sid()
    _omit_clear()
    _delay_audio()
    _replace_speech_with_noise()
    _lose_a_transcript()
    _measure_turns_by_vapi()


def _select_by_caller() -> None:
    """The caller is known from the ticket, before the call's objects and tasks are created."""
    claim = Admission.claim

    async def claim_and_select(self: Admission, *args: Any, **kwargs: Any) -> Claim:
        claimed = await claim(self, *args, **kwargs)
        _current.set(CALLERS.get(claimed.caller, ""))
        return claimed

    Admission.claim = claim_and_select  # type: ignore[method-assign]


class TamperingTranscoder:
    """A transcoder that tampers with the last two of every `TAMPER_INTERVAL_FRAMES` caller frames."""

    def __init__(self, transcoder: Transcoder, tamper: Callable[[list[bytes]], list[bytes]]) -> None:
        self._transcoder = transcoder
        self._tamper = tamper
        self._count = 0
        self._frames: list[bytes] = []

    def to_assistant(self, ulaw: bytes) -> bytes:
        self._count += 1
        self._frames.append(ulaw)
        if self._count % TAMPER_INTERVAL_FRAMES == TAMPER_INTERVAL_FRAMES - 1:
            return b""
        frames = self._frames if self._count % TAMPER_INTERVAL_FRAMES else self._tamper(self._frames)
        self._frames = []
        return b"".join(map(self._transcoder.to_assistant, frames))

    def to_caller(self, chunk: bytes) -> bytes:
        return self._transcoder.to_caller(chunk)

    def interrupt(self) -> None:
        self._transcoder.interrupt()


def _tamper_with_frames() -> None:
    def transcoder_for(audio_format: AudioFormat) -> Transcoder:
        transcoder = transcode.transcoder_for(audio_format)
        tamper = FRAME_BUGS.get(_current.get())
        return TamperingTranscoder(transcoder, tamper) if tamper else transcoder

    vapi_link.transcoder_for = transcoder_for  # type: ignore[attr-defined]


def _use_wrong_stream_sid() -> None:
    class Writer(twilio.Writer):
        def __init__(self, stream_sid: str) -> None:
            wrong = stream_sid and _current.get() == "wrong_stream_sid"
            super().__init__(WRONG_SID if wrong else stream_sid)

    runner.twilio.Writer = Writer  # type: ignore[attr-defined]


def _omit_clear() -> None:
    perform = CallRunner._perform

    def perform_without_clear(self: CallRunner, action: Any) -> None:
        if not (isinstance(action, ClearPlayout) and _current.get() == "no_clear"):
            perform(self, action)

    CallRunner._perform = perform_without_clear  # type: ignore[method-assign]


def _delay_audio() -> None:
    """Everything from the assistant reaches the session 100 ms late."""
    listen = VapiLink.listen

    async def delay_listen(self: VapiLink, on_event: Callable[[LinkEvent], None]) -> None:
        if _current.get() != "late_audio":
            await listen(self, on_event)
            return
        loop = asyncio.get_running_loop()

        def delay_event(event: LinkEvent) -> None:
            loop.call_later(DELAY_SECONDS, on_event, event)

        await listen(self, delay_event)
        await asyncio.sleep(DELAY_SECONDS)

    VapiLink.listen = delay_listen  # type: ignore[method-assign]


def _replace_speech_with_noise() -> None:
    """Replace speech to the assistant with noise of the same length and level."""

    class Upsampler(resample.Upsampler):
        def feed(self, pcm_8k: NDArray[np.int16]) -> NDArray[np.int16]:
            pcm_16k = super().feed(pcm_8k)
            if _current.get() != "noise_for_speech":
                return pcm_16k
            level = float(np.std(pcm_16k))
            noise = np.random.default_rng(1).standard_normal(len(pcm_16k)) * level
            return np.clip(noise, -32_768, 32_767).astype(np.int16)

    transcode.Upsampler = Upsampler  # type: ignore[attr-defined]


def _lose_a_transcript() -> None:
    from calls.ingest.journal import SpoolJournal  # imports models: only after Django is set up

    write = SpoolJournal.write

    def write_without_one(self: SpoolJournal, entry: Entry) -> None:
        is_lost = isinstance(entry, UtteranceSpoken) and entry.index == 1
        if not (is_lost and _current.get() == "lost_transcript"):
            write(self, entry)

    SpoolJournal.write = write_without_one  # type: ignore[method-assign]


def _measure_turns_by_vapi() -> None:
    """Measure an answer by Vapi's `started` event instead of its first audible audio."""

    class TurnsByVapi(Turns):
        def on_assistant_audible(self, *args: Any, **kwargs: Any) -> Turn | None:
            reported_at = self._started_at
            turn = super().on_assistant_audible(*args, **kwargs)
            if turn is not None and reported_at is not None and _current.get() == "turns_by_vapi":
                turn.first_audio = max(reported_at, turn.end_of_speech)
            return turn

    turn_taking.Turns = TurnsByVapi  # type: ignore[attr-defined]
