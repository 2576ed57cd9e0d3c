"""The ASGI application: builds the parts of one server process, and connects the bridge to the calls app.

    daphne voiceai.asgi:application

HTTP goes to Django, `/media-stream` to the bridge, `/live` to the pages that watch calls. All of them find
the same `BridgeContext` in their scope.

Importing this module starts nothing. `wire` builds the parts of a server process and starts its threads; the
application calls it once: when the server starts (Daphne's reactor, or a lifespan event), at the latest with
the first request. With wrong settings, or with debug off and without the secrets that a server must have,
the import exits with a line for each problem.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
import os
import secrets
import sys
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceai.settings")

from voiceai.command_line import load_settings

load_settings()

from django.core.asgi import get_asgi_application

django_app = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.sessions import CookieMiddleware
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls import path, re_path
from redis.asyncio import Redis
from twisted.internet import reactor

from bridge.admission import Admission
from bridge.call_cache import CallCache
from bridge.context import BridgeContext
from bridge.io.consumer import MediaStreamConsumer
from bridge.io.vapi_client import VapiClient
from bridge.routes import Route
from calls.end_confirmation import EndConfirmer
from calls.ingest.journal import SpoolJournal
from calls.ingest.worker_row import WorkerRow, WorkerState
from calls.ingest.writer import JournalWriter
from calls.requirements import refuse_to_start
from calls.staff.live.consumer import LiveConsumer
from calls.staff.live.publisher import Destination, Publisher, SharedDestination
from voiceai.bridge_settings import bridge_config
from voiceai.server.body_limit import BodyLimit
from voiceai.server.daphne_limits import limit_daphne
from voiceai.server.refusals import refusals, refuse_socket

logger = logging.getLogger(__name__)

# Rows are made on a thread. By default Python lets it keep the interpreter lock for 5 ms, which is too long
# for a frame of audio to wait.
SWITCH_SECONDS = 0.0005
PUBLISHER_STOP_SECONDS = 1.0
WRITER_STOP_SECONDS = 5.0
CONFIRMER_STOP_SECONDS = 0.1  # nothing is lost: the next process asks again


@dataclass(frozen=True, slots=True)
class Wiring:
    """The parts of one server process that a request needs."""

    context: BridgeContext
    protocols: ProtocolTypeRouter
    publisher: Publisher


def build_sockets(client: VapiClient, worker: str) -> URLRouter:
    """The websocket URLs."""
    return URLRouter(
        [
            re_path(r"^media-stream/?$", MediaStreamConsumer.as_asgi(client=client, worker=worker)),
            path("live", CookieMiddleware(LiveConsumer.as_asgi())),
            re_path(r"", refuse_socket),  # type: ignore[arg-type]
        ]
    )


def wire(destination: Destination) -> Wiring:
    """Build the parts of this server process and start its threads. Raises `OSError` without a spool."""
    # The name of this process: calls have it in their `worker` column, and its spool file is named after it.
    worker_name = f"{os.getpid()}-{secrets.token_hex(4)}"
    config = bridge_config()
    call_cache = CallCache(Redis.from_url(settings.REDIS_URL) if settings.REDIS_URL else None)
    admission = Admission(config, call_cache=call_cache)
    publisher = Publisher(destination)
    journal = SpoolJournal(settings.JOURNAL_DIR, worker_name, on_note=publisher.put_note)
    writer = JournalWriter(
        journal,
        live_calls=admission.live_call_sids,
        on_routes=lambda rows: admission.replace_routes(Route.resolve(config, row) for row in rows),
        on_commit=publisher.notify_changed,
        worker=WorkerRow(
            worker_name,
            state=lambda: WorkerState(admission.live_calls, config.max_concurrent_calls, admission.stopping),
            on_drain=lambda requested: setattr(admission, "drain_requested", requested),
        ),
    )
    confirmer = EndConfirmer(on_change=publisher.notify_changed)
    context = BridgeContext(config, admission, journal, call_cache, on_refused=refusals.count)
    sockets = build_sockets(VapiClient(config), worker_name)

    sys.setswitchinterval(SWITCH_SECONDS)
    publisher.start()
    writer.start()
    confirmer.start()
    # What exists now lives as long as the process: the collector need not scan it again during calls.
    gc.collect()
    gc.freeze()
    # Daphne runs atexit handlers on SIGTERM, the last one first. Entries that are not rows by then stay in
    # the spool until the next start.
    atexit.register(journal.close)
    atexit.register(publisher.stop, PUBLISHER_STOP_SECONDS)
    atexit.register(writer.stop, WRITER_STOP_SECONDS)
    atexit.register(confirmer.stop, CONFIRMER_STOP_SECONDS)
    return Wiring(
        context, ProtocolTypeRouter({"http": BodyLimit(django_app), "websocket": sockets}), publisher
    )


class Application:
    """The ASGI application of one server process."""

    def __init__(self) -> None:
        self._wiring: Wiring | None = None
        # Of live updates: the cache and the channel layer. `serve` without Redis sets the pages' process.
        self.destination: Destination = SharedDestination()

    def start(self) -> Wiring:
        """Wire the process, the first time that this is called. Call it on the server's event loop."""
        if self._wiring is None:
            self._wiring = wire(self.destination)
            self.destination.attach(asyncio.get_running_loop())
        return self._wiring

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        wiring = self.start()
        await wiring.protocols({**scope, "bridge": wiring.context}, receive, send)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        """For servers that announce start and shutdown, such as uvicorn; Daphne does not."""
        while (await receive())["type"] == "lifespan.startup":
            try:
                self.start()
            except OSError as error:  # of the spool
                log_unusable_spool(error)
                await send({"type": "lifespan.startup.failed"})
                return
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})


def log_unusable_spool(error: OSError) -> None:
    logger.critical(
        "the server cannot start: JOURNAL_DIR %s is not writable: %s", settings.JOURNAL_DIR, error.strerror
    )


def start_with_daphne(app: Application) -> None:
    """Start the process's threads when Daphne starts to serve. A process that cannot start them exits."""
    limit_daphne()

    def start() -> None:
        try:
            app.start()
        except OSError as error:  # of the spool
            log_unusable_spool(error)
            os._exit(1)
        except Exception:
            logger.critical("the server cannot start", exc_info=True)
            os._exit(1)  # no call is carried yet; Twisted would log the error and keep serving

    # Startup callbacks run just before the event loop does; a delay of zero puts `start` on the loop.
    reactor.callWhenRunning(reactor.callLater, 0, start)


try:
    refuse_to_start()
except ImproperlyConfigured as error:
    sys.exit(str(error))
application = Application()
start_with_daphne(application)
