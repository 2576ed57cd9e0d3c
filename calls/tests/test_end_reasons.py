from __future__ import annotations

import pytest

from bridge import end_reasons
from calls import end_reasons as words
from calls.masking import mask_number, short_sid

HANG_UP, HUMAN, POLITE = words.Answer.HANG_UP, words.Answer.HUMAN_OR_APOLOGY, words.Answer.POLITE
ANSWERS = {
    "caller-hung-up": HANG_UP,
    "assistant-ended": HANG_UP,
    "assistant-failed": HUMAN,
    "assistant-unreachable": HUMAN,
    "assistant-stalled": HUMAN,
    "stream-lost": HUMAN,
    "ticket-refused": HANG_UP,
    "no-start": HANG_UP,
    "at-capacity": POLITE,
    "draining": POLITE,
    "out-of-hours": POLITE,
    "machine-answered": HANG_UP,
    "limit-reached": POLITE,
    "protocol-abuse": HUMAN,
    "worker-lost": HUMAN,
    "hung-up-by-staff": HANG_UP,
    "transferred": HUMAN,
}


def test_it_has_words_for_every_reason_that_the_bridge_can_give() -> None:
    assert set(words.ENDINGS) == set(end_reasons.ENDED_BY)


@pytest.mark.parametrize("reason", words.ENDINGS)
def test_it_says_a_sentence_a_side_and_a_next_step(reason: str) -> None:
    ending = words.ending(reason)
    assert ending.sentence.endswith(".") and ending.next_step.endswith(".")
    assert ending.side == end_reasons.ENDED_BY[reason]


def test_it_answers_every_reason_as_the_table_says() -> None:
    assert {reason: ending.answer for reason, ending in words.ENDINGS.items()} == ANSWERS


@pytest.mark.parametrize("reason", [None, "", "sun-exploded"])
def test_it_answers_what_it_does_not_know_with_care(reason: str | None) -> None:
    assert words.ending(reason).answer == HUMAN


@pytest.mark.parametrize(
    ("reason", "side"),
    [
        ("customer-ended-call", "caller"),
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
def test_it_reads_the_vendors_reasons_by_their_beginning(reason: str, side: str) -> None:
    found = words.vendor_reason(reason)
    assert found is not None
    assert found.side == side
    assert found.sentence.endswith(".")


def test_no_vendor_reason_is_hidden_by_a_more_general_one_above_it() -> None:
    for index, reason in enumerate(words.VENDOR_REASONS):
        above = words.VENDOR_REASONS[:index]
        assert not [other.prefix for other in above if reason.prefix.startswith(other.prefix)]


def test_it_leaves_an_unknown_vendor_reason_without_words() -> None:
    assert words.vendor_reason("sun-exploded") is None


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("+15550100134", "+1 555 …0134"),
        ("+442079460011", "+44 …0011"),
        ("15550100134", "…0134"),
        ("anonymous", "anonymous"),
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
