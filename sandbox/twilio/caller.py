"""A scripted caller: the steps of a script, and the caller's audio, frame by frame.

A media stream never pauses, so `CallerAudio` produces a 20 ms frame at any time: line noise, mixed with a
clip while the caller speaks. The noise makes every frame of a call unique, so tests can detect frames that
were lost, duplicated or reordered.
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
from sandbox.twilio.record import CallerUtterance, TwilioCallRecord

FRAME_SAMPLES = 160
FRAME_SECONDS = 0.02
NOISE_BLOCK_SAMPLES = 100 * FRAME_SAMPLES  # two seconds; takes well under a millisecond
POLL_SECONDS = 0.01  # how often a waiting caller checks the playback


@dataclass(frozen=True, slots=True, eq=False)
class Say:
    """Speak until the clip's last frame. A name refers to a clip that comes with the sandbox."""

    clip: Clip | Pcm | str


@dataclass(frozen=True, slots=True)
class Listen:
    """Wait until the assistant has spoken since the caller last spoke, and then was quiet for `quiet_ms`."""

    quiet_ms: int = 400
    timeout_seconds: float = 15.0


@dataclass(frozen=True, slots=True, eq=False)
class BargeIn:
    """Barge in: wait until the assistant speaks, wait `after_ms` more, then speak over it."""

    clip: Clip | Pcm | str
    after_ms: int = 500
    timeout_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class Press:
    """Press keys, one `dtmf` message each."""

    digits: str
    gap_ms: int = 100


@dataclass(frozen=True, slots=True)
class Pause:
    ms: int


@dataclass(frozen=True, slots=True)
class HangUp:
    pass


@dataclass(frozen=True, slots=True)
class WaitForHangup:
    """Wait until the server ends the call; after the timeout the caller hangs up."""

    timeout_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class SendRaw:
    """Send a websocket message unchanged."""

    raw: str | bytes


Step: TypeAlias = Say | Listen | BargeIn | Press | Pause | HangUp | WaitForHangup | SendRaw
OnCallerEvent: TypeAlias = Callable[[str, dict[str, object]], None]


class CallerAudio:
    """The caller's audio: line noise, and queued clips mixed into it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._block_count = 0
        self._noise = self._next_noise_block()  # now, because the first block also loads numpy's FFT
        self._queue: deque[tuple[Clip, CallerUtterance, asyncio.Event]] = deque()
        self._position = 0  # in samples of the first queued clip

    def queue(self, clip: Clip) -> tuple[CallerUtterance, asyncio.Event]:
        """Queue a clip; the event is set when its last frame was sent."""
        utterance, finished = CallerUtterance(clip.name, clip.text), asyncio.Event()
        self._queue.append((clip, utterance, finished))
        return utterance, finished

    def next_frame(self) -> bytes:
        frame = self._next_noise().astype(np.int32)
        if self._queue:
            speech = self._queue[0][0].pcm_8k[self._position : self._position + FRAME_SAMPLES]
            frame[: len(speech)] += speech
        return audio.ulaw_encode(np.clip(frame, -32_768, 32_767).astype(np.int16))

    def frame_sent(self, at: float) -> None:
        """Record that the last frame was sent, and advance the queued clip."""
        if not self._queue:
            return
        clip, utterance, finished = self._queue[0]
        if utterance.first_frame_at is None:
            utterance.first_frame_at = at
        self._position += FRAME_SAMPLES
        last_loud = max(0, clip.speech_end_ms * audio.LINE_RATE // 1000 - 1)
        if utterance.ended_at is None and self._position > last_loud:
            utterance.ended_at = at
        if self._position >= len(clip.pcm_8k):
            self._queue.popleft()
            self._position = 0
            finished.set()

    def _next_noise(self) -> Pcm:
        if not len(self._noise):
            self._noise = self._next_noise_block()
        frame, self._noise = self._noise[:FRAME_SAMPLES], self._noise[FRAME_SAMPLES:]
        return frame

    def _next_noise_block(self) -> Pcm:
        block = audio.line_noise(self._seed * 100_003 + self._block_count, NOISE_BLOCK_SAMPLES)
        self._block_count += 1
        return block


class CallerStream(Protocol):
    """The part of a media stream that a caller uses."""

    record: TwilioCallRecord
    playback: Playback
    audio: CallerAudio
    closed: asyncio.Event
    started_at: float

    async def press(self, digit: str) -> None: ...
    async def send_raw(self, raw: str | bytes) -> None: ...


class Caller:
    """Performs the steps of a script. The media stream cancels it when the socket closes."""

    def __init__(self, stream: CallerStream, on_event: OnCallerEvent) -> None:
        self._stream = stream
        self._on_event = on_event
        # Only audio after this time counts as an answer.
        self._listened_until = stream.started_at

    async def perform(self, script: Sequence[Step]) -> None:
        """Return when the caller hangs up: at `HangUp`, or after the last step."""
        for step in script:
            match step:
                case Say(clip):
                    await self._say(as_clip(clip))
                case Listen(quiet_ms, timeout_seconds):
                    await self._with_timeout(timeout_seconds, self._listen(quiet_ms / 1000), "Listen")
                case BargeIn(clip, after_ms, timeout_seconds):
                    await self._with_timeout(
                        timeout_seconds, self._wait_for_speech(after_ms / 1000), "BargeIn"
                    )
                    await self._say(as_clip(clip))
                case Press(digits, gap_ms):
                    for digit in digits:
                        await self._stream.press(digit)
                        await asyncio.sleep(gap_ms / 1000)
                case Pause(ms):
                    await asyncio.sleep(ms / 1000)
                case SendRaw(raw):
                    await self._stream.send_raw(raw)
                case WaitForHangup(timeout_seconds):
                    await self._with_timeout(timeout_seconds, self._wait_until_closed(), "WaitForHangup")
                case HangUp():
                    return
                case _:
                    assert_never(step)

    async def _say(self, clip: Clip) -> None:
        utterance, finished = self._stream.audio.queue(clip)
        self._stream.record.utterances.append(utterance)
        self._on_event("saying", {"name": clip.name, "text": clip.text})
        # If the stream sends no frames (`no_start`, `vanish_after_seconds`), the call limit ends this wait.
        await finished.wait()
        self._listened_until = utterance.ended_at if utterance.ended_at is not None else monotonic()

    async def _listen(self, quiet_seconds: float) -> None:
        playback = self._stream.playback
        while True:
            now, quiet_since = monotonic(), playback.quiet_since()
            if (
                quiet_since is not None
                and quiet_since > self._listened_until
                and now - quiet_since >= quiet_seconds
            ):
                self._listened_until = now
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _wait_for_speech(self, seconds: float) -> None:
        while True:
            started_at = self._stream.playback.first_loud_after(self._listened_until)
            if started_at is not None and monotonic() >= started_at + seconds:
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _wait_until_closed(self) -> None:
        await self._stream.closed.wait()

    async def _with_timeout(self, timeout_seconds: float, work: Awaitable[None], step: str) -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                await work
        except TimeoutError:
            self._stream.record.add_error(0, f"{step} timed out after {timeout_seconds:g} s")


def as_clip(source: Clip | Pcm | str) -> Clip:
    if isinstance(source, Clip):
        return source
    if isinstance(source, str):
        return audio.load_clips()[source]
    return audio.as_clip(source)
