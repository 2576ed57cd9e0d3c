"""Record of a simulated call: everything that Twilio sent, received and played.

All times are `time.monotonic()` of this process. Audio is mu-law at 8 kHz.
"""

import time
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

MAX_ERRORS = 200

# rest-api: a REST request ended or redirected the call; lost: the connection broke without a close frame.
EndedBy: TypeAlias = Literal["caller", "server", "lost", "rest-api"]


@dataclass(frozen=True, slots=True)
class SentFrame:
    seq: int
    chunk: int
    at: float
    ulaw: bytes


@dataclass(slots=True)
class CallerUtterance:
    """One clip that the caller spoke. `ended_at`: the frame with its last loud sample was sent (T0)."""

    name: str
    text: str
    first_frame_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class ReceivedAudio:
    at: float
    ulaw: bytes


@dataclass(slots=True)
class MarkRecord:
    """A mark that the server sent. It is echoed when the audio before it was played, or by a `clear`."""

    name: str
    received_at: float
    due_at: float  # when the audio before it has been played
    echoed_at: float | None = None
    cleared: bool = False


@dataclass(frozen=True, slots=True)
class HeardSegment:
    """A stretch in which the caller heard the assistant; pauses up to 0.3 s do not divide it."""

    started_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class CallError:
    """A mistake of the server, with Twilio's error code; code 0 is a problem of the simulation."""

    code: int
    text: str
    at: float


@dataclass(slots=True)
class TwilioCallRecord:
    call_sid: str
    account_sid: str
    from_number: str
    to_number: str
    stream_sid: str = ""
    webhook_status: int | None = None
    webhook_ms: float | None = None
    twiml: list[str] = field(default_factory=list)  # every executed document, in order
    params: dict[str, str] = field(default_factory=dict)  # the <Parameter>s of the stream
    started_at: float | None = None  # when `start` was sent
    frames: list[SentFrame] = field(default_factory=list)
    frames_dropped: int = 0  # the server read too slowly (31930)
    utterances: list[CallerUtterance] = field(default_factory=list)
    received: list[ReceivedAudio] = field(default_factory=list)
    marks: list[MarkRecord] = field(default_factory=list)
    clears: list[tuple[float, int]] = field(default_factory=list)  # time, dropped bytes
    heard: bytes = b""  # what was played, from `start` to the end, with silence in the gaps
    heard_segments: list[HeardSegment] = field(default_factory=list)
    unheard_bytes: int = 0  # still queued when the stream ended
    spoken_by_twilio: list[str] = field(default_factory=list)  # <Say>
    spoken_before_stream: int = 0  # how many of them before the first stream
    dialed: list[str] = field(default_factory=list)
    whispered: list[str] = field(default_factory=list)  # <Say> in the document of <Number url>
    digits: str = ""
    errors: list[CallError] = field(default_factory=list)
    ended_by: EndedBy | None = None
    close_code: int | None = None
    close_reason: str = ""
    closed_at: float | None = None  # when the stream's socket was closed
    final_status: str = ""  # CallStatus of the last callback
    callbacks: list[tuple[str, int | None]] = field(default_factory=list)  # path, status (None: no response)

    def add_error(self, code: int, text: str) -> None:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(CallError(code, text, time.monotonic()))

    @property
    def error_codes(self) -> list[int]:
        return [error.code for error in self.errors]

    @property
    def sent_ulaw(self) -> bytes:
        """All caller audio that was sent."""
        return b"".join(frame.ulaw for frame in self.frames)

    @property
    def received_ulaw(self) -> bytes:
        """All assistant audio that was received, played or not."""
        return b"".join(chunk.ulaw for chunk in self.received)
