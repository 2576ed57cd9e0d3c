"""Client that dials an assistant: `POST /call` and the socket in Vapi's response, or one configured socket.

Vapi's socket URL and control URL are secrets: whoever has them needs no key. Neither is logged or stored, and
both are requested at allowed hosts only. Redirects, proxies from the environment and compression are off.
Every wait has a deadline.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from bridge.allowed_hosts import AllowedHosts, ForbiddenUrl
from bridge.config import AudioFormat, BridgeConfig
from bridge.io.vapi_link import VapiLink
from bridge.io.vapi_socket import VapiSocket
from bridge.pinned_http import connect_tcp, post_json
from bridge.routes import Route
from bridge.wire import MalformedMessage, vapi

logger = logging.getLogger(__name__)

CREATE_SECONDS = 4.0
RETRY_PAUSE_SECONDS = 0.3
OPEN_SECONDS = 3.0
PONG_SECONDS = 5.0
CLOSE_SECONDS = 2.0
MAX_RESPONSE_BYTES = 1 << 20
MAX_MESSAGE_BYTES = 1 << 22  # a burst of audio, or the whole history of a long call
USER_AGENT = "voiceai/0.1 (+media bridge)"  # Vapi answers 403 to requests without a user agent
_RETRY_STATUSES = frozenset({429, 502, 503, 504})
_WS_SCHEMES = frozenset({"ws", "wss"})


class DialError(Exception):
    """The assistant could not be reached. The message contains no secrets: it may be logged and displayed."""

    def __init__(self, detail: str, *, status: int | None = None, call_id: str = "") -> None:
        super().__init__(detail)
        self.status = status  # Vapi's HTTP status, None without a response
        self.call_id = call_id  # Vapi's id of the call, if it created one


@dataclass(frozen=True, slots=True)
class DialRequest:
    """The call that needs an assistant, and the route that selects the assistant."""

    call_sid: str
    caller: str
    route: Route


class _NoRedirect(connect):
    """websockets follows redirects to other hosts; an allowed host must not be able to redirect us."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class VapiClient:
    """Opens links to assistants. One for each server process; its HTTP session opens with the first call."""

    def __init__(self, config: BridgeConfig) -> None:
        self._config = config
        self._hosts = AllowedHosts(config.vapi_allowed_hosts)
        self._http: aiohttp.ClientSession | None = None
        self._background: set[asyncio.Task[None]] = set()

    async def dial(self, request: DialRequest, is_wanted: Callable[[], bool]) -> VapiLink | None:
        """Open a link. Returns None when the call was no longer wanted by the time Vapi responded.

        Raises `DialError`. In both cases the call that Vapi may have created is ended, if that is possible.
        """
        if self._config.dialect == "socket":
            return await self._open_configured_socket(request)
        try:
            created = await self._create_call(request)
        except vapi.CallRefused as refusal:
            await self._end_by_control(refusal.created.control_url)
            detail = f"Vapi's response cannot be used: {refusal.kind}"
            raise DialError(detail, status=201, call_id=refusal.created.call_id) from None
        if not is_wanted():
            await self._end_by_control(created.control_url)
            return None
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                addresses = await self._hosts.resolve(created.socket_url, _WS_SCHEMES)
                socket = await self._open_socket(created.socket_url, addresses)
        except (DialError, ForbiddenUrl, TimeoutError, OSError) as error:
            await self._end_by_control(created.control_url)
            detail = str(error) or "Vapi's socket did not open in time"
            status = error.status if isinstance(error, DialError) else None
            raise DialError(detail, status=status, call_id=created.call_id) from None
        confirmed = created.audio_format
        return VapiLink(
            socket,
            AudioFormat(confirmed) if confirmed in set(AudioFormat) else self._config.vapi_audio_format,
            dialect="call",
            call_id=created.call_id,
            end_by_control=lambda: self._run_in_background(self._end_by_control(created.control_url)),
        )

    async def _open_configured_socket(self, request: DialRequest) -> VapiLink:
        socket = await self._open_socket(self._config.vapi_socket_url, None)
        first_message = vapi.assistant_request_text(request.route.assistant_id, request.call_sid)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await socket.send(first_message)
        except (TimeoutError, ConnectionClosed):
            await socket.close()
            raise DialError("the assistant's socket did not accept the first message") from None
        return VapiLink(socket, self._config.vapi_audio_format, dialect="socket")

    async def _create_call(self, request: DialRequest) -> vapi.CallCreated:
        """`POST /call` within 4 s, with one retry in that time for errors that may pass."""
        config, route = self._config, request.route
        body = vapi.CallRequest(
            assistant_id=route.assistant_id,
            call_sid=request.call_sid,
            caller=request.caller,
            route_id=route.id,
            audio_format=config.vapi_audio_format,
            max_call_seconds=route.max_call_seconds,
            endpointing_ms=route.endpointing_ms,
            record=route.record,
            server_url=f"{config.public_url}/vapi/events?callSid={request.call_sid}",
            server_secret=config.vapi_webhook_secret,
            overrides=route.overrides,
        ).body()
        try:
            async with asyncio.timeout(CREATE_SECONDS):
                try:
                    return await self._post_call(body)
                except aiohttp.ClientError:
                    pass
                except DialError as error:
                    if error.status not in _RETRY_STATUSES:
                        raise
                await asyncio.sleep(RETRY_PAUSE_SECONDS)
                return await self._post_call(body)
        except TimeoutError:
            raise DialError("Vapi did not answer POST /call in time") from None
        except aiohttp.ClientError as error:
            raise DialError(f"no connection to Vapi: {type(error).__name__}") from None

    async def _post_call(self, body: dict[str, object]) -> vapi.CallCreated:
        url = f"{self._config.vapi_base_url.rstrip('/')}/call"
        headers = {"Authorization": f"Bearer {self._config.vapi_api_key}"}
        async with self._session().post(url, json=body, headers=headers, allow_redirects=False) as response:
            content = await response.content.read(MAX_RESPONSE_BYTES + 1)
            while len(content) <= MAX_RESPONSE_BYTES and (
                more := await response.content.read(MAX_RESPONSE_BYTES)
            ):
                content += more
            if response.status not in (200, 201):
                reason = vapi.error_message(content[:2000])
                raise DialError(f"Vapi answered {response.status}: {reason}", status=response.status)
            if len(content) > MAX_RESPONSE_BYTES:
                raise DialError("Vapi's response is too long", status=response.status)
        try:
            return vapi.parse_call_created(content)
        except vapi.CallRefused:
            raise
        except MalformedMessage as error:
            raise DialError(f"Vapi's response is not valid: {error.kind}", status=response.status) from None

    async def _open_socket(self, url: str, addresses: Sequence[str] | None) -> VapiSocket:
        """Open a websocket, at one of `addresses` if the host was resolved before. Raises `DialError`."""
        options: dict[str, Any] = {}
        try:
            if addresses is not None:
                options["sock"] = await connect_tcp(addresses, urlsplit(url).port or 443)
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
                    **options,
                )
            except BaseException:
                if "sock" in options:
                    options["sock"].close()
                raise
        except InvalidStatus as error:
            status = error.response.status_code
            raise DialError(f"Vapi's socket answered {status}", status=status) from None
        except TimeoutError:
            raise DialError("Vapi's socket did not open in time") from None
        except (OSError, InvalidHandshake, InvalidURI, EOFError) as error:
            raise DialError(f"Vapi's socket did not open: {type(error).__name__}") from None
        assert isinstance(socket, VapiSocket)
        return socket

    def _run_in_background(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that completes even when the task that awaits it is cancelled."""
        task: asyncio.Task[None] = asyncio.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _end_by_control(self, control_url: str) -> None:
        """Send `end-call` to the control URL. Failures are logged, not raised: nothing else can be done."""
        if not control_url:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                message = json.loads(vapi.control_text(vapi.EndCall()))
                status = await post_json(control_url, message, self._hosts, user_agent=USER_AGENT)
                if status >= 300:
                    logger.warning("Vapi's control URL answered %d to end-call", status)
        except (aiohttp.ClientError, ForbiddenUrl, TimeoutError, OSError) as error:
            logger.warning("end-call by the control URL failed: %s", type(error).__name__)

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None or self._http.closed:
            self._http = aiohttp.ClientSession(trust_env=False, headers={"User-Agent": USER_AGENT})
        return self._http

    async def close(self) -> None:
        if self._background:
            await asyncio.wait(self._background, timeout=CLOSE_SECONDS)
        if self._http is not None:
            await self._http.close()
