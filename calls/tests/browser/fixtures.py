"""Creates rows for browser tests, as a separate process on the database of the server under test.

    python -m calls.tests.browser.fixtures FUNCTION ...

Calls each function of `FIXTURES`. Prints what it returns as JSON, one line each: ids by name, or for
`create_users` the session key by role.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import django

django.setup()

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from calls.models import Call, CallEvent, PhoneNumber, Turn, Utterance
from calls.staff import audit
from calls.staff.roles import ROLES, assign_role, create_roles
from calls.stats import call_summary
from calls.tests.browser.xss_payloads import PAYLOADS, TAG
from calls.tests.builders import make_call, make_event, make_turn, make_utterance

PASSWORD = "a password"
OUR_NUMBER = "+15559870000"


def create_users() -> dict[str, str]:
    """A user for each role, named after it. Returns session keys."""
    create_roles()
    keys = {}
    for role in ROLES:
        user = User.objects.create_user(role, password=PASSWORD)
        assign_role(user, role)
        client = Client()
        client.force_login(user)
        keys[role] = client.cookies["sessionid"].value
    return keys


def create_page_rows() -> dict[str, int]:
    """Calls of every kind, and a row for every admin list."""
    PhoneNumber.objects.create(number=OUR_NUMBER, label="Front desk")
    now = timezone.now()
    good = _make_call_with_turns(
        caller_name="Ann Example",
        started_at=now - timedelta(minutes=50),
        answered_at=now - timedelta(minutes=50),
        duration_seconds=128,
        connect_ms=412,
        time_to_first_audio_ms=900,
        twilio_price=Decimal("-0.03"),
        vapi_cost=Decimal("0.13"),
        reported_at=now,
        summary="Moved the appointment.\nTo Thursday.",
        counters={"frames_late": 3, "jitter_p95_ms": 4},
        barge_ins=1,
    )
    failed = _make_call_with_turns(
        end_reason="assistant-unreachable",
        ended_by="assistant",
        started_at=now - timedelta(minutes=40),
        duration_seconds=6,
        vapi_ended_reason="call.start.error-get-assistant",
        answered=False,
    )
    live = _make_call_with_turns(
        status="in-progress",
        end_reason="",
        ended_by="",
        started_at=now - timedelta(seconds=70),
        answered_at=now - timedelta(seconds=69),
        vapi_call_id="019829a0-0000-7000-8000-000000000000",
        worker="worker-1",
        lease_until=now + timedelta(hours=1),
    )
    empty = make_call(
        status="ringing", end_reason="", ended_by="", from_number="", to_number="", started_at=now
    )
    call_summary.update_summaries([good, failed])
    admin = User.objects.get(username="admin")
    LogEntry.objects.log_actions(admin.pk, [good], CHANGE, change_message="Changed note.")
    audit.record(admin, "note", good, "outcome")
    return {
        "good": good.pk,
        "failed": failed.pk,
        "live": live.pk,
        "empty": empty.pk,
        "number": PhoneNumber.objects.get().pk,
        "user": admin.pk,
        "utterance": Utterance.objects.latest("pk").pk,
        "turn": Turn.objects.latest("pk").pk,
        "event": CallEvent.objects.latest("pk").pk,
    }


def _make_call_with_turns(answered: bool = True, **changes: Any) -> Call:
    call = make_call(**changes)
    make_utterance(call)
    if answered:
        make_utterance(
            call,
            speaker="assistant",
            text="Of course. I have you on Tuesday at ten, would you like me to move it to another day?",
            started_ms=5880,
            ended_ms=8000,
            interrupted=True,
            unheard_ms=2500,
        )
        make_turn(call)
        make_utterance(call, text="Thursday. Thursday afternoon.", started_ms=8100, ended_ms=9000)
        make_turn(
            call, end_of_speech_ms=9000, endpointed_ms=9700, first_audio_ms=11410, sent_ms=11412,
            heard_ms=11450, response_latency_ms=2410, model_ms=1600, interrupted=True,
        )  # fmt: skip
    make_turn(
        call, end_of_speech_ms=20_000, endpointed_ms=None, first_audio_ms=None, sent_ms=None, heard_ms=None,
        response_latency_ms=None, bridge_overhead_us=None,
    )  # fmt: skip
    make_event(call)
    make_event(call, kind="assistant-answered", at_ms=412, data={"ms": 412, "held": 21})
    make_event(call, source="carrier", kind="call-completed", at_ms=None, data={"CallDuration": "128"})
    return call


def create_xss_rows() -> dict[str, int]:
    """A call for each payload, with the payload in every field that can hold untrusted text."""
    ids: dict[str, int] = {}
    for number, text in enumerate(PAYLOADS):
        short = text[:64]
        PhoneNumber.objects.create(
            number=f"+1555987{number:04d}", label=text[:128], greeting=text, fallback_number=short
        )
        call = make_call(
            from_number=short,
            to_number=f"+1555987{number:04d}",
            caller_name=text,
            vapi_call_id=short,
            vapi_ended_reason=text,
            summary=text,
            note=text,
            outcome=short,
            counters={text: text},
            vapi_report={text: text},
            answered_at=timezone.now(),
            duration_seconds=5,
            vapi_cost=Decimal("0.01"),
            # Half of them are live, for the live board.
            **(_LIVE if number % 2 else {}),
        )
        make_utterance(call, text=f"{TAG} {text}")
        make_utterance(call, speaker="assistant", text=text, interrupted=True, unheard_ms=1500)
        make_turn(call)
        make_event(call, kind=short, data={text: text})
        make_event(call, kind="list", data=[text, text])
        audit.record(User.objects.get(username="admin"), "say", call, text)
        ids[str(number)] = call.pk
    call_summary.update_summaries(list(Call.objects.all()))
    # An unknown end reason, as another version might write.
    unknown = make_call(end_reason=PAYLOADS[0][:64], ended_by=PAYLOADS[0][:16], call_sid=PAYLOADS[0][:64])
    admin = User.objects.get(username="admin")
    LogEntry.objects.log_actions(admin.pk, [unknown], CHANGE, change_message=PAYLOADS[0])
    return ids | {"unknown-end-reason": unknown.pk}


def create_list_rows() -> dict[str, int]:
    """More calls than one page of the list holds, and one with unique values."""
    now = timezone.now()
    for number in range(59):
        make_utterance(make_call(started_at=now - timedelta(minutes=number), duration_seconds=60))
    rare = make_call(
        from_number="+442079460018", started_at=now - timedelta(hours=2), end_reason="assistant-failed",
        ended_by="assistant", note="=cmd|' /C calc'!A0",
    )  # fmt: skip
    make_utterance(rare, text="Hello, I am the lighthouse keeper.")
    call_summary.update_summaries(list(Call.objects.all()))
    return {"calls": 60, "rare": rare.pk}


def mark_as_real() -> dict[str, int]:
    """Mark simulated calls as real, for screenshots."""
    simulated = list(Call.objects.filter(simulated=True))
    Call.objects.filter(simulated=True).update(simulated=False)
    call_summary.update_summaries(list(Call.objects.filter(pk__in=[call.pk for call in simulated])))
    return {"calls": len(simulated)}


_LIVE = {"status": "in-progress", "end_reason": "", "ended_by": ""}

FIXTURES: dict[str, Callable[[], object]] = {
    function.__name__: function
    for function in (create_users, create_page_rows, create_xss_rows, create_list_rows, mark_as_real)
}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps(FIXTURES[name]()))
