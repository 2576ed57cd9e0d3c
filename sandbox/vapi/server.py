"""Simulates Vapi: REST API, control URLs and both kinds of socket, HTTP on one port.

It uses Vapi's wire format, validates requests strictly, sends audio and events as irregularly as Vapi does,
and keeps a record of every call, which tests compare with the product's own data. A client must create a
call before it can connect, may connect to it once, and must end it: a socket that only closes leaves the
call active and billed, which the record shows as `is_orphaned`.

    async with VapiSimulator(listen="energy") as vapi:
        ...  # VAPI_BASE_URL=vapi.base_url, or VAPI_SOCKET_URL=vapi.socket_url
        call = await vapi.call_for("CA...", timeout_seconds=5)
        await vapi.until(lambda: call.answers, timeout_seconds=5)
"""

from collections.abc import Sequence
from typing import Literal, Self

import aiohttp
from aiohttp import web

from sandbox.faults import VapiFaults
from sandbox.speech import audio
from sandbox.vapi.call_manager import CallManager, OnVapiCallEvent
from sandbox.vapi.handlers import add_rest_routes
from sandbox.vapi.recognizer import SpeechRecognizer, can_recognize
from sandbox.vapi.replies import caller_sentences
from sandbox.vapi.reports import Reporter
from sandbox.vapi.socket_handlers import add_socket_routes

MAX_BODY_BYTES = 1 << 20


class VapiSimulator(CallManager):
    """`listen`: "speech" recognizes the caller's words, "energy" takes the texts of `script` in turn."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str = "sandbox-key",
        seed: int = 0,
        faults: VapiFaults | None = None,
        listen: Literal["auto", "energy", "speech"] = "auto",
        script: Sequence[str] | None = None,
        on_event: OnVapiCallEvent | None = None,
    ) -> None:
        if listen == "speech" and not can_recognize():
            raise ValueError("listen='speech' needs the [speech] extra")
        uses_recognizer = listen == "speech" or (listen == "auto" and can_recognize())
        super().__init__(
            api_key=api_key,
            seed=seed,
            faults=faults or VapiFaults(),
            script=script if script is not None else caller_sentences(),
            recognizer=SpeechRecognizer() if uses_recognizer else None,
            on_event=on_event,
        )
        self.recognizes_words = uses_recognizer
        self.host = host
        self.port = port
        self._runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        audio.load_clips()  # read from disk now, not during the first turn
        self._http = aiohttp.ClientSession(trust_env=False)
        self._reporter = Reporter(self._http)
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        add_rest_routes(application, self)
        add_socket_routes(application, self)
        runner = self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, self.host, self.port).start()
        self.port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        await self._stop_calls()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._http is not None:
            await self._http.close()
        if self._recognizer is not None:
            await self._recognizer.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def socket_url(self) -> str:
        return f"ws://{self.host}:{self.port}/socket"
