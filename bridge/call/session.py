"""One call as a state machine: events and the time in, actions out.

    session.handle(vapi.UserInterrupted(), now=12.48)   # -> [ClearPlayout(), ...]

Theory of operation. The session sees every message of both legs and the passing of its deadlines, and
answers with what is to be done; it owns no socket, task or clock. The runner performs the actions in
order, without awaiting. Inside there is one encoding, mu-law at 8 kHz. Deadlines are data: `deadline` is
the earliest time at which the session wants `DeadlinePassed`; it may turn out to be early.

The rooms that it owns know one thing each: who speaks (`turns`), what was heard (`playout`), what an
interruption is (`barge_in`), what the journal is told (`report`). What follows for the call is decided here.

House rules. One table of allowed steps and one setter. Whoever ends the call first names the reason. A
strange message is counted and the call goes on. All that can grow is bounded, all that is dropped is
counted. Pure: no asyncio, no framework; times are monotonic seconds, entries say milliseconds since
the stream's start.
"""

from __future__ import annotations

import logging
from collections import deque
from enum import Enum
from typing import Any, Final, Literal, assert_never

from bridge import end_reasons
from bridge.audio import dtmf
from bridge.call.barge_in import BargeIn
from bridge.call.deadlines import NEVER, Deadlines
from bridge.call.events import (
    Aborted,
    Action,
    AssistantAudio,
    AssistantConnected,
    AssistantLegClosed,
    AssistantUnreachable,
    AudioSent,
    BadMessage,
    CallerLegClosed,
    ClearPlayout,
    DeadlinePassed,
    DialAssistant,
    Dropped,
    Event,
    HangUp,
    HangUpAssistant,
    Leg,
    OversizeMessage,
    PlaceMark,
    SendToAssistant,
    SendToCaller,
    StreamAccepted,
    TellAssistant,
    TicketRefused,
    WriteEntry,
)
from bridge.call.hold_buffer import HoldBuffer
from bridge.call.inbound_media import Arrivals
from bridge.call.keypad import Keypad
from bridge.call.live_state import LiveNotes
from bridge.call.playout import BYTES_PER_SECOND, Playout
from bridge.call.report import CallReport
from bridge.call.turns import Turns
from bridge.call.utterances import Utterances
from bridge.journal import Entry
from bridge.tool_calls import SEND_DTMF, ToolCall, keys_of
from bridge.wire import twilio, vapi

log = logging.getLogger(__name__)

START_SECONDS = 5.0
MEDIA_SECONDS = 8.0
STALL_SECONDS = 12.0
GOODBYE_SECONDS = 2.0  # beyond what is left to play
QUIET_SECONDS = 0.2  # assistant audio that pauses this long gets a mark behind it
KEYS_CHUNK_BYTES = 800  # 100 ms of tones in a message
AHEAD_SECONDS = 30.0  # how far the assistant may run ahead of real time


class State(Enum):
    WAITING = "waiting for start"
    CONNECTING = "dialling the assistant"
    LIVE = "both legs up"
    ENDING = "last words"
    ENDED = "over"


_STEPS = {
    State.WAITING: {State.CONNECTING, State.ENDED},
    State.CONNECTING: {State.LIVE, State.ENDED},
    State.LIVE: {State.ENDING, State.ENDED},
    State.ENDING: {State.ENDED},
    State.ENDED: set[State](),
}

# How Vapi is left: politely, unless it is done or its socket broke.
_LEAVING: Final[dict[str, Literal["close", "control"]]] = {
    end_reasons.ASSISTANT_ENDED: "close",
    end_reasons.ASSISTANT_FAILED: "control",
}


class IllegalStep(Exception):
    """A step that the table forbids: our bug. The state is unchanged."""


