"""Twilio's end of a media stream: the socket, the 20 ms clock, the playback buffer, the caller.

Five tasks run while the socket is open. They send a frame every 20 ms (by an absolute clock, so that late
frames catch up and the rate does not drift), handle the server's messages, return marks when they are due,
perform the caller's script, and wait for a REST command. The stream is over when the socket closes,
when the script ends, or when a REST command arrives.

`TwilioFaults` selects faults of the network and of clients.
"""

import asyncio
import contextlib
import select
import socket
import struct
import uuid
from collections.abc import Coroutine, Sequence
from time import monotonic

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from sandbox.faults import TwilioFaults
from sandbox.twilio import messages
from sandbox.twilio.caller import FRAME_SECONDS, Caller, CallerAudio, OnCallerEvent, Step
from sandbox.twilio.handshake import MAX_UNSENT_BYTES
from sandbox.twilio.playback import Playback
from sandbox.twilio.record import EndedBy, MarkRecord, ReceivedAudio, SentFrame, TwilioCallRecord

HANGUP_POLL_SECONDS = 0.1
FORGED_TICKET = "forged"


class MediaStream:
    def __init__(
        self,
        ws: ClientConnection,
        record: TwilioCallRecord,
        audio: CallerAudio,
        faults: TwilioFaults,
        on_event: OnCallerEvent,
        command_received: asyncio.Event,
    ) -> None:
        self.record = record
        self.audio = audio
        self.playback = Playback()
        self.closed = asyncio.Event()
        self.started_at = 0.0
        self._faults = faults
        self._on_event = on_event
        self._ws = ws
        self._seq = 0
        self._stream_sid = record.stream_sid = "MZ" + uuid.uuid4().hex
        self._marks_changed = asyncio.Event()
        self._command_received = command_received  # a REST command: end the stream
        self._stopped_sending = False
        self._stopped_reading = False
        self._ended_at: float | None = None  # when the caller hung up; the socket closes later
        self._slow_reader_logged = False  # 31930 is recorded once

    async def run(self, script: Sequence[Step], limit_seconds: float) -> EndedBy:
        """From `connected` to the closed socket; returns who ended it. At the limit the caller hangs up."""
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._ws.send(messages.connected())
            self.started_at = monotonic()
            reader = asyncio.create_task(self._read())
            tasks.append(reader)
            if not self._faults.no_start:
                await self._start()
            caller = asyncio.create_task(self._perform(script))
            command = asyncio.create_task(self._wait_for_command())
            tasks += [caller, command, *(asyncio.create_task(work) for work in self._background_work())]
            async with asyncio.timeout(limit_seconds):
                await _wait_for_first({reader, caller, command}, tasks)
            if not reader.done():
                by_command = not caller.done()
                if not by_command:
                    self._on_event("hung-up", {})
                await self._hang_up()
                return "rest-api" if by_command else "caller"
        except ConnectionClosed:
            pass
        except TimeoutError:
            self.record.add_error(0, f"the call reached its limit of {limit_seconds:.0f} s")
            self._on_event("hung-up", {})
            await self._hang_up()
            return "caller"
        finally:
            await _cancel(tasks)
            self._finish(monotonic())
            self._ws.transport.abort()
        return "server" if self._ws.protocol.close_rcvd is not None else "lost"

    async def _wait_for_command(self) -> None:
        await self._command_received.wait()

    async def _perform(self, script: Sequence[Step]) -> None:
        if self._faults.no_start:
            await self.closed.wait()
        else:
            await Caller(self, self._on_event).perform(script)

    async def press(self, digit: str) -> None:
        await self._send(messages.dtmf(self._next_seq(), self._stream_sid, digit))
        self.record.digits += digit
        self._on_event("digit", {"digit": digit})

    async def send_raw(self, raw: str | bytes) -> None:
        await self._send(raw)

    async def _start(self) -> None:
        params = dict(self.record.params)
        if self._faults.bad_ticket:
            params |= {name: FORGED_TICKET for name in params if "ticket" in name.lower()}
        for _ in range(2 if self._faults.double_start else 1):
            await self._send(
                messages.start(
                    self._next_seq(),
                    self._stream_sid,
                    self.record.account_sid,
                    self.record.call_sid,
                    params,
                )
            )
        self.started_at = monotonic()
        self.record.started_at = self.started_at

    async def _send_audio(self) -> None:
        chunk, number, audible = 0, 0, False
        while True:
            number += 1
            # Sleep even when late: otherwise the other tasks would not run while this one catches up.
            await asyncio.sleep(max(0.0, self.started_at + number * FRAME_SECONDS - monotonic()))
            if self._stopped_sending:
                return
            ulaw = self.audio.next_frame()
            now = monotonic()
            if self._ws.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
                self._drop_frame()
            else:
                chunk += 1
                seq = self._next_seq()
                text = messages.media(seq, self._sid_at(now), chunk, number * 20 - 15, ulaw)
                await self._send(text)
                self.record.frames.append(SentFrame(seq, chunk, now, ulaw))
            self.audio.frame_sent(now)
            was_audible, audible = audible, self.playback.is_audible(now)
            if audible and not was_audible:
                self._on_event("heard-audio", {"at_ms": round((now - self.started_at) * 1000)})

    def _drop_frame(self) -> None:
        self.record.frames_dropped += 1
        if not self._slow_reader_logged:
            self._slow_reader_logged = True
            self.record.add_error(31930, "the server reads too slowly; caller audio was dropped")

    def _sid_at(self, now: float) -> str:
        after = self._faults.wrong_stream_sid_after_seconds
        if after is not None and now - self.started_at >= after:
            return "MZ" + "f" * 32
        return self._stream_sid

    async def _read(self) -> None:
        try:
            while True:
                raw = await self._ws.recv()
                now = monotonic()
                try:
                    message = messages.read(raw, self._stream_sid)
                except messages.InvalidMessage as error:
                    self.record.add_error(error.code, str(error))
                    continue
                await self._handle(message, now)
        except ConnectionClosed:
            self.closed.set()

    async def _handle(self, message: messages.ServerMessage, now: float) -> None:
        match message:
            case messages.PlayAudio(ulaw):
                self.record.received.append(ReceivedAudio(now, ulaw))
                if not self.playback.play(ulaw, now) and 31931 not in self.record.error_codes:
                    self.record.add_error(31931, "more than ten minutes of audio are queued")
            case messages.PlaceMark(name):
                self.record.marks.append(self.playback.mark(name, now))
                self._marks_changed.set()
            case messages.Clear():
                dropped, marks = self.playback.clear(now)
                self.record.clears.append((now, dropped))
                self._on_event("cleared", {"dropped_ms": dropped // 8, "marks": len(marks)})
                for mark in marks:
                    await self._echo(mark)

    async def _echo_marks(self) -> None:
        while True:
            due_at = self.playback.next_mark_at()
            wait_seconds = None if due_at is None else max(0.0, due_at - monotonic())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._marks_changed.wait(), wait_seconds)
            self._marks_changed.clear()
            for mark in self.playback.take_due_marks(monotonic()):
                await self._echo(mark)

    async def _echo(self, mark: MarkRecord) -> None:
        mark.echoed_at = monotonic()
        await self._send(messages.mark(self._next_seq(), self._stream_sid, mark.name))

    def _background_work(self) -> list[Coroutine[None, None, None]]:
        """Work of the remaining tasks: sending audio, returning marks, injected faults."""
        work = [] if self._faults.no_start else [self._send_audio(), self._echo_marks()]
        if self._faults.drop_after_seconds is not None:
            work.append(self._drop(self._faults.drop_after_seconds))
        if self._faults.vanish_after_seconds is not None:
            work.append(self._vanish(self._faults.vanish_after_seconds))
        return work

    async def _drop(self, after_seconds: float) -> None:
        await asyncio.sleep(after_seconds)
        # With linger time 0, closing sends a TCP reset.
        sock = self._ws.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._ws.transport.abort()

    async def _vanish(self, after_seconds: float) -> None:
        await asyncio.sleep(after_seconds)
        self._stopped_sending = self._stopped_reading = True
        self._ws.transport.pause_reading()
        # Without reading there is no close frame; but the kernel knows when the peer has closed.
        poll = select.poll()
        poll.register(self._ws.transport.get_extra_info("socket").fileno(), getattr(select, "POLLRDHUP", 0))
        while not poll.poll(0):
            await asyncio.sleep(HANGUP_POLL_SECONDS)
        self._ws.transport.abort()

    async def _hang_up(self) -> None:
        self._ended_at = monotonic()
        if self._stopped_reading:
            return
        self._stopped_sending = True
        if not self._faults.no_stop:
            text = messages.stop(
                self._next_seq(), self._stream_sid, self.record.account_sid, self.record.call_sid
            )
            await self._send(text)
        await self._ws.close(1000)

    def _finish(self, now: float) -> None:
        """Complete the record: the socket is closed, and queued audio is lost."""
        record = self.record
        ended_at = now if self._ended_at is None else self._ended_at
        record.unheard_bytes = self.playback.stop(ended_at)
        record.heard = self.playback.heard(self.started_at, ended_at)
        record.heard_segments = self.playback.segments()
        record.closed_at = now
        record.close_code, record.close_reason = self._ws.close_code, self._ws.close_reason or ""
        self._on_event("closed", {"code": record.close_code})

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    async def _send(self, raw: str | bytes) -> None:
        """Ignores a closed socket: the reader handles it."""
        with contextlib.suppress(ConnectionClosed):
            await self._ws.send(raw)


async def _wait_for_first(end_tasks: set[asyncio.Task[None]], tasks: list[asyncio.Task[None]]) -> None:
    """Wait until one of `end_tasks` is done. Raises the exception of any task at once."""
    pending = set(tasks)
    while not any(task.done() for task in end_tasks):
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
