"""What every staff page asks of who comes, and gives to its template."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.decorators import staff_member_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

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
