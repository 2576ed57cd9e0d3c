"""URLs of webhooks and staff pages.

Webhooks work with and without a trailing slash and never redirect. Pages have one form.
"""

from __future__ import annotations

from django.urls import path, re_path

from calls.doctor import echo, page
from calls.staff import call_detail, call_list, dashboard, saved_views
from calls.staff.live import actions as live_actions
from calls.staff.live import drain_servers
from calls.staff.live import views as live_views
from calls.staff.place_test_call import place_test_call, test_call_started
from calls.twilio import webhooks as twilio_webhooks
from calls.vapi import webhooks as vapi_webhooks

urlpatterns = [
    re_path(r"^twilio/voice/?$", twilio_webhooks.voice, name="twilio_voice"),
    re_path(r"^twilio/after/?$", twilio_webhooks.after, name="twilio_after"),
    re_path(r"^twilio/whisper/?$", twilio_webhooks.whisper, name="twilio_whisper"),
    re_path(r"^twilio/status/?$", twilio_webhooks.status, name="twilio_status"),
    re_path(r"^twilio/stream/?$", twilio_webhooks.stream, name="twilio_stream"),
    re_path(r"^vapi/events/?$", vapi_webhooks.events, name="vapi_events"),
    re_path(r"^healthz/?$", twilio_webhooks.healthz, name="healthz"),
    re_path(r"^readyz/?$", twilio_webhooks.readyz, name="readyz"),
    re_path(r"^doctor/echo/?$", echo.echo, name="doctor_echo"),
    path("set-up", page.set_up, name="set_up"),
    path("", dashboard.dashboard, name="dashboard"),
    path("calls/", call_list.call_list, name="call_list"),
    path("calls/export", call_list.export_calls, name="call_export"),
    path("calls/views", saved_views.save_view, name="saved_views"),
    path("calls/views/<int:view_id>/delete", saved_views.delete_view, name="saved_view_delete"),
    path("calls/<int:call_id>/", call_detail.call_detail, name="call_detail"),
    path("calls/<int:call_id>/note", call_detail.call_note, name="call_note"),
    path("calls/<int:call_id>/hang-up", live_actions.hang_up, name="call_hang_up"),
    path("calls/<int:call_id>/say", live_actions.say, name="call_say"),
    path("calls/<int:call_id>/transfer", live_actions.transfer, name="call_transfer"),
    path("test-call", place_test_call, name="test_call"),
    path("test-call/<str:call_sid>", test_call_started, name="test_call_started"),
    path("drain", drain_servers.drain_servers, name="drain"),
    path("live/board", live_views.live_board, name="live_board"),
    path("live/calls/<int:call_id>", live_views.live_call, name="live_call"),
]
