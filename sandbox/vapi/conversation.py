"""One conversation of the Vapi simulator: it greets, answers after a random delay, stops on barge-in.

Every step happens at a time that is counted from the audio received.

Replies are spoken one at a time; further replies wait. A barge-in stops a reply between two chunks: the
interruption is sent, then a final transcript with the words spoken so far.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from sandbox.faults import VapiFaults
from sandbox.speech.audio import Clip, Pcm
from sandbox.vapi.dialects import Transport
from sandbox.vapi.event_sender import EventSender, sleep_until
from sandbox.vapi.record import Reply, VapiCallRecord
from sandbox.vapi.replies import FAREWELL, TRANSFER, ReplyClips
from sandbox.vapi.reply_player import ReplyPlayer
from sandbox.vapi.speech_detector import SpeechDetector, SpeechEnded, SpeechStarted
from sandbox.vapi.speech_output import SampleDecoder, plan_clip

IN_PROGRESS_DELAY_SECONDS = 0.14
FLOOD_PAUSE_SECONDS = 1 / 60  # between two seconds of audio
USER_FINAL_DELAY_SECONDS = 0.45
STARTED_EVENT_LEAD_SECONDS = 0.15
BARGE_IN_MS = 200
MAX_TASKS = 100
TRANSFER_TOOL = "transfer_call"  # called when the caller asks for a person

Recognize = Callable[[int, Pcm, int], Awaitable[str]]
CallTool = Callable[[dict[str, Any]], None]  # requests the tool's result from the server


class Conversation:
    """`end` is called with an ended reason when the assistant ends the call."""

    def __init__(
        self,
        call: VapiCallRecord,
        transport: Transport,
        *,
        faults: VapiFaults,
        seed: str,
        recognize: Recognize,
        end: Callable[[str], None],
        overrides: dict[str, Any] | None = None,
        call_tool: CallTool | None = None,
    ) -> None:
        self.call = call
        self._transport = transport
        self._faults = faults
        self._delay_rng = random.Random(f"{seed}/delays")
        self._chunk_rng = random.Random(f"{seed}/chunks")
        self._recognize = recognize
        self._end = end
        self._call_tool = call_tool
        self._waits_for_user = (overrides or {}).get("firstMessageMode") == "assistant-waits-for-user"
        self._reply_clips = ReplyClips()
        first_message = (overrides or {}).get("firstMessage", call.first_message)
        self._greeting = self._reply_clips.greeting_for(first_message)
        self._decode = SampleDecoder(transport.audio_format)
        self._detector = SpeechDetector(transport.audio_format.rate)
        self._events = EventSender(call, transport, faults)
        self._speaking = asyncio.Lock()
        self._player: ReplyPlayer | None = None
        self._tasks: set[asyncio.Task[object]] = set()
        self._started_utterances = 0  # of the caller; the last one may not have ended
        self._ended_utterances = 0
        self._muted: set[str] = set()

    # Input

    def start(self) -> None:
        faults = self._faults
        self._spawn(self._greet())
        for after_seconds, code in (
            (faults.close_after_seconds, faults.close_code),
            (faults.abort_after_seconds, 1006),
        ):
            if after_seconds is not None:
                self._spawn(self._close_after(after_seconds, code))
        if faults.end_after_seconds is not None:
            self._spawn(self._end_after(faults.end_after_seconds))
        if faults.flood:
            self._spawn(self._flood())

    def receive_audio(self, payload: bytes, at: float) -> None:
        self.call.record_audio(payload, at)
        if "customer" in self._muted:
            return
        for event in self._detector.feed(self._decode(payload), at):
            match event:
                case SpeechStarted():
                    self._events.stalled |= len(self.call.answers) == self._faults.stall_after_turns
                    self._started_utterances += 1
                    self._spawn(self._events.send_user_started_late(self._started_utterances, event.at))
                case SpeechEnded():
                    self._ended_utterances += 1
                    self._spawn(self._events.send_user_stopped_late(event.at))
                    self._spawn(self._answer(event, self._ended_utterances))
        self._detect_barge_in(at)

    def _detect_barge_in(self, at: float) -> None:
        player, detector = self._player, self._detector
        if player is None or not (self._transport.detects_barge_in and player.interruptible):
            return
        overlap_seconds = detector.loud_at - max(detector.started_at, player.start_at)
        is_long_enough = detector.speech_ms >= BARGE_IN_MS and overlap_seconds >= BARGE_IN_MS / 1000 - 0.02
        if is_long_enough and player.cut(at):
            player.interrupted = True
            self.call.interrupted_at.append(at)
            self.call.emit("= barge-in")

    def handle_message(self, message: dict[str, Any]) -> bool:
        """A message from the socket or the control URL; False if its type is unknown."""
        match message:
            case {"type": "end-call"}:
                self.call.end_call_at = time.monotonic()
                self._end("customer-ended-call")
            case {"type": "say", "content": str(content)}:
                if message.get("interruptAssistantEnabled"):
                    self._stop_speaking()
                end_reason = (
                    "assistant-ended-call-after-message-spoken" if message.get("endCallAfterSpoken") else ""
                )
                clip = self._reply_clips.clip_for_text(content)
                self._spawn(self._speak(clip, content, end_reason=end_reason))
            case {"type": "add-message", "message": {"content": content}}:
                if message.get("triggerResponseEnabled", True):
                    clip = self._reply_clips.answer_to(str(content))
                    self._spawn(self._speak(clip, clip.text))
            case {"type": "control", "control": str(control)}:
                self._handle_control(control)
            case {"type": "cancel"}:
                self._stop_speaking()
                self.call.cancelled_at.append(time.monotonic())
            case _:
                return False
        return True

    async def finish(self, reason: str) -> None:
        """Send the last event, then close with 1000."""
        await self.stop()
        await self._events.send_call_ended(reason)
        await self._transport.close(1000)

    async def shut_down(self) -> None:
        """The simulator stops."""
        await self.stop()
        await self._transport.close(1001)

    async def stop(self) -> None:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _handle_control(self, control: str) -> None:
        action, _, party = control.partition("-")
        if action == "mute":
            self._muted.add(party)
            if party == "assistant":
                self._stop_speaking()
        elif action == "unmute":
            self._muted.discard(party)
        elif control == "say-first-message":
            self._spawn(self._speak(self._greeting, self._greeting.text))

    def _stop_speaking(self) -> None:
        if self._player is not None:
            self._player.cut(time.monotonic())

    # Output

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        if len(self._tasks) >= MAX_TASKS:
            work.close()
            self.call.emit("! too many tasks")
            return
        # Not in a wrapper: if that were cancelled before its first step, the work would never be awaited.
        task: asyncio.Task[object] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _greet(self) -> None:
        opened_at = time.monotonic()
        await sleep_until(opened_at + IN_PROGRESS_DELAY_SECONDS)
        await self._events.send_call_started()
        await self._events.send_junk()
        await sleep_until(opened_at + self._faults.first_audio_delay_seconds - STARTED_EVENT_LEAD_SECONDS)
        if self._faults.greets and not self._waits_for_user:
            greeting = self._greeting
            await self._speak(greeting, greeting.text, interruptible=self._faults.greeting_interruptible)

    async def _answer(self, speech: SpeechEnded, number: int) -> None:
        delay_ms = self._delay_rng.randint(*self._faults.delay_ms)
        words = await self._recognize(number, speech.pcm, self._transport.audio_format.rate)
        self.call.utterances.append((speech.started_at, speech.at, words))
        self.call.emit("< speech")
        if words:
            await self._events.send_transcript("caller", words, "partial")
        # The final is sent before the events of the answer, however short the delay is.
        latest_seconds = delay_ms / 1000 - STARTED_EVENT_LEAD_SECONDS - 0.03
        await sleep_until(speech.at + min(USER_FINAL_DELAY_SECONDS, latest_seconds))
        if words:
            junk = "\x00\ud800" if self._faults.junk_events else ""
            await self._events.send_transcript("caller", words + junk, "final")
        await self._events.send_junk()
        clip = self._reply_clips.answer_to(words)
        is_complete = await self._speak(
            clip,
            clip.text,
            delay_ms=delay_ms,
            caller_ended_at=speech.at,
            utterance=number,
            end_reason="assistant-ended-call" if clip.name == FAREWELL else "",
        )
        if is_complete and clip.name == TRANSFER and TRANSFER_TOOL in self.call.tools:
            await self._use_tool(TRANSFER_TOOL, {"reason": words})

    async def _use_tool(self, name: str, arguments: dict[str, Any]) -> None:
        """Send a `tool-calls` event on the socket, and the tool call to the server."""
        function = {"name": name, "arguments": arguments}
        tool_call = {"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function}
        self.call.tool_calls.append(tool_call)
        await self._events.send_tool_called(tool_call)
        if self._call_tool is not None:
            self._call_tool(tool_call)

    async def _speak(
        self,
        clip: Clip,
        text: str,
        *,
        delay_ms: int | None = None,
        caller_ended_at: float | None = None,
        utterance: int | None = None,
        interruptible: bool = True,
        end_reason: str = "",
    ) -> bool:
        """Speak a reply. False if it was not spoken completely. `end_reason` ends the call after it."""
        plan = plan_clip(
            clip,
            self._transport.audio_format,
            self._chunk_rng,
            burst=self._faults.burst,
            odd=self._faults.odd_chunks,
        )
        async with self._speaking:
            start_at = time.monotonic() + (STARTED_EVENT_LEAD_SECONDS if caller_ended_at is None else 0.0)
            if caller_ended_at is not None and delay_ms is not None:
                start_at = max(start_at, caller_ended_at + delay_ms / 1000 - plan.audible_due_seconds)
                await sleep_until(start_at - STARTED_EVENT_LEAD_SECONDS)
            if utterance is not None and self._caller_continued(utterance):
                return False  # only the caller's last utterance is answered
            if self._events.stalled or "assistant" in self._muted:
                return False
            reply = Reply(clip.name, text, delay_ms, caller_ended_at)
            player = self._player = ReplyPlayer(reply, plan, interruptible=interruptible, start_at=start_at)
            self.call.replies.append(reply)
            try:
                await self._events.send_reply_started(player)
                await player.play(self._transport.send_audio, lambda: self.call.emit(f"> audio {clip.name}"))
            finally:
                self._player = None
            await self._events.send_reply_ended(player, self._started_utterances)
            self.call.emit(f"= said {clip.name}")
            if end_reason and reply.cut_at is None:
                self._end(end_reason)
            return reply.cut_at is None

    def _caller_continued(self, utterance: int) -> bool:
        return utterance != self._ended_utterances or self._detector.speech_ms >= BARGE_IN_MS

    async def _close_after(self, seconds: float, code: int) -> None:
        await asyncio.sleep(seconds)
        await self._transport.close(code)

    async def _flood(self) -> None:
        chunk = b"\x10\x20" * (self._transport.audio_format.bytes_per_second // 2)
        while True:
            await self._transport.send_audio(chunk)
            await asyncio.sleep(FLOOD_PAUSE_SECONDS)

    async def _end_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._end(self._faults.ended_reason)
