"""The action of staff that stops the servers from taking new calls, or has them take calls again."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST

from calls.drain import get_status, request_drain
from calls.staff import audit
from calls.staff.pages import view_call_required
from calls.viewer import Viewer


@view_call_required
@require_POST
def drain_servers(request: HttpRequest) -> HttpResponse:
    if not Viewer.for_user(request.user).can_drain:
        raise PermissionDenied("This requires the permission “Can stop servers from taking new calls”.")
    drain = request.POST.get("drain") == "on"
    audit.record(request.user, "drain" if drain else "accept-calls")
    request_drain(drain=drain)
    message = f"Draining: {get_status(timezone.now()).summary}." if drain else "New calls are answered again."
    if request.headers.get("HX-Request") == "true":
        return render(request, "calls/_live_result.html", {"message": message, "succeeded": True})
    messages.success(request, message)
    return redirect("dashboard")
