"""The “Place test call” button: the simulator calls this server the way Twilio would.

The simulator runs as a subprocess, limited in number and in time, and its call is marked as simulated.
The call's page shows how the call went. If no call arrives, the user sees the simulator's error.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
import uuid
from collections import OrderedDict
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from calls.ingest.sanitize import clean_text
from calls.models import Call
from calls.staff import audit
from calls.staff.pages import page_context, view_call_required
from calls.viewer import Viewer

logger = logging.getLogger(__name__)

MAX_CONCURRENT = 3  # test calls, in this process
TIMEOUT_SECONDS = 120.0
ARRIVAL_SECONDS = 15.0  # within which the call reaches this server
MAX_PROBLEMS, MAX_PROBLEM_CHARS = 100, 300

# Why the simulator failed, by CallSid: the newest of this process.
_problems: OrderedDict[str, str] = OrderedDict()
_free_slots = threading.BoundedSemaphore(MAX_CONCURRENT)


@view_call_required
@require_POST
def place_test_call(request: HttpRequest) -> HttpResponse:
    if not Viewer.for_user(request.user).can_place_test_calls:
        raise PermissionDenied("Placing a test call requires the permission “Can place a test call”.")
    if not _free_slots.acquire(blocking=False):
        messages.error(
            request, f"{MAX_CONCURRENT} test calls are already running. Try again when one has ended."
        )
        return redirect("dashboard")
    audit.record(request.user, "test-call")
    call_sid = "CA" + uuid.uuid4().hex
    threading.Thread(
        target=_run_simulator, args=(_local_url(request), call_sid), name="test-call", daemon=True
    ).start()
    return redirect(f"{reverse('test_call_started', args=[call_sid])}?at={int(time.time())}")


@view_call_required
@require_safe
def test_call_started(request: HttpRequest, call_sid: str) -> HttpResponse:
    """Leads to the call's page, which exists once the call has reached this server."""
    call = Call.objects.filter(call_sid=call_sid).first()
    if call is not None:
        return redirect(call)
    started_at = request.GET.get("at", "")
    waited_seconds = time.time() - int(started_at) if started_at.isascii() and started_at.isdigit() else 0
    problem = _problems.get(call_sid, "")
    context = page_context(request, "Test call") | {
        "is_late": bool(problem) or waited_seconds > ARRIVAL_SECONDS,
        "problem": problem,
    }
    return render(request, "calls/test_call.html", context)


def is_billable() -> bool:
    """Whether Vapi itself answers the test call, which costs money, rather than the simulator."""
    host = urlsplit(settings.VAPI_SOCKET_URL or settings.VAPI_BASE_URL).hostname or ""
    return host == "vapi.ai" or host.endswith(".vapi.ai")


def _local_url(request: HttpRequest) -> str:
    """Where the server of the calls listens, bypassing any proxy. The simulator signs for the public URL."""
    scope = getattr(request, "scope", {})
    host, port = scope.get("media_server") or scope.get("server") or ("127.0.0.1", 8000)
    host = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _run_simulator(url: str, call_sid: str) -> None:
    """Run the simulator until it ends or times out. Always frees the slot and leaves no process behind."""
    command = [sys.executable, "manage.py", "simulate_call", "--url", url, "--call-sid", call_sid]
    try:
        result = subprocess.run(
            command,
            cwd=settings.BASE_DIR,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
        )
        logger.info("test call: simulator exited with %d", result.returncode)
        if result.returncode:
            _problems[call_sid] = _last_line(result.stderr) or f"exit code {result.returncode}"
    except subprocess.TimeoutExpired:
        logger.warning("test call: simulator stopped after %d s", TIMEOUT_SECONDS)
        _problems[call_sid] = f"It did not end within {TIMEOUT_SECONDS:.0f} s."
    except OSError as error:
        logger.warning("test call: simulator could not be started: %s", type(error).__name__)
        _problems[call_sid] = "It could not be started."
    finally:
        while len(_problems) > MAX_PROBLEMS:
            _problems.popitem(last=False)
        _free_slots.release()


def _last_line(output: bytes) -> str:
    lines = clean_text(output.decode("utf-8", "replace")).split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:MAX_PROBLEM_CHARS]
