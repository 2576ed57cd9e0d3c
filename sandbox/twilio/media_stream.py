"""The carrier's end of a media stream: the socket, the 20 ms clock, the playback buffer, the caller.

Five tasks live as long as the socket: the pump sends a frame every 20 ms by an absolute clock (late frames
catch up, nothing drifts), the reader obeys the server's messages, the echo returns marks when they are due,
and the caller does its script. The stream is over when the reader or the caller is done,
or when the carrier has an order to obey.

`CarrierDials` make the carrier misbehave, as networks and strangers do.
"""

import asyncio
import contextlib
import select
import socket
import struct
import uuid
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Literal

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from sandbox.twilio import messages
from sandbox.twilio.caller import FRAME_S, Caller, Step, Tell, Voice
from sandbox.twilio.handshake import MAX_UNSENT_BYTES
from sandbox.twilio.playback import Playback
from sandbox.twilio.record import CallRecord, EndedBy, ReceivedAudio, SentFrame

LOOK_FOR_HANG_UP_S = 0.1
FORGED = "forged"


@dataclass(frozen=True, slots=True)
class CarrierDials:
    """How the carrier misbehaves. Seconds count from `start`."""

    no_stop: bool = False  # the caller hangs up and the socket closes without `stop`
    vanish_after_s: float | None = None  # neither sends nor reads any more, and leaves the socket open
    drop_after_s: float | None = None  # TCP reset, no close frame
    bad_ticket: bool = False  # the parameter named like a ticket holds something else
    no_start: bool = False  # `connected`, and then nothing
    double_start: bool = False
    wrong_stream_sid_after: float | None = None  # caller frames then name another stream
    skip_signature: bool = False
    bad_signature: bool = False
    # Where the two above apply.
    signature_faults: Literal["everywhere", "webhooks", "stream"] = "everywhere"
    dial_status: str = "completed"  # DialCallStatus
    dial_s: float = 0.0  # how long the person who was dialled talks


