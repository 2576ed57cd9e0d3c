"""One call as a state machine: events and the time in, actions out.

    session.handle(vapi.UserInterrupted(), now=12.48)   # -> [ClearPlayout(), ...]

Theory of operation. The session sees every message of both legs and the passing of its deadlines, and
answers with what is to be done; it owns no socket, task or clock. The runner performs the actions in
order, without awaiting. Inside there is one encoding, mu-law at 8 kHz. Deadlines are data: `deadline` is
the earliest time at which the session wants `DeadlinePassed`; it may turn out to be early.

House rules. One table of allowed steps and one setter. Whoever ends the call first names the reason. A
strange message is counted and the call goes on. All that can grow is bounded, all that is dropped is
counted. Pure: no asyncio, no framework; times are monotonic seconds, entries say milliseconds since
the stream's start.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from enum import Enum
from typing import Any, assert_never

from bridge import endings
from bridge.events import (
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
from bridge.journal import (
    AssistantAnswered,
    Happened,
    StreamEnded,
    StreamRefused,
    StreamStarted,
    TurnTaken,
    UtteranceSpoken,
)
from bridge.keypad import Keypad
from bridge.playout import BYTES_PER_SECOND, Playout
from bridge.turns import Turn, Turns
from bridge.wire import twilio, vapi

log = logging.getLogger(__name__)

START_SECONDS = 5.0
MEDIA_SECONDS = 8.0
STALL_SECONDS = 12.0
GOODBYE_SECONDS = 2.0  # beyond what is left to play
QUIET_SECONDS = 0.2  # assistant audio that pauses this long gets a mark behind it
BARGE_IN_ONCE_SECONDS = 1.0
LOCAL_BARGE_IN_MS = 200
DEAF_SECONDS = 0.15
AHEAD_SECONDS = 30.0  # how far the assistant may run ahead of real time
LATE_FRAME_SECONDS = 0.06
ABUSE_COUNT, ABUSE_SECONDS = 50, 10.0
MAX_HAPPENED = 1000
MAX_KINDS = 64
BYTES_PER_MS = 8


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


class IllegalStep(Exception):
    """A step that the table forbids: our bug. The state is unchanged."""


class CallSession:
    """The live state of one call."""

    def __init__(
        self, now: float, *, hold_buffer_ms: int = 7000, local_barge_in: bool = False, worker: str = ""
    ) -> None:
        self.state = State.WAITING
        self.end_reason = ""
        self.call_sid = ""
        self.stream_sid = ""
        self.counters: Counter[str] = Counter()
        self.deadline = now + START_SECONDS  # the earliest of _deadlines, or earlier
        self._deadlines: dict[str, float] = {"start": self.deadline}
        self._actions: list[Action] = []
        self._worker = worker
        self._zero = now  # the stream's start: 0 ms
        self._wall = 0.0  # the same moment on the wall clock
        self._keypad = Keypad()
        self._unsaid: list[str] = []  # key groups pressed before the assistant answered
        self._turns = Turns()
        self._playout = Playout()
        # Hold buffer: caller audio kept, in order and bounded, while the assistant is being dialled.
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._hold_limit = hold_buffer_ms * BYTES_PER_MS
        self._frames_held = 0
        # Caller leg
        self._last_media = now
        self._last_chunk: int | None = None
        self._bad_times: deque[float] = deque(maxlen=ABUSE_COUNT + 1)
        # Assistant leg
        self._vapi_ended_reason = ""
        self._vapi_close_code: int | None = None
        self._last_from_assistant = now
        self._user_started_at: float | None = None  # Vapi heard the caller while the assistant played
        self._barged_in_at = float("-inf")
        self._local_barge_in = local_barge_in  # the socket dialect: we decide, Vapi sends no word
        self._overlap_from_ms: float | None = None
        self._deaf_until = float("-inf")
        self._goodbye_mark = ""
        self._first_audio_sent: float | None = None
        # Words
        self._utterances = 0
        self._happenings = 0
        self._caller_said_until: float | None = None  # caller speech up to here has its utterance
        self._assistant_spoke_from: float | None = None
        self._cut = False  # the assistant utterance that follows was interrupted

    def __str__(self) -> str:
        return f"{self.call_sid[:4]}..{self.call_sid[-2:]}" if self.call_sid else "no call yet"

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
                    self._end(endings.CALLER_HUNG_UP, now)
            case CallerLegClosed(code):
                normal = code in (1000, 1001, 1005) and self.state is not State.WAITING
                self._end(endings.CALLER_HUNG_UP if normal else endings.STREAM_LOST, now)
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
                | vapi.Noted()
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
                self._end(endings.PROTOCOL_ABUSE, now, code=endings.CLOSE_OVERSIZE)
            case Dropped(frames, "assistant"):
                self.counters["frames_dropped"] += frames
            case Dropped(chunks):
                self.counters["chunks_dropped"] += chunks
                self.counters["frames_to_caller"] -= chunks
            case vapi.Audio():
                raise IllegalStep("assistant audio must be transcoded at the door")
            case Aborted():
                self._end(endings.WORKER_LOST, now)
            case _:
                assert_never(event)
        return actions

    # The stream begins

    def _accepted(self, event: StreamAccepted, now: float) -> None:
        start = event.start
        self.call_sid, self.stream_sid = start.call_sid, start.stream_sid
        self._zero, self._wall, self._last_media = now, event.at, now
        self._step(State.CONNECTING, now)
        del self._deadlines["start"]
        self._set("media", now + MEDIA_SECONDS)
        self._set("limit", now + event.max_call_seconds)
        self._write(StreamStarted(self.call_sid, event.at, self.stream_sid, self._worker))
        self._happened("stream-started", now)
        self._do(DialAssistant())

    def _ticket_refused(self, event: TicketRefused, now: float) -> None:
        self.call_sid = event.start.call_sid
        log.warning("%s ! ticket refused: %s", self, event.why)
        self._write(StreamRefused(self.call_sid, event.at, endings.TICKET_REFUSED))
        self._end(endings.TICKET_REFUSED, now)

    def _connected(self, event: AssistantConnected, now: float) -> None:
        if self.state is not State.CONNECTING:
            return
        self._step(State.LIVE, now)
        self._last_from_assistant = now
        connect_ms = self._ms(now)
        self._write(
            AssistantAnswered(self.call_sid, self._at(now), connect_ms, event.vapi_call_id, self._frames_held)
        )
        self._happened("assistant-answered", now, connect_ms=connect_ms, frames_held=self._frames_held)
        for ulaw in self._held:
            self._to_assistant(ulaw)
        self._held.clear()
        self._held_bytes = 0
        for digits in self._unsaid:
            self._tell_digits(digits)
        self._unsaid.clear()

    def _unreachable(self, event: AssistantUnreachable, now: float) -> None:
        log.warning("%s ! assistant unreachable: %s", self, event.detail)
        facts = {"detail": event.detail, "status": event.status, "vapi_call_id": event.vapi_call_id}
        self._happened("assistant-unreachable", now, **facts)
        self._end(endings.ASSISTANT_UNREACHABLE, now)

    # Caller leg

    def _media(self, event: twilio.Media, now: float) -> None:
        if event.stream_sid != self.stream_sid:
            self._bad("caller", "media-before-start" if not self.stream_sid else "wrong-streamSid", now)
            return
        if now - self._last_media > LATE_FRAME_SECONDS:
            self.counters["frames_late"] += 1
        self._last_media = now
        if event.chunk is not None:
            if self._last_chunk is not None and event.chunk != self._last_chunk + 1:
                self.counters["frames_missing"] += abs(event.chunk - self._last_chunk - 1)
            self._last_chunk = event.chunk
        if self.state is State.LIVE:
            self._to_assistant(event.ulaw)
        elif self.state is State.CONNECTING:
            self._hold(event.ulaw)
        else:
            self.counters["frames_after_end"] += 1
            return
        turn = self._turns.caller_frame(event.ulaw, now)
        if turn is not None:
            self._write(self._turn_entry(turn))
            self._set("stall", max(turn.end_of_speech, self._last_from_assistant) + STALL_SECONDS)
        if self._local_barge_in:
            self._watch_overlap(now)

    def _to_assistant(self, ulaw: bytes) -> None:
        if not self.counters["frames_to_assistant"]:
            log.info("%s > first caller audio to the assistant", self)
        self.counters["frames_to_assistant"] += 1
        self._do(SendToAssistant(ulaw))

    def _hold(self, ulaw: bytes) -> None:
        self._held.append(ulaw)
        self._held_bytes += len(ulaw)
        self._frames_held += 1
        while self._held_bytes > self._hold_limit:
            self._held_bytes -= len(self._held.popleft())
            self.counters["frames_dropped"] += 1

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
            self._write(self._turn_entry(latest))
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
            self._set("keypad", self._keypad.due)

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
        if now < self._deaf_until or self._playout.unplayed(now) > AHEAD_SECONDS:
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
                if turn is not None or self._cut or self._assistant_spoke_from is None:
                    # A pause between two sentences begins no utterance of its own.
                    self._assistant_spoke_from = self._playout.queue(0, now)
                    self._cut = False
        if not self.counters["frames_to_caller"]:
            log.info("%s < first assistant audio to the caller", self)
        self.counters["frames_to_caller"] += 1
        self._playout.queue(len(event.ulaw), now)
        self._set("quiet", now + QUIET_SECONDS)
        self._do(SendToCaller(event.ulaw, report, number))

    def _audio_sent(self, number: int | None, now: float) -> None:
        if self._first_audio_sent is None:
            self._first_audio_sent = now
            self._happened("first-audio", now)
        turn = self._turns.latest
        if turn is not None and turn.number == number:
            turn.sent = now
            self._write(self._turn_entry(turn))

    def _vapi(
        self,
        event: vapi.StatusUpdate
        | vapi.SpeechUpdate
        | vapi.Transcript
        | vapi.UserInterrupted
        | vapi.Hang
        | vapi.Noted,
        now: float,
    ) -> None:
        self._last_from_assistant = now
        if self.state is not State.LIVE:
            self.counters["events_after_end"] += 1
            return
        match event:
            case vapi.UserInterrupted():
                self._barge_in("user-interrupted", now)
            case vapi.Transcript(speaker, final, text):
                self.counters["finals" if final else "partials"] += 1
                if final and text.strip():
                    self._spoken(speaker, text, now)
            case vapi.SpeechUpdate(speaker, started):
                self._speech_update(speaker, started, now)
            case vapi.StatusUpdate("ended", reason):
                self._vapi_ended_reason = reason
                self._happened("assistant-ended", now, reason=reason)
                if vapi.is_failure(reason):
                    self._end(endings.ASSISTANT_FAILED, now)
                else:
                    self._say_goodbye(now)
            case vapi.StatusUpdate(status):
                self._happened("assistant-status", now, status=status[:64])
            case vapi.Hang():
                self.counters["hangs"] += 1
                self._happened("hang", now)
            case vapi.Noted(kind, known):
                self._count(f"vapi_{kind}" if known else "vapi_unknown")
                if not known:
                    self._count(f"vapi_unknown_{kind}")
            case _:
                assert_never(event)

    def _speech_update(self, speaker: vapi.Speaker, started: bool, now: float) -> None:
        self._happened(f"{speaker}-{'started' if started else 'stopped'}", now)
        match speaker, started:
            case "caller", True:
                self._user_started_at = now if self._playout.playing(now) else None
            case "caller", False:
                self._turns.caller_stopped(now)
            case "assistant", True:
                self._turns.assistant_started(now)
            case _:
                # The assistant stopped. A missing `user-interrupted`, inferred: the caller began over
                # playing audio, and the assistant fell silent within a second.
                began, self._user_started_at = self._user_started_at, None
                recent = began is not None and now - began <= BARGE_IN_ONCE_SECONDS
                if recent and self._playout.playing(now):
                    self._barge_in("inferred", now)

    def _watch_overlap(self, now: float) -> None:
        """The socket dialect's barge-in: the caller is loud for 200 ms over unplayed audio."""
        caller = self._turns.caller
        if not caller.speaking or not self._playout.playing(now):
            self._overlap_from_ms = None
            return
        if self._overlap_from_ms is None:
            stretch, onset = self._turns.stretch_began, caller.onset_at
            over = stretch is not None and onset is not None and stretch <= onset
            self._overlap_from_ms = 0.0 if over else caller.loud_ms
        if caller.loud_ms - self._overlap_from_ms >= LOCAL_BARGE_IN_MS:
            self._overlap_from_ms = None
            self._deaf_until = now + DEAF_SECONDS
            self._do(TellAssistant(vapi.Cancel()))
            self._barge_in("caller-loud", now)

    def _barge_in(self, how: str, now: float) -> None:
        """The caller cut the assistant off: what has not been heard must not be."""
        again = now - self._barged_in_at < BARGE_IN_ONCE_SECONDS
        if again and not self._playout.playing(now):
            return
        unplayed_ms = round(self._playout.unplayed(now) * 1000)
        self._playout.clear(now)
        self._do(ClearPlayout())
        log.info("%s > clear g%d (%s)", self, self._playout.generation, how)
        if again:
            return
        self._barged_in_at = now
        self.counters["barge_ins"] += 1
        self._cut = True
        turn = self._turns.cleared(now)
        if turn is not None:
            self._write(self._turn_entry(turn))
        self._happened("barge-in", now, how=how, unplayed_ms=unplayed_ms)

    def _spoken(self, speaker: vapi.Speaker, text: str, now: float) -> None:
        started: float | None
        ended: float | None
        interrupted = False
        if speaker == "caller":
            self._turns.caller_final(now)
            caller = self._turns.caller
            started, ended = caller.onset_at, caller.last_loud_at
            if ended is not None and ended == self._caller_said_until:
                started = ended = None  # a second final of the same speech: its share is unknown
            else:
                self._caller_said_until = ended
        else:
            started, self._assistant_spoke_from = self._assistant_spoke_from, None
            ended = min(self._playout.ends_at, now) if started is not None else None
            interrupted, self._cut = self._cut, False
        self._write(
            UtteranceSpoken(
                self.call_sid, self._utterances, speaker, text, self._ms_or_none(started),
                self._ms_or_none(ended), interrupted,
            )
        )  # fmt: skip
        self._utterances += 1

    def _assistant_closed(self, code: int, now: float) -> None:
        self._vapi_close_code = code
        if self.state is State.ENDING:
            return  # `ended` came before it and has decided
        if code in (1000, 1001, 1005):
            self._say_goodbye(now)
        else:
            self._happened("assistant-lost", now, code=code)
            self._end(endings.ASSISTANT_FAILED, now)

    # Endings

    def _say_goodbye(self, now: float) -> None:
        """The assistant is done: its last words are heard out before the line closes."""
        self.end_reason = endings.ASSISTANT_ENDED
        self._step(State.ENDING, now)
        self._goodbye_mark = self._playout.place_mark(now)
        self._do(PlaceMark(self._goodbye_mark))
        self._set("goodbye", now + self._playout.unplayed(now) + GOODBYE_SECONDS)

    def _end(self, reason: str, now: float, code: int | None = None) -> None:
        started = self.state is not State.WAITING
        self.end_reason = self.end_reason or reason
        ended_well = self.end_reason in (endings.CALLER_HUNG_UP, endings.ASSISTANT_ENDED)
        self._step(State.ENDED, now)
        self.deadline = float("inf")
        if started:
            if not ended_well:
                self._playout.clear(now)
                self._do(ClearPlayout())
            self.counters["keys_unsaid"] += len("".join(self._unsaid)) + len(self._keypad.take() or "")
            self._do(self._leave_assistant())
            self._settle(now)
        self._do(HangUp(code or endings.CLOSE_CODES.get(self.end_reason, 1000)))

    def _leave_assistant(self) -> HangUpAssistant:
        match self.end_reason:
            case endings.ASSISTANT_ENDED:
                return HangUpAssistant("close")
            case endings.ASSISTANT_FAILED:
                return HangUpAssistant("control")
            case _:
                return HangUpAssistant("end-call")

    def _settle(self, now: float) -> None:
        """The call's last entries: what never got an answer, and the sum of it all."""
        for turn in (self._turns.latest, self._turns.open):
            if turn is not None and (turn.sent is None or turn.heard is None):
                self._write(self._turn_entry(turn))
        counts = self.counters
        counts["keys_dropped"] += self._keypad.dropped
        counts["marks_overdue"] += self._playout.overdue
        counts["frames_unsent"] += len(self._held)
        self._happened("stream-ended", now, reason=self.end_reason)
        first = self._first_audio_sent
        self._write(
            StreamEnded(
                call_sid=self.call_sid,
                at=self._at(now),
                at_ms=self._ms(now),
                end_reason=self.end_reason,
                ended_by=endings.ENDED_BY[self.end_reason],
                vapi_ended_reason=self._vapi_ended_reason,
                vapi_close_code=self._vapi_close_code,
                time_to_first_audio_ms=self._ms_or_none(first),
                frames_to_assistant=counts["frames_to_assistant"],
                frames_to_caller=counts["frames_to_caller"],
                frames_held=self._frames_held,
                frames_dropped=counts["frames_dropped"],
                barge_ins=counts["barge_ins"],
                counters={name: count for name, count in sorted(counts.items()) if count},
            )
        )

    def _bad(self, leg: Leg, kind: str, now: float) -> None:
        name = f"bad_{leg}_{kind}"
        if not self.counters[name]:
            log.warning("%s ! bad message from the %s leg: %s", self, leg, kind)
            self._happened("bad-message", now, leg=leg, problem=kind)
        self.counters[name] += 1
        if leg == "caller":
            self._bad_times.append(now)
            if len(self._bad_times) > ABUSE_COUNT and now - self._bad_times[0] <= ABUSE_SECONDS:
                self._end(endings.PROTOCOL_ABUSE, now)

    # Deadlines

    def _set(self, name: str, at: float) -> None:
        self._deadlines[name] = at
        self.deadline = min(self.deadline, at)

    def _deadline_passed(self, now: float) -> None:
        self._deadlines["media"] = self._last_media + MEDIA_SECONDS if self.call_sid else float("inf")
        for name in [name for name, at in self._deadlines.items() if at <= now]:
            if self.state is not State.ENDED:
                del self._deadlines[name]
                self._due(name, now)
        if self.state is not State.ENDED:
            self.deadline = min(self._deadlines.values())

    def _due(self, name: str, now: float) -> None:
        match name:
            case "start":
                self._end(endings.NO_START, now)
            case "media":
                self._end(endings.STREAM_LOST, now)
            case "limit":
                self._end(endings.LIMIT_REACHED, now)
            case "goodbye":
                self._end(self.end_reason, now)
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
        turn = self._turns.owed
        if self.state is not State.LIVE or turn is None:
            return
        due = max(turn.end_of_speech, self._last_from_assistant) + STALL_SECONDS
        if now < due:
            self._set("stall", due)
        else:
            self._end(endings.ASSISTANT_STALLED, now)

    # Small things

    def _step(self, state: State, now: float) -> None:
        if state not in _STEPS[self.state]:
            raise IllegalStep(f"{self.state.name} to {state.name}")
        self.state = state
        why = f" ({self.end_reason}, by {endings.ENDED_BY[self.end_reason]})" if self.end_reason else ""
        log.info("%s = %s after %d ms%s", self, state.name, self._ms(now), why)

    def _ours(self, stream_sid: str, now: float) -> bool:
        if stream_sid == self.stream_sid:
            return True
        self._bad("caller", "wrong-streamSid" if self.stream_sid else "before-start", now)
        return False

    def _turn_entry(self, turn: Turn) -> TurnTaken:
        t1, t2 = turn.first_audio, turn.sent
        return TurnTaken(
            call_sid=self.call_sid,
            number=turn.number,
            end_of_speech_ms=self._ms(turn.end_of_speech),
            endpointed_ms=self._ms_or_none(turn.endpointed),
            first_audio_ms=self._ms_or_none(t1),
            sent_ms=self._ms_or_none(t2),
            heard_ms=self._ms_or_none(turn.heard),
            response_latency_ms=None if t1 is None else round((t1 - turn.end_of_speech) * 1000),
            bridge_overhead_us=None if t1 is None or t2 is None else round((t2 - t1) * 1e6),
            interrupted=turn.interrupted,
        )

    def _happened(self, kind: str, now: float, **data: Any) -> None:
        if not self.stream_sid:
            return  # no call yet that it could have happened to
        if self._happenings >= MAX_HAPPENED:
            self.counters["happenings_dropped"] += 1
            return
        self._write(Happened(self.call_sid, self._happenings, kind, self._ms(now), data))
        self._happenings += 1

    def _count(self, name: str) -> None:
        """Count under a name that a peer had a hand in: a bounded number of names."""
        if name in self.counters or len(self.counters) < MAX_KINDS:
            self.counters[name] += 1
        else:
            self.counters["other"] += 1

    def _do(self, action: Action) -> None:
        self._actions.append(action)

    def _write(self, entry: Any) -> None:
        self._actions.append(WriteEntry(entry))

    def _ms(self, at: float) -> int:
        return round((at - self._zero) * 1000)

    def _ms_or_none(self, at: float | None) -> int | None:
        return None if at is None else self._ms(at)

    def _at(self, now: float) -> float:
        return self._wall + now - self._zero
