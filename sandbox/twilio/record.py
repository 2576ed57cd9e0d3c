"""What a simulated call leaves behind: everything the carrier sent, received, played and was told.

All times are `time.monotonic()` of this process. Audio is mu-law at 8 kHz.
"""

import time
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

MAX_ERRORS = 200

# The carrier ends a stream when somebody gives it an order over REST.
EndedBy: TypeAlias = Literal["caller", "server", "lost", "carrier"]


@dataclass(frozen=True, slots=True)
class SentFrame:
    seq: int
    chunk: int
    at: float
    ulaw: bytes


@dataclass(slots=True)
class Spoken:
    """One thing the caller said. `ended_at`: the frame with the clip's last loud sample was sent (T0)."""

    name: str
    text: str
    first_frame_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class ReceivedAudio:
    at: float
    ulaw: bytes


@dataclass(slots=True)
class MarkNote:
    """A mark the server placed. It comes back when all before it was played, or at once by a `clear`."""

    name: str
    received_at: float
    due_at: float  # when the audio before it has been played
    echoed_at: float | None = None
    cleared: bool = False


@dataclass(frozen=True, slots=True)
class HeardSegment:
    """A stretch in which the caller heard the assistant speak; shorter pauses do not divide it."""

    started_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something the other side did wrong, by Twilio's error code; code 0 is the script's own trouble."""

    code: int
    text: str
    at: float


@dataclass(slots=True)
class CallRecord:
    call_sid: str
    account_sid: str
    from_number: str
    to_number: str
    stream_sid: str = ""
    webhook_status: int | None = None
    webhook_ms: float | None = None
    twiml: list[str] = field(default_factory=list)  # every document obeyed, in order
    params: dict[str, str] = field(default_factory=dict)  # the <Parameter>s of the stream
    started_at: float | None = None  # when `start` was sent
    frames: list[SentFrame] = field(default_factory=list)
    frames_dropped: int = 0  # the server read too slowly (31930)
    said: list[Spoken] = field(default_factory=list)
    received: list[ReceivedAudio] = field(default_factory=list)
    marks: list[MarkNote] = field(default_factory=list)
    clears: list[tuple[float, int]] = field(default_factory=list)  # when, and the bytes it dropped
    heard: bytes = b""  # from `start` to the end, silence where nothing was queued
    heard_segments: list[HeardSegment] = field(default_factory=list)
    unheard_bytes: int = 0  # still queued when the stream ended
    spoken_by_twilio: list[str] = field(default_factory=list)  # <Say>
    said_before_stream: int = 0  # how many of these came before the first stream
    dialed: list[str] = field(default_factory=list)
    whispered: list[str] = field(default_factory=list)  # what the person who was dialled heard first
    digits: str = ""
    errors: list[Trouble] = field(default_factory=list)
    ended_by: EndedBy | None = None
    close_code: int | None = None
    close_reason: str = ""
    closed_at: float | None = None  # when the stream's socket was closed
    final_status: str = ""  # CallStatus of the last callback
    callbacks: list[tuple[str, int | None]] = field(default_factory=list)  # path, and None for no answer

    def trouble(self, code: int, text: str) -> None:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(Trouble(code, text, time.monotonic()))

    @property
    def error_codes(self) -> list[int]:
        return [error.code for error in self.errors]

    @property
    def sent_ulaw(self) -> bytes:
        """All caller audio as it went out."""
        return b"".join(frame.ulaw for frame in self.frames)

    @property
    def received_ulaw(self) -> bytes:
        """All assistant audio as it came in, played or not."""
        return b"".join(chunk.ulaw for chunk in self.received)
