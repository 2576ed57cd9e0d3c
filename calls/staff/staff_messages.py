"""Finds the utterances that staff had the assistant say, by comparing transcript and audit log.

Vapi does not report where a sentence came from. It may divide a message into several utterances, and differ
in case and punctuation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from calls.models import ASSISTANT, AuditEntry, Call, Utterance

SAY = "say"
MAX_MESSAGES = 500
MIN_PART_CHARS = 8  # a shorter utterance counts only if it is the whole message


def fetch_staff_messages(calls: Iterable[Call]) -> dict[int, list[str]]:
    """The messages that staff sent in these calls, by primary key, normalized. One query."""
    entries = AuditEntry.objects.filter(call__in=list(calls), action=SAY).order_by("-at", "-id")
    messages: dict[int, list[str]] = defaultdict(list)
    for call_id, text in entries.values_list("call_id", "detail")[:MAX_MESSAGES]:
        messages[call_id or 0].append(_normalize(text))
    return messages


def is_by_staff(utterance: Utterance, messages: Iterable[str]) -> bool:
    if utterance.speaker != ASSISTANT:
        return False
    text = _normalize(utterance.text)
    if len(text) < MIN_PART_CHARS:
        return text in messages
    return any(
        text in message or (len(message) >= MIN_PART_CHARS and message in text) for message in messages
    )


def _normalize(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())
