"""The live HTML over HTTP, for pages whose `/live` socket is down and that poll instead."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from calls.models import Call
from calls.staff import audit
from calls.staff.call_detail import render_call
from calls.staff.live.board import render_board
from calls.staff.pages import view_call_required
from calls.viewer import Viewer


@view_call_required
@require_safe
def live_board(request: HttpRequest) -> HttpResponse:
    return HttpResponse(render_board(Viewer.for_user(request.user)))


@view_call_required
@require_safe
def live_call(request: HttpRequest, call_id: int) -> HttpResponse:
    call = get_object_or_404(Call, pk=call_id)
    audit.record_opened(request.user, call)
    return HttpResponse(render_call(call, Viewer.for_user(request.user)))
