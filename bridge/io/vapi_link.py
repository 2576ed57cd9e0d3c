"""One open websocket to an assistant: audio and control messages out, events in.

Two dialects behind one interface. **call**: Vapi's documented transport, raw binary audio and JSON events.
**socket**: everything is JSON, audio is base64. Audio is transcoded here: the rest of the bridge uses mu-law
at 8 kHz only. `vapi_client` opens links.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from bridge.audio.energy import is_audible
from bridge.audio.transcode import transcoder_for
from bridge.call.events import AssistantAudio, BadMessage
from bridge.config import AudioFormat
from bridge.io.vapi_socket import VapiSocket
from bridge.wire import MalformedMessage, vapi

END_CALL_SECONDS = 1.0
ANSWER_GAP_SECONDS = 0.15  # audio that pauses this long after an interruption belongs to a new answer

LinkEvent = AssistantAudio | BadMessage | vapi.Event


class VapiLink:
    """An open socket to an assistant."""

    def __init__(
        self,
        socket: VapiSocket,
        audio_format: AudioFormat,
        *,
        dialect: str,
        call_id: str = "",
        end_by_control: Callable[[], asyncio.Future[None]] | None = None,
    ) -> None:
        self.call_id = call_id  # Vapi's id of the call; empty in the socket dialect
        self._socket = socket
        self._transcoder = transcoder_for(audio_format)
        self._is_call_dialect = dialect == "call"
        self._end_by_control = end_by_control
        self._is_interrupted = False  # until audio resumes after a gap
        self._audio_at = 0.0  # when audio last arrived, by the loop's clock

    @property
    def is_open(self) -> bool:
        return self._socket.state is State.OPEN

    @property
    def close_code(self) -> int:
        """1006 when there was no close frame."""
        return self._socket.close_code or 1006

    async def send_audio(self, ulaw: bytes) -> None:
        payload = self._transcoder.to_assistant(ulaw)
        message = payload if self._is_call_dialect else vapi.audio_text(payload)
        if not self._socket.write(message):
            await self._socket.send(message)

    async def send_control(self, message: vapi.Control) -> None:
        if isinstance(message, vapi.Cancel):
            self._is_interrupted = True
        await self._socket.send(vapi.control_text(message))

    async def listen(self, on_event: Callable[[LinkEvent], None]) -> None:
        """Call `on_event` for everything that the assistant sends, until its socket closes."""

        def on_message(message: str | bytes) -> None:
            try:
                event = self._parse(message)
            except MalformedMessage as error:
                event = BadMessage("assistant", error.kind)
            if event is not None:
                on_event(event)

        await self._socket.listen(on_message)

    def _parse(self, message: str | bytes) -> LinkEvent | None:
        if isinstance(message, bytes):
            if not self._is_call_dialect:
                raise MalformedMessage("binary-frame")
            return self._audio(message)
        event = vapi.parse(message)
        if isinstance(event, vapi.Audio):
            if self._is_call_dialect:
                raise MalformedMessage("audio-as-text")
            return self._audio(event.payload)
        if isinstance(event, vapi.UserInterrupted):
            self._is_interrupted = True
        return event

    def _audio(self, payload: bytes) -> AssistantAudio | None:
        now = asyncio.get_running_loop().time()
        if self._is_interrupted and now - self._audio_at > ANSWER_GAP_SECONDS:
            # A new answer starts with a whole sample; the audio before the gap was the interrupted answer's.
            self._transcoder.interrupt()
            self._is_interrupted = False
        self._audio_at = now
        ulaw = self._transcoder.to_caller(payload)
        return AssistantAudio(ulaw, is_audible(ulaw)) if ulaw else None

    async def hang_up(self, how: str) -> None:
        """End the call at Vapi and close the socket.

        `how` is `end-call` to send that message first; `close` for a call that Vapi has ended already;
        `control` to use the control URL, because the socket is broken. A socket that no longer accepts
        `end-call` is treated as broken, too.
        """
        is_sent = False
        try:
            if how == "end-call":
                async with asyncio.timeout(END_CALL_SECONDS):
                    await self.send_control(vapi.EndCall())
                    is_sent = True
                    await self._socket.wait_closed()
        except (TimeoutError, ConnectionClosed):
            how = how if is_sent else "control"
        if how == "control" and self._end_by_control is not None:
            await self._end_by_control()
        await self._socket.close()
