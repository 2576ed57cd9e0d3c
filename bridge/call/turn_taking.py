"""Turn-taking: who speaks, what the caller has heard, and how long the caller waits for an answer.

`TurnTaking` passes the audio and Vapi's speech events to the detectors (`turns`, `playout`, `barge_in`,
`utterances`, `live_state`). It writes turns, utterances and live notes, places marks, and clears the playout
when the caller interrupts. It never ends a call: the session does.

Pure: times are arguments, monotonic seconds.
"""

from __future__ import annotations

import logging
from typing import Literal, TypeAlias

from bridge.call.barge_in import BargeIn
from bridge.call.deadlines import Deadlines
from bridge.call.events import AssistantAudio, ClearPlayout, PlaceMark, SendControl, SendToCaller
from bridge.call.live_state import LiveState
from bridge.call.output import CallOutput
from bridge.call.playout import BYTES_PER_SECOND, Playout
from bridge.call.turns import Turns
from bridge.call.utterances import Utterances
from bridge.wire import vapi

logger = logging.getLogger(__name__)

STALL_SECONDS = 12.0  # the assistant must answer, or send any message, within this time
PAUSE_SECONDS = 0.2  # assistant audio that pauses this long gets a mark after it
MAX_AHEAD_SECONDS = 30.0  # how far assistant audio may run ahead of real time
FLOOD_SECONDS = 3.0  # of audio dropped because it was further ahead

# Why the playout was cleared, as written to the timeline.
BargeInSign: TypeAlias = Literal["user-interrupted", "inferred", "caller-loud"]

# Names of deadlines
STALL, PAUSE, ASSISTANT_DONE, LIVE_NOTE = "stall", "pause", "assistant-done", "live-note"


