"""The result of one check, and how a check fails."""

from __future__ import annotations

from dataclasses import dataclass

# The log lines that a good call produces, in their order.
SIGNS = (
    "webhook 200",
    "media socket open",
    "assistant connected",
    "audio to the assistant",
    "audio to the caller",
)


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    passed: bool
    detail: str


class CheckFailed(Exception):
    """A check failed; the message says why."""


def require(condition: bool, failure: str) -> None:
    if not condition:
        raise CheckFailed(failure)
