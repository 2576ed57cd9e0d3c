"""Where everything is wired, once: the only module that knows both the bridge and the calls app.

    daphne voiceai.asgi:application

HTTP goes to Django, `/media-stream` to the bridge, `/live` to the pages that watch. All find the same
`BridgeContext` in their scope.
A server with debug off refuses to start without the secrets that keep strangers out.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import secrets
import sys
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceai.settings")

from django.core.asgi import get_asgi_application

django_app = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.sessions import CookieMiddleware
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls import path, re_path
from redis.asyncio import Redis

from bridge.admission import Admission
from bridge.context import BridgeContext
from bridge.end_reason_cache import KnownEnds
from bridge.io.consumer import MediaStreamConsumer
from bridge.io.vapi_link import VapiClient
from bridge.routes import Route
from calls.ingest.journal import SpoolJournal
from calls.ingest.writer import JournalWriter
from calls.staff.live.consumer import LiveConsumer
from calls.staff.live.publisher import Publisher
from voiceai.bridge_settings import bridge_config


def _require_secrets() -> None:
    missing = []
    if not settings.DEBUG:
        if not settings.SECRET_KEY_IS_SET:
            missing.append("DJANGO_SECRET_KEY")
        if not settings.TWILIO_AUTH_TOKENS:
            missing.append("TWILIO_AUTH_TOKEN")
    if missing:
        raise ImproperlyConfigured(
            f"{' and '.join(missing)} must be set when DJANGO_DEBUG is off: without them anyone could"
            " place calls at your cost. Set them in the environment or in .env."
        )


_require_secrets()

# Python hands its lock from thread to thread every 5 ms at most; rows are made on a thread, and no frame
# of audio should wait that long for it.
sys.setswitchinterval(0.0005)

# One name per process: in rows it says who carries a call, on disk whose journal it is.
boot_id = f"{os.getpid()}-{secrets.token_hex(4)}"
config = bridge_config()
shared = Redis.from_url(settings.REDIS_URL) if settings.REDIS_URL else None
ends = KnownEnds(shared)
admission = Admission(config, ends=ends)
publisher = Publisher()
journal = SpoolJournal(settings.JOURNAL_DIR, boot_id, on_note=publisher.note)
writer = JournalWriter(
    journal,
    live_calls=admission.live_call_sids,
    on_routes=lambda rows: admission.replace_routes(Route.resolve(config, row) for row in rows),
    on_commit=publisher.notify_changed,
)
context = BridgeContext(config=config, admission=admission, journal=journal, endings=ends)
client = VapiClient(config)

sockets = URLRouter(
    [
        re_path(r"^media-stream/?$", MediaStreamConsumer.as_asgi(client=client, worker=boot_id)),
        path("live", CookieMiddleware(LiveConsumer.as_asgi())),
    ]
)
protocols = ProtocolTypeRouter({"http": django_app, "websocket": sockets})

publisher.start()
writer.start()
# What was made so far lives as long as the server: the collector need not walk it again in mid-call.
gc.collect()
gc.freeze()
# Daphne runs atexit handlers on SIGTERM; what is not written by then waits in the spool for the next start.
atexit.register(journal.close)
atexit.register(publisher.stop, 1.0)
atexit.register(writer.stop, 5.0)  # runs first


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Every view and consumer finds the bridge in its scope."""
    publisher.attach(asyncio.get_running_loop())
    await protocols({**scope, "bridge": context}, receive, send)
