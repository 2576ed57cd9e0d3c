"""Registers calls of this process with a REST API simulator in another process: a websocket for each call.

The REST API simulator keeps all calls of the account. The process that runs a call connects to
`/sandbox/calls`, sends the call's details and each change of its status, and receives the commands that
were posted for it. If the connection breaks, the call continues but receives no more commands, and the REST
API simulator marks it as completed.
"""

import asyncio
import contextlib

import aiohttp

from sandbox.twilio.call_registry import (
    REGISTRY_PATH,
    CallDetails,
    OnCommand,
    RegistryUnavailable,
    StatusUpdate,
    command_from_json,
    to_json,
)

CONNECT_SECONDS = 3.0
CLOSE_SECONDS = 3.0
MAX_QUEUED_UPDATES = 100


class RemoteCallRegistry:
    def __init__(self, base_url: str, account_sid: str, auth_token: str) -> None:
        self._url = base_url.rstrip("/") + REGISTRY_PATH
        self._headers = {"Authorization": aiohttp.encode_basic_auth(account_sid, auth_token)}

    async def connect(self, details: CallDetails, on_command: OnCommand) -> "RemoteConnection":
        http = aiohttp.ClientSession(trust_env=False)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                ws = await http.ws_connect(self._url, headers=self._headers, max_msg_size=1 << 16)
                await ws.send_json(to_json(details))
                await ws.receive_json()  # from now on commands reach the call
        except (aiohttp.ClientError, OSError, TimeoutError, TypeError, ValueError) as error:
            await http.close()
            raise RegistryUnavailable(f"{type(error).__name__}") from None
        except BaseException:
            await http.close()
            raise
        return RemoteConnection(http, ws, on_command)


class RemoteConnection:
    def __init__(
        self, http: aiohttp.ClientSession, ws: aiohttp.ClientWebSocketResponse, on_command: OnCommand
    ) -> None:
        self._http = http
        self._ws = ws
        self._on_command = on_command
        self._updates: asyncio.Queue[StatusUpdate | None] = asyncio.Queue(MAX_QUEUED_UPDATES)  # None: the end
        self._reader = asyncio.create_task(self._read())
        self._writer = asyncio.create_task(self._write())

    def report(self, update: StatusUpdate) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._updates.put_nowait(update)

    async def close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._updates.put(None)
                await self._writer
                await self._ws.close()
        except TimeoutError:
            pass  # the server notices the closed connection
        finally:
            self._reader.cancel()
            self._writer.cancel()
            await asyncio.gather(self._reader, self._writer, return_exceptions=True)
            await self._http.close()

    async def _read(self) -> None:
        async for message in self._ws:
            if message.type != aiohttp.WSMsgType.TEXT:
                return
            with contextlib.suppress(ValueError):
                if (command := command_from_json(message.json())) is not None:
                    self._on_command(command)

    async def _write(self) -> None:
        while (update := await self._updates.get()) is not None:
            try:
                await self._ws.send_json(to_json(update))
            except (aiohttp.ClientError, OSError):
                return
