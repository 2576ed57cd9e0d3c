"""Builds the journal entries of one call, and keeps its counters.

Each method takes what happened and when, in monotonic seconds, and returns the entry. The report knows the
call's ids and when its stream started, and numbers the entries of a kind. The last entry has the counters.

A peer cannot make the journal or the counters grow without bound: timeline events beyond MAX_EVENTS are
dropped and counted, counter names beyond MAX_COUNTERS are counted together as `other`.

Pure: times are arguments, monotonic seconds; the wall clock is given once, when the stream starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bridge import end_reasons
from bridge.call.live_state import LiveState
from bridge.call.turns import Turn
from bridge.call.utterances import SpeechTimes
from bridge.journal import (
    AssistantAnswered,
    LiveNote,
    StreamEnded,
    StreamRefused,
    StreamStarted,
    TimelineEvent,
    TurnTaken,
    UtteranceSpoken,
)
from bridge.wire import vapi

MAX_EVENTS = 1000
MAX_COUNTERS = 64


class CallReport:
    """The journal entries of one call. Before its stream starts there is no timeline."""

    def __init__(self, now: float, worker: str = "") -> None:
        self.call_sid = ""
        self.stream_sid = ""
        self.counters: Counter[str] = Counter()
        self.first_audio: float | None = None  # when the call's first assistant audio was sent
        self.vapi_ended_reason = ""
        self.vapi_close_code: int | None = None
        self._worker = worker
        self._started_at = now  # of the stream: 0 ms on the timeline
        self._started_wall = 0.0  # the same moment on the wall clock
        self._utterance_count = 0
        self._event_count = 0

    def __str__(self) -> str:
        """The masked CallSid, for log lines."""
        return f"{self.call_sid[:4]}..{self.call_sid[-2:]}" if self.call_sid else "no call yet"

    def ms(self, at: float) -> int:
        """Milliseconds since the stream's start."""
        return round((at - self._started_at) * 1000)

    def count(self, name: str) -> None:
        """Increment a counter whose name comes from a peer: the number of names is bounded."""
        if name in self.counters or len(self.counters) < MAX_COUNTERS:
            self.counters[name] += 1
        else:
            self.counters["other"] += 1

    def started(
        self, call_sid: str, stream_sid: str, at: float, now: float, assistant_id: str = ""
    ) -> StreamStarted:
        self.call_sid, self.stream_sid = call_sid, stream_sid
        self._started_at, self._started_wall = now, at
        return StreamStarted(call_sid, at, stream_sid, self._worker, assistant_id)

    def refused(self, call_sid: str, at: float, reason: str) -> StreamRefused:
        self.call_sid = call_sid
        return StreamRefused(call_sid, at, reason)

    def answered(self, vapi_call_id: str, frames_held: int, now: float) -> AssistantAnswered:
        return AssistantAnswered(self.call_sid, self._at(now), self.ms(now), vapi_call_id, frames_held)

    def timeline_event(self, kind: str, now: float, data: Mapping[str, Any]) -> TimelineEvent | None:
        if not self.stream_sid:
            return None
        if self._event_count >= MAX_EVENTS:
            self.counters["happenings_dropped"] += 1
            return None
        self._event_count += 1
        return TimelineEvent(self.call_sid, self._event_count - 1, kind, self.ms(now), data)

    def utterance(self, speaker: vapi.Speaker, text: str, times: SpeechTimes) -> UtteranceSpoken:
        self._utterance_count += 1
        return UtteranceSpoken(
            call_sid=self.call_sid,
            index=self._utterance_count - 1,
            speaker=speaker,
            text=text,
            started_ms=self._ms_or_none(times.started),
            ended_ms=self._ms_or_none(times.ended),
            interrupted=times.interrupted,
            unheard_ms=None if times.unheard is None else round(times.unheard * 1000),
        )

    def turn(self, turn: Turn) -> TurnTaken:
        """A turn with all times known so far. A later entry with the same number replaces it."""
        t1, t2 = turn.first_audio, turn.sent
        return TurnTaken(
            call_sid=self.call_sid,
            number=turn.number,
            end_of_speech_ms=self.ms(turn.end_of_speech),
            endpointed_ms=self._ms_or_none(turn.endpointed),
            first_audio_ms=self._ms_or_none(t1),
            sent_ms=self._ms_or_none(t2),
            heard_ms=self._ms_or_none(turn.heard),
            response_latency_ms=_latency_ms(turn),
            bridge_overhead_us=None if t1 is None or t2 is None else round((t2 - t1) * 1e6),
            interrupted=turn.interrupted,
        )

    def live(self, state: LiveState, answered: Turn | None, now: float) -> LiveNote:
        """The live note for the pages that watch the call."""
        return LiveNote(
            call_sid=self.call_sid,
            at_ms=self.ms(now),
            floor=state.floor,
            floor_since=self._at(state.floor_since),
            speaker=state.speaker,
            partial=state.partial,
            latency_ms=None if answered is None else _latency_ms(answered),
        )

    def ended(self, reason: str, frames_held: int, now: float) -> StreamEnded:
        """The last entry, with all counters: nothing is counted after it."""
        counts = self.counters
        return StreamEnded(
            call_sid=self.call_sid,
            at=self._at(now),
            at_ms=self.ms(now),
            end_reason=reason,
            ended_by=end_reasons.ENDED_BY[reason],
            vapi_ended_reason=self.vapi_ended_reason,
            vapi_close_code=self.vapi_close_code,
            time_to_first_audio_ms=self._ms_or_none(self.first_audio),
            frames_to_assistant=counts["frames_to_assistant"],
            frames_to_caller=counts["frames_to_caller"],
            frames_held=frames_held,
            frames_dropped=counts["frames_dropped"],
            barge_ins=counts["barge_ins"],
            counters={name: count for name, count in sorted(counts.items()) if count},
        )

    def _ms_or_none(self, at: float | None) -> int | None:
        return None if at is None else self.ms(at)

    def _at(self, now: float) -> float:
        return self._started_wall + now - self._started_at


def _latency_ms(turn: Turn) -> int | None:
    return None if turn.first_audio is None else round((turn.first_audio - turn.end_of_speech) * 1000)
