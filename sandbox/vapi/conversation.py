"""One conversation of the stand-in: it greets, listens, answers after a drawn delay, and can be cut off.

Shell and rules in one, because here time is the subject: every step happens at a moment counted from what
was heard, and the moments of the events carry the quirks seen on the real service (the caller's `stopped`
comes 0.7 s late, often after the assistant's `started`, which in turn comes 0.15 s before its first sound).
The record in `call` is the truth.

One piece of speech at a time holds the floor; what the assistant is told to say waits for it. A barge-in
cuts the speech between two chunks, then the interruption is told, then the words spoken so far.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from sandbox.faults import AssistantDials
from sandbox.speech.audio import Clip, Pcm
from sandbox.vapi.dialects import Line
from sandbox.vapi.record import AssistantCall, Reply
from sandbox.vapi.replies import FAREWELL, STAND_IN, Repertoire
from sandbox.vapi.speech_detector import Ears, SpeechBegan, SpeechEnded
from sandbox.vapi.speech_output import Unpacker, plan_clip
from sandbox.vapi.voice import Voice

IN_PROGRESS_AFTER_S = 0.14
USER_STARTED_LATE_S = 0.36
USER_FINAL_LATE_S = 0.45
STARTED_EARLY_S = 0.15
ASSISTANT_FINAL_LATE_S = 0.16
BARGE_IN_MS = 200
TASKS_LIMIT = 100
HAND_OVER = "transfer_call"  # the tool that is called when the caller asks for a person

Understand = Callable[[int, Pcm, int], Awaitable[str]]
CallTool = Callable[[dict[str, Any]], None]  # asks the server for its result


class Conversation:
    """`end` is called with an ended reason when the assistant's side wants the call to be over."""

    def __init__(
        self,
        call: AssistantCall,
        line: Line,
        *,
        dials: AssistantDials,
        seed: str,
        understand: Understand,
        end: Callable[[str], None],
        overrides: dict[str, Any] | None = None,
        call_tool: CallTool | None = None,
    ) -> None:
        self.call = call
        self._line = line
        self._dials = dials
        self._delays = random.Random(f"{seed}/delays")
        self._chunks = random.Random(f"{seed}/chunks")
        self._understand = understand
        self._end = end
        self._call_tool = call_tool
        self._waits = (overrides or {}).get("firstMessageMode") == "assistant-waits-for-user"
        self._repertoire = Repertoire()
        first = (overrides or {}).get("firstMessage", call.first_message)
        self._greeting = self._repertoire.greeting_for(first)
        self._unpack = Unpacker(line.audio_format)
        self._ears = Ears(line.audio_format.rate)
        self._floor = asyncio.Lock()
        self._voice: Voice | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard = 0  # utterances of the caller
        self._turn = 0
        self._begun = 0  # of them begun, not all ended
        self._begun_told = 0
        self._stalled = False
        self._muted: set[str] = set()

    # What happens to it

    def begin(self) -> None:
        self._spawn(self._open())
        for at_s, code in ((self._dials.close_at_s, self._dials.close_code), (self._dials.abort_at_s, 1006)):
            if at_s is not None:
                self._spawn(self._close_at(at_s, code))
        if self._dials.end_at_s is not None:
            self._spawn(self._end_at(self._dials.end_at_s))

    def hear(self, payload: bytes, at: float) -> None:
        self.call.keep_received(payload, at)
        if "customer" in self._muted:
            return
        for heard in self._ears.feed(self._unpack(payload), at):
            match heard:
                case SpeechBegan():
                    self._stalled |= len(self.call.answers) == self._dials.stall_after_turns
                    self._begun += 1
                    self._spawn(self._tell_user_started(self._begun, heard.at))
                case SpeechEnded():
                    self._heard += 1
                    self._spawn(self._tell_user_stopped(heard.at))
                    self._spawn(self._answer(heard, self._heard))
        voice = self._voice
        if voice is None or not (self._line.interrupts and voice.interruptible):
            return
        overlap_s = self._ears.loud_at - max(self._ears.began_at, voice.start)
        if self._ears.speech_ms >= BARGE_IN_MS and overlap_s >= BARGE_IN_MS / 1000 - 0.02 and voice.cut(at):
            voice.interrupted = True
            self.call.interrupted_at.append(at)
            self.call.note("= barge-in")

    def told(self, message: dict[str, Any]) -> bool:
        """A message of the socket or of the control URL; False when it is of no known kind."""
        match message:
            case {"type": "end-call"}:
                self.call.end_call_at = time.monotonic()
                self._end("customer-ended-call")
            case {"type": "say", "content": str(content)}:
                if message.get("interruptAssistantEnabled"):
                    self._silence()
                after = (
                    "assistant-ended-call-after-message-spoken" if message.get("endCallAfterSpoken") else ""
                )
                self._spawn(self._speak(self._repertoire.for_text(content), content, then=after))
            case {"type": "add-message", "message": {"content": content}}:
                if message.get("triggerResponseEnabled", True):
                    clip = self._repertoire.for_words(str(content))
                    self._spawn(self._speak(clip, clip.text))
            case {"type": "control", "control": str(control)}:
                self._controlled(control)
            case {"type": "cancel"}:
                self._silence()
                self.call.cancelled_at.append(time.monotonic())
            case _:
                return False
        return True

    async def finish(self, reason: str) -> None:
        """Last event, close 1000. Nothing is said after it."""
        await self.stop()
        await self._event({"type": "status-update", "status": "ended", "endedReason": reason})
        await self._line.close(1000)

    async def leave(self) -> None:
        """The stand-in is going away."""
        await self.stop()
        await self._line.close(1001)

    async def stop(self) -> None:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _controlled(self, control: str) -> None:
        verb, _, whom = control.partition("-")
        if verb == "mute":
            self._muted.add(whom)
            if whom == "assistant":
                self._silence()
        elif verb == "unmute":
            self._muted.discard(whom)
        elif control == "say-first-message":
            self._spawn(self._speak(self._greeting, self._greeting.text))

    def _silence(self) -> None:
        if self._voice is not None:
            self._voice.cut(time.monotonic())

    # What it does

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        if len(self._tasks) >= TASKS_LIMIT:
            work.close()
            self.call.note("! too much to do at once")
            return
        task = asyncio.create_task(_done(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self) -> None:
        opened_at = time.monotonic()
        await _until(opened_at + IN_PROGRESS_AFTER_S)
        await self._event({"type": "status-update", "status": "in-progress"})
        await self._event({"type": "assistant.started", "newAssistant": {"name": "sandbox"}})
        await self._junk()
        await _until(opened_at + self._dials.first_audio_delay_s - STARTED_EARLY_S)
        if self._dials.greets and not self._waits:
            greeting = self._greeting
            await self._speak(greeting, greeting.text, interruptible=self._dials.greeting_interruptible)

    async def _answer(self, heard: SpeechEnded, number: int) -> None:
        delay_ms = self._delays.randint(*self._dials.delay_ms)
        words = await self._understand(number, heard.pcm, self._line.audio_format.rate)
        self.call.utterances.append((heard.began_at, heard.at, words))
        self.call.note("< speech")
        if words:
            await self._transcript("caller", words, "partial")
        # The final comes before the answer's own events, however short the delay.
        await _until(heard.at + min(USER_FINAL_LATE_S, delay_ms / 1000 - STARTED_EARLY_S - 0.03))
        if words:
            await self._transcript(
                "caller", words + ("\x00\ud800" if self._dials.junk_events else ""), "final"
            )
        await self._junk()
        clip = self._repertoire.for_words(words)
        spoke = await self._speak(
            clip,
            clip.text,
            delay_ms=delay_ms,
            caller_ended_at=heard.at,
            utterance=number,
            then="assistant-ended-call" if clip.name == FAREWELL else "",
        )
        if spoke and clip.name == STAND_IN and HAND_OVER in self.call.tools:
            await self._use_tool(HAND_OVER, {"reason": words})

    async def _use_tool(self, name: str, arguments: dict[str, Any]) -> None:
        """As Vapi does: told on the socket, and asked of the server."""
        function = {"name": name, "arguments": arguments}
        asked = {"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function}
        self.call.tool_calls.append(asked)
        await self._event({"type": "tool-calls", "toolCallList": [asked]})
        if self._call_tool is not None:
            self._call_tool(asked)

    async def _speak(
        self,
        clip: Clip,
        text: str,
        *,
        delay_ms: int | None = None,
        caller_ended_at: float | None = None,
        utterance: int | None = None,
        interruptible: bool = True,
        then: str = "",
    ) -> bool:
        """Whether all of it was spoken."""
        audio_format = self._line.audio_format
        plan = plan_clip(
            clip, audio_format, self._chunks, burst=self._dials.burst, odd=self._dials.odd_chunks
        )
        async with self._floor:
            start = time.monotonic() + (STARTED_EARLY_S if caller_ended_at is None else 0.0)
            if caller_ended_at is not None and delay_ms is not None:
                start = max(start, caller_ended_at + delay_ms / 1000 - plan.audible_due_s)
                await _until(start - STARTED_EARLY_S)
            if utterance is not None and (utterance != self._heard or self._ears.speech_ms >= BARGE_IN_MS):
                return False  # the caller went on talking: only the last utterance is answered
            if self._stalled or "assistant" in self._muted:
                return False
            reply = Reply(clip.name, text, delay_ms, caller_ended_at)
            voice = self._voice = Voice(reply, plan, interruptible=interruptible, start=start)
            self.call.replies.append(reply)
            try:
                await self._announce(voice)
                await voice.perform(self._line.audio, lambda: self.call.note(f"> audio {clip.name}"))
            finally:
                self._voice = None
            await self._conclude(voice)
            if then and reply.cut_at is None:
                self._end(then)
            return reply.cut_at is None

    async def _announce(self, voice: Voice) -> None:
        self._turn += 1
        await self._event({"type": "model-output", "output": voice.reply.text, "turnId": voice.turn_id})
        await self._event({"type": "voice-input", "input": voice.reply.text, "turn": self._turn})
        await self._speech_update("assistant", "started")

    async def _conclude(self, voice: Voice) -> None:
        if voice.interrupted:
            if not self._dials.no_interrupted:
                await self._event({"type": "user-interrupted", "turnId": voice.turn_id})
            await self._user_has_started(self._begun)
        await self._speech_update("assistant", "stopped")
        said = voice.words_said()
        if said:
            await self._transcript("assistant", said, "partial")
        if voice.reply.cut_at is None:
            await _until(time.monotonic() + ASSISTANT_FINAL_LATE_S)
        if said:
            await self._transcript("assistant", said, "final")
        messages = [{"role": speaker, "content": words} for _, speaker, words in self.call.said[-50:]]
        await self._event({"type": "conversation-update", "conversation": messages})
        self.call.note(f"= said {voice.reply.clip}")

    # What it tells

    async def _tell_user_started(self, number: int, began_at: float) -> None:
        await _until(began_at + USER_STARTED_LATE_S)
        await self._user_has_started(number)

    async def _user_has_started(self, number: int) -> None:
        if number > self._begun_told:  # a barge-in tells it early
            self._begun_told = number
            await self._speech_update("user", "started")

    async def _tell_user_stopped(self, ended_at: float) -> None:
        await _until(ended_at + self._dials.user_stopped_late_ms / 1000)
        await self._speech_update("user", "stopped")

    async def _speech_update(self, role: str, status: str) -> None:
        await self._event({"type": "speech-update", "status": status, "role": role, "turn": self._turn})

    async def _transcript(self, speaker: str, words: str, kind: str) -> None:
        role = "user" if speaker == "caller" else "assistant"
        event = {"type": "transcript", "role": role, "transcriptType": kind, "transcript": words}
        now = time.monotonic()
        if await self._event(event) and kind == "final":
            self.call.transcripts.append((now, speaker, words))
        if kind == "final":
            self.call.said.append((now, speaker, words))

    async def _event(self, event: dict[str, Any]) -> bool:
        return not self._stalled and await self._line.event(event)

    async def _junk(self) -> None:
        if self._dials.junk_events and not self._stalled:
            for text in ('{"type":"tomorrow.invented","x":[1]}', '{"type":"transcript"', "[]", '"?"', "{}"):
                await self._line.raw(text)

    async def _close_at(self, after_s: float, code: int) -> None:
        await asyncio.sleep(after_s)
        await self._line.close(code)

    async def _end_at(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._end(self._dials.ended_reason)


async def _until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - time.monotonic()))


async def _done(work: Coroutine[Any, Any, object]) -> None:
    await work
