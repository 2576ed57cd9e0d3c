"""A builder for the stories that the session's tests tell: a call, its clock, and what was done about it.

call = live()
call.caller_speaks(400)
call.caller_is_silent(400)
call.assistant_speaks(1000)
assert call.turns()[-1].response_latency_ms == 400
"""

from __future__ import annotations

from typing import Any, TypeVar

from bridge.call.events import (
    Action,
    AssistantAudio,
    AssistantConnected,
    AudioSent,
    DeadlinePassed,
    Event,
    SendToCaller,
    StreamAccepted,
    WriteEntry,
)
from bridge.call.session import CallSession
from bridge.journal import Entry, StreamEnded, TimelineEvent, TurnTaken
from bridge.wire import twilio

CALL = "CA00000000000000000000000000000001"
STREAM = "MZ00000000000000000000000000000001"
ACCOUNT = "AC00000000000000000000000000000001"
WALL = 1_700_000_000.0

LOUD = b"\x90\x10" * 80  # 20 ms of a buzz
SILENCE = b"\xff" * 160
START = twilio.Start(STREAM, CALL, ACCOUNT)

Kind = TypeVar("Kind")


class Story:
    """One call, told event by event. `did` holds all that the session wanted done."""

    def __init__(self, **options: Any) -> None:
        self.now = 100.0
        self.session = CallSession(self.now, **options)
        self.did: list[Action] = []
        self._chunk = 0

    def tell(self, event: Event) -> list[Action]:
        """Something happens now; audio that asks for it is reported as sent at once."""
        actions = self.session.handle(event, self.now)
        self.did += actions
        for action in actions:
            if isinstance(action, SendToCaller) and action.report:
                self.did += self.session.handle(AudioSent(action.turn), self.now)
        return actions

    def later(self, seconds: float) -> list[Action]:
        """Time passes; deadlines fall due as the runner's timer would have it."""
        before, until = len(self.did), self.now + seconds
        while self.session.deadline <= until:
            self.now = max(self.now, self.session.deadline)
            self.tell(DeadlinePassed())
        self.now = until
        return self.did[before:]

    def accepted(self, max_call_seconds: int = 1800) -> Story:
        self.tell(StreamAccepted(START, WALL, max_call_seconds))
        return self

    def frame(self, ulaw: bytes = SILENCE) -> list[Action]:
        self._chunk += 1
        return self.tell(twilio.Media(STREAM, ulaw, self._chunk))

    def caller_speaks(self, ms: int) -> None:
        self._frames(LOUD, ms)

    def caller_is_silent(self, ms: int) -> None:
        self._frames(SILENCE, ms)

    def _frames(self, ulaw: bytes, ms: int) -> None:
        for _ in range(0, ms, 20):
            self.later(0.02)
            self.frame(ulaw)

    def assistant_speaks(self, ms: int, *, audible: bool = True) -> list[Action]:
        """A burst, all at once: what Twilio still has to play."""
        return self.tell(AssistantAudio((LOUD if audible else SILENCE)[:8] * ms, audible))

    def digits(self, keys: str) -> list[Action]:
        before = len(self.did)
        for key in keys:
            self.tell(twilio.Dtmf(STREAM, key))
        return self.did[before:]

    # What came of it

    def done(self, kind: type[Kind]) -> list[Kind]:
        return [action for action in self.did if isinstance(action, kind)]

    def entries(self) -> list[Entry]:
        return [action.entry for action in self.done(WriteEntry)]

    def written(self, kind: type[Kind]) -> list[Kind]:
        return [entry for entry in self.entries() if isinstance(entry, kind)]

    def turns(self) -> list[TurnTaken]:
        """Each turn as it was written last."""
        return list({turn.number: turn for turn in self.written(TurnTaken)}.values())

    def timeline(self) -> list[str]:
        return [entry.kind for entry in self.written(TimelineEvent)]

    @property
    def ended(self) -> StreamEnded:
        (entry,) = self.written(StreamEnded)
        return entry


def waiting(**options: Any) -> Story:
    """Twilio's socket is up, `start` has not come."""
    return Story(**options)


def connecting(**options: Any) -> Story:
    """The ticket was good, the assistant is being dialled."""
    return Story(**options).accepted()


def live(**options: Any) -> Story:
    """Both legs are up."""
    call = connecting(**options)
    call.tell(AssistantConnected("vapi-1"))
    return call
