"""The assistant leg: reaching Vapi, one open socket to it, and leaving it properly.

Two dialects behind one interface. **call**: `POST /call`, then the socket it names; raw binary audio.
**socket**: one configured address; audio as base64 JSON. Transcoding happens here, at the door: inside
the bridge there is only mu-law.

Vapi's socket URL needs no key: it *is* the key, and so is the control URL. Neither is logged, kept in a
row, or followed anywhere but to an allowed host; redirects are refused, proxies from the environment and
compression are off. Every wait has a deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.protocol import State

from bridge.allowed_hosts import AllowedHosts, ForbiddenUrl, public_address
from bridge.audio.energy import is_audible
from bridge.audio.transcode import transcoder_for
from bridge.call.events import AssistantAudio, BadMessage
from bridge.config import AudioFormat, BridgeConfig
from bridge.io.vapi_socket import VapiSocket
from bridge.routes import Route
from bridge.wire import MalformedMessage, vapi

log = logging.getLogger(__name__)

CREATE_SECONDS = 4.0
RETRY_PAUSE_SECONDS = 0.3
OPEN_SECONDS = 3.0
PONG_SECONDS = 5.0
GOODBYE_SECONDS = 1.0
CLOSE_SECONDS = 2.0
MAX_ANSWER_BYTES = 1 << 20
MAX_MESSAGE_BYTES = 1 << 22  # a burst of audio, or the whole history of a long call
ANSWER_GAP_SECONDS = 0.15  # audio that pauses so long after an interruption belongs to a new answer
USER_AGENT = "voiceai/0.1 (+media bridge)"  # without one Vapi's front door answers 403
_RETRIED = frozenset({429, 502, 503, 504})
_WS = frozenset({"ws", "wss"})
_HTTP = frozenset({"http", "https"})

LinkEvent = AssistantAudio | BadMessage | vapi.Event


class Unreachable(Exception):
    """Dialling failed. The message is fit for a log, a row and a page."""

    def __init__(self, detail: str, *, status: int | None = None, call_id: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.call_id = call_id


@dataclass(frozen=True, slots=True)
class Dialled:
    """Whom to reach, for which call."""

    call_sid: str
    caller: str
    route: Route


class AssistantLink:
    """One open socket to an assistant."""

    def __init__(
        self,
        socket: VapiSocket,
        audio_format: AudioFormat,
        *,
        dialect: str,
        call_id: str = "",
        end_by_control: Callable[[], asyncio.Future[None]] | None = None,
    ) -> None:
        self.call_id = call_id
        self._socket = socket
        self._transcoder = transcoder_for(audio_format)
        self._is_call = dialect == "call"
        self._end_by_control = end_by_control
        self._interrupted = False  # until audio resumes after a gap
        self._audio_at = 0.0  # when audio last arrived

    @property
    def is_open(self) -> bool:
        return self._socket.state is State.OPEN

    @property
    def close_code(self) -> int:
        """1006 when there was no close frame."""
        return self._socket.close_code or 1006

    async def send_audio(self, ulaw: bytes) -> None:
        payload = self._transcoder.to_assistant(ulaw)
        message = payload if self._is_call else vapi.audio_text(payload)
        if not self._socket.write(message):
            await self._socket.send(message)

    async def send_control(self, message: vapi.Control) -> None:
        if isinstance(message, vapi.Cancel):
            self._interrupted = True
        await self._socket.send(vapi.control_text(message))

    async def listen(self, hear: Callable[[LinkEvent], None]) -> None:
        """Tell what the assistant sends, until its socket closes."""

        def take(frame: str | bytes) -> None:
            try:
                event = self._event(frame)
            except MalformedMessage as problem:
                event = BadMessage("assistant", problem.kind)
            if event is not None:
                hear(event)

        await self._socket.listen(take)

    def _event(self, frame: str | bytes) -> LinkEvent | None:
        if isinstance(frame, bytes):
            if not self._is_call:
                raise MalformedMessage("binary-frame")
            return self._audio(frame)
        event = vapi.parse(frame)
        if isinstance(event, vapi.Audio):
            if self._is_call:
                raise MalformedMessage("audio-as-text")
            return self._audio(event.payload)
        if isinstance(event, vapi.UserInterrupted):
            self._interrupted = True
        return event

    def _audio(self, payload: bytes) -> AssistantAudio | None:
        now = asyncio.get_running_loop().time()
        if self._interrupted and now - self._audio_at > ANSWER_GAP_SECONDS:
            # A new answer begins with a whole sample; late chunks of the old one may have come before it.
            self._transcoder.cut_off()
            self._interrupted = False
        self._audio_at = now
        ulaw = self._transcoder.to_caller(payload)
        return AssistantAudio(ulaw, is_audible(ulaw)) if ulaw else None

    async def hang_up(self, how: str) -> None:
        """Leave: `end-call` first, `close` when the assistant is done already, `control` when its
        socket is broken. A socket that cannot carry `end-call` any more is ended by control too."""
        told = False
        try:
            if how == "end-call":
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self.send_control(vapi.EndCall())
                    told = True
                    await self._socket.wait_closed()
        except (TimeoutError, ConnectionClosed):
            how = how if told else "control"
        if how == "control" and self._end_by_control is not None:
            await self._end_by_control()
        await self._socket.close()


class _NoRedirect(connect):
    """websockets follows redirects to other hosts; an allowed host must not be able to send us there."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class VapiClient:
    """Reaches assistants. One for the server's life; its HTTP session opens with the first call."""

    def __init__(self, config: BridgeConfig) -> None:
        self._config = config
        self._hosts = AllowedHosts(config.vapi_allowed_hosts)
        self._http: aiohttp.ClientSession | None = None
        self._chores: set[asyncio.Task[None]] = set()

    async def dial(self, whom: Dialled, wanted: Callable[[], bool]) -> AssistantLink | None:
        """An open link. None when the call was no longer `wanted`, and Vapi's side of it was ended.

        Raises `Unreachable`; then, too, nothing of the call is left at Vapi if it can be helped.
        """
        config = self._config
        if config.dialect == "socket":
            socket = await self._open(config.vapi_socket_url, pinned=None)
            hello = vapi.assistant_request_text(whom.route.assistant_id, whom.call_sid)
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await socket.send(hello)
            except (TimeoutError, ConnectionClosed):
                await socket.close()
                raise Unreachable("the assistant's socket took no hello") from None
            return AssistantLink(socket, config.vapi_audio_format, dialect="socket")
        try:
            created = await self._create(whom)
        except vapi.CallRefused as refusal:
            await self._end_by_control(refusal.created.control_url)
            detail = f"Vapi's answer cannot be used: {refusal.kind}"
            raise Unreachable(detail, status=201, call_id=refusal.created.call_id) from None
        if not wanted():
            await self._end_by_control(created.control_url)
            return None
        try:
            must_be_public = self._hosts.check(created.socket_url, _WS)
            parts = urlsplit(created.socket_url)
            async with asyncio.timeout(OPEN_SECONDS):
                pinned = await public_address(parts.hostname or "", 443) if must_be_public else None
                socket = await self._open(created.socket_url, pinned=pinned)
        except (Unreachable, ForbiddenUrl, TimeoutError, OSError) as error:
            await self._end_by_control(created.control_url)
            detail = str(error) or "Vapi's socket did not open in time"
            status = error.status if isinstance(error, Unreachable) else None
            raise Unreachable(detail, status=status, call_id=created.call_id) from None
        echoed = created.audio_format
        return AssistantLink(
            socket,
            AudioFormat(echoed) if echoed in set(AudioFormat) else config.vapi_audio_format,
            dialect="call",
            call_id=created.call_id,
            end_by_control=lambda: self._chore(created.control_url),
        )

    async def _create(self, whom: Dialled) -> vapi.CallCreated:
        """`POST /call`, 4 s in all, one retry within them where a retry can help."""
        config, route = self._config, whom.route
        body = vapi.CallRequest(
            assistant_id=whom.route.assistant_id,
            call_sid=whom.call_sid,
            caller=whom.caller,
            route_id=route.id,
            audio_format=config.vapi_audio_format,
            max_call_seconds=route.max_call_seconds,
            endpointing_ms=route.endpointing_ms,
            record=route.record,
            server_url=f"{config.public_url}/vapi/events?callSid={whom.call_sid}",
            server_secret=config.vapi_webhook_secret,
            overrides=route.overrides,
        ).body()
        try:
            async with asyncio.timeout(CREATE_SECONDS):
                try:
                    return await self._post_call(body)
                except aiohttp.ClientError:
                    pass
                except Unreachable as refusal:
                    if refusal.status not in _RETRIED:
                        raise
                await asyncio.sleep(RETRY_PAUSE_SECONDS)
                return await self._post_call(body)
        except TimeoutError:
            raise Unreachable("Vapi did not answer POST /call in time") from None
        except aiohttp.ClientError as error:
            raise Unreachable(f"no connection to Vapi: {type(error).__name__}") from None

    async def _post_call(self, body: dict[str, object]) -> vapi.CallCreated:
        url = f"{self._config.vapi_base_url.rstrip('/')}/call"
        headers = {"Authorization": f"Bearer {self._config.vapi_api_key}"}
        async with self._session().post(url, json=body, headers=headers, allow_redirects=False) as response:
            answer = await response.content.read(MAX_ANSWER_BYTES + 1)
            while len(answer) <= MAX_ANSWER_BYTES and (more := await response.content.read(MAX_ANSWER_BYTES)):
                answer += more
            if response.status not in (200, 201):
                said = vapi.error_message(answer[:2000])
                raise Unreachable(f"Vapi answered {response.status}: {said}", status=response.status)
            if len(answer) > MAX_ANSWER_BYTES:
                raise Unreachable("Vapi's answer is absurdly long", status=response.status)
        try:
            return vapi.parse_call_created(answer)
        except vapi.CallRefused:
            raise
        except MalformedMessage as problem:
            raise Unreachable(
                f"Vapi's answer is unreadable: {problem.kind}", status=response.status
            ) from None

    async def _open(self, url: str, pinned: str | None) -> VapiSocket:
        address: dict[str, Any] = {} if pinned is None else {"host": pinned}
        try:
            socket = await _NoRedirect(
                url,
                create_connection=VapiSocket,
                compression=None,  # audio does not shrink
                proxy=None,
                open_timeout=OPEN_SECONDS,
                close_timeout=CLOSE_SECONDS,
                ping_interval=self._config.vapi_ping_seconds,
                ping_timeout=PONG_SECONDS,
                max_size=MAX_MESSAGE_BYTES,
                user_agent_header=USER_AGENT,
                **address,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            raise Unreachable(f"Vapi's socket answered {status}", status=status) from None
        except TimeoutError:
            raise Unreachable("Vapi's socket did not open in time") from None
        except (OSError, InvalidHandshake, InvalidURI, EOFError) as error:
            raise Unreachable(f"Vapi's socket did not open: {type(error).__name__}") from None
        assert isinstance(socket, VapiSocket)
        return socket

    def _chore(self, control_url: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._end_by_control(control_url))
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task

    async def _end_by_control(self, control_url: str) -> None:
        """Ends a call whose socket is no good. Logs, never raises: nobody is left to be told."""
        if not control_url:
            return
        try:
            must_be_public = self._hosts.check(control_url, _HTTP)
            async with asyncio.timeout(CLOSE_SECONDS):
                if must_be_public:
                    await public_address(urlsplit(control_url).hostname or "", 443)
                message = vapi.control_text(vapi.EndCall())
                headers = {"Content-Type": "application/json"}
                async with self._session().post(
                    control_url, data=message, headers=headers, allow_redirects=False
                ) as response:
                    if response.status >= 300:
                        log.warning("Vapi's control URL answered %d to end-call", response.status)
        except (aiohttp.ClientError, ForbiddenUrl, TimeoutError, OSError) as error:
            log.warning("end-call by control failed: %s", type(error).__name__)

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None or self._http.closed:
            self._http = aiohttp.ClientSession(trust_env=False, headers={"User-Agent": USER_AGENT})
        return self._http

    async def close(self) -> None:
        if self._chores:
            await asyncio.wait(self._chores, timeout=CLOSE_SECONDS)
        if self._http is not None:
            await self._http.close()
