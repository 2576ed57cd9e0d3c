"""`./manage.py sandbox`: runs the simulators of Vapi and of Twilio's REST API until Ctrl-C.

It prints a line for each event: `<` received, `>` sent, `=` a change of state, `!` an error.

The Twilio account is fictitious, unless the settings already point to a simulator: then the account of the
settings is used, so that a server and this command can share one configuration. Credentials for the real
Twilio API are never used.
"""

import asyncio
import signal
import time
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from sandbox.faults import TwilioRestFaults
from sandbox.twilio.rest.server import ACCOUNT_SID, AUTH_TOKEN, NUMBER, TwilioRestSimulator
from sandbox.vapi.assistants import EXAMPLE, EXAMPLE_ID
from sandbox.vapi.record import VapiCallRecord
from sandbox.vapi.server import VapiSimulator

MAX_PORT = 65_535
TWILIO_API_URL = "https://api.twilio.com"


class Command(BaseCommand):
    help = "Runs simulators of Vapi and of Twilio's REST API, each on its own port."
    requires_system_checks: list[str] = []  # it must run before the project is configured

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
        parser.add_argument(
            "--port", type=_port, default=9100, help="port of the Vapi simulator; 0 takes any free port"
        )
        parser.add_argument(
            "--twilio-port", type=_port, help="port of the Twilio simulator (default: the next one)"
        )
        parser.add_argument(
            "--seed", type=int, default=0, help="the same seed gives the same delays and chunks"
        )
        parser.add_argument(
            "--listen",
            choices=("auto", "energy", "speech"),
            default="auto",
            help="speech: recognize words; energy: only detect speech; auto: speech if it is installed",
        )
        parser.add_argument(
            "--price-after", type=float, default=10.0, help="seconds from the end of a call to its price"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            asyncio.run(self._serve(options))
        except OSError as error:
            raise CommandError(f"Cannot listen on {options['host']}:{options['port']}: {error}") from None

    async def _serve(self, options: dict[str, Any]) -> None:
        started_at = time.monotonic()

        def write_event(subject: str, event: str) -> None:
            self.stdout.write(f"{time.monotonic() - started_at:8.3f} {subject} {event}")

        def on_vapi_event(call: VapiCallRecord, event: str) -> None:
            write_event(call.id[:8], event)

        def on_twilio_event(subject: str, event: str) -> None:
            is_call = subject.startswith("CA")
            write_event(f"{subject[:6]}..{subject[-2:]}" if is_call else "twilio", event)

        stopped = asyncio.Event()
        for signum in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
        host, port, twilio_port = options["host"], options["port"], options["twilio_port"]
        if twilio_port is None:
            twilio_port = port and port + 1
        vapi = VapiSimulator(
            host=host, port=port, seed=options["seed"], listen=options["listen"], on_event=on_vapi_event
        )
        twilio = TwilioRestSimulator(
            host=host,
            port=twilio_port,
            faults=TwilioRestFaults(price_delay_seconds=options["price_after"], ring_seconds=2.0),
            server_url=settings.PUBLIC_URL,
            on_event=on_twilio_event,
            **_account(),
        )
        async with vapi, twilio:
            assistant_id = settings.VAPI_ASSISTANT_ID or EXAMPLE_ID
            vapi.assistant_store.put(EXAMPLE, assistant_id)
            self._print_configuration(
                vapi, twilio, assistant_id, "127.0.0.1" if host in ("0.0.0.0", "::") else host
            )
            await stopped.wait()
        self.stdout.write(
            f"Vapi calls: {vapi.created_count}, never ended: {len(vapi.active_calls())}. "
            f"Twilio calls: {len(twilio.calls)}, still active: {len(twilio.active_calls())}."
        )

    def _print_configuration(
        self, vapi: VapiSimulator, twilio: TwilioRestSimulator, assistant_id: str, host: str
    ) -> None:
        number = next(iter(twilio.numbers))
        is_fictitious = twilio.account.token == AUTH_TOKEN
        lines = [
            "# Simulators of Vapi and of Twilio's REST API. Append these lines to .env; Ctrl-C stops.",
            f"VAPI_BASE_URL=http://{host}:{vapi.port}",
            f"VAPI_API_KEY={vapi.api_key}",
            f"VAPI_ASSISTANT_ID={assistant_id}",
            f"VAPI_ALLOWED_HOSTS={host}",
            f"TWILIO_BASE_URL=http://{host}:{twilio.port}",
            f"TWILIO_PHONE_NUMBER={number}",
        ]
        if is_fictitious:  # otherwise the account is the one that is configured
            lines += [f"TWILIO_ACCOUNT_SID={twilio.account.sid}", f"TWILIO_AUTH_TOKEN={AUTH_TOKEN}"]
        lines += [
            f"PUBLIC_URL={settings.PUBLIC_URL}",
            "VAPI_WEBHOOK_SECRET=sandbox-secret",
            "OUTBOUND_ALLOWED=+4420",
        ]
        if not vapi.recognizes_words:
            lines.append(
                "# The simulated assistant only guesses what was said. `make speech` lets it recognize words."
            )
        lines.append("# Only for the socket dialect:")
        lines.append(f"# VAPI_SOCKET_URL=ws://{host}:{vapi.port}/socket")
        for line in lines:
            self.stdout.write(line)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= MAX_PORT):
        raise ArgumentTypeError(f"a port is a number from 0 to {MAX_PORT}, not {text!r}")
    return int(text)


def _account() -> dict[str, Any]:
    """The configured account if the settings point to a simulator, otherwise the fictitious one."""
    number = settings.TWILIO_PHONE_NUMBER or NUMBER
    numbers = tuple(dict.fromkeys((number, NUMBER)))
    uses_simulator = settings.TWILIO_BASE_URL != TWILIO_API_URL
    if uses_simulator and settings.TWILIO_ACCOUNT_SID and settings.TWILIO_AUTH_TOKENS:
        token = settings.TWILIO_AUTH_TOKENS[0]
        return {"account_sid": settings.TWILIO_ACCOUNT_SID, "auth_token": token, "numbers": numbers}
    return {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "numbers": numbers}