class MediaStream:
    def __init__(
        self,
        ws: ClientConnection,
        record: CallRecord,
        voice: Voice,
        dials: CarrierDials,
        tell: Tell,
        ordered: asyncio.Event,
    ) -> None:
        self.record = record
        self.voice = voice
        self.playback = Playback()
        self.closed = asyncio.Event()
        self.started_at = 0.0
        self._dials = dials
        self._tell = tell
        self._ws = ws
        self._seq = 0
        self._stream_sid = record.stream_sid = "MZ" + uuid.uuid4().hex
        self._marks_changed = asyncio.Event()
        self._ordered = ordered  # set when the carrier is to end the stream
        self._silent = False  # nothing more is said into the socket
        self._vanished = False  # nor read from it
        self._ended_at: float | None = None  # when the caller hung up; closing takes its time
        self._slow = False  # 31930 was noted

    async def run(self, script: Sequence[Step], limit_s: float) -> EndedBy:
        """From `connected` to the closed socket; says who ended it. At the limit the caller hangs up."""
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._ws.send(messages.connected())
            self.started_at = monotonic()
            reader = asyncio.create_task(self._read())
            tasks.append(reader)
            if not self._dials.no_start:
                await self._start()
            caller = asyncio.create_task(self._perform(script))
            ordered = asyncio.create_task(self._until_ordered())
            tasks += [caller, ordered, *(asyncio.create_task(fate) for fate in self._fates())]
            async with asyncio.timeout(limit_s):
                await _first_of({reader, caller, ordered}, tasks)
            if not reader.done():
                by_order = not caller.done()
                if not by_order:
                    self._tell("hung-up", {})
                await self._hang_up()
                return "carrier" if by_order else "caller"
        except ConnectionClosed:
            pass
        except TimeoutError:
            self.record.trouble(0, f"the call reached its limit of {limit_s:.0f} s")
            self._tell("hung-up", {})
            await self._hang_up()
            return "caller"
        finally:
            await _end(tasks)
            self._finish(monotonic())
            self._ws.transport.abort()
        return "server" if self._ws.protocol.close_rcvd is not None else "lost"

    async def _until_ordered(self) -> None:
        await self._ordered.wait()

    async def _perform(self, script: Sequence[Step]) -> None:
        if self._dials.no_start:
            await self.closed.wait()
        else:
            await Caller(self, self._tell).perform(script)

    async def press(self, digit: str) -> None:
        await self._send(messages.dtmf(self._next_seq(), self._stream_sid, digit))
        self.record.digits += digit
        self._tell("digit", {"digit": digit})

    async def send_raw(self, raw: str | bytes) -> None:
        await self._send(raw)

    async def _start(self) -> None:
        params = dict(self.record.params)
        if self._dials.bad_ticket:
            params = {name: FORGED if "ticket" in name.lower() else value for name, value in params.items()}
        for _ in range(2 if self._dials.double_start else 1):
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

    async def _pump(self) -> None:
        chunk, number, audible = 0, 0, False
        while True:
            number += 1
            # Also when late: without a breath the other tasks would wait for the catching up.
            await asyncio.sleep(max(0.0, self.started_at + number * FRAME_S - monotonic()))
            if self._silent:
                return
            ulaw = self.voice.next_frame()
            now = monotonic()
            if self._ws.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
                self._drop_frame()
            else:
                chunk += 1
                seq = self._next_seq()
                text = messages.media(seq, self._sid_at(now), chunk, number * 20 - 15, ulaw)
                await self._send(text)
                self.record.frames.append(SentFrame(seq, chunk, now, ulaw))
            self.voice.frame_sent(now)
            was_audible, audible = audible, self.playback.is_audible(now)
            if audible and not was_audible:
                self._tell("heard-audio", {"at_ms": round((now - self.started_at) * 1000)})

    def _drop_frame(self) -> None:
        self.record.frames_dropped += 1
        if not self._slow:
            self._slow = True
            self.record.trouble(31930, "the server reads too slowly; caller audio is thrown away")

    def _sid_at(self, now: float) -> str:
        after = self._dials.wrong_stream_sid_after
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
                except messages.Refused as error:
                    self.record.trouble(error.code, str(error))
                    continue
                await self._obey(message, now)
        except ConnectionClosed:
            self.closed.set()

    async def _obey(self, message: messages.Accepted, now: float) -> None:
        match message:
            case messages.PlayAudio(ulaw):
                self.record.received.append(ReceivedAudio(now, ulaw))
                if not self.playback.play(ulaw, now) and 31931 not in self.record.error_codes:
                    self.record.trouble(31931, "more than ten minutes of audio queued")
            case messages.PlaceMark(name):
                self.record.marks.append(self.playback.mark(name, now))
                self._marks_changed.set()
            case messages.Clear():
                dropped, marks = self.playback.clear(now)
                self.record.clears.append((now, dropped))
                self._tell("cleared", {"dropped_ms": dropped // 8, "marks": len(marks)})
                for note in marks:
                    note.echoed_at = monotonic()
                    await self._send(messages.mark(self._next_seq(), self._stream_sid, note.name))

    async def _echo_marks(self) -> None:
        while True:
            due_at = self.playback.next_mark_at()
            wait_s = None if due_at is None else max(0.0, due_at - monotonic())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._marks_changed.wait(), wait_s)
            self._marks_changed.clear()
            for note in self.playback.take_due_marks(monotonic()):
                note.echoed_at = monotonic()
                await self._send(messages.mark(self._next_seq(), self._stream_sid, note.name))

    def _fates(self) -> list[Coroutine[None, None, None]]:
        """All that goes on beside the reader and the caller."""
        fates = [] if self._dials.no_start else [self._pump(), self._echo_marks()]
        if self._dials.drop_after_s is not None:
            fates.append(self._drop(self._dials.drop_after_s))
        if self._dials.vanish_after_s is not None:
            fates.append(self._vanish(self._dials.vanish_after_s))
        return fates

    async def _drop(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        # Not to linger makes closing a reset instead of an orderly end.
        sock = self._ws.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._ws.transport.abort()

    async def _vanish(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._silent = self._vanished = True
        self._ws.transport.pause_reading()
        # Who does not read never learns of a close frame; but the kernel knows when the other side is gone.
        poll = select.poll()
        poll.register(self._ws.transport.get_extra_info("socket").fileno(), getattr(select, "POLLRDHUP", 0))
        while not poll.poll(0):
            await asyncio.sleep(LOOK_FOR_HANG_UP_S)
        self._ws.transport.abort()

    async def _hang_up(self) -> None:
        self._ended_at = monotonic()
        if self._vanished:
            return
        self._silent = True
        if not self._dials.no_stop:
            text = messages.stop(
                self._next_seq(), self._stream_sid, self.record.account_sid, self.record.call_sid
            )
            await self._send(text)
        await self._ws.close(1000)

    def _finish(self, now: float) -> None:
        """The socket is gone, and what is queued with it."""
        record = self.record
        ended_at = now if self._ended_at is None else self._ended_at
        record.unheard_bytes = self.playback.stop(ended_at)
        record.heard = self.playback.heard(self.started_at, ended_at)
        record.heard_segments = self.playback.segments()
        record.closed_at = now
        record.close_code, record.close_reason = self._ws.close_code, self._ws.close_reason or ""
        self._tell("closed", {"code": record.close_code})

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    async def _send(self, raw: str | bytes) -> None:
        """After the end nobody is there to be sent anything; the reader sees to the rest."""
        with contextlib.suppress(ConnectionClosed):
            await self._ws.send(raw)


async def _first_of(enders: set[asyncio.Task[None]], tasks: list[asyncio.Task[None]]) -> None:
    """Until one of the enders is done. What goes wrong in any task comes out here, at once."""
    pending = set(tasks)
    while not any(ender.done() for ender in enders):
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
