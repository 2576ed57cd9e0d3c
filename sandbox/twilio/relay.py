"""The way from a process that carries calls to the one that serves the REST API: a websocket per call.

The API owns the book of calls. Whoever carries one opens `/sandbox/lines` there, says whose it is, reports
each change of its status, and gets the orders that somebody posted for it. A call whose way is cut goes on
and takes no more orders; the API enters it as over.
"""

import asyncio
import contextlib

import aiohttp

from sandbox.twilio.exchange import CallFacts, Give, News, NoExchange, order_from_wire, to_wire

CONNECT_SECONDS = 3.0
CLOSE_SECONDS = 3.0
NEWS_WAITING = 100
LINES_PATH = "/sandbox/lines"


class RemoteExchange:
    def __init__(self, base_url: str, account_sid: str, auth_token: str) -> None:
        self._url = base_url.rstrip("/") + LINES_PATH
        self._headers = {"Authorization": aiohttp.encode_basic_auth(account_sid, auth_token)}

    async def connect(self, facts: CallFacts, give: Give) -> "RemoteConnection":
        http = aiohttp.ClientSession(trust_env=False)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                ws = await http.ws_connect(self._url, headers=self._headers, max_msg_size=1 << 16)
                await ws.send_json(to_wire(facts))
                await ws.receive_json()  # from here on orders find the call
        except (aiohttp.ClientError, OSError, TimeoutError, TypeError, ValueError) as error:
            await http.close()
            raise NoExchange(f"{type(error).__name__}") from None
        except BaseException:
            await http.close()
            raise
        return RemoteConnection(http, ws, give)


class RemoteConnection:
    def __init__(self, http: aiohttp.ClientSession, ws: aiohttp.ClientWebSocketResponse, give: Give) -> None:
        self._http = http
        self._ws = ws
        self._give = give
        self._news: asyncio.Queue[News | None] = asyncio.Queue(NEWS_WAITING)  # None: that was all
        self._reader = asyncio.create_task(self._read())
        self._writer = asyncio.create_task(self._write())

    def report(self, news: News) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._news.put_nowait(news)

    async def close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._news.put(None)
                await self._writer
                await self._ws.close()
        except TimeoutError:
            pass  # the other side learns it from the end of the connection
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
                if (order := order_from_wire(message.json())) is not None:
                    self._give(order)

    async def _write(self) -> None:
        while (news := await self._news.get()) is not None:
            try:
                await self._ws.send_json(to_wire(news))
            except (aiohttp.ClientError, OSError):
                return
