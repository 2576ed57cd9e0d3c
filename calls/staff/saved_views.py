"""Saved views: named searches of the list of calls. Each user has their own."""

from __future__ import annotations

from typing import cast
from urllib.parse import parse_qsl

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from calls.ingest.sanitize import clean_value
from calls.models import SavedView
from calls.staff.call_query import MAX_QUERY_CHARS, ListQuery
from calls.staff.pages import view_call_required

MAX_VIEWS = 50  # of a user

# Offered to everyone: name, query string.
DEFAULT_VIEWS = (
    ("Failed today", "ended=failed&range=today"),
    ("Slow responses, last 7 days", "flag=slow-turn&range=7d"),
    ("Needs review", "review=yes"),
    ("Outbound", "direction=outbound"),
)


@view_call_required
@require_POST
def save_view(request: HttpRequest) -> HttpResponse:
    """Save the list that is shown. A view of the same name is replaced."""
    query = ListQuery.parse(dict(parse_qsl(request.POST.get("query", "")[:MAX_QUERY_CHARS])))
    name = clean_value(SavedView, "name", " ".join(request.POST.get("name", "").split()))
    user = cast(User, request.user)
    views = SavedView.objects.filter(user=user)
    if not name:
        messages.error(request, "Enter a name for the view.")
    elif len(query.encode()) > MAX_QUERY_CHARS:
        messages.error(request, "This search is too long to be saved.")
    elif views.count() >= MAX_VIEWS and not views.filter(name=name).exists():
        messages.error(request, f"You have {MAX_VIEWS} saved views. Delete one first.")
    else:
        views.update_or_create(user=user, name=name, defaults={"query": query.encode()})
        messages.success(request, f"View “{name}” saved.")
    return redirect(query.url())


@view_call_required
@require_POST
def delete_view(request: HttpRequest, view_id: int) -> HttpResponse:
    deleted, _ = SavedView.objects.filter(user=cast(User, request.user), pk=view_id).delete()
    if deleted:
        messages.success(request, "View deleted.")
    return redirect("call_list")
