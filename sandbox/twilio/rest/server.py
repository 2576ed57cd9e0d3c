"""Simulates Twilio's REST API: one account, its numbers and its calls, HTTP on one port.

It uses Twilio's wire format and validates requests strictly. A command for a call takes effect wherever
the call runs: in this process, or in one that has registered it (`registry_client`).

    async with TwilioRestSimulator(account_sid=ACCOUNT, auth_token=TOKEN) as api:
        ...  # TWILIO_BASE_URL=api.base_url
        api.faults = TwilioRestFaults(rest_status=429)
        await api.until(lambda: api.call("CA...").is_over)
"""

from collections.abc import Iterable
from typing import Self

from aiohttp import web

from sandbox.faults import TwilioRestFaults
from sandbox.twilio.rest.account_state import AccountState, OnAccountEvent
from sandbox.twilio.rest.handlers import RestHandlers
from sandbox.twilio.webhook_client import UrlResolver

ACCOUNT_SID = "AC" + "5a" * 16
AUTH_TOKEN = "sandbox-token"
NUMBER = "+15559870000"


class TwilioRestSimulator(AccountState):
    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        account_sid: str = ACCOUNT_SID,
        auth_token: str = AUTH_TOKEN,
        numbers: Iterable[str] = (NUMBER,),
        faults: TwilioRestFaults | None = None,
        # The server that outbound calls send webhooks to, and its public URL. Without either, only URLs on
        # loopback are requested.
        server_url: str = "",
        public_url: str = "",
        on_event: OnAccountEvent | None = None,
    ) -> None:
        super().__init__(
            account_sid=account_sid,
            auth_token=auth_token,
            numbers=numbers,
            faults=faults or TwilioRestFaults(),
            url_resolver=UrlResolver(server_url or "http://127.0.0.1", public_url or None),
            on_event=on_event,
        )
        self.host = host
        self.port = port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = RestHandlers(self).application()
        runner = self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, self.host, self.port).start()
        self.port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        self.stopping.set()
        self.cancel_timers()
        await self.cancel_tasks()
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}"
