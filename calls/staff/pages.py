"""Access checks, base context and error pages that all staff pages share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.decorators import staff_member_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse

from calls.viewer import Viewer

View = Callable[..., HttpResponseBase]


def view_call_required(view: View) -> View:
    """Require a member of staff with `calls.view_call`.

    Anyone who is not staff is redirected to the login page; staff without the permission get a 403.
    """

    @wraps(view)
    def check_permission(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.has_perm("calls.view_call"):
            raise PermissionDenied("Viewing calls requires the permission “Can view call”.")
        return view(request, *args, **kwargs)

    protected: View = staff_member_required(login_url="admin:login")(check_permission)
    return protected


def page_context(request: HttpRequest, title: str) -> dict[str, Any]:
    """What `base.html` needs: the admin's navigation, the page title and the viewer."""
    return {**admin.site.each_context(request), "title": title, "viewer": Viewer.for_user(request.user)}


def render_error_page(status: int, title: str, text: str, login_url: str = "") -> HttpResponse:
    """A complete page that needs no database, user, static file or context processor."""
    context = {"title": title, "text": text, "login_url": login_url}
    return HttpResponse(render_to_string("error.html", context), status=status)


def handler400(request: HttpRequest, exception: Exception) -> HttpResponse:
    return render_error_page(400, "Bad request", "The server could not understand this request.")


def handler403(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Staff see the reason, within the staff pages."""
    if not _is_staff(request):
        return render_error_page(
            403, "Permission denied", "Log in to open this page.", reverse("admin:login")
        )
    context = page_context(request, "Permission denied") | {"reason": str(exception)}
    return render(request, "calls/403.html", context, status=403)


def handler404(request: HttpRequest, exception: Exception) -> HttpResponse:
    if not _is_staff(request):
        return render_error_page(
            404, "Page not found", "There is no page at this address.", reverse("admin:login")
        )
    return render(request, "calls/404.html", page_context(request, "Page not found"), status=404)


def handler500(request: HttpRequest) -> HttpResponse:
    """Asks nothing of the database, which may be the cause."""
    text = "Something went wrong on the server. Try again in a minute. Calls are answered independently."
    return render_error_page(500, "Server error", text)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    text = "This form has expired, or cookies are blocked. Go back, reload the page and send the form again."
    return render_error_page(403, "Form expired", text)


def _is_staff(request: HttpRequest) -> bool:
    user = getattr(request, "user", None)  # missing when the request failed before the auth middleware
    return user is not None and user.is_active and user.is_staff
