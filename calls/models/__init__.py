"""The database's tables."""

from calls.models.call import (
    ASSISTANT,
    CALLER,
    MAX_CALL_AGE,
    Call,
    CallEvent,
    CallFlag,
    CallHour,
    CallOutput,
    Turn,
    Utterance,
)
from calls.models.phone_number import PhoneNumber
from calls.models.staff import AuditEntry, SavedView
from calls.models.worker import Worker

__all__ = [
    "ASSISTANT", "CALLER", "MAX_CALL_AGE", "AuditEntry", "Call", "CallEvent", "CallFlag", "CallHour",
    "CallOutput", "PhoneNumber", "SavedView", "Turn", "Utterance",
    "Worker",
]  # fmt: skip
