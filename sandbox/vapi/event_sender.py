"""Sends the events of one conversation, in the order and with the delays observed on the real service.

The caller's `stopped` is sent 0.7 s late, often after the assistant's `started`; the assistant's `started`
is sent 0.15 s before its first sound.
"""

import asyncio
import time
from typing import Any

from sandbox.faults import VapiFaults
from sandbox.vapi.dialects import Transport
from sandbox.vapi.record import VapiCallRecord
from sandbox.vapi.reply_player import ReplyPlayer

USER_STARTED_DELAY_SECONDS = 0.36
ASSISTANT_FINAL_DELAY_SECONDS = 0.16
JUNK_MESSAGES = ('{"type":"tomorrow.invented","x":[1]}', '{"type":"transcript"', "[]", '"?"', "{}")


class EventSender:
    def __init__(self, call: VapiCallRecord, transport: Transport, faults: VapiFaults) -> None:
        self._call = call
        self._transport = transport
        self._faults = faults
        self._turn = 0
        self._user_started_sent = 0  # number of the last utterance whose start was sent
        self.stalled = False  # send no more events (`stall_after_turns`)

    async def send_call_started(self) -> None:
        await self._send({"type": "status-update", "status": "in-progress"})
        await self._send({"type": "assistant.started", "newAssistant": {"name": "sandbox"}})

    async def send_call_ended(self, reason: str) -> None:
        await self._send({"type": "status-update", "status": "ended", "endedReason": reason})

    async def send_tool_called(self, tool_call: dict[str, Any]) -> None:
        await self._send({"type": "tool-calls", "toolCallList": [tool_call]})

    async def send_user_started_late(self, number: int, started_at: float) -> None:
        await sleep_until(started_at + USER_STARTED_DELAY_SECONDS)
        await self.send_user_started(number)

    async def send_user_started(self, number: int) -> None:
        if number > self._user_started_sent:  # a barge-in sends it early
            self._user_started_sent = number
            await self._speech_update("user", "started")

    async def send_user_stopped_late(self, ended_at: float) -> None:
        await sleep_until(ended_at + self._faults.user_stopped_late_ms / 1000)
        await self._speech_update("user", "stopped")

    async def send_reply_started(self, player: ReplyPlayer) -> None:
        self._turn += 1
        await self._send({"type": "model-output", "output": player.reply.text, "turnId": player.turn_id})
        await self._send({"type": "voice-input", "input": player.reply.text, "turn": self._turn})
        await self._speech_update("assistant", "started")

    async def send_reply_ended(self, player: ReplyPlayer, utterance_number: int) -> None:
        """After a barge-in: the interruption first, then the words spoken until then."""
        if player.interrupted:
            if not self._faults.no_interrupted:
                await self._send({"type": "user-interrupted", "turnId": player.turn_id})
            await self.send_user_started(utterance_number)
        await self._speech_update("assistant", "stopped")
        words = player.spoken_words()
        if words:
            await self.send_transcript("assistant", words, "partial")
        if player.reply.cut_at is None:
            await sleep_until(time.monotonic() + ASSISTANT_FINAL_DELAY_SECONDS)
        if words:
            await self.send_transcript("assistant", words, "final")
        transcripts = self._call.all_transcripts[-50:]
        messages = [{"role": speaker, "content": text} for _, speaker, text in transcripts]
        await self._send({"type": "conversation-update", "conversation": messages})

    async def send_transcript(self, speaker: str, words: str, kind: str) -> None:
        role = "user" if speaker == "caller" else "assistant"
        event = {"type": "transcript", "role": role, "transcriptType": kind, "transcript": words}
        now = time.monotonic()
        if await self._send(event) and kind == "final":
            self._call.transcripts.append((now, speaker, words))
        if kind == "final":
            self._call.all_transcripts.append((now, speaker, words))

    async def send_junk(self) -> None:
        if self._faults.junk_events and not self.stalled:
            for text in JUNK_MESSAGES:
                await self._transport.send_raw(text)

    async def _speech_update(self, role: str, status: str) -> None:
        await self._send({"type": "speech-update", "status": status, "role": role, "turn": self._turn})

    async def _send(self, event: dict[str, Any]) -> bool:
        return not self.stalled and await self._transport.send_event(event)


async def sleep_until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - time.monotonic()))
