"""What one call tells the journal, worded as entries.

The session says what happened and when, in monotonic seconds; the report knows whose call it is and when
its stream began, numbers what there are many of, and answers with the entry. It keeps the counters, too,
which go into the last entry.

A peer can make neither the journal nor the counters grow without end: happenings beyond MAX_HAPPENED are
dropped and counted, names beyond MAX_KINDS are counted together as `other`.

Pure: the time is an argument, monotonic seconds; the wall clock is told once, with the stream's start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bridge import end_reasons
from bridge.call.live_state import LiveNotes
from bridge.call.turns import Turn
from bridge.call.utterances import Spoken
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

MAX_HAPPENED = 1000
MAX_KINDS = 64


class CallReport:
    """The entries of one call. Until a stream has started, there is nothing that could happen to it."""

    def __init__(self, now: float, worker: str = "") -> None:
        self.call_sid = ""
        self.stream_sid = ""
        self.counters: Counter[str] = Counter()
        self.first_audio: float | None = None  # when the call's first assistant audio was sent
        self.vapi_ended_reason = ""
        self.vapi_close_code: int | None = None
        self._worker = worker
        self._zero = now  # the stream's start: 0 ms
        self._wall = 0.0  # the same moment on the wall clock
        self._utterances = 0
        self._happenings = 0

    def ms(self, at: float) -> int:
        """Milliseconds since the stream's start."""
        return round((at - self._zero) * 1000)

    def count(self, name: str) -> None:
        """Count under a name that a peer had a hand in: a bounded number of names."""
        if name in self.counters or len(self.counters) < MAX_KINDS:
            self.counters[name] += 1
        else:
            self.counters["other"] += 1

    def started(self, call_sid: str, stream_sid: str, at: float, now: float) -> StreamStarted:
        self.call_sid, self.stream_sid = call_sid, stream_sid
        self._zero, self._wall = now, at
        return StreamStarted(call_sid, at, stream_sid, self._worker)

    def refused(self, call_sid: str, at: float, reason: str) -> StreamRefused:
        self.call_sid = call_sid
        return StreamRefused(call_sid, at, reason)

    def answered(self, vapi_call_id: str, frames_held: int, now: float) -> AssistantAnswered:
        return AssistantAnswered(self.call_sid, self._at(now), self.ms(now), vapi_call_id, frames_held)

    def happened(self, kind: str, now: float, data: Mapping[str, Any]) -> TimelineEvent | None:
        if not self.stream_sid:
            return None
        if self._happenings >= MAX_HAPPENED:
            self.counters["happenings_dropped"] += 1
            return None
        self._happenings += 1
        return TimelineEvent(self.call_sid, self._happenings - 1, kind, self.ms(now), data)

    def utterance(self, speaker: vapi.Speaker, text: str, spoken: Spoken) -> UtteranceSpoken:
        self._utterances += 1
        return UtteranceSpoken(
            call_sid=self.call_sid,
            index=self._utterances - 1,
            speaker=speaker,
            text=text,
            started_ms=self._ms_or_none(spoken.started),
            ended_ms=self._ms_or_none(spoken.ended),
            interrupted=spoken.interrupted,
            unheard_ms=None if spoken.unheard is None else round(spoken.unheard * 1000),
        )

    def turn(self, turn: Turn) -> TurnTaken:
        """The turn as far as it is known; the same number again replaces it."""
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

    def live(self, notes: LiveNotes, answered: Turn | None, now: float) -> LiveNote:
        """What those who watch the call should see now."""
        return LiveNote(
            call_sid=self.call_sid,
            at_ms=self.ms(now),
            floor=notes.floor,
            floor_since=self._at(notes.floor_since),
            speaker=notes.speaker,
            partial=notes.partial,
            latency_ms=None if answered is None else _latency_ms(answered),
        )

    def ended(self, reason: str, frames_held: int, now: float) -> StreamEnded:
        """The sum of it all: whatever is to be counted must have been counted before."""
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
        return self._wall + now - self._zero


def _latency_ms(turn: Turn) -> int | None:
    return None if turn.first_audio is None else round((turn.first_audio - turn.end_of_speech) * 1000)