class CallSession:
    """The live state of one call."""

    def __init__(
        self, now: float, *, hold_buffer_ms: int = 7000, local_barge_in: bool = False, worker: str = ""
    ) -> None:
        self.state = State.WAITING
        self.end_reason = ""
        self._report = CallReport(now, worker)
        self.counters = self._report.counters
        self._deadlines = Deadlines()
        self._deadlines.set("start", now + START_SECONDS)
        self._actions: list[Action] = []
        self._keypad = Keypad()
        self._unsaid: list[str] = []  # key groups pressed before the assistant answered
        self._turns = Turns()
        self._playout = Playout()
        self._arrivals = Arrivals(now, self.counters)
        self._hold = HoldBuffer(hold_buffer_ms)
        self._barge_in = BargeIn(self._turns, self._playout)
        self._utterances = Utterances()
        self._live = LiveNotes(now)
        # Assistant leg
        self._last_from_assistant = now
        self._tools_called: deque[str] = deque(maxlen=100)
        self._local_barge_in = local_barge_in  # the socket dialect: we decide, Vapi sends no word
        self._goodbye_mark = ""

    def __str__(self) -> str:
        return f"{self.call_sid[:4]}..{self.call_sid[-2:]}" if self.call_sid else "no call yet"

    @property
    def call_sid(self) -> str:
        return self._report.call_sid

    @property
    def stream_sid(self) -> str:
        return self._report.stream_sid

    @property
    def deadline(self) -> float:
        """When the session wants `DeadlinePassed`."""
        return self._deadlines.earliest

    @property
    def over(self) -> bool:
        return self.state is State.ENDED

    def handle(self, event: Event, now: float) -> list[Action]:
        """What is to be done about `event`, in order. Events after the end are of no consequence."""
        actions: list[Action] = []
        self._actions = actions
        if self.state is State.ENDED:
            return actions
        match event:
            case twilio.Media():
                self._media(event, now)
            case AssistantAudio():
                self._assistant_audio(event, now)
            case twilio.Mark():
                self._mark(event, now)
            case DeadlinePassed():
                self._deadline_passed(now)
            case AudioSent(turn):
                self._audio_sent(turn, now)
            case StreamAccepted():
                self._accepted(event, now)
            case TicketRefused():
                self._ticket_refused(event, now)
            case AssistantConnected():
                self._connected(event, now)
            case AssistantUnreachable():
                self._unreachable(event, now)
            case twilio.Stop():
                if self._ours(event.stream_sid, now):
                    self._end(end_reasons.CALLER_HUNG_UP, now)
            case CallerLegClosed(code):
                normal = code in (1000, 1001, 1005) and self.state is not State.WAITING
                self._end(end_reasons.CALLER_HUNG_UP if normal else end_reasons.STREAM_LOST, now)
            case AssistantLegClosed(code):
                self._assistant_closed(code, now)
            case twilio.Dtmf():
                self._dtmf(event, now)
            case (
                vapi.StatusUpdate()
                | vapi.SpeechUpdate()
                | vapi.Transcript()
                | vapi.UserInterrupted()
                | vapi.Hang()
                | vapi.ToolCalls()
                | vapi.IgnoredEvent()
            ):
                self._vapi(event, now)
            case twilio.Connected():
                self.counters["connected"] += 1
            case twilio.Start():
                self._bad("caller", "second-start", now)
            case BadMessage(leg, kind):
                self._bad(leg, kind, now)
            case OversizeMessage():
                self.counters["bad_caller_oversize"] += 1
                self._end(end_reasons.PROTOCOL_ABUSE, now, code=end_reasons.CLOSE_OVERSIZE)
            case Dropped(frames, "assistant"):
                self.counters["frames_dropped"] += frames
            case Dropped(chunks):
                self.counters["chunks_dropped"] += chunks
                self.counters["frames_to_caller"] -= chunks
            case vapi.Audio():
                raise IllegalStep("assistant audio must be transcoded at the door")
            case Aborted():
                self._end(end_reasons.WORKER_LOST, now)
            case _:
                assert_never(event)
        return actions

    # The stream begins

    def _accepted(self, event: StreamAccepted, now: float) -> None:
        start = event.start
        self._write(self._report.started(start.call_sid, start.stream_sid, event.at, now))
        self._arrivals.latest = now
        self._step(State.CONNECTING, now)
        self._deadlines.drop("start")
        self._deadlines.set("media", now + MEDIA_SECONDS)
        self._deadlines.set("limit", now + event.max_call_seconds)
        self._happened("stream-started", now)
        self._do(DialAssistant())

    def _ticket_refused(self, event: TicketRefused, now: float) -> None:
        self._write(self._report.refused(event.start.call_sid, event.at, end_reasons.TICKET_REFUSED))
        log.warning("%s ! ticket refused: %s", self, event.why)
        self._end(end_reasons.TICKET_REFUSED, now)

    def _connected(self, event: AssistantConnected, now: float) -> None:
        if self.state is not State.CONNECTING:
            return
        self._step(State.LIVE, now)
        self._last_from_assistant = now
        self._write(self._report.answered(event.vapi_call_id, self._hold.frames, now))
        self._happened(
            "assistant-answered", now, connect_ms=self._report.ms(now), frames_held=self._hold.frames
        )
        for ulaw in self._hold.release():
            self._to_assistant(ulaw)
        for digits in self._unsaid:
            self._tell_digits(digits)
        self._unsaid.clear()
        self._publish_live(now)

    def _unreachable(self, event: AssistantUnreachable, now: float) -> None:
        log.warning("%s ! assistant unreachable: %s", self, event.detail)
        facts = {"detail": event.detail, "status": event.status, "vapi_call_id": event.vapi_call_id}
        self._happened("assistant-unreachable", now, **facts)
        self._end(end_reasons.ASSISTANT_UNREACHABLE, now)

    # Caller leg

    def _media(self, event: twilio.Media, now: float) -> None:
        if event.stream_sid != self._report.stream_sid:
            self._bad("caller", "media-before-start" if not self.stream_sid else "wrong-streamSid", now)
            return
        self._arrivals.frame(event.chunk, now)
        if self.state is State.LIVE:
            self._to_assistant(event.ulaw)
        elif self.state is State.CONNECTING:
            dropped = self._hold.keep(event.ulaw)
            if dropped:
                self.counters["frames_dropped"] += dropped
        else:
            self.counters["frames_after_end"] += 1
            return
        turn = self._turns.caller_frame(event.ulaw, now)
        if turn is not None:
            self._write(self._report.turn(turn))
            self._deadlines.set("stall", max(turn.end_of_speech, self._last_from_assistant) + STALL_SECONDS)
        if self._turns.caller.speaking is not self._live.caller_speaks:
            self._live.caller(self._turns.caller.speaking, now)
            self._publish_live(now)
        if self._local_barge_in and self._barge_in.overlapped(now):
            self._do(TellAssistant(vapi.Cancel()))
            self._cut_off("caller-loud", now)

    def _to_assistant(self, ulaw: bytes) -> None:
        if not self.counters["frames_to_assistant"]:
            log.info("%s > first caller audio to the assistant", self)
        self.counters["frames_to_assistant"] += 1
        self._do(SendToAssistant(ulaw))

    def _mark(self, event: twilio.Mark, now: float) -> None:
        if not self._ours(event.stream_sid, now):
            return
        mark = self._playout.echoed(event.name, now)
        if mark is None:
            self.counters["marks_cleared"] += 1
            return
        latest = self._turns.latest
        if mark.turn is not None and latest is not None and mark.turn == latest.number:
            latest.heard = now
            self._write(self._report.turn(latest))
        if event.name == self._goodbye_mark:
            self._end(self.end_reason, now)

    def _dtmf(self, event: twilio.Dtmf, now: float) -> None:
        if not self._ours(event.stream_sid, now):
            return
        if self.state is State.ENDING:
            self.counters["keys_unsaid"] += 1
            return
        before = self._keypad.dropped
        group = self._keypad.press(event.digit, now)
        if self._keypad.dropped == before:
            self._happened("dtmf", now, digit=event.digit)
        if group is not None:
            self._pressed(group)
        elif self._keypad.due is not None:
            self._deadlines.set("keypad", self._keypad.due)

    def _pressed(self, group: str) -> None:
        if self.state is State.LIVE:
            self._tell_digits(group)
        else:
            self._unsaid.append(group)

    def _tell_digits(self, group: str) -> None:
        self._do(TellAssistant(vapi.AddMessage(f"The caller pressed {group} on the keypad.")))

    # Assistant leg

    def _assistant_audio(self, event: AssistantAudio, now: float) -> None:
        self._last_from_assistant = now
        if self.state is not State.LIVE:
            self.counters["audio_after_end"] += len(event.ulaw)
            return
        if now < self._barge_in.ignore_audio_until or self._playout.unplayed(now) > AHEAD_SECONDS:
            self.counters["assistant_bytes_dropped"] += len(event.ulaw)
            return
        report, number = False, None
        if event.audible:
            stretch = self._turns.stretch_began
            turn = self._turns.assistant_audible(now, len(event.ulaw) / BYTES_PER_SECOND)
            number = turn.number if turn is not None else None
            if self._turns.stretch_began != stretch:
                # The first audible audio of an answer: a mark just before it tells when it is heard.
                self._do(PlaceMark(self._playout.place_mark(now, number)))
                report = True
                self._utterances.assistant_plays(self._playout.queue(0, now), answer=turn is not None)
        if not self.counters["frames_to_caller"]:
            log.info("%s < first assistant audio to the caller", self)
        self.counters["frames_to_caller"] += 1
        self._playout.queue(len(event.ulaw), now)
        if event.audible:
            self._live.assistant_until = self._playout.ends_at
            if not self._live.assistant_speaks:
                self._live.assistant(True, now)
                self._deadlines.set("floor", self._live.assistant_done_at())
                self._publish_live(now)
        self._deadlines.set("quiet", now + QUIET_SECONDS)
        self._do(SendToCaller(event.ulaw, report, number))

    def _audio_sent(self, number: int | None, now: float) -> None:
        if self._report.first_audio is None:
            self._report.first_audio = now
            self._happened("first-audio", now)
        turn = self._turns.latest
        if turn is not None and turn.number == number:
            turn.sent = now
            self._write(self._report.turn(turn))

    def _vapi(
        self,
        event: vapi.StatusUpdate
        | vapi.SpeechUpdate
        | vapi.Transcript
        | vapi.UserInterrupted
        | vapi.Hang
        | vapi.ToolCalls
        | vapi.IgnoredEvent,
        now: float,
    ) -> None:
        self._last_from_assistant = now
        if self.state is not State.LIVE:
            self.counters["events_after_end"] += 1
            return
        match event:
            case vapi.UserInterrupted():
                self._cut_off("user-interrupted", now)
            case vapi.Transcript(speaker, final, text):
                self.counters["finals" if final else "partials"] += 1
                self._live.said(speaker, text, final=final)
                if final and text.strip():
                    self._spoken(speaker, text, now)
                self._publish_live(now)
            case vapi.SpeechUpdate(speaker, started):
                self._speech_update(speaker, started, now)
            case vapi.StatusUpdate("ended", reason):
                self._report.vapi_ended_reason = reason
                self._happened("assistant-ended", now, reason=reason)
                if vapi.is_failure(reason):
                    self._end(end_reasons.ASSISTANT_FAILED, now)
                else:
                    self._say_goodbye(now)
            case vapi.StatusUpdate(status):
                self._happened("assistant-status", now, status=status[:64])
            case vapi.Hang():
                self.counters["hangs"] += 1
                self._happened("hang", now)
            case vapi.ToolCalls(calls):
                for call in calls:
                    self._tool_called(call, now)
            case vapi.IgnoredEvent(kind, known):
                self._report.count(f"vapi_{kind}" if known else "vapi_unknown")
                if not known:
                    self._report.count(f"vapi_unknown_{kind}")
            case _:
                assert_never(event)

    def _tool_called(self, call: ToolCall, now: float) -> None:
        """Tools are run and answered elsewhere; the line itself is played to here, where it is held."""
        if call.id in self._tools_called:
            return
        self._tools_called.append(call.id)
        self._happened("tool-called", now, tool=call.name)
        if call.name == SEND_DTMF:
            self._play_keys(call, now)

    def _play_keys(self, call: ToolCall, now: float) -> None:
        try:
            keys = keys_of(call)
        except ValueError:
            self.counters["keys_refused"] += 1
            return
        ulaw = dtmf.tones(keys)
        for start in range(0, len(ulaw), KEYS_CHUNK_BYTES):
            chunk = ulaw[start : start + KEYS_CHUNK_BYTES]
            self._playout.queue(len(chunk), now)
            self._do(SendToCaller(chunk, False, None))
        self.counters["keys_played"] += len(keys)
        self._happened("keys-played", now, keys=keys)

    def _speech_update(self, speaker: vapi.Speaker, started: bool, now: float) -> None:
        self._happened(f"{speaker}-{'started' if started else 'stopped'}", now)
        match speaker, started:
            case "caller", True:
                self._barge_in.caller_started(now)
            case "caller", False:
                self._turns.caller_stopped(now)
            case "assistant", True:
                self._turns.assistant_started(now)
            case _:
                if self._barge_in.assistant_stopped(now):
                    self._cut_off("inferred", now)

    def _cut_off(self, how: str, now: float) -> None:
        """The caller cut the assistant off: what has not been heard must not be."""
        first = self._barge_in.is_first(now)
        if not first and not self._playout.playing(now):
            return
        unplayed = self._playout.unplayed(now)
        self._playout.clear(now)
        self._do(ClearPlayout())
        log.info("%s > clear g%d (%s)", self, self._playout.generation, how)
        self._live.cut_off(now)
        self._publish_live(now)
        if not first:
            return
        self.counters["barge_ins"] += 1
        self._utterances.cut_off(unplayed)
        turn = self._turns.cleared(now)
        if turn is not None:
            self._write(self._report.turn(turn))
        self._happened("barge-in", now, how=how, unplayed_ms=round(unplayed * 1000))

    def _spoken(self, speaker: vapi.Speaker, text: str, now: float) -> None:
        if speaker == "caller":
            self._turns.caller_final(now)
            caller = self._turns.caller
            spoken = self._utterances.of_caller(caller.onset_at, caller.last_loud_at)
        else:
            spoken = self._utterances.of_assistant(self._playout.ends_at, now)
        self._write(self._report.utterance(speaker, text, spoken))

    def _assistant_closed(self, code: int, now: float) -> None:
        self._report.vapi_close_code = code
        if self.state is State.ENDING:
            return  # `ended` came before it and has decided
        if code in (1000, 1001, 1005):
            self._say_goodbye(now)
        else:
            self._happened("assistant-lost", now, code=code)
            self._end(end_reasons.ASSISTANT_FAILED, now)

    # Endings

    def _say_goodbye(self, now: float) -> None:
        """The assistant is done: its last words are heard out before the line closes."""
        self.end_reason = end_reasons.ASSISTANT_ENDED
        self._step(State.ENDING, now)
        self._goodbye_mark = self._playout.place_mark(now)
        self._do(PlaceMark(self._goodbye_mark))
        self._deadlines.set("goodbye", now + self._playout.unplayed(now) + GOODBYE_SECONDS)

    def _end(self, reason: str, now: float, code: int | None = None) -> None:
        started = self.state is not State.WAITING
        self.end_reason = self.end_reason or reason
        ended_well = self.end_reason in (end_reasons.CALLER_HUNG_UP, end_reasons.ASSISTANT_ENDED)
        self._step(State.ENDED, now)
        self._deadlines.clear()
        if started:
            if not ended_well:
                self._playout.clear(now)
                self._do(ClearPlayout())
            self.counters["keys_unsaid"] += len("".join(self._unsaid)) + len(self._keypad.take() or "")
            self._do(HangUpAssistant(_LEAVING.get(self.end_reason, "end-call")))
            self._settle(now)
        self._do(HangUp(code or end_reasons.CLOSE_CODES.get(self.end_reason, 1000)))

    def _settle(self, now: float) -> None:
        """The call's last entries: what never got an answer, and the sum of it all."""
        for turn in (self._turns.latest, self._turns.open):
            if turn is not None and (turn.sent is None or turn.heard is None):
                self._write(self._report.turn(turn))
        counts = self.counters
        counts["keys_dropped"] += self._keypad.dropped
        counts["marks_overdue"] += self._playout.overdue
        counts["frames_unsent"] += len(self._hold)
        if (jitter := self._arrivals.jitter_p95_ms) is not None:
            counts["jitter_p95_ms"] = jitter
        self._happened("stream-ended", now, reason=self.end_reason)
        self._live.over(now)
        self._write(self._report.live(self._live, self._turns.latest, now))
        self._write(self._report.ended(self.end_reason, self._hold.frames, now))

    def _bad(self, leg: Leg, kind: str, now: float) -> None:
        name = f"bad_{leg}_{kind}"
        if not self.counters[name]:
            log.warning("%s ! bad message from the %s leg: %s", self, leg, kind)
            self._happened("bad-message", now, leg=leg, problem=kind)
        self.counters[name] += 1
        if leg == "caller" and self._arrivals.bad(now):
            self._end(end_reasons.PROTOCOL_ABUSE, now)

    # Deadlines

    def _deadline_passed(self, now: float) -> None:
        # Put off here, not with every frame.
        self._deadlines.set("media", self._arrivals.latest + MEDIA_SECONDS if self.call_sid else NEVER)
        for name in self._deadlines.due(now):
            if self.state is not State.ENDED:
                self._due(name, now)

    def _due(self, name: str, now: float) -> None:
        match name:
            case "start":
                self._end(end_reasons.NO_START, now)
            case "media":
                self._end(end_reasons.STREAM_LOST, now)
            case "limit":
                self._end(end_reasons.LIMIT_REACHED, now)
            case "goodbye":
                self._end(self.end_reason, now)
            case "floor":
                self._assistant_played_out(now)
            case "watchers":
                self._publish_live(now)
            case "keypad":
                group = self._keypad.take()
                if group is not None:
                    self._pressed(group)
            case "quiet":
                if self.state is State.LIVE and self._playout.playing(now):
                    self._do(PlaceMark(self._playout.place_mark(now)))
            case _:
                self._stalled(now)

    def _stalled(self, now: float) -> None:
        turn = self._turns.unanswered
        if self.state is not State.LIVE or turn is None:
            return
        due = max(turn.end_of_speech, self._last_from_assistant) + STALL_SECONDS
        if now < due:
            self._deadlines.set("stall", due)
        else:
            self._end(end_reasons.ASSISTANT_STALLED, now)

    # Whoever watches

    def _publish_live(self, now: float) -> None:
        """A note of what is live, now or as soon as the one before it is old enough."""
        if now < self._live.due_at():
            self._deadlines.set("watchers", self._live.due_at())
        else:
            self._live.told_at = now
            self._write(self._report.live(self._live, self._turns.latest, now))

    def _assistant_played_out(self, now: float) -> None:
        done_at = self._live.assistant_done_at()
        if now < done_at:
            self._deadlines.set("floor", done_at)
        elif self._live.assistant_speaks:
            self._live.assistant(False, now)
            self._publish_live(now)

    # Small things

    def _step(self, state: State, now: float) -> None:
        if state not in _STEPS[self.state]:
            raise IllegalStep(f"{self.state.name} to {state.name}")
        self.state = state
        why = f" ({self.end_reason}, by {end_reasons.ENDED_BY[self.end_reason]})" if self.end_reason else ""
        log.info("%s = %s after %d ms%s", self, state.name, self._report.ms(now), why)

    def _ours(self, stream_sid: str, now: float) -> bool:
        if stream_sid == self.stream_sid:
            return True
        self._bad("caller", "wrong-streamSid" if self.stream_sid else "before-start", now)
        return False

    def _happened(self, kind: str, now: float, **data: Any) -> None:
        entry = self._report.happened(kind, now, data)
        if entry is not None:
            self._write(entry)

    def _do(self, action: Action) -> None:
        self._actions.append(action)

    def _write(self, entry: Entry) -> None:
        self._actions.append(WriteEntry(entry))
