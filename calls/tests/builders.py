"""Rows for tests. Each is valid by default; keyword arguments change it."""

from __future__ import annotations

from itertools import count
from typing import Any

from django.contrib.auth.models import Permission, User

from calls.models import Call, CallEvent, Turn, Utterance

_numbers = count(1)


def call_sid() -> str:
    """A new CallSid, in Twilio's format."""
    return f"CA{next(_numbers):032x}"


def make_call(**changes: Any) -> Call:
    values: dict[str, Any] = {
        "call_sid": call_sid(),
        "from_number": "+15550100134",
        "to_number": "+15559870000",
        "status": "completed",
        "end_reason": "caller-hung-up",
        "ended_by": "caller",
    }
    return Call.objects.create(**(values | changes))


def make_turn(call: Call, **changes: Any) -> Turn:
    values: dict[str, Any] = {
        "number": call.turns.count() + 1,
        "end_of_speech_ms": 5000,
        "endpointed_ms": 5300,
        "first_audio_ms": 5880,
        "sent_ms": 5882,
        "heard_ms": 5930,
        "response_latency_ms": 880,
        "bridge_overhead_us": 1700,
    }
    return Turn.objects.create(call=call, **(values | changes))


def make_utterance(call: Call, **changes: Any) -> Utterance:
    values: dict[str, Any] = {
        "index": call.utterances.count(),
        "speaker": "caller",
        "text": "Hi, I need to move my appointment.",
        "started_ms": 2000,
        "ended_ms": 5000,
    }
    return Utterance.objects.create(call=call, **(values | changes))


def make_event(call: Call, **changes: Any) -> CallEvent:
    values: dict[str, Any] = {"index": call.events.count(), "kind": "stream-started", "at_ms": 0}
    return CallEvent.objects.create(call=call, **(values | changes))


def make_staff(*permissions: str, **changes: Any) -> User:
    """A staff user with these permissions, such as `view_call`."""
    values: dict[str, Any] = {"username": f"staff{next(_numbers)}", "is_staff": True}
    user = User.objects.create_user(**(values | changes))
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user
