"""One call as a state machine: events and the time in, actions out.

    session.handle(vapi.UserInterrupted(), now=12.48)   # -> [ClearPlayout(), ...]

Theory of operation. The session receives every message of both legs, and `DeadlinePassed` at its deadlines.
It returns actions. It owns no socket, task or clock: the runner performs the actions in order, without
awaiting. All audio is mu-law at 8 kHz. Deadlines are data: `deadline` is the time of the next one. It may be
too early, never too late.

The session decides about the call: its state, its legs and its end. `turn_taking` measures who speaks and how
fast the assistant answers; `report` builds the journal entries.

Rules. States change in one place, by one table (`states`). The first event that ends the call sets the end
reason. A malformed message is counted, and the call continues. Everything that can grow is bounded, and
everything that is dropped is counted. Pure: no asyncio, no framework; times are monotonic seconds, entries
have milliseconds since the stream's start.
"""

from __future__ import annotations

import logging
from typing import Final, Literal, assert_never

from bridge import end_reasons
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
    SendControl,
    SendToAssistant,
    ServerStopping,
    StreamAccepted,
    TicketRefused,
)
from bridge.call.hold_buffer import HoldBuffer
from bridge.call.inbound_media import InboundMedia
from bridge.call.keypad import Keypad
from bridge.call.output import CallOutput
from bridge.call.report import CallReport
from bridge.call.states import TRANSITIONS, IllegalTransition, State
from bridge.call.tool_events import ToolEvents
from bridge.call.turn_taking import PAUSE, STALL, TurnTaking
from bridge.wire import twilio, vapi

logger = logging.getLogger(__name__)

START_SECONDS = 5.0
MEDIA_SECONDS = 8.0
LAST_AUDIO_SECONDS = 2.0  # after the assistant's remaining audio should have been played

# Names of deadlines; `turn_taking` has further ones.
START, MEDIA, LIMIT, LAST_AUDIO, KEYPAD = "start", "media", "limit", "last-audio", "keypad"

# How the call is ended at Vapi: with `end-call`, unless Vapi has ended it already or its socket broke.
_HANG_UP_BY_REASON: Final[dict[str, Literal["close", "control"]]] = {
    end_reasons.ASSISTANT_ENDED: "close",
    end_reasons.ASSISTANT_FAILED: "control",
}
_NORMAL_CLOSE = (1000, 1001, 1005)  # 1005: a close frame without a code


