"""Webhooks answer with and without a trailing slash, and never redirect; pages have one form."""

from __future__ import annotations

from django.urls import path, re_path

from calls import dashboard, vapi_events, webhooks

urlpatterns = [
    re_path(r"^twilio/voice/?$", webhooks.voice, name="twilio_voice"),
    re_path(r"^twilio/after/?$", webhooks.after, name="twilio_after"),
    re_path(r"^twilio/status/?$", webhooks.status, name="twilio_status"),
    re_path(r"^twilio/stream/?$", webhooks.stream, name="twilio_stream"),
    re_path(r"^vapi/events/?$", vapi_events.events, name="vapi_events"),
    re_path(r"^healthz/?$", webhooks.healthz, name="healthz"),
    re_path(r"^readyz/?$", webhooks.readyz, name="readyz"),
    path("", dashboard.dashboard, name="dashboard"),
    path("calls/<int:call_id>/", dashboard.call_detail, name="call_detail"),
]
