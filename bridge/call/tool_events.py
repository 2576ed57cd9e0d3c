"""Tool calls of the assistant: puts each on the timeline, and plays the tones of `send_dtmf`.

The tones are played here because only this process has the media stream. `calls/vapi/tools.py` runs the tools
and returns their results to Vapi. Pure.
"""

from __future__ import annotations

from collections import deque

from bridge.audio import dtmf
from bridge.call.events import SendToCaller
from bridge.call.output import CallOutput
from bridge.call.playout import Playout
from bridge.tool_calls import SEND_DTMF, ToolCall, keys_of

CHUNK_BYTES = 800  # 100 ms of tones in a message
MAX_REMEMBERED = 100  # ids of tool calls, because Vapi may send one twice


class ToolEvents:
    """The tool calls of one call."""

    def __init__(self, output: CallOutput, playout: Playout) -> None:
        self._output = output
        self._playout = playout
        self._seen: deque[str] = deque(maxlen=MAX_REMEMBERED)

    def handle(self, call: ToolCall, now: float) -> None:
        if call.id in self._seen:
            return
        if call.id:  # without one, each is a call of its own
            self._seen.append(call.id)
        self._output.record("tool-called", now, tool=call.name)
        if call.name == SEND_DTMF:
            self._play_tones(call, now)

    def _play_tones(self, call: ToolCall, now: float) -> None:
        try:
            keys = keys_of(call)
        except ValueError:
            self._output.counters["keys_refused"] += 1
            return
        ulaw = dtmf.tones(keys)
        for start in range(0, len(ulaw), CHUNK_BYTES):
            chunk = ulaw[start : start + CHUNK_BYTES]
            self._playout.queue(len(chunk), now)
            self._output.do(SendToCaller(chunk, False, None))
        self._output.counters["keys_played"] += len(keys)
        self._output.record("keys-played", now, keys=keys)
