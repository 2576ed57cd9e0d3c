"""The person on the phone: what they do, step by step, and the sound they make while doing it.

A script is a list of steps. Media never stops on a line, so the caller's voice is asked for one 20 ms frame
after the other: line noise, with a clip laid over it while something is being said. Every frame of a call
is unique because of the noise, so one that was lost, doubled or swapped can be found.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol, TypeAlias, assert_never

import numpy as np

from sandbox.speech import audio
from sandbox.speech.audio import Clip, Pcm
from sandbox.twilio.playback import Playback
from sandbox.twilio.record import CallRecord, Spoken

FRAME_SAMPLES = 160
FRAME_S = 0.02
NOISE_BLOCK = 100 * FRAME_SAMPLES  # two seconds: made in well under a millisecond
LOOK_S = 0.01  # how often a waiting caller listens


@dataclass(frozen=True, slots=True, eq=False)
class Say:
    """Speak, to the clip's last frame. A name means one of the clips that come with the sandbox."""

    clip: Clip | Pcm | str


@dataclass(frozen=True, slots=True)
class Listen:
    """Wait until the assistant was heard since the caller last spoke, and has been quiet for a while."""

    quiet_ms: int = 400
    timeout: float = 15.0


@dataclass(frozen=True, slots=True, eq=False)
class CutIn:
    """Wait until the assistant is heard, let it talk for a while, then speak over it."""

    clip: Clip | Pcm | str
    after_ms: int = 500
    timeout: float = 15.0


@dataclass(frozen=True, slots=True)
class Press:
    """Keys, one message each."""

    digits: str
    gap_ms: int = 100


@dataclass(frozen=True, slots=True)
class Pause:
    ms: int


@dataclass(frozen=True, slots=True)
class HangUp:
    pass


@dataclass(frozen=True, slots=True)
class StayOnTheLine:
    """Wait until the other side ends the call; after the timeout the caller hangs up."""

    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Inject:
    """Send a raw websocket message, as it is."""

    raw: str | bytes


Step: TypeAlias = Say | Listen | CutIn | Press | Pause | HangUp | StayOnTheLine | Inject
Tell: TypeAlias = Callable[[str, dict[str, object]], None]


class Voice:
    """What goes into the line, frame by frame."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._blocks = 0
        self._noise: Pcm = np.zeros(0, dtype=np.int16)
        self._saying: deque[tuple[Clip, Spoken, asyncio.Event]] = deque()
        self._position = 0  # in the clip being said

    def say(self, clip: Clip) -> tuple[Spoken, asyncio.Event]:
        """Queue a clip; the event is set when its last frame was sent."""
        note, done = Spoken(clip.name, clip.text), asyncio.Event()
        self._saying.append((clip, note, done))
        return note, done

    def next_frame(self) -> bytes:
        frame = self._next_noise().astype(np.int32)
        if self._saying:
            piece = self._saying[0][0].pcm_8k[self._position : self._position + FRAME_SAMPLES]
            frame[: len(piece)] += piece
        return audio.ulaw_encode(np.clip(frame, -32_768, 32_767).astype(np.int16))

    def frame_sent(self, at: float) -> None:
        """The frame asked for last is on its way."""
        if not self._saying:
            return
        clip, note, done = self._saying[0]
        if note.first_frame_at is None:
            note.first_frame_at = at
        self._position += FRAME_SAMPLES
        last_loud = max(0, clip.speech_end_ms * audio.LINE_RATE // 1000 - 1)
        if note.ended_at is None and self._position > last_loud:
            note.ended_at = at
        if self._position >= len(clip.pcm_8k):
            self._saying.popleft()
            self._position = 0
            done.set()

    def _next_noise(self) -> Pcm:
        if not len(self._noise):
            self._noise = audio.line_noise(self._seed * 100_003 + self._blocks, NOISE_BLOCK)
            self._blocks += 1
        frame, self._noise = self._noise[:FRAME_SAMPLES], self._noise[FRAME_SAMPLES:]
        return frame


class Line(Protocol):
    """What a caller can do with a media stream."""

    record: CallRecord
    playback: Playback
    voice: Voice
    closed: asyncio.Event
    started_at: float

    async def press(self, digit: str) -> None: ...
    async def send_raw(self, raw: str | bytes) -> None: ...


class Caller:
    """Does the steps. Ends early when the line is closed; whoever runs it cancels it then."""

    def __init__(self, line: Line, tell: Tell) -> None:
        self._line = line
        self._tell = tell
        # Only what is heard after this counts as an answer.
        self._listened_until = line.started_at

    async def perform(self, script: Sequence[Step]) -> None:
        """Returns when the caller wants to hang up: told to, or with nothing left to do."""
        for step in script:
            match step:
                case Say(clip):
                    await self._say(as_clip(clip))
                case Listen(quiet_ms, timeout):
                    await self._within(timeout, self._listen(quiet_ms / 1000), "Listen")
                case CutIn(clip, after_ms, timeout):
                    await self._within(timeout, self._hear_for(after_ms / 1000), "CutIn")
                    await self._say(as_clip(clip))
                case Press(digits, gap_ms):
                    for digit in digits:
                        await self._line.press(digit)
                        await asyncio.sleep(gap_ms / 1000)
                case Pause(ms):
                    await asyncio.sleep(ms / 1000)
                case Inject(raw):
                    await self._line.send_raw(raw)
                case StayOnTheLine(timeout):
                    await self._within(timeout, self._stay(), "StayOnTheLine")
                case HangUp():
                    return
                case _:
                    assert_never(step)

    async def _say(self, clip: Clip) -> None:
        note, done = self._line.voice.say(clip)
        self._line.record.said.append(note)
        self._tell("saying", {"name": clip.name, "text": clip.text})
        # A line whose clock has stopped sends nothing: the call's own limit ends the wait.
        await done.wait()
        self._listened_until = note.ended_at if note.ended_at is not None else monotonic()

    async def _listen(self, quiet_s: float) -> None:
        playback = self._line.playback
        while True:
            now, quiet_since = monotonic(), playback.quiet_since()
            if (
                quiet_since is not None
                and quiet_since > self._listened_until
                and now - quiet_since >= quiet_s
            ):
                self._listened_until = now
                return
            await asyncio.sleep(LOOK_S)

    async def _hear_for(self, seconds: float) -> None:
        while True:
            heard_at = self._line.playback.first_loud_after(self._listened_until)
            if heard_at is not None and monotonic() >= heard_at + seconds:
                return
            await asyncio.sleep(LOOK_S)

    async def _stay(self) -> None:
        await self._line.closed.wait()

    async def _within(self, timeout: float, waiting: Awaitable[None], what: str) -> None:
        try:
            async with asyncio.timeout(timeout):
                await waiting
        except TimeoutError:
            self._line.record.trouble(0, f"{what} waited {timeout:g} s in vain")


def as_clip(what: Clip | Pcm | str) -> Clip:
    if isinstance(what, Clip):
        return what
    if isinstance(what, str):
        return audio.load_clips()[what]
    return audio.as_clip(what)
