"""Root URL configuration."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("calls.urls")),
    path("admin/", admin.site.urls),
]

handler400 = "calls.staff.pages.handler400"
handler403 = "calls.staff.pages.handler403"
handler404 = "calls.staff.pages.handler404"
handler500 = "calls.staff.pages.handler500"
