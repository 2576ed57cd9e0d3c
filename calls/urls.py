"""Webhooks answer with and without a trailing slash, and never redirect; pages have one form."""

from __future__ import annotations

from django.urls import path, re_path

from calls import call_page, dashboard, live, live_actions, vapi_events, webhooks
from calls.doctor import echo, page
from calls.place_test_call import place_test_call

urlpatterns = [
    re_path(r"^twilio/voice/?$", webhooks.voice, name="twilio_voice"),
    re_path(r"^twilio/after/?$", webhooks.after, name="twilio_after"),
    re_path(r"^twilio/whisper/?$", webhooks.whisper, name="twilio_whisper"),
    re_path(r"^twilio/status/?$", webhooks.status, name="twilio_status"),
    re_path(r"^twilio/stream/?$", webhooks.stream, name="twilio_stream"),
    re_path(r"^vapi/events/?$", vapi_events.events, name="vapi_events"),
    re_path(r"^healthz/?$", webhooks.healthz, name="healthz"),
    re_path(r"^readyz/?$", webhooks.readyz, name="readyz"),
    re_path(r"^doctor/echo/?$", echo.echo, name="doctor_echo"),
    path("set-up", page.set_up, name="set_up"),
    path("", dashboard.dashboard, name="dashboard"),
    path("calls/<int:call_id>/", call_page.call_detail, name="call_detail"),
    path("calls/<int:call_id>/note", call_page.call_note, name="call_note"),
    path("calls/<int:call_id>/hang-up", live_actions.hang_up, name="call_hang_up"),
    path("calls/<int:call_id>/say", live_actions.say, name="call_say"),
    path("calls/<int:call_id>/transfer", live_actions.transfer, name="call_transfer"),
    path("test-call", place_test_call, name="test_call"),
    path("live/board", live.live_board, name="live_board"),
    path("live/calls/<int:call_id>", live.live_call, name="live_call"),
]
