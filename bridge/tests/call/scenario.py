"""A call session under test: feeds it events, moves its clock, and collects the actions that it returns.

call = live_call()
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
STARTED_AT = 1_700_000_000.0  # wall-clock time of the stream's start, Unix seconds

LOUD = b"\x90\x10" * 80  # one frame of 20 ms, mu-law: a loud buzz
SILENCE = b"\xff" * 160  # one frame of 20 ms
START = twilio.Start(STREAM, CALL, ACCOUNT)

Kind = TypeVar("Kind")


class CallScenario:
    """One call, event by event. `actions` holds every action that the session has returned."""

    def __init__(self, **options: Any) -> None:
        self.now = 100.0  # the session's clock, monotonic seconds
        self.session = CallSession(self.now, **options)
        self.actions: list[Action] = []
        self._chunk = 0

    def handle(self, event: Event) -> list[Action]:
        """Feed one event to the session and return its actions.

        Like the runner with an idle socket, it reports audio as sent at once where the action asks for it.
        """
        actions = self.session.handle(event, self.now)
        self.actions += actions
        for action in actions:
            if isinstance(action, SendToCaller) and action.report:
                self.actions += self.session.handle(AudioSent(action.turn), self.now)
        return actions

    def advance(self, seconds: float) -> list[Action]:
        """Move the clock. Deadlines on the way are handled at their time, as by the runner's timer."""
        before, until = len(self.actions), self.now + seconds
        while self.session.deadline <= until:
            self.now = max(self.now, self.session.deadline)
            self.handle(DeadlinePassed())
        self.now = until
        return self.actions[before:]

    def accept(self, max_call_seconds: int = 1800) -> CallScenario:
        """Twilio's `start` with a valid ticket."""
        self.handle(StreamAccepted(START, STARTED_AT, max_call_seconds))
        return self

    def send_frame(self, ulaw: bytes = SILENCE) -> list[Action]:
        """One caller frame, without moving the clock."""
        self._chunk += 1
        return self.handle(twilio.Media(STREAM, ulaw, self._chunk))

    def caller_speaks(self, ms: int) -> None:
        self._frames(LOUD, ms)

    def caller_is_silent(self, ms: int) -> None:
        self._frames(SILENCE, ms)

    def _frames(self, ulaw: bytes, ms: int) -> None:
        for _ in range(0, ms, 20):
            self.advance(0.02)
            self.send_frame(ulaw)

    def assistant_speaks(self, ms: int, *, audible: bool = True) -> list[Action]:
        """Audio in one burst. The clock does not move, so Twilio still has to play all of it."""
        return self.handle(AssistantAudio((LOUD if audible else SILENCE)[:8] * ms, audible))

    def press_keys(self, keys: str) -> list[Action]:
        """The caller presses keys, all at the same time."""
        before = len(self.actions)
        for key in keys:
            self.handle(twilio.Dtmf(STREAM, key))
        return self.actions[before:]

    # Results

    def actions_of(self, kind: type[Kind]) -> list[Kind]:
        return [action for action in self.actions if isinstance(action, kind)]

    def entries(self) -> list[Entry]:
        return [action.entry for action in self.actions_of(WriteEntry)]

    def entries_of(self, kind: type[Kind]) -> list[Kind]:
        return [entry for entry in self.entries() if isinstance(entry, kind)]

    def turns(self) -> list[TurnTaken]:
        """The last entry of each turn."""
        return list({turn.number: turn for turn in self.entries_of(TurnTaken)}.values())

    def timeline_kinds(self) -> list[str]:
        """The kinds of all timeline events, in order."""
        return [entry.kind for entry in self.entries_of(TimelineEvent)]

    @property
    def stream_ended(self) -> StreamEnded:
        """The only `StreamEnded` entry; fails while the call is not over."""
        (entry,) = self.entries_of(StreamEnded)
        return entry


def waiting_call(**options: Any) -> CallScenario:
    """A call in WAITING: Twilio's socket is open, `start` has not arrived."""
    return CallScenario(**options)


def connecting_call(**options: Any) -> CallScenario:
    """A call in CONNECTING: the ticket is valid, the assistant is being dialed."""
    return CallScenario(**options).accept()


def live_call(**options: Any) -> CallScenario:
    """A call in LIVE: both legs are connected."""
    call = connecting_call(**options)
    call.handle(AssistantConnected("vapi-1"))
    return call
