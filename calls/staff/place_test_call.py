"""The button "place a test call": the simulator calls this very server, as Twilio would.

It is a process of its own, bounded in number and in time, and its call is marked as simulated. What it
prints is of no interest here: the call's page tells how it went.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from calls.staff import audit
from calls.staff.pages import staff_page
from calls.viewer import Viewer

log = logging.getLogger(__name__)

AT_ONCE = 3
SECONDS = 120.0

_places = threading.BoundedSemaphore(AT_ONCE)


@staff_page
@require_POST
def place_test_call(request: HttpRequest) -> HttpResponse:
    if not Viewer.of(request.user).tests:
        raise PermissionDenied("A test call needs the permission “Can place a test call”.")
    if not _places.acquire(blocking=False):
        messages.error(request, f"{AT_ONCE} test calls are going on already; wait for one to end.")
        return redirect("dashboard")
    audit.note(request.user, "test-call")
    threading.Thread(target=_place, args=(_address(request),), name="test-call", daemon=True).start()
    messages.success(request, "A test call is on its way; it takes half a minute.")
    return redirect("dashboard")


def costs_money() -> bool:
    """Whether the assistant that would answer is the vendor's own, and not a stand-in."""
    where = urlsplit(settings.VAPI_SOCKET_URL or settings.VAPI_BASE_URL).hostname or ""
    return where == "vapi.ai" or where.endswith(".vapi.ai")


def _address(request: HttpRequest) -> str:
    """Where this server listens, past any proxy: the simulator signs for the public URL all the same."""
    host, port = getattr(request, "scope", {}).get("server") or ("127.0.0.1", 8000)
    host = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _place(address: str) -> None:
    """Run the simulator to its end. Always gives the place back, never leaves a process behind."""
    command = [sys.executable, "manage.py", "simulate_call", "--url", address]
    try:
        done = subprocess.run(
            command, cwd=settings.BASE_DIR, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS
        )
        log.info("test call: simulator ended with %d", done.returncode)
    except subprocess.TimeoutExpired:
        log.warning("test call: simulator stopped after %d s", SECONDS)
    except OSError as error:
        log.warning("test call: simulator could not be started: %s", type(error).__name__)
    finally:
        _places.release()
