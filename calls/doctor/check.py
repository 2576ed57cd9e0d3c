"""What a check is, and what it finds. Pure: the checks themselves ask the world."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

Level = Literal["green", "amber", "red"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer: how bad, what was seen, and what to do about it. Never holds a secret."""

    level: Level
    seen: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A question with a name. `after`: checks whose red makes this question pointless."""

    name: str
    title: str
    asks: str
    run: Callable[[], Awaitable[Finding]]
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A check and what it found; `symptoms` are what callers and staff notice while it is red."""

    check: Check
    finding: Finding
    symptoms: tuple[str, ...] = ()


def green(seen: str) -> Finding:
    return Finding("green", seen)


def amber(seen: str, fix: str) -> Finding:
    return Finding("amber", seen, fix)


def red(seen: str, fix: str) -> Finding:
    return Finding("red", seen, fix)
