"""What a check is and what it reports. Pure; the checks themselves do the I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

Level = Literal["green", "amber", "red"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: how bad it is, what it is, and how to fix it. Never contains a secret."""

    level: Level
    message: str
    fix: str = ""
    was_skipped: bool = False  # because a check that it depends on is red


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to check. It is skipped while a check in `depends_on` is red or was skipped."""

    name: str
    title: str
    run: Callable[[], Awaitable[Finding]]
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """A check, what it found, and what callers and staff notice while it is not green."""

    check: Check
    finding: Finding
    symptoms: tuple[str, ...] = ()


def green(message: str) -> Finding:
    return Finding("green", message)


def amber(message: str, fix: str) -> Finding:
    return Finding("amber", message, fix)


def skipped(message: str, fix: str) -> Finding:
    return Finding("amber", message, fix, was_skipped=True)


def red(message: str, fix: str) -> Finding:
    return Finding("red", message, fix)