class CallSession:
    """The live state of one call."""

    def __init__(
        self, now: float, *, hold_buffer_ms: int = 7000, local_barge_in: bool = False, worker: str = ""
    ) -> None:
        """`local_barge_in`: our speech detector decides; for assistants that send no interruption events."""
        self.state = State.WAITING
        self.end_reason = ""
        self._report = CallReport(now, worker)
        self.counters = self._report.counters
        self._output = CallOutput(self._report)
        self._deadlines = Deadlines()
        self._deadlines.set(START, now + START_SECONDS)
        self._turn_taking = TurnTaking(now, self._output, self._deadlines, local_barge_in=local_barge_in)
        self._inbound = InboundMedia(now, self.counters)
        self._hold = HoldBuffer(hold_buffer_ms)
        self._keypad = Keypad()
        self._tools = ToolEvents(self._output, self._turn_taking.playout)
        self._last_audio_mark = ""  # in ENDING: placed after the assistant's remaining audio

    def __str__(self) -> str:
        return str(self._report)

    @property
    def call_sid(self) -> str:
        return self._report.call_sid

    @property
    def stream_sid(self) -> str:
        return self._report.stream_sid

    @property
    def deadline(self) -> float:
        """When to feed `DeadlinePassed`, in monotonic seconds."""
        return self._deadlines.earliest

    @property
    def is_over(self) -> bool:
        return self.state is State.ENDED

    def handle(self, event: Event, now: float) -> list[Action]:
        """Handle one event. Returns the actions to perform, in order; none after the end of the call."""
        actions = self._output.begin()
        if self.state is State.ENDED:
            return actions
        match event:
            case twilio.Media():
                self._on_media(event, now)
            case AssistantAudio():
                self._on_assistant_audio(event, now)
            case twilio.Mark():
                self._on_mark(event, now)
            case DeadlinePassed():
                self._on_deadline(now)
            case AudioSent(turn):
                self._turn_taking.on_audio_sent(turn, now)
            case StreamAccepted():
                self._on_accepted(event, now)
            case TicketRefused():
                self._on_ticket_refused(event, now)
            case AssistantConnected():
                self._on_assistant_connected(event, now)
            case AssistantUnreachable():
                self._on_assistant_unreachable(event, now)
            case twilio.Stop():
                if self._is_our_stream(event.stream_sid, now):
                    self._end(end_reasons.CALLER_HUNG_UP, now)
            case CallerLegClosed(code):
                is_normal = code in _NORMAL_CLOSE and self.state is not State.WAITING
                self._end(end_reasons.CALLER_HUNG_UP if is_normal else end_reasons.STREAM_LOST, now)
            case AssistantLegClosed(code):
                self._on_assistant_closed(code, now)
            case twilio.Dtmf():
                self._on_dtmf(event, now)
            case (
                vapi.StatusUpdate()
                | vapi.SpeechUpdate()
                | vapi.Transcript()
                | vapi.UserInterrupted()
                | vapi.Hang()
                | vapi.ToolCalls()
                | vapi.IgnoredEvent()
            ):
                self._on_vapi_event(event, now)
            case twilio.Connected():
                self.counters["connected"] += 1
            case twilio.Start():
                self._on_bad_message("caller", "second-start", now)
            case BadMessage(leg, kind):
                self._on_bad_message(leg, kind, now)
            case OversizeMessage():
                self.counters["bad_caller_oversize"] += 1
                self._end(end_reasons.PROTOCOL_ABUSE, now, code=end_reasons.CLOSE_OVERSIZE)
            case Dropped(frames, "assistant"):
                self.counters["frames_dropped"] += frames
            case Dropped(chunks):
                self.counters["chunks_dropped"] += chunks
                self.counters["frames_to_caller"] -= chunks
            case vapi.Audio():
                raise TypeError("assistant audio must be transcoded before it reaches the session")
            case ServerStopping():
                self._end(end_reasons.SERVER_STOPPED, now)
            case Aborted():
                self._end(end_reasons.WORKER_LOST, now)
            case _:
                assert_never(event)
        return actions

    # Start of the stream

    def _on_accepted(self, event: StreamAccepted, now: float) -> None:
        start = event.start
        self._output.write(
            self._report.started(start.call_sid, start.stream_sid, event.at, now, event.assistant_id)
        )
        self._inbound.start(now)
        self._enter(State.CONNECTING, now)
        self._deadlines.drop(START)
        self._deadlines.set(MEDIA, now + MEDIA_SECONDS)
        self._deadlines.set(LIMIT, now + event.max_call_seconds)
        self._output.record("stream-started", now)
        self._output.do(DialAssistant())

    def _on_ticket_refused(self, event: TicketRefused, now: float) -> None:
        self._output.write(self._report.refused(event.start.call_sid, event.at, end_reasons.TICKET_REFUSED))
        logger.warning("%s ! ticket refused: %s", self, event.why)
        self._end(end_reasons.TICKET_REFUSED, now)

    def _on_assistant_connected(self, event: AssistantConnected, now: float) -> None:
        if self.state is not State.CONNECTING:
            return
        self._enter(State.LIVE, now)
        self._turn_taking.assistant_active_at = now
        self._output.write(self._report.answered(event.vapi_call_id, self._hold.frames, now))
        self._output.record(
            "assistant-answered", now, connect_ms=self._report.ms(now), frames_held=self._hold.frames
        )
        for ulaw in self._hold.release():
            self._send_to_assistant(ulaw)
        for group in self._keypad.release():
            self._send_keys(group)
        self._turn_taking.publish_live(now)

    def _on_assistant_unreachable(self, event: AssistantUnreachable, now: float) -> None:
        logger.warning("%s ! assistant unreachable: %s", self, event.detail)
        data = {"detail": event.detail, "status": event.status, "vapi_call_id": event.vapi_call_id}
        self._output.record("assistant-unreachable", now, **data)
        self._end(end_reasons.ASSISTANT_UNREACHABLE, now)

    # Caller leg

    def _on_media(self, event: twilio.Media, now: float) -> None:
        if event.stream_sid != self._report.stream_sid:
            problem = "media-before-start" if not self.stream_sid else "wrong-streamSid"
            self._on_bad_message("caller", problem, now)
            return
        if self._inbound.count_frame(event.chunk, len(event.ulaw), now):
            self._end(end_reasons.FLOOD, now)
            return
        if self.state is State.LIVE:
            self._send_to_assistant(event.ulaw)
        elif self.state is State.CONNECTING:
            dropped = self._hold.add(event.ulaw)
            if dropped:
                self.counters["frames_dropped"] += dropped
        else:
            self.counters["frames_after_end"] += 1
            return
        self._turn_taking.caller_frame(event.ulaw, now)

    def _send_to_assistant(self, ulaw: bytes) -> None:
        if not self.counters["frames_to_assistant"]:
            logger.info("%s > first caller audio to the assistant", self)
        self.counters["frames_to_assistant"] += 1
        self._output.do(SendToAssistant(ulaw))

    def _on_mark(self, event: twilio.Mark, now: float) -> None:
        if not self._is_our_stream(event.stream_sid, now):
            return
        if not self._turn_taking.on_mark(event.name, now):
            self.counters["marks_cleared"] += 1
        elif event.name == self._last_audio_mark:
            self._end(self.end_reason, now)

    def _on_dtmf(self, event: twilio.Dtmf, now: float) -> None:
        if not self._is_our_stream(event.stream_sid, now):
            return
        if self.state is State.ENDING:
            self.counters["keys_unsaid"] += 1
            return
        dropped_before = self._keypad.dropped
        group = self._keypad.press(event.digit, now)
        if self._keypad.dropped == dropped_before:
            self._output.record("dtmf", now, digit=event.digit)
        if group is not None:
            self._on_keys(group)
        elif self._keypad.due_at is not None:
            self._deadlines.set(KEYPAD, self._keypad.due_at)

    def _on_keys(self, group: str) -> None:
        """The caller completed a group of keys."""
        if self.state is State.LIVE:
            self._send_keys(group)
        else:
            self._keypad.hold(group)

    def _send_keys(self, group: str) -> None:
        self._output.do(SendControl(vapi.AddMessage(f"The caller pressed {group} on the keypad.")))

    # Assistant leg

    def _on_assistant_audio(self, event: AssistantAudio, now: float) -> None:
        self._turn_taking.assistant_active_at = now
        if self.state is not State.LIVE:
            self.counters["audio_after_end"] += len(event.ulaw)
            return
        if not self._turn_taking.accepts_audio(now):
            self.counters["assistant_bytes_dropped"] += len(event.ulaw)
            if self._turn_taking.is_flooded(len(event.ulaw), now):
                self._end(end_reasons.FLOOD, now)
            return
        if not self.counters["frames_to_caller"]:
            logger.info("%s < first assistant audio to the caller", self)
        self.counters["frames_to_caller"] += 1
        self._turn_taking.assistant_audio(event, now)

    def _on_vapi_event(self, event: vapi.TextEvent, now: float) -> None:
        self._turn_taking.assistant_active_at = now
        if self.state is not State.LIVE:
            self.counters["events_after_end"] += 1
            return
        match event:
            case vapi.UserInterrupted():
                self._turn_taking.clear_playout("user-interrupted", now)
            case vapi.Transcript(speaker, final, text):
                self.counters["finals" if final else "partials"] += 1
                self._turn_taking.transcript(speaker, text, final=final, now=now)
            case vapi.SpeechUpdate(speaker, started):
                self._turn_taking.speech_update(speaker, started, now)
            case vapi.StatusUpdate("ended", reason):
                self._report.vapi_ended_reason = reason
                self._output.record("assistant-ended", now, reason=reason)
                if vapi.is_failure(reason):
                    self._end(end_reasons.ASSISTANT_FAILED, now)
                else:
                    self._end_after_last_audio(now)
            case vapi.StatusUpdate(status):
                self._output.record("assistant-status", now, status=status[:64])
            case vapi.Hang():
                self.counters["hangs"] += 1
                self._output.record("hang", now)
            case vapi.ToolCalls(calls):
                for call in calls:
                    self._tools.handle(call, now)
            case vapi.IgnoredEvent(kind, known):
                self._report.count(f"vapi_{kind}" if known else "vapi_unknown")
                if not known:
                    self._report.count(f"vapi_unknown_{kind}")
            case _:
                assert_never(event)

    def _on_assistant_closed(self, code: int, now: float) -> None:
        self._report.vapi_close_code = code
        if self.state is State.ENDING:
            return  # `ended` arrived before and has set the end reason
        if code in _NORMAL_CLOSE:
            self._end_after_last_audio(now)
        else:
            self._output.record("assistant-lost", now, code=code)
            self._end(end_reasons.ASSISTANT_FAILED, now)

    # End of the call

    def _end_after_last_audio(self, now: float) -> None:
        """The assistant has ended the call: hang up when its remaining audio has been played."""
        self.end_reason = end_reasons.ASSISTANT_ENDED
        self._enter(State.ENDING, now)
        playout = self._turn_taking.playout
        self._last_audio_mark = playout.place_mark(now)
        self._output.do(PlaceMark(self._last_audio_mark))
        self._deadlines.set(LAST_AUDIO, now + playout.unplayed(now) + LAST_AUDIO_SECONDS)

    def _end(self, reason: str, now: float, code: int | None = None) -> None:
        has_stream = self.state is not State.WAITING
        self.end_reason = self.end_reason or reason
        is_normal_end = self.end_reason in (end_reasons.CALLER_HUNG_UP, end_reasons.ASSISTANT_ENDED)
        self._enter(State.ENDED, now)
        self._deadlines.clear()
        if has_stream:
            if not is_normal_end:
                self._turn_taking.playout.clear(now)
                self._output.do(ClearPlayout())
            self.counters["keys_unsaid"] += self._keypad.unsent_keys
            self._output.do(HangUpAssistant(_HANG_UP_BY_REASON.get(self.end_reason, "end-call")))
            self._write_last_entries(now)
        self._output.do(HangUp(code or end_reasons.CLOSE_CODES.get(self.end_reason, 1000)))

    def _write_last_entries(self, now: float) -> None:
        """Write incomplete turns, the last counters, and `StreamEnded`."""
        self._turn_taking.write_incomplete_turns()
        self.counters["keys_dropped"] += self._keypad.dropped
        self.counters["marks_overdue"] += self._turn_taking.playout.overdue
        self.counters["frames_unsent"] += len(self._hold)
        if (jitter_ms := self._inbound.jitter_p95_ms) is not None:
            self.counters["jitter_p95_ms"] = jitter_ms
        self._output.record("stream-ended", now, reason=self.end_reason)
        self._turn_taking.write_last_live_note(now)
        self._output.write(self._report.ended(self.end_reason, self._hold.frames, now))

    def _on_bad_message(self, leg: Leg, kind: str, now: float) -> None:
        name = f"bad_{leg}_{kind}"
        if not self.counters[name]:
            logger.warning("%s ! bad message from the %s leg: %s", self, leg, kind)
            self._output.record("bad-message", now, leg=leg, problem=kind)
        self.counters[name] += 1
        if leg == "caller" and self._inbound.count_bad_message(now):
            self._end(end_reasons.PROTOCOL_ABUSE, now)

    # Deadlines

    def _on_deadline(self, now: float) -> None:
        # The media deadline is moved here, when a deadline is due, and not with every frame.
        self._deadlines.set(MEDIA, self._inbound.latest_at + MEDIA_SECONDS if self.call_sid else NEVER)
        for name in self._deadlines.due(now):
            if self.state is not State.ENDED:
                self._on_due(name, now)

    def _on_due(self, name: str, now: float) -> None:
        is_live = self.state is State.LIVE
        if name == START:
            self._end(end_reasons.NO_START, now)
        elif name == MEDIA:
            self._end(end_reasons.STREAM_LOST, now)
        elif name == LIMIT:
            self._end(end_reasons.LIMIT_REACHED, now)
        elif name == LAST_AUDIO:
            self._end(self.end_reason, now)
        elif name == KEYPAD:
            group = self._keypad.take()
            if group is not None:
                self._on_keys(group)
        elif name == STALL:
            if is_live and self._turn_taking.check_stall(now):
                self._end(end_reasons.ASSISTANT_STALLED, now)
        elif is_live or name != PAUSE:
            self._turn_taking.on_deadline(name, now)

    # Helpers

    def _enter(self, state: State, now: float) -> None:
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"{self.state.name} to {state.name}")
        self.state = state
        reason = (
            f" ({self.end_reason}, by {end_reasons.ENDED_BY[self.end_reason]})" if self.end_reason else ""
        )
        # Strangers can open many sockets on which no call begins.
        level = logging.INFO if self.call_sid else logging.DEBUG
        logger.log(level, "%s = %s after %d ms%s", self, state.name, self._report.ms(now), reason)

    def _is_our_stream(self, stream_sid: str, now: float) -> bool:
        if stream_sid == self.stream_sid:
            return True
        self._on_bad_message("caller", "wrong-streamSid" if self.stream_sid else "before-start", now)
        return False
