"""`manage.py sandbox`: the stand-in for Vapi alone, until Ctrl-C, one line for each thing that happens."""

import asyncio
import signal
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from bridge.sandbox.assistant import Assistant
from bridge.sandbox.assistant_record import AssistantCall


class Command(BaseCommand):
    help = "Runs the stand-in for Vapi: REST API, control URLs and both kinds of socket on one port."
    requires_system_checks: list[str] = []  # it reads no setting of the product

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=9100, help="0 takes any free port")
        parser.add_argument("--seed", type=int, default=0, help="same seed, same delays and chunk sizes")
        parser.add_argument("--listen", choices=("auto", "energy", "speech"), default="auto")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            asyncio.run(self._serve(options))
        except OSError as error:
            raise CommandError(f"Cannot listen on {options['host']}:{options['port']}: {error}") from None

    async def _serve(self, options: dict[str, Any]) -> None:
        started_at = time.monotonic()

        def tell(call: AssistantCall, what: str) -> None:
            self.stdout.write(f"{time.monotonic() - started_at:8.3f} {call.id[:8]} {what}")

        stopped = asyncio.Event()
        for signum in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
        async with Assistant(
            host=options["host"],
            port=options["port"],
            seed=options["seed"],
            listen=options["listen"],
            on_event=tell,
        ) as assistant:
            host = "127.0.0.1" if options["host"] in ("0.0.0.0", "::") else options["host"]
            self.stdout.write(
                "Stand-in for Vapi. Give the product one of these and make a call; Ctrl-C ends."
            )
            self.stdout.write(f"  VAPI_BASE_URL=http://{host}:{assistant.port}")
            self.stdout.write(
                f"  VAPI_API_KEY={assistant.api_key} VAPI_ASSISTANT_ID=any VAPI_ALLOWED_HOSTS={host}"
            )
            self.stdout.write(
                f"or, for the socket dialect, VAPI_SOCKET_URL=ws://{host}:{assistant.port}/socket"
            )
            await stopped.wait()
        self.stdout.write(f"{assistant.created} calls, {len(assistant.alive())} of the last never ended.")
