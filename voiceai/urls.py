"""Root URL configuration."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("calls.urls")),
    path("admin/", admin.site.urls),
]

handler403 = "calls.staff.pages.handler403"
handler404 = "calls.staff.pages.handler404"