class TurnTaking:
    """The floor of one call, and the measurements that depend on it."""

    def __init__(self, now: float, output: CallOutput, deadlines: Deadlines, *, local_barge_in: bool) -> None:
        """`local_barge_in`: our speech detector decides; for assistants that send no interruption events."""
        self.turns = Turns()
        self.playout = Playout()
        self.live = LiveState(now)
        self.assistant_active_at = now  # when the assistant's last message or audio arrived
        self._barge_in = BargeIn(self.turns, self.playout)
        self._utterances = Utterances()
        self._output = output
        self._report = output.report
        self._deadlines = deadlines
        self._local_barge_in = local_barge_in
        self._excess_bytes = 0  # of assistant audio that was too far ahead

    # Caller

    def caller_frame(self, ulaw: bytes, now: float) -> None:
        """One frame of the caller's audio, mu-law."""
        turn = self.turns.caller_frame(ulaw, now)
        if turn is not None:
            self._output.write(self._report.turn(turn))
            self._deadlines.set(STALL, max(turn.end_of_speech, self.assistant_active_at) + STALL_SECONDS)
        if self.turns.caller.speaking is not self.live.caller_speaks:
            self.live.set_caller(self.turns.caller.speaking, now)
            self.publish_live(now)
        if self._local_barge_in and self._barge_in.detect_overlap(now):
            self._output.do(SendControl(vapi.Cancel()))
            self.clear_playout("caller-loud", now)

    def on_mark(self, name: str, now: float) -> bool:
        """Twilio returned a mark. False when it is unknown, or was placed before the last clear."""
        mark = self.playout.on_mark(name, now)
        if mark is None:
            return False
        turn = self.turns.latest
        if mark.turn is not None and turn is not None and mark.turn == turn.number:
            turn.heard = now
            self._output.write(self._report.turn(turn))
        return True

    # Assistant

    def accepts_audio(self, now: float) -> bool:
        """Whether to accept assistant audio: not right after a barge-in, nor far ahead of real time."""
        return now >= self._barge_in.ignore_audio_until and not self._is_far_ahead(now)

    def is_flooded(self, dropped_bytes: int, now: float) -> bool:
        """Whether assistant audio that was not accepted is too much: `FLOOD_SECONDS` beyond the limit."""
        if self._is_far_ahead(now):
            self._excess_bytes += dropped_bytes
        return self._excess_bytes > FLOOD_SECONDS * BYTES_PER_SECOND

    def _is_far_ahead(self, now: float) -> bool:
        return self.playout.unplayed(now) > MAX_AHEAD_SECONDS

    def assistant_audio(self, event: AssistantAudio, now: float) -> None:
        """Send a chunk of assistant audio to the caller, and measure the answer that it may begin."""
        report, number = False, None
        if event.audible:
            speech = self.turns.assistant_speech_at
            turn = self.turns.on_assistant_audible(now, len(event.ulaw) / BYTES_PER_SECOND)
            number = turn.number if turn is not None else None
            if self.turns.assistant_speech_at != speech:
                # A mark just before the first audible audio: Twilio returns it when that audio is heard.
                self._output.do(PlaceMark(self.playout.place_mark(now, number)))
                report = True
                self._utterances.assistant_plays(self.playout.queue(0, now), answer=turn is not None)
        self.playout.queue(len(event.ulaw), now)
        if event.audible:
            self.live.assistant_until = self.playout.ends_at
            if not self.live.assistant_speaks:
                self.live.set_assistant(True, now)
                self._deadlines.set(ASSISTANT_DONE, self.live.assistant_ends_at())
                self.publish_live(now)
        self._deadlines.set(PAUSE, now + PAUSE_SECONDS)
        self._output.do(SendToCaller(event.ulaw, report, number))

    def on_audio_sent(self, turn_number: int | None, now: float) -> None:
        """The first audible audio of an answer was handed to Twilio's socket."""
        if self._report.first_audio is None:
            self._report.first_audio = now
            self._output.record("first-audio", now)
        turn = self.turns.latest
        if turn is not None and turn.number == turn_number:
            turn.sent = now
            self._output.write(self._report.turn(turn))

    def speech_update(self, speaker: vapi.Speaker, started: bool, now: float) -> None:
        """Vapi reports that a speaker started or stopped."""
        self._output.record(f"{speaker}-{'started' if started else 'stopped'}", now)
        match speaker, started:
            case "caller", True:
                self._barge_in.on_caller_started(now)
            case "caller", False:
                self.turns.on_caller_stopped(now)
            case "assistant", True:
                self.turns.on_assistant_started(now)
            case _:
                if self._barge_in.on_assistant_stopped(now):
                    self.clear_playout("inferred", now)

    def transcript(self, speaker: vapi.Speaker, text: str, *, final: bool, now: float) -> None:
        """Vapi sent a transcript: a final one becomes an utterance, a partial one a live note."""
        self.live.set_transcript(speaker, text, final=final)
        if final and text.strip():
            self._write_utterance(speaker, text, now)
        self.publish_live(now)

    def _write_utterance(self, speaker: vapi.Speaker, text: str, now: float) -> None:
        if speaker == "caller":
            self.turns.on_caller_final(now)
            caller = self.turns.caller
            times = self._utterances.of_caller(caller.onset_at, caller.last_loud_at)
        else:
            times = self._utterances.of_assistant(self.playout.ends_at, now)
        self._output.write(self._report.utterance(speaker, text, times))

    def clear_playout(self, sign: BargeInSign, now: float) -> None:
        """The caller interrupts the assistant: drop the audio that the caller has not heard."""
        is_first = self._barge_in.register_sign(now)
        if not is_first and not self.playout.is_playing(now):
            return
        unplayed_seconds = self.playout.unplayed(now)
        self.playout.clear(now)
        self._output.do(ClearPlayout())
        logger.info("%s > clear g%d (%s)", self._report, self.playout.generation, sign)
        self.live.interrupt(now)
        self.publish_live(now)
        if not is_first:
            return
        self._output.counters["barge_ins"] += 1
        self._utterances.interrupt(unplayed_seconds)
        turn = self.turns.on_clear(now)
        if turn is not None:
            self._output.write(self._report.turn(turn))
        self._output.record("barge-in", now, how=sign, unplayed_ms=round(unplayed_seconds * 1000))

    # Deadlines

    def on_deadline(self, name: str, now: float) -> None:
        """The deadline PAUSE, ASSISTANT_DONE or LIVE_NOTE has passed."""
        if name == PAUSE:
            if self.playout.is_playing(now):
                self._output.do(PlaceMark(self.playout.place_mark(now)))
        elif name == ASSISTANT_DONE:
            ends_at = self.live.assistant_ends_at()
            if now < ends_at:
                self._deadlines.set(ASSISTANT_DONE, ends_at)
            elif self.live.assistant_speaks:
                self.live.set_assistant(False, now)
                self.publish_live(now)
        else:
            self.publish_live(now)

    def check_stall(self, now: float) -> bool:
        """Whether the assistant's answer is overdue. If one is awaited but not overdue, sets STALL again."""
        turn = self.turns.unanswered
        if turn is None:
            return False
        due_at = max(turn.end_of_speech, self.assistant_active_at) + STALL_SECONDS
        if now < due_at:
            self._deadlines.set(STALL, due_at)
            return False
        return True

    # Live notes and the end

    def publish_live(self, now: float) -> None:
        """Write a live note now or, if the previous one is too recent, at the LIVE_NOTE deadline."""
        retry_at = self.live.throttle(now)
        if retry_at is None:
            self._output.write(self._report.live(self.live, self.turns.latest, now))
        else:
            self._deadlines.set(LIVE_NOTE, retry_at)

    def write_incomplete_turns(self) -> None:
        """At the end of the call: write turns that were not answered, sent or heard, with nulls."""
        for turn in (self.turns.latest, self.turns.open):
            if turn is not None and (turn.sent is None or turn.heard is None):
                self._output.write(self._report.turn(turn))

    def write_last_live_note(self, now: float) -> None:
        """At the end of the call: write a live note in which nobody speaks."""
        self.live.clear(now)
        self._output.write(self._report.live(self.live, self.turns.latest, now))
