"""What every staff page asks of who comes, and gives to its template."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.decorators import staff_member_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views import defaults

from calls.viewer import Viewer

Page = Callable[..., HttpResponse]


def staff_page(view: Page) -> Page:
    """For staff who may see calls; others are sent to the log-in, or told that they may not."""

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.has_perm("calls.view_call"):
            raise PermissionDenied("Viewing calls needs the permission “Can view call”.")
        return view(request, *args, **kwargs)

    guarded: Page = staff_member_required(login_url="admin:login")(checked)
    return guarded


def page_context(request: HttpRequest, title: str) -> dict[str, Any]:
    """What the frame of a page needs: menu, title, and who looks."""
    return {**admin.site.each_context(request), "title": title, "viewer": Viewer.of(request.user)}


def handler403(request: HttpRequest, exception: Exception) -> HttpResponse:
    """403 as a page like all others for staff, and in Django's few words for strangers."""
    if not _is_staff(request):
        return defaults.permission_denied(request, exception)
    context = page_context(request, "Not allowed") | {"why": str(exception)}
    return render(request, "calls/403.html", context, status=403)


def handler404(request: HttpRequest, exception: Exception) -> HttpResponse:
    """404 in the same way."""
    if not _is_staff(request):
        return defaults.page_not_found(request, exception)
    return render(request, "calls/404.html", page_context(request, "Not found"), status=404)


def _is_staff(request: HttpRequest) -> bool:
    user = getattr(request, "user", None)  # a request may fail before anybody asked who sent it
    return user is not None and user.is_active and user.is_staff
