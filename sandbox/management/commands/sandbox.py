"""`manage.py sandbox`: the stand-ins for Vapi and for Twilio's REST API, until Ctrl-C, a line for each event.

The account at Twilio is made up, unless the settings lead to a stand-in already: then it is the one that
they name, so that a server and this command can share one configuration. Their real account is never used.
"""

import asyncio
import signal
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from sandbox.faults import CarrierApiDials
from sandbox.twilio.rest_server import ACCOUNT_SID, AUTH_TOKEN, NUMBER, CarrierApi
from sandbox.vapi.record import AssistantCall
from sandbox.vapi.server import Assistant

TWILIO = "https://api.twilio.com"


class Command(BaseCommand):
    help = "Runs the stand-ins for Vapi and for Twilio's REST API, each on a port of its own."
    requires_system_checks: list[str] = []  # it is there to be configured against

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=9100, help="of Vapi; 0 takes any free port")
        parser.add_argument("--carrier-port", type=int, help="of Twilio (default: the next one)")
        parser.add_argument("--seed", type=int, default=0, help="same seed, same delays and chunk sizes")
        parser.add_argument("--listen", choices=("auto", "energy", "speech"), default="auto")
        parser.add_argument("--price-after", type=float, default=10.0, help="end of a call to its bill, in s")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            asyncio.run(self._serve(options))
        except OSError as error:
            raise CommandError(f"Cannot listen on {options['host']}:{options['port']}: {error}") from None

    async def _serve(self, options: dict[str, Any]) -> None:
        started_at = time.monotonic()

        def tell(who: str, what: str) -> None:
            self.stdout.write(f"{time.monotonic() - started_at:8.3f} {who} {what}")

        def assistant_told(call: AssistantCall, what: str) -> None:
            tell(call.id[:8], what)

        def carrier_told(who: str, what: str) -> None:
            tell(f"{who[:6]}..{who[-2:]}" if who.startswith("CA") else "twilio", what)

        stopped = asyncio.Event()
        for signum in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
        host, port, carrier_port = options["host"], options["port"], options["carrier_port"]
        if carrier_port is None:
            carrier_port = port and port + 1
        assistant = Assistant(
            host=host, port=port, seed=options["seed"], listen=options["listen"], on_event=assistant_told
        )
        carrier = CarrierApi(
            host=host,
            port=carrier_port,
            dials=CarrierApiDials(price_after_s=options["price_after"], ring_s=2.0),
            server_url=settings.PUBLIC_URL,
            on_event=carrier_told,
            **_account(),
        )
        async with assistant, carrier:
            self._introduce(assistant, carrier, "127.0.0.1" if host in ("0.0.0.0", "::") else host)
            await stopped.wait()
        alive = len(assistant.alive())
        self.stdout.write(
            f"{assistant.created} calls at Vapi, {alive} of the last never ended; "
            f"{len(carrier.calls)} at Twilio, {len(carrier.live())} not over."
        )

    def _introduce(self, assistant: Assistant, carrier: CarrierApi, host: str) -> None:
        number = next(iter(carrier.numbers))
        made_up = carrier.account.token == AUTH_TOKEN
        account = f"TWILIO_ACCOUNT_SID={carrier.account.sid} TWILIO_AUTH_TOKEN={AUTH_TOKEN}"
        for line in (
            "Stand-ins for Vapi and for Twilio's REST API. Put this into .env; Ctrl-C ends.",
            f"  VAPI_BASE_URL=http://{host}:{assistant.port}",
            f"  VAPI_API_KEY={assistant.api_key} VAPI_ASSISTANT_ID=any VAPI_ALLOWED_HOSTS={host}",
            f"  TWILIO_BASE_URL=http://{host}:{carrier.port}",
            f"  {account}" if made_up else "  (with TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN as they are)",
            f"  TWILIO_PHONE_NUMBER={number}",
            f"or, for the socket dialect, VAPI_SOCKET_URL=ws://{host}:{assistant.port}/socket",
        ):
            self.stdout.write(line)


def _account() -> dict[str, Any]:
    """The configured account where it is a stand-in's, else the made-up one."""
    number = settings.TWILIO_PHONE_NUMBER or NUMBER
    numbers = tuple(dict.fromkeys((number, NUMBER)))
    ours = settings.TWILIO_BASE_URL != TWILIO
    if ours and settings.TWILIO_ACCOUNT_SID and settings.TWILIO_AUTH_TOKENS:
        token = settings.TWILIO_AUTH_TOKENS[0]
        return {"account_sid": settings.TWILIO_ACCOUNT_SID, "auth_token": token, "numbers": numbers}
    return {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "numbers": numbers}
