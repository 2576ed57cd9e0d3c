from __future__ import annotations

import ast
from pathlib import Path

import pytest

import calls
from bridge.end_reasons import ENDED_BY
from bridge.tests.samples import ENDED_REASONS
from bridge.wire.vapi import is_failure
from calls.end_reasons import (
    END_REASONS,
    VAPI_REASONS,
    FollowUp,
    explain,
    explain_vapi_reason,
)
from calls.masking import mask_number, short_sid

HANG_UP, APOLOGY, NOTICE = FollowUp.HANG_UP, FollowUp.FALLBACK_OR_APOLOGY, FollowUp.FALLBACK_OR_NOTICE
FOLLOW_UPS = {
    "caller-hung-up": HANG_UP,
    "assistant-ended": HANG_UP,
    "assistant-failed": APOLOGY,
    "assistant-unreachable": APOLOGY,
    "assistant-stalled": APOLOGY,
    "stream-lost": APOLOGY,
    "ticket-refused": HANG_UP,
    "no-start": HANG_UP,
    "at-capacity": NOTICE,
    "draining": NOTICE,
    "out-of-hours": NOTICE,
    "machine-answered": HANG_UP,
    "limit-reached": NOTICE,
    "protocol-abuse": APOLOGY,
    "flood": APOLOGY,
    "worker-lost": APOLOGY,
    "server-stopped": APOLOGY,
    "hung-up-by-staff": HANG_UP,
    "transferred": APOLOGY,
}

# The same strings with another meaning: kinds of events, and an outcome that staff choose.
NOT_END_REASONS = {
    "staff/timeline.py": {"assistant-ended", "assistant-unreachable"},
    "staff/call_detail.py": {"transferred"},
}


def test_the_table_has_every_end_reason_of_the_bridge() -> None:
    assert set(END_REASONS) == set(ENDED_BY)


@pytest.mark.parametrize("name", END_REASONS)
def test_every_end_reason_has_a_sentence_a_side_and_a_next_step(name: str) -> None:
    reason = explain(name)
    assert reason.sentence.endswith(".") and reason.next_step.endswith(".")
    assert reason.side == ENDED_BY[name]


def test_every_end_reason_has_its_follow_up() -> None:
    assert {name: reason.follow_up for name, reason in END_REASONS.items()} == FOLLOW_UPS


@pytest.mark.parametrize("name", [None, "", "unknown-reason"])
def test_an_unknown_end_reason_gets_the_fallback_number(name: str | None) -> None:
    assert explain(name).follow_up == APOLOGY


def test_no_module_repeats_the_text_of_an_end_reason() -> None:
    """`bridge.end_reasons` has a constant for each."""
    root = Path(calls.__file__).parent
    repeated = []
    for path in root.rglob("*.py"):
        module = path.relative_to(root)
        if {"tests", "migrations"} & set(module.parts):
            continue
        allowed = NOT_END_REASONS.get(module.as_posix(), set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in ENDED_BY.keys() - allowed:
                repeated.append(f"{module}:{node.lineno} {node.value}")
    assert not repeated


@pytest.mark.parametrize(
    ("reason", "side"),
    [
        ("customer-ended-call", "caller"),
        ("customer-busy", "caller"),
        ("pipeline-no-available-llm-model", "assistant"),
        ("customer-did-not-give-microphone-permission", "caller"),
        ("assistant-ended-call-with-hangup-task", "assistant"),
        ("assistant-said-end-call-phrase", "assistant"),
        ("assistant-not-found", "us"),
        ("silence-timed-out", "caller"),
        ("exceeded-max-duration", "us"),
        ("call.start.error-subscription-concurrency-limit-reached", "billing"),
        ("call.in-progress.error-vapifault-transport-never-connected", "us"),
        ("call.in-progress.error-vapifault-worker-died", "assistant"),
        ("call.in-progress.error-providerfault-openai-500", "assistant"),
        ("pipeline-error-deepgram-returning-502", "assistant"),
        ("phone-call-provider-closed-websocket", "network"),
    ],
)
def test_it_explains_vapis_reasons_by_their_prefix(reason: str, side: str) -> None:
    found = explain_vapi_reason(reason)
    assert found is not None
    assert found.side == side
    assert found.sentence.endswith(".")


def test_no_vapi_prefix_is_hidden_by_a_more_general_one_above_it() -> None:
    for index, reason in enumerate(VAPI_REASONS):
        above = VAPI_REASONS[:index]
        assert not [other.prefix for other in above if reason.prefix.startswith(other.prefix)]


def test_every_published_vapi_reason_is_explained() -> None:
    unknown = explain_vapi_reason("unknown-reason")
    assert unknown is not None
    sentences = {reason: explain_vapi_reason(reason) for reason in ENDED_REASONS}
    assert not [
        name for name, found in sentences.items() if found is None or found.sentence == unknown.sentence
    ]


def test_an_explanation_does_not_contradict_what_the_caller_heard() -> None:
    intended = {explain_vapi_reason(reason) for reason in ENDED_REASONS if not is_failure(reason)}
    failures = {explain_vapi_reason(reason) for reason in ENDED_REASONS if is_failure(reason)}
    assert not intended & failures


def test_an_unknown_vapi_reason_counts_as_a_failure() -> None:
    found = explain_vapi_reason("unknown-reason")
    assert found is not None and "counts as a failure" in found.sentence and found.next_step
    assert explain_vapi_reason("") is None


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("+15550100134", "+1 555 …0134"),
        ("+442079460011", "+44 …0011"),
        ("15550100134", "…0134"),
        ("anonymous", "withheld"),
        ("", ""),
        ("911", "…11"),
        ("client:alice", "client:…"),
        ("sip:alice@example.com", "sip:…"),
        ("+٣٣٣", "+٣٣٣"),
    ],
)
def test_it_masks_a_number(number: str, masked: str) -> None:
    assert mask_number(number) == masked


def test_it_shortens_a_sid() -> None:
    assert short_sid("CA12" + "0" * 28 + "ef") == "CA12..ef"
    assert short_sid("CA1") == "CA1"
